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
    /// Write the node file. A barrier: what follows is handed out only after
    /// [`crate::Input::Persisted`].
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
        /// Done, or the refusal in the operator's words.
        result: Result<(), String>,
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
