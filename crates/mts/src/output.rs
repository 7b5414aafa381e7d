//! All that the broker can ask for.

use serde::{Deserialize, Serialize};
use wire::broker::BrokerFrame;

use crate::ClientId;

/// One effect. They are to be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Write to a client's socket, then tell [`crate::Input::ClientSent`].
    ToClient {
        /// Which.
        client: ClientId,
        /// What.
        frame: BrokerFrame,
    },
    /// Write to the peer's connection, then tell [`crate::Input::PeerSent`].
    ToPeer(BrokerFrame),
    /// Close a client's connection: it broke the protocol, or another took its place. The broker
    /// has forgotten it already.
    CloseClient {
        /// Which.
        client: ClientId,
        /// Why, for the log.
        reason: String,
    },
    /// Close the peer's connection: it broke the protocol. The broker waits for
    /// [`crate::Input::PeerGone`].
    ClosePeer {
        /// Why, for the log.
        reason: String,
    },
}
