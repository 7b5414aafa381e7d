//! All that the redundancy core can ask for.

use model::Epoch;
use serde::{Deserialize, Serialize};
use wire::control::ControlMessage;
use wire::heartbeat::{Content, Gasp};
use wire::log::LogRecord;
use wire::supervision::Activity;

use crate::record::NodeRecord;

/// One effect. They are to be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Write the node file. A barrier for what depends on it: the core hands that out only after
    /// [`crate::Input::Persisted`]. What does not depend on it (stop acting, the gasp, a takeover
    /// under a reserved epoch) is handed out meanwhile. Writes are carried out in order; one
    /// reported durable stands for all before it.
    Persist {
        /// Number to be echoed.
        write: u64,
        /// The whole record.
        record: NodeRecord,
    },
    /// What heartbeats say from now on; also send one at once on every link.
    HeartbeatContent(Content),
    /// The heartbeat's timing from now on.
    HeartbeatTiming {
        /// Milliseconds between beats.
        interval_ms: u32,
        /// Beats that may be missed.
        misses: u8,
    },
    /// Send on the control connection; dropped if there is none.
    Control(ControlMessage),
    /// Send this gasp on all links, repeatedly, until heard or for a hold time. Never before the
    /// services have been told to stop acting.
    Gasp(Gasp),
    /// The guardian's pre-sealed gasp is to be renewed for this epoch; `None` voids it.
    SealGasp(Option<Gasp>),
    /// Tell every service what the node does now.
    Posture {
        /// Counts postures.
        sequence: u64,
        /// What it does.
        activity: Activity,
        /// Commits must wait for the standby.
        redundant: bool,
        /// Whether the peer's System Manager is connected and follows or leads us.
        peer_connected: bool,
    },
    /// Ask the registered VEMs whether the active lives; told as
    /// [`wire::supervision::VemReport::tally`].
    AskVotes {
        /// Its number.
        vote: u64,
        /// The reserved epoch this node would take over under: a VEM that finds the active silent
        /// promises to obey nothing below it. `None` asks for no promise.
        candidate: Option<Epoch>,
        /// How long the active may take to answer a VEM (milliseconds).
        within_ms: u32,
    },
    /// This node has lost a conflict and has stopped acting: have what it stores archived, then
    /// tell [`crate::Input::Archived`].
    Archive {
        /// Its number, to be echoed.
        number: u64,
        /// The epoch that prevails.
        rival: Epoch,
        /// Why, in the operator's words.
        reason: String,
    },
    /// As a standby: have synchronisation begun afresh.
    Resync {
        /// The content differs: by a bulk sync. Else what is missing is asked for again.
        whole: bool,
    },
    /// Leave to commit alone is given: the alone mark is durable and the grant withdrawn.
    AloneGranted {
        /// The question's number.
        question: u64,
    },
    /// A line for the log (and consoles, by its severity).
    Log(LogRecord),
    /// An operator's command has ended.
    CommandDone {
        /// Its number.
        command: u64,
        /// Done, with a word to the operator (mostly empty), or the refusal in his words.
        result: Result<String, String>,
    },
    /// End every process of the node and start it afresh.
    Reset {
        /// For the reset reasons.
        reason: String,
    },
    /// This node acts under a new epoch since this instant (for measurement and traces).
    Activated {
        /// The epoch.
        epoch: Epoch,
    },
}
