//! All that can happen to the store.

use serde::{Deserialize, Serialize};
use wire::broker::Message;
use wire::supervision::Posture;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Time passed; nothing else happened.
    Tick,
    /// The broker is connected and SAP `pss` is bound; also after each reconnection.
    BrokerConnected,
    /// The broker's connection was lost.
    BrokerLost,
    /// Whether the peer's broker is reachable.
    PeerConnected(bool),
    /// A message for SAP `pss`.
    Message(Message),
    /// What the node does now.
    Posture(Posture),
    /// The System Manager answers [`crate::Output::AskAlone`].
    AloneAnswered {
        /// The question's number.
        question: u64,
        /// Whether leave was given.
        granted: bool,
    },
    /// As a standby: subscribe again. `whole`: with a bulk sync, since what is here is not trusted.
    Resync {
        /// See above.
        whole: bool,
    },
    /// Work handed out by [`crate::Output::Work`] has ended.
    WorkDone {
        /// Its number.
        work: u64,
        /// Whether it succeeded, else why not.
        result: Result<(), String>,
    },
}
