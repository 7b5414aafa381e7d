//! Datagrams on HA links: the envelope, and what is in it.

use model::{LinkId, Time};
use rand::Rng;
use redundancy::HeartbeatPath;
use runtime::envelope::{EXPORT_BYTES, Envelope, ExportedKeys};
use wire::Channel;
use wire::heartbeat::{DATAGRAM_MAX_BYTES, Datagram};

use super::{MESSAGE_MEMORY_BYTES, Target, messages};
use crate::generate::generate;

/// Datagrams that the envelope's target has sealed.
const SEALED: usize = 3;

pub(super) fn targets() -> Vec<Target> {
    vec![envelope(), plain()]
}

fn ends() -> (Envelope, Envelope) {
    let exported = ExportedKeys::new([7; EXPORT_BYTES]);
    let (mut server, mut client) = (Envelope::default(), Envelope::default());
    server.install(&exported, true);
    server.activate(exported.id());
    client.install(&exported, false);
    (server, client)
}

/// The datagrams of one run of the server.
fn sealed() -> Vec<Vec<u8>> {
    let (mut server, _) = ends();
    (0..SEALED)
        .map(|number| {
            let mut bytes = [0; DATAGRAM_MAX_BYTES];
            let plain = vec![number as u8; 40 * number];
            let length = server.seal(&plain, &mut bytes).expect("it fits");
            bytes[..length].to_vec()
        })
        .collect()
}

/// Nothing is opened but what was sealed, bit by bit.
fn envelope() -> Target {
    Target {
        name: "heartbeat-envelope",
        seed: Box::new(|random| sealed().swap_remove(random.random_range(0..SEALED))),
        run: Box::new(|input| {
            let (_, mut client) = ends();
            let mut bytes = input.to_vec();
            let opened = client.open(&mut bytes).map(<[u8]>::to_vec);
            let genuine = sealed().iter().any(|datagram| datagram == input);
            match opened {
                Ok(plain) => {
                    assert!(genuine, "a forgery of {plain:?} was opened");
                    let again = client.open(&mut input.to_vec()).map(<[u8]>::to_vec);
                    assert!(again.is_err(), "a datagram was opened twice");
                }
                Err(refused) => {
                    assert!(!genuine, "{refused}");
                    let _ = refused.reason();
                }
            }
            genuine
        }),
        repair: None,
        memory_bytes: 64 * 1024,
        words: &[],
    }
}

/// A datagram of a peer that is genuine, and says anything: the path neither panics nor stops nor
/// spins.
fn plain() -> Target {
    Target {
        name: "heartbeat-plain",
        seed: Box::new(|random| wire::encode(Channel::Heartbeat, &generate::<Datagram>(random))),
        run: Box::new(|input| {
            let Ok(datagram) = wire::decode::<Datagram>(Channel::Heartbeat, input) else {
                return false;
            };
            let encoded = wire::encode(Channel::Heartbeat, &datagram);
            assert_eq!(
                wire::decode(Channel::Heartbeat, &encoded),
                Ok(datagram.clone())
            );
            let mut now = Time::from_ms(10_000);
            let mut path = HeartbeatPath::new(now, 2);
            match datagram {
                Datagram::Heartbeat(frame) => {
                    path.set_content(now, frame.content.clone());
                    while path.poll_send(now).is_some() {}
                    now = Time::from_ms(10_020);
                    let first = path.received(now, LinkId(0), &frame);
                    assert!(first.is_none() || path.received(now, LinkId(0), &frame).is_none());
                }
                Datagram::Gasp(gasp) | Datagram::GaspHeard(gasp) => {
                    path.start_gasp(now, gasp.clone());
                    assert!(path.gasp_heard(&gasp));
                }
            }
            path.main_loop_turned(now);
            let deadline = path.next_deadline();
            let latest = u64::from(redundancy::INTERVAL_MS.1) * 1_000_000;
            assert!(deadline.0 <= now.0 + latest, "{deadline} at {now}");
            let sent = core::iter::from_fn(|| path.poll_send(now))
                .take(100)
                .count();
            assert!(sent < 100, "it sends without end");
            let _ = path.status(now, &[], Ok(()));
            true
        }),
        repair: Some(messages::repair_length),
        memory_bytes: MESSAGE_MEMORY_BYTES,
        words: &[],
    }
}
