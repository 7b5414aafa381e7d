//! Each rule of the crate's head by itself.

use core::time::Duration;

use model::{Epoch, ServiceName};
use wire::broker::{BODY_MAX_BYTES, BrokerFrame, Destination, Kind};
use wire::supervision::Activity;

use super::{Rig, message, sap};
use crate::limits::{
    CLIENT_WINDOW_FRAMES, HELD_AGE, HELD_MESSAGES, PEER_WINDOW_FRAMES, SAP_QUEUE_MESSAGES,
};
use crate::{ClientId, Input};

use ServiceName::{Cfgmgr, Mts, PolicyEngine, Pss, VemMgr};

const ACTIVE: Activity = Activity::Active(Epoch {
    counter: 1,
    node: model::NodeKey([1; 32]),
    incarnation: model::Incarnation(1),
});
const QUIESCE: Activity = Activity::Quiesce(Epoch {
    counter: 1,
    node: model::NodeKey([1; 32]),
    incarnation: model::Incarnation(1),
});

#[test]
fn routing_is_the_table_in_the_broker_docs() {
    use Destination::{Active, Local, Peer, Standby};
    // (posture, destination) → here, to the peer, or undeliverable
    let table = [
        (
            ACTIVE,
            [(Local, 'h'), (Peer, 'p'), (Active, 'h'), (Standby, 'p')],
        ),
        (
            QUIESCE,
            [(Local, 'h'), (Peer, 'p'), (Active, 'h'), (Standby, 'p')],
        ),
        (
            Activity::Standby,
            [(Local, 'h'), (Peer, 'p'), (Active, 'p'), (Standby, 'h')],
        ),
        (
            Activity::Idle,
            [(Local, 'h'), (Peer, 'p'), (Active, 'p'), (Standby, 'u')],
        ),
    ];
    for (activity, row) in table {
        for (destination, expected) in row {
            let mut rig = Rig::new();
            rig.bind(1, Cfgmgr);
            rig.bind(2, Pss);
            rig.feed(Input::PeerConnected);
            rig.feed(Input::Posture(activity));
            rig.send(1, message(Cfgmgr, destination, Pss, Kind::Request, 7));
            let found = match (
                rig.correlations(2).len(),
                rig.to_peer.len(),
                rig.received(1).len(),
            ) {
                (1, 0, 0) => 'h',
                (0, 1, 0) => 'p',
                (0, 0, 1) => 'u',
                other => panic!("{activity:?} {destination:?}: {other:?}"),
            };
            assert_eq!(found, expected, "{activity:?} {destination:?}");
            // The same from the peer: here or undeliverable, never sent back as it came.
            let before = rig.to_peer.len();
            let from_peer = message(Cfgmgr, destination, Pss, Kind::Request, 8);
            rig.feed(Input::PeerFrame(BrokerFrame::Message(from_peer)));
            let here = matches!(destination, Local | Peer) || expected == 'h';
            assert_eq!(
                rig.correlations(2).contains(&8),
                here,
                "{activity:?} {destination:?}"
            );
            let back: Vec<Kind> = rig.to_peer[before..]
                .iter()
                .map(|message| message.kind)
                .collect();
            assert_eq!(
                back,
                if here {
                    vec![]
                } else {
                    vec![Kind::Undeliverable]
                }
            );
        }
    }
}

#[test]
fn a_client_cannot_forge_where_it_speaks_from() {
    let mut rig = Rig::new();
    rig.bind(1, VemMgr);
    rig.bind(2, Pss);
    let mut forged = message(Cfgmgr, Destination::Local, Pss, Kind::Request, 1);
    forged.from_peer = true;
    rig.send(1, forged);
    let received = &rig.received(2)[0];
    assert_eq!((received.source, received.from_peer), (sap(VemMgr), false));
    let mut from_peer = message(Cfgmgr, Destination::Peer, Pss, Kind::Request, 2);
    from_peer.from_peer = false;
    rig.feed(Input::PeerConnected);
    rig.feed(Input::PeerFrame(BrokerFrame::Message(from_peer)));
    assert!(rig.received(2)[1].from_peer);
}

#[test]
fn whoever_breaks_the_protocol_is_closed() {
    let large = |n| {
        let mut large = message(Cfgmgr, Destination::Local, Pss, Kind::Request, 1);
        large.body = vec![0; n];
        BrokerFrame::Message(large)
    };
    let undeliverable = message(Cfgmgr, Destination::Local, Pss, Kind::Undeliverable, 1);
    let cases = [
        vec![large(8)], // Before binding.
        vec![BrokerFrame::Bind(Mts)],
        vec![BrokerFrame::Bind(Cfgmgr), BrokerFrame::Bind(Cfgmgr)],
        vec![BrokerFrame::Bind(Cfgmgr), BrokerFrame::PeerConnected(true)],
        vec![BrokerFrame::Bind(Cfgmgr), large(BODY_MAX_BYTES + 1)],
        vec![
            BrokerFrame::Bind(Cfgmgr),
            BrokerFrame::Message(undeliverable),
        ],
    ];
    for frames in cases {
        let mut rig = Rig::new();
        rig.bind(2, Pss);
        let client = ClientId(1);
        rig.feed(Input::ClientConnected { client });
        for frame in frames {
            rig.feed(Input::ClientFrame { client, frame });
        }
        assert_eq!(rig.closed, [client]);
        assert!(rig.received(2).is_empty());
        assert_eq!(rig.broker.counters().violations, 1);
    }
    let mut rig = Rig::new();
    rig.feed(Input::PeerConnected);
    rig.feed(Input::PeerFrame(BrokerFrame::Bind(Cfgmgr)));
    rig.feed(Input::PeerFrame(large(BODY_MAX_BYTES + 1)));
    assert_eq!(rig.peer_closed, 2);
}

#[test]
fn messages_wait_for_a_service_that_restarts_and_not_for_ever() {
    let mut rig = Rig::new();
    rig.bind(1, Cfgmgr);
    rig.bind(2, Pss);
    rig.feed(Input::ClientGone {
        client: ClientId(2),
    });
    for n in 0..3 {
        rig.send(
            1,
            message(Cfgmgr, Destination::Local, Pss, Kind::Request, n),
        );
    }
    rig.now = rig.now + Duration::from_millis(100);
    rig.bind(3, Pss);
    assert_eq!(rig.correlations(3), [0, 1, 2]);
    rig.feed(Input::ClientGone {
        client: ClientId(3),
    });
    rig.send(
        1,
        message(Cfgmgr, Destination::Local, Pss, Kind::Request, 9),
    );
    let deadline = rig.broker.next_deadline().expect("a message is held");
    assert_eq!(deadline, rig.now + HELD_AGE);
    rig.now = deadline;
    rig.feed(Input::Tick);
    assert_eq!(rig.received(1)[0].kind, Kind::Undeliverable);
    assert_eq!(rig.correlations(1), [9]);
    assert_eq!(rig.broker.next_deadline(), None);
}

#[test]
fn a_full_queue_is_told_of_and_harms_nobody_else() {
    let mut rig = Rig::new();
    rig.sockets_drain = false;
    rig.bind(1, Cfgmgr);
    rig.bind(2, Pss);
    rig.bind(3, PolicyEngine);
    let room = u64::from(CLIENT_WINDOW_FRAMES) - 1 + SAP_QUEUE_MESSAGES as u64;
    for n in 1..=room + 3 {
        rig.send(
            1,
            message(Cfgmgr, Destination::Local, Pss, Kind::Request, n),
        );
    }
    assert_eq!(
        rig.received(2).len() as u64,
        u64::from(CLIENT_WINDOW_FRAMES) - 1
    );
    let refused: Vec<u64> = rig.correlations(1);
    assert_eq!(refused, [room + 1, room + 2, room + 3]);
    rig.send(
        1,
        message(Cfgmgr, Destination::Local, PolicyEngine, Kind::Request, 5),
    );
    assert_eq!(rig.correlations(3), [5]);
    // A notification is counted; one that asks to be told of is told of.
    let before = rig.broker.counters().dropped;
    rig.send(
        1,
        message(Cfgmgr, Destination::Local, Pss, Kind::Notification, 0),
    );
    assert_eq!(rig.broker.counters().dropped, before + 1);
    rig.send(
        1,
        message(Cfgmgr, Destination::Local, Pss, Kind::Notification, 77),
    );
    assert_eq!(rig.correlations(1).last(), Some(&77));
    // And the reader goes on where it stopped, in order.
    for _ in 0..200 {
        let frames = CLIENT_WINDOW_FRAMES;
        rig.feed(Input::ClientSent {
            client: ClientId(2),
            frames,
        });
    }
    assert_eq!(rig.correlations(2), (1..=room).collect::<Vec<_>>());
}

#[test]
fn an_absent_service_holds_a_bounded_number() {
    let mut rig = Rig::new();
    rig.bind(1, Cfgmgr);
    for n in 1..=HELD_MESSAGES as u64 + 2 {
        rig.send(
            1,
            message(Cfgmgr, Destination::Local, Pss, Kind::Request, n),
        );
    }
    assert_eq!(rig.correlations(1).len(), 2);
}

#[test]
fn the_peer_away_is_undeliverable_and_its_coming_is_told() {
    let mut rig = Rig::new();
    rig.bind(1, Pss);
    rig.send(1, message(Pss, Destination::Peer, Pss, Kind::Request, 1));
    assert_eq!(rig.received(1)[0].kind, Kind::Undeliverable);
    rig.sockets_drain = false;
    rig.feed(Input::PeerConnected);
    for n in 2..100 {
        rig.send(1, message(Pss, Destination::Peer, Pss, Kind::Request, n));
    }
    assert_eq!(rig.to_peer.len(), PEER_WINDOW_FRAMES as usize);
    rig.feed(Input::PeerGone);
    let waiting = 98 - PEER_WINDOW_FRAMES as usize;
    rig.feed(Input::ClientSent {
        client: ClientId(1),
        frames: 64,
    });
    rig.feed(Input::ClientSent {
        client: ClientId(1),
        frames: 64,
    });
    assert_eq!(
        rig.received(1).len(),
        1 + waiting,
        "what was not on its way comes back"
    );
    let news: Vec<bool> = rig
        .to_client
        .iter()
        .filter_map(|(_, frame)| match frame {
            BrokerFrame::PeerConnected(connected) => Some(*connected),
            _ => None,
        })
        .collect();
    assert_eq!(news, [false, true, false]);
}

#[test]
fn senders_take_turns_on_the_way_to_the_peer() {
    let mut rig = Rig::new();
    rig.bind(1, Pss);
    rig.bind(2, Cfgmgr);
    rig.sockets_drain = false;
    rig.feed(Input::PeerConnected);
    for n in 0..1000 {
        rig.send(
            1,
            message(Pss, Destination::Peer, Pss, Kind::Notification, n),
        );
    }
    rig.send(
        2,
        message(Cfgmgr, Destination::Peer, Cfgmgr, Kind::Request, 1),
    );
    rig.feed(Input::PeerSent { frames: 2 });
    let sources: Vec<_> = rig.to_peer.iter().map(|message| message.source).collect();
    assert!(
        sources.contains(&sap(Cfgmgr)),
        "a request does not wait behind a bulk"
    );
}

#[test]
fn the_newest_process_of_a_service_has_its_address() {
    let mut rig = Rig::new();
    rig.bind(1, Cfgmgr);
    rig.bind(2, Pss);
    rig.bind(3, Pss);
    assert_eq!(rig.closed, [ClientId(2)]);
    rig.send(
        1,
        message(Cfgmgr, Destination::Local, Pss, Kind::Request, 4),
    );
    rig.send(
        2,
        message(Pss, Destination::Local, Cfgmgr, Kind::Response, 4),
    );
    assert_eq!(rig.correlations(3), [4]);
    assert!(
        rig.received(1).is_empty(),
        "the old one is not heard any more"
    );
    // The old one's end does not unbind the new one.
    rig.feed(Input::ClientGone {
        client: ClientId(2),
    });
    rig.send(
        1,
        message(Cfgmgr, Destination::Local, Pss, Kind::Request, 5),
    );
    assert_eq!(rig.correlations(3), [4, 5]);
}
