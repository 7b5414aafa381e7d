//! System Manager → guardian, over the socket pair the System Manager inherits.
//!
//! The other way the guardian speaks by signals only: SIGTERM asks for an orderly end.

use serde::{Deserialize, Serialize};

/// What the guardian must know or do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuardian {
    /// The datagram to send once on every HA link when the System Manager has died; replaces the
    /// one before. `None`: send nothing.
    Gasp(Option<Vec<u8>>),
    /// The main loop turns; sent once a second.
    Turning,
    /// The node runs: what stops it from now on is no error of its configuration.
    Running,
    /// End every process of the node and start it afresh.
    Reset {
        /// For the reset reasons.
        reason: String,
    },
}
