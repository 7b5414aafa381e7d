//! All that can happen to the broker.

use serde::{Deserialize, Serialize};
use wire::broker::BrokerFrame;
use wire::supervision::Activity;

/// A connected client, numbered by the shell; a number is never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub u64);

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Time passed; nothing else happened.
    Tick,
    /// A process connected to the broker's socket. It has no SAP yet.
    ClientConnected {
        /// Its number.
        client: ClientId,
    },
    /// A frame of a client.
    ClientFrame {
        /// Which.
        client: ClientId,
        /// What.
        frame: BrokerFrame,
    },
    /// Frames of [`crate::Output::ToClient`] have been written to the client's socket.
    ClientSent {
        /// Which.
        client: ClientId,
        /// How many.
        frames: u32,
    },
    /// A client's connection has ended.
    ClientGone {
        /// Which.
        client: ClientId,
    },
    /// The connection to the peer's broker stands.
    PeerConnected,
    /// A frame of the peer's broker.
    PeerFrame(BrokerFrame),
    /// Frames of [`crate::Output::ToPeer`] have been written to the connection.
    PeerSent {
        /// How many.
        frames: u32,
    },
    /// The connection to the peer's broker has ended.
    PeerGone,
    /// What the node does now: decides where `Active` and `Standby` are.
    Posture(Activity),
}
