//! Which connection is used, as connections come, go and fall silent.

use std::time::Duration;

use model::{LinkId, Time};
use runtime::envelope::{EXPORT_BYTES, ExportedKeys};
use runtime::stream::{MessageReceiver, framed};
use tokio::io::{DuplexStream, ReadHalf};
use wire::Channel;
use wire::control::ControlMessage;

use super::Change::{Connected, Disconnected};
use super::{Connection, ConnectionNumber, Connections};

type Far = MessageReceiver<ReadHalf<DuplexStream>, ControlMessage>;

fn connection(number: ConnectionNumber, link: u8, server: bool) -> (Connection, Far) {
    let (near, far) = tokio::io::duplex(1000);
    let (sender, _) = framed::<_, ControlMessage, ControlMessage>(near, Channel::Control);
    let (_, far) = framed::<_, ControlMessage, ControlMessage>(far, Channel::Control);
    let reader = tokio::spawn(std::future::pending::<()>()).abort_handle();
    let keys = keys(number);
    let link = LinkId(link);
    (
        Connection {
            number,
            link,
            sender: Some(sender),
            reader,
            keys,
            key: model::NodeKey([1; 32]),
            server,
            renewal: false,
            spoken: false,
        },
        far,
    )
}

fn keys(number: ConnectionNumber) -> ExportedKeys {
    ExportedKeys::new([number as u8; EXPORT_BYTES])
}

fn refused() -> ControlMessage {
    ControlMessage::Refused("x".to_owned())
}

fn hello() -> ControlMessage {
    ControlMessage::Hello(wire::control::Hello {
        pair: None,
        role: model::Role::Primary,
        incarnation: model::Incarnation(1),
        highest_epoch: model::Epoch::default(),
        history: (model::Epoch::default(), model::Lsn(0)),
        alone: false,
        active: false,
        follows: false,
        uptime_ms: 0,
    })
}

#[tokio::test]
async fn the_first_is_used_and_the_next_takes_over_when_it_ends() {
    let mut connections = Connections::default();
    let ((one, mut far_one), (two, mut far_two)) =
        (connection(1, 0, false), connection(2, 1, false));
    assert_eq!(connections.up(one), [Connected]);
    assert_eq!(connections.up(two), []);
    assert_eq!(connections.send(&refused()), []);
    assert_eq!(far_one.next().await.expect("sound"), Some(refused()));
    assert_eq!(connections.down(1), [Disconnected, Connected]);
    assert_eq!(connections.down(1), [], "told twice, heeded once");
    assert_eq!(connections.send(&refused()), []);
    assert_eq!(far_two.next().await.expect("sound"), Some(refused()));
    assert_eq!(connections.down(2), [Disconnected]);
    assert_eq!(connections.send(&refused()), [], "dropped: there is none");
}

#[tokio::test]
async fn a_new_connection_on_a_link_replaces_the_old_one() {
    let mut connections = Connections::default();
    let ((one, mut far_one), (two, _far)) = (connection(1, 0, true), connection(2, 0, true));
    assert_eq!(connections.up(one), [Connected]);
    assert_eq!(connections.up(two), [Disconnected, Connected]);
    assert!(
        matches!(far_one.next().await, Ok(None) | Err(_)),
        "the old one is closed"
    );
    assert_eq!(connections.down(1), []);
    assert!(
        connections.message(1, &hello()).is_none(),
        "what it still had to say is dropped"
    );
}

#[tokio::test]
async fn the_listening_side_follows_the_dialling_side() {
    let mut connections = Connections::default();
    let ((one, _far_one), (two, mut far_two)) = (connection(1, 0, true), connection(2, 1, true));
    connections.up(one);
    connections.up(two);
    let (key, changes) = connections.message(2, &hello()).expect("known");
    assert_eq!(
        key,
        Some(keys(2).id()),
        "its keys are in force from its first message"
    );
    assert_eq!(changes, [Disconnected, Connected]);
    assert_eq!(connections.message(2, &refused()), Some((None, Vec::new())));
    connections.send(&refused());
    assert_eq!(far_two.next().await.expect("sound"), Some(refused()));
}

#[tokio::test]
async fn the_dialling_side_leaves_a_silent_link() {
    let hold_time = Duration::from_millis(300);
    let mut connections = Connections::default();
    let ((one, _far_one), (two, mut far_two)) = (connection(1, 0, false), connection(2, 1, false));
    connections.up(one);
    connections.up(two);
    let (key, changes) = connections.message(2, &hello()).expect("known");
    assert_eq!(
        (key, changes),
        (None, Vec::new()),
        "it chooses, and follows nobody"
    );
    for link in [LinkId(0), LinkId(1)] {
        connections.heard(link, Time::from_ms(1000));
    }
    assert_eq!(
        connections.avoid_silence(Time::from_ms(1300), hold_time),
        []
    );
    assert_eq!(
        connections.avoid_silence(Time::from_ms(1301), hold_time),
        [],
        "both are silent"
    );
    connections.heard(LinkId(1), Time::from_ms(1310));
    let changes = connections.avoid_silence(Time::from_ms(1311), hold_time);
    assert_eq!(changes, [Disconnected, Connected]);
    assert_eq!(
        connections.avoid_silence(Time::from_ms(1312), hold_time),
        []
    );
    connections.send(&refused());
    assert_eq!(far_two.next().await.expect("sound"), Some(refused()));
}

#[tokio::test]
async fn connections_with_a_peer_that_is_silent_everywhere_are_given_up_once() {
    let hold_time = Duration::from_millis(30);
    let mut connections = Connections::default();
    let (one, _far) = connection(1, 0, false);
    let reader = one.reader.clone();
    connections.up(one);
    connections.leave_the_dead(Time::from_ms(90_000), hold_time);
    tokio::task::yield_now().await;
    assert!(
        !reader.is_finished(),
        "never heard yet: the first beat may still come"
    );
    connections.heard(LinkId(1), Time::from_ms(100_000));
    connections.leave_the_dead(Time::from_ms(101_000), hold_time);
    tokio::task::yield_now().await;
    assert!(!reader.is_finished());
    connections.leave_the_dead(Time::from_ms(101_001), hold_time);
    tokio::task::yield_now().await;
    assert!(reader.is_finished());
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_off() {
    let mut connections = Connections::default();
    let (one, _far) = connection(1, 0, false);
    connections.up(one);
    let long = ControlMessage::Refused("x".repeat(100_000));
    let changes = (0..1000)
        .map(|_| connections.send(&long))
        .find(|changes| !changes.is_empty());
    assert_eq!(changes, Some(vec![Disconnected]));
}
