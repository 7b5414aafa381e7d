//! All that the service supervisor can ask for.

use model::ServiceName;
use serde::{Deserialize, Serialize};
use wire::log::LogRecord;
use wire::supervision::ToService;

/// What the services' state means for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Health {
    /// Some are starting or restarting.
    Starting,
    /// All run and have applied a posture since they started.
    Ready,
    /// A native service died, or a borrowed one was restarted too often: the node must not act.
    Failed,
}

/// One effect, to be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Start the service's process.
    Spawn {
        /// Which.
        service: ServiceName,
    },
    /// End it at once (SIGKILL); [`crate::Input::Exited`] follows.
    Kill {
        /// Which.
        service: ServiceName,
    },
    /// Send to it.
    ToService {
        /// Which.
        service: ServiceName,
        /// What.
        message: ToService,
    },
    /// The services' state has changed.
    Health(Health),
    /// Every service that runs has applied this posture.
    PostureApplied {
        /// Its number.
        sequence: u64,
    },
    /// A line for the log.
    Log(LogRecord),
}
