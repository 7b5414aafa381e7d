//! All that the store can ask for.

use serde::{Deserialize, Serialize};
use wire::broker::Message;
use wire::log::LogRecord;
use wire::supervision::SyncReport;

/// One effect. They are to be carried out in order; work may run beside what follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Hand to the broker.
    Send(Message),
    /// Fetch with [`crate::Store::take_work`], run it on another thread, then tell
    /// [`crate::Input::WorkDone`]. At most one for each of the two storages at a time.
    Work {
        /// Its number.
        work: u64,
    },
    /// How far synchronisation is.
    Sync(SyncReport),
    /// May commits be answered without the standby?
    AskAlone {
        /// Echoed in [`crate::Input::AloneAnswered`].
        question: u64,
    },
    /// The posture with this number is in force; for `Quiesce`: nothing is in flight any more.
    Applied {
        /// [`wire::supervision::Posture::sequence`].
        sequence: u64,
    },
    /// The content is archived, durably, or there was nothing to archive.
    Archived {
        /// [`crate::Input::Archive`]'s.
        number: u64,
    },
    /// A line for the log.
    Log(LogRecord),
    /// The storage cannot be trusted any more. The process must end; what the System Manager
    /// makes of that (restart, failover) is its business.
    Failed {
        /// Why.
        reason: String,
    },
}
