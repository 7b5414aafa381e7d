//! Two heartbeat threads on loopback.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use model::{Epoch, Incarnation, LinkId, Lsn, NodeKey, Role};
use wire::heartbeat::{Content, Gasp, State};

use super::{HeartbeatEvent, HeartbeatLink, Heartbeats, StartError};
use crate::clock;
use crate::envelope::ExportedKeys;

const PATIENCE: Duration = Duration::from_secs(10);

fn content(state: State) -> Content {
    Content {
        pair: None,
        role: Role::Primary,
        incarnation: Incarnation(1),
        state,
        epoch: Epoch::default(),
        reserved: None,
        grant: false,
        lsn: Lsn(0),
        acked: Lsn(0),
        config_hash: 0,
        alone: false,
        canary: 0,
        base: Default::default(),
        contest: None,
        restart: None,
        down: None,
        revision: 0,
    }
}

fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
    socket.local_addr().expect("its address")
}

/// Two nodes over two links, with keys as after the first control connection.
fn pair() -> (Heartbeats, Heartbeats) {
    let (a, b) = ([free_port(), free_port()], [free_port(), free_port()]);
    let links = |own: [SocketAddr; 2], peer: [SocketAddr; 2]| {
        ["control", "management"]
            .into_iter()
            .zip(own.into_iter().zip(peer))
            .map(|(name, (local, peer))| HeartbeatLink {
                name: name.to_owned(),
                local,
                peer,
            })
            .collect()
    };
    let server = Heartbeats::start(links(a, b)).expect("started");
    let client = Heartbeats::start(links(b, a)).expect("started");
    let exported = ExportedKeys::new(core::array::from_fn(|i| i as u8));
    client.install_keys(exported, false).expect("a live thread");
    server.install_keys(exported, true).expect("a live thread");
    server.activate_keys(exported.id()).expect("a live thread");
    (server, client)
}

async fn next(heartbeats: &mut Heartbeats) -> HeartbeatEvent {
    let event = tokio::time::timeout(PATIENCE, heartbeats.next_event()).await;
    event.expect("an event in time").expect("a live thread")
}

/// The first event that `wanted` accepts; both nodes' main loops go on turning meanwhile.
async fn until<T>(
    heartbeats: &mut Heartbeats,
    other: &Heartbeats,
    mut wanted: impl FnMut(HeartbeatEvent) -> Option<T>,
) -> T {
    let deadline = clock::now() + PATIENCE;
    while clock::now() < deadline {
        heartbeats.turned(clock::now());
        other.turned(clock::now());
        let event = tokio::time::timeout(Duration::from_millis(5), heartbeats.next_event()).await;
        if let Ok(event) = event
            && let Some(found) = wanted(event.expect("a live thread"))
        {
            return found;
        }
    }
    panic!("nothing came in {PATIENCE:?}")
}

fn beat_on(link: LinkId, state: State) -> impl FnMut(HeartbeatEvent) -> Option<()> {
    move |event| match event {
        HeartbeatEvent::Heartbeat {
            link: heard,
            content,
            ..
        } => (heard == link && content.state == state).then_some(()),
        HeartbeatEvent::Gasp(_)
        | HeartbeatEvent::GaspHeard(_)
        | HeartbeatEvent::Sealed(_)
        | HeartbeatEvent::Status { .. } => None,
    }
}

#[tokio::test]
async fn beats_pass_both_ways_on_both_links_and_are_measured() {
    let (mut server, mut client) = pair();
    server.set_timing(10, 3).expect("a live thread");
    server
        .set_content(content(State::Active))
        .expect("a live thread");
    client
        .set_content(content(State::Standby))
        .expect("a live thread");
    for link in [LinkId(0), LinkId(1)] {
        until(&mut client, &server, beat_on(link, State::Active)).await;
        until(&mut server, &client, beat_on(link, State::Standby)).await;
    }
    for _ in 0..20 {
        until(&mut server, &client, beat_on(LinkId(0), State::Standby)).await;
    }
    server.ask_status(7).expect("a live thread");
    let status = until(&mut server, &client, |event| match event {
        HeartbeatEvent::Status {
            question: 7,
            status,
        } => Some(status),
        _ => None,
    })
    .await;
    assert!(
        status.links.iter().all(|link| link.up && link.received > 0),
        "{status:?}"
    );
    assert!(status.links[0].round_trip_us > 0, "{status:?}");
    assert_eq!(
        (status.links[1].name.as_str(), status.links[1].refused),
        ("management", 0)
    );
}

#[tokio::test]
async fn beats_stop_when_the_main_loop_is_stuck_and_go_on_when_it_turns() {
    let (server, mut client) = pair();
    server.set_timing(10, 3).expect("a live thread");
    server.turned(clock::now());
    server
        .set_content(content(State::Active))
        .expect("a live thread");
    let mut last = clock::now();
    let first = last;
    while let Ok(event) =
        tokio::time::timeout(Duration::from_millis(300), client.next_event()).await
    {
        event.expect("a live thread");
        last = clock::now();
        client.turned(last);
    }
    assert!(
        last.since(first) < Duration::from_millis(200),
        "{:?}",
        last.since(first)
    );
    until(&mut client, &server, beat_on(LinkId(0), State::Active)).await;
}

#[tokio::test]
async fn a_gasp_is_repeated_until_heard() {
    let (mut server, mut client) = pair();
    server
        .set_content(content(State::Yielded))
        .expect("a live thread");
    until(&mut client, &server, beat_on(LinkId(0), State::Yielded)).await;
    let gasp = Gasp {
        epoch: Epoch::default(),
        incarnation: Incarnation(1),
    };
    server.gasp(gasp.clone()).expect("a live thread");
    let heard = until(&mut client, &server, |event| match event {
        HeartbeatEvent::Gasp(gasp) => Some(gasp),
        _ => None,
    });
    assert_eq!(heard.await, gasp);
    let answered = until(&mut server, &client, |event| match event {
        HeartbeatEvent::GaspHeard(gasp) => Some(gasp),
        _ => None,
    });
    assert_eq!(answered.await, gasp);
}

#[tokio::test]
async fn the_guardians_gasp_is_heard_from_anywhere_but_only_once() {
    let (mut server, mut client) = pair();
    let gasp = Gasp {
        epoch: Epoch::default().above(NodeKey([9; 32]), Incarnation(2)),
        incarnation: Incarnation(2),
    };
    server.seal_gasp(Some(gasp.clone())).expect("a live thread");
    let HeartbeatEvent::Sealed(Some(sealed)) = next(&mut server).await else {
        panic!("a sealed gasp first")
    };
    let guardian = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
    let to = client.link_address(LinkId(1));
    for _ in 0..2 {
        guardian.send_to(sealed.bytes(), to).expect("sent");
    }
    assert_eq!(next(&mut client).await, HeartbeatEvent::Gasp(gasp));
    client.ask_status(1).expect("a live thread");
    let HeartbeatEvent::Status { status, .. } = next(&mut client).await else {
        panic!("the status, not a second gasp")
    };
    assert_eq!(status.links[1].refused, 1);
    server.seal_gasp(None).expect("a live thread");
    assert_eq!(next(&mut server).await, HeartbeatEvent::Sealed(None));
}

#[tokio::test]
async fn a_strangers_datagrams_are_counted_and_change_nothing() {
    let (server, mut client) = pair();
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
    let to = client.link_address(LinkId(0));
    for length in [0, 1, 31, 32, 400, 1200, 1201, 4000] {
        stranger.send_to(&vec![0x54; length], to).expect("sent");
    }
    server
        .set_content(content(State::Active))
        .expect("a live thread");
    until(&mut client, &server, beat_on(LinkId(0), State::Active)).await;
    client.ask_status(1).expect("a live thread");
    let status = until(&mut client, &server, |event| match event {
        HeartbeatEvent::Status { status, .. } => Some(status),
        _ => None,
    })
    .await;
    assert_eq!(status.links[0].refused, 8);
}

#[tokio::test]
async fn an_address_that_is_not_ours_is_refused_in_words() {
    let link = HeartbeatLink {
        name: "control".to_owned(),
        local: "192.0.2.1:7001".parse().expect("an address"),
        peer: "192.0.2.2:7001".parse().expect("an address"),
    };
    let error = Heartbeats::start(vec![link]).expect_err("not our address");
    assert!(matches!(error, StartError::Bind { .. }));
    assert!(
        error
            .to_string()
            .starts_with("HA link control: cannot bind 192.0.2.1:7001: ")
    );
}
