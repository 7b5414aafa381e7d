//! Messages: framed on a connection or a packet, or as the body of a broker message.
//!
//! Property: what is accepted is encoded and decoded again to the same value, and that encoding
//! is the value's only one.

use core::fmt::Debug;

use mts::{Broker, ClientId, Input};
use rand::Rng;
use rand::rngs::StdRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::broker::{BrokerFrame, decode_body, encode_body};
use wire::{Channel, FRAME_MAX_BYTES, FrameBuffer, HEADER_BYTES};

use super::{MESSAGE_MEMORY_BYTES, Target};
use crate::generate::generate;

pub(super) fn targets() -> Vec<Target> {
    use wire::{checkpoint, console, control, guardian, log, service, supervision, vem};
    vec![
        framed::<control::ControlMessage>("control", Channel::Control),
        framed::<vem::FromVem>("from-vem", Channel::Vem),
        framed::<vem::ToVem>("to-vem", Channel::Vem),
        framed::<supervision::FromService>("from-service", Channel::Supervision),
        framed::<supervision::ToService>("to-service", Channel::Supervision),
        framed::<BrokerFrame>("broker", Channel::Broker),
        framed::<console::FromShell>("from-shell", Channel::Console),
        framed::<console::ToShell>("to-shell", Channel::Console),
        framed::<guardian::ToGuardian>("guardian", Channel::Guardian),
        framed::<log::LogRecord>("log", Channel::Supervision),
        body::<checkpoint::Request>("checkpoint-request"),
        body::<checkpoint::Response>("checkpoint-response"),
        body::<checkpoint::Changed>("checkpoint-changed"),
        body::<checkpoint::Replication>("checkpoint-replication"),
        body::<checkpoint::ToPss>("to-pss"),
        body::<service::ToPolicyEngine>("to-policy-engine"),
        body::<service::FromPolicyEngine>("from-policy-engine"),
        body::<service::ToVemMgr>("to-vem-mgr"),
        body::<service::FromVemMgr>("from-vem-mgr"),
        body::<service::ToCfgmgr>("to-cfgmgr"),
        body::<service::FromCfgmgr>("from-cfgmgr"),
        body::<service::ToVshd>("to-vshd"),
        pairing(),
        conflict_head(),
        reassembly(),
        peer_broker(),
    ]
}

/// Makes the length of the first frame that of the input.
pub(super) fn repair_length(input: &mut [u8]) {
    let length = input.len().saturating_sub(HEADER_BYTES) as u32;
    if let Some(field) = input.get_mut(4..8) {
        field.copy_from_slice(&length.to_le_bytes());
    }
}

fn framed<T>(name: &'static str, channel: Channel) -> Target
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    Target {
        name,
        seed: Box::new(move |random| wire::encode(channel, &generate::<T>(random))),
        run: Box::new(move |input| {
            let Ok(message) = wire::decode::<T>(channel, input) else {
                return false;
            };
            let encoded = wire::encode(channel, &message);
            let again: T = wire::decode(channel, &encoded).expect("what we encode is decoded");
            assert_eq!(again, message);
            assert_eq!(wire::encode(channel, &again), encoded);
            let mut buffer = vec![0; encoded.len()];
            assert_eq!(
                wire::encode_into(channel, &message, &mut buffer),
                Some(encoded.len())
            );
            assert_eq!(buffer, encoded);
            true
        }),
        repair: Some(repair_length),
        memory_bytes: MESSAGE_MEMORY_BYTES,
        words: &[],
    }
}

fn body<T>(name: &'static str) -> Target
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    Target {
        name,
        seed: Box::new(|random| encode_body(&generate::<T>(random))),
        run: Box::new(|input| {
            let Ok(message) = decode_body::<T>(input) else {
                return false;
            };
            let encoded = encode_body(&message);
            let again: T = decode_body(&encoded).expect("what we encode is decoded");
            assert_eq!(again, message);
            assert_eq!(encode_body(&again), encoded);
            true
        }),
        repair: None,
        memory_bytes: MESSAGE_MEMORY_BYTES,
        words: &[],
    }
}

fn stream(random: &mut StdRng) -> Vec<u8> {
    let frames = random.random_range(1..5);
    (0..frames)
        .flat_map(|_| wire::encode(Channel::Broker, &generate::<BrokerFrame>(random)))
        .collect()
}

/// Who is not known yet says nothing longer than a pairing needs; and what is typed as a code is
/// one, or none.
fn pairing() -> Target {
    use wire::pairing::{Code, FRAME_MAX_BYTES, PairingMessage, SHARE_BYTES, decode, frame_bytes};
    Target {
        name: "pairing",
        seed: Box::new(|random| {
            let mut message: PairingMessage = generate(random);
            if let PairingMessage::Begin { share, .. } | PairingMessage::Reply { share, .. } =
                &mut message
            {
                *share = vec![random.random(); SHARE_BYTES];
            }
            wire::encode(Channel::Pairing, &message)
        }),
        run: Box::new(|input| {
            if let Some(header) = input.first_chunk::<HEADER_BYTES>() {
                let announced = frame_bytes(header);
                assert!(
                    announced.is_err() || announced.is_ok_and(|bytes| bytes <= FRAME_MAX_BYTES)
                );
            }
            if let Some(code) = Code::parse(&String::from_utf8_lossy(input)) {
                assert_eq!(Code::parse(&code.to_string()), Some(code));
            }
            let Ok(message) = decode(input) else {
                return false;
            };
            assert!(input.len() <= FRAME_MAX_BYTES);
            let encoded = wire::encode(Channel::Pairing, &message);
            assert_eq!(decode(&encoded), Ok(message));
            true
        }),
        repair: Some(repair_length),
        memory_bytes: MESSAGE_MEMORY_BYTES,
        words: &[],
    }
}

/// The head of an archive, as it lies in the store.
fn conflict_head() -> Target {
    use wire::conflict::{decode_head, encode_head};
    Target {
        name: "conflict-head",
        seed: Box::new(|random| encode_head(&generate(random))),
        run: Box::new(|input| {
            let _ = wire::conflict::is_head(input);
            let Some(head) = decode_head(input) else {
                return false;
            };
            assert_eq!(decode_head(&encode_head(&head)), Some(head.clone()));
            let key = head.id.head_key();
            assert!(wire::conflict::is_head(&key));
            true
        }),
        repair: None,
        memory_bytes: MESSAGE_MEMORY_BYTES,
        words: &[],
    }
}

/// However a stream is cut, the same messages come out of it, and no more is kept than a frame.
fn reassembly() -> Target {
    const PIECE_MAX_BYTES: usize = 251;
    Target {
        name: "frame-reassembly",
        seed: Box::new(|random| {
            let mut input = vec![random.random()];
            input.extend(stream(random));
            input
        }),
        run: Box::new(|input| {
            let Some((piece, stream)) = input.split_first() else {
                return false;
            };
            let drain = |buffer: &mut FrameBuffer, into: &mut Vec<BrokerFrame>| loop {
                match buffer.next_frame() {
                    Ok(Some(frame)) => into.push(frame),
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(error),
                }
            };
            let (mut whole, mut at_once) = (FrameBuffer::new(Channel::Broker), Vec::new());
            whole.extend(stream);
            let end = drain(&mut whole, &mut at_once);
            let (mut cut, mut in_pieces) = (FrameBuffer::new(Channel::Broker), Vec::new());
            let piece = usize::from(*piece) % PIECE_MAX_BYTES + 1;
            let cut_end = stream.chunks(piece).try_for_each(|piece| {
                cut.extend(piece);
                drain(&mut cut, &mut in_pieces)
            });
            assert_eq!(at_once, in_pieces);
            assert_eq!(end.is_err(), cut_end.is_err());
            if let Err(error) = &end {
                // Every error has its place in `show redundancy traffic`.
                let _ = error.reason();
            }
            !at_once.is_empty()
        }),
        repair: None,
        memory_bytes: FRAME_MAX_BYTES + 2 * MESSAGE_MEMORY_BYTES,
        words: &[],
    }
}

/// What the peer's broker sends reaches the core of ours: its invariants hold, its queues stay
/// bounded.
fn peer_broker() -> Target {
    Target {
        name: "peer-broker",
        seed: Box::new(stream),
        run: Box::new(|input| {
            let now = model::Time::from_ms(1);
            let mut broker = Broker::new();
            let client = ClientId(1);
            let bind = BrokerFrame::Bind(model::ServiceName::Pss);
            for input in [
                Input::ClientConnected { client },
                Input::ClientFrame {
                    client,
                    frame: bind,
                },
                Input::PeerConnected,
            ] {
                broker.handle(now, input);
            }
            let mut buffer = FrameBuffer::new(Channel::Broker);
            buffer.extend(input);
            let mut accepted = false;
            while let Ok(Some(frame)) = buffer.next_frame() {
                accepted = true;
                broker.handle(now, Input::PeerFrame(frame));
                while broker.poll_output().is_some() {}
                broker.check().expect("the broker's invariants");
            }
            accepted
        }),
        repair: None,
        memory_bytes: 2 * MESSAGE_MEMORY_BYTES,
        words: &[],
    }
}
