//! All that can happen to the store.

use model::Epoch;
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
    /// This node has lost a conflict: archive its content, then tell [`crate::Output::Archived`].
    Archive {
        /// Echoed.
        number: u64,
        /// The epoch that prevailed.
        rival: Epoch,
        /// Why, in words.
        reason: String,
    },
    /// The wall clock, for display; now and then.
    WallClock {
        /// Seconds since 1970.
        unix_s: u64,
    },
    /// Work handed out by [`crate::Output::Work`] has ended.
    WorkDone {
        /// Its number.
        work: u64,
        /// Whether it succeeded, else why not.
        result: Result<(), String>,
    },
}
