//! All that a node's System Manager can ask of its shell.

use model::{Epoch, ServiceName};
use redundancy::NodeRecord;
use serde::{Deserialize, Serialize};
use wire::control::ControlMessage;
use wire::heartbeat::{Content, Gasp};
use wire::log::LogRecord;
use wire::supervision::{Ask, ToService};

use crate::trust::TrustOrder;

/// One effect. To be carried out in order; none of them may make the main loop wait for a disk.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are heartbeats, and few are kept"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorOutput {
    /// Start the service's process; answer with `Spawned` or `SpawnFailed`.
    Spawn {
        /// Which.
        service: ServiceName,
    },
    /// SIGKILL it; `Exited` follows.
    Kill {
        /// Which.
        service: ServiceName,
    },
    /// Send to a service; dropped if it does not run.
    ToService {
        /// Which.
        service: ServiceName,
        /// What.
        message: ToService,
    },
    /// For [`redundancy::HeartbeatPath::set_content`] in the heartbeat thread.
    HeartbeatContent(Content),
    /// For [`redundancy::HeartbeatPath::set_timing`].
    HeartbeatTiming {
        /// Milliseconds between beats.
        interval_ms: u32,
        /// Beats that may be missed.
        misses: u8,
    },
    /// Send on the control connection; dropped if there is none.
    Control(ControlMessage),
    /// Send this gasp on every link at each beat until the peer has heard it or a hold time has
    /// passed.
    Gasp(Gasp),
    /// Seal this gasp for the guardian; `None` takes the sealed one away.
    SealGasp(Option<Gasp>),
    /// Write the node file off the main loop, in order; answer with `Persisted`.
    Persist {
        /// To be echoed.
        write: u64,
        /// The whole record.
        record: NodeRecord,
    },
    /// Something about pairings, or whom to trust.
    Trust(TrustOrder),
    /// A line for the log.
    Log(LogRecord),
    /// End every process of the node and start it afresh.
    Reset {
        /// Why.
        reason: String,
    },
    /// The node acts under this epoch from now on (for measurement; nothing to do).
    Activated {
        /// The epoch.
        epoch: Epoch,
    },
    /// A question that only the shell can answer (`HeartbeatStatus`, `Processes`, `Logging`); it
    /// sends `ToService::Answer` with this number to this service.
    Query {
        /// Who asks.
        service: ServiceName,
        /// The question's number.
        question: u64,
        /// What is asked.
        ask: Ask,
    },
}
