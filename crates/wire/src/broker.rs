//! A service ↔ `mts`, and `mts` ↔ `mts`.
//!
//! Locally each packet of the seqpacket socket is one frame; between nodes frames follow each
//! other on a TLS stream.

use model::{Sap, ServiceName};
use serde::{Deserialize, Serialize};

/// Largest body of a message, in bytes (behaviour §8: above 128 KiB other means are used).
pub const BODY_MAX_BYTES: usize = 128 * 1024;

/// Which node a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Destination {
    /// The sender's own node.
    Local,
    /// The other node of the pair.
    Peer,
    /// Whichever node is active.
    Active,
    /// Whichever node is standby.
    Standby,
}

/// How a message is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// No answer is expected.
    Notification,
    /// An answer with the same `correlation` is expected before a deadline of the sender's.
    Request,
    /// The answer.
    Response,
    /// The broker could not deliver a request: no reader, queue full, peer away. Body empty.
    Undeliverable,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Sender's SAP.
    pub source: Sap,
    /// True if it came from the other node. Set by the broker, not by senders.
    pub from_peer: bool,
    /// Node addressed.
    pub destination: Destination,
    /// SAP addressed.
    pub sap: Sap,
    /// How it is carried.
    pub kind: Kind,
    /// Pairs requests with responses; chosen by the requester.
    pub correlation: u64,
    /// Encoding of the receiver's message enum.
    pub body: Vec<u8>,
}

/// From a local client to the broker, and between brokers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BrokerFrame {
    /// First frame of a local client: binds its SAP.
    Bind(ServiceName),
    /// A message.
    Message(Message),
    /// Broker to client: whether the peer's broker is connected; sent at bind and on change.
    PeerConnected(bool),
}

/// Encodes the body of a [`Message`]: one of the enums of [`crate::service`] or
/// [`crate::checkpoint`].
///
/// Senders bound what they put into one; the broker refuses more than [`BODY_MAX_BYTES`].
#[must_use]
pub fn encode_body<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).expect("a Vec grows and our messages have no unsized sequences")
}

/// Decodes the body of a [`Message`].
///
/// # Errors
/// If the bytes are not exactly one `T`.
pub fn decode_body<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, crate::DecodeError> {
    let (message, rest) = postcard::take_from_bytes(body).map_err(crate::DecodeError::Body)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(crate::DecodeError::Length {
            announced: body.len() - rest.len(),
            present: body.len(),
        })
    }
}
