//! System Manager ↔ System Manager, over the TLS control connection of an HA link.

use model::{ConflictPolicy, Epoch, Incarnation, Lsn, PairId, Role};
use serde::{Deserialize, Serialize};

/// One message. Order on the connection is the order of sending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlMessage {
    /// First message each way.
    Hello(Hello),
    /// The sender refuses this peer, in words.
    Refused(String),
    /// The active lets the standby take over when it dies: bulk done, hashes equal, as of `lsn`.
    Grant {
        /// The active's epoch.
        epoch: Epoch,
        /// Commit that the standby has acknowledged.
        lsn: Lsn,
    },
    /// The grant is void (a commit went ahead without the standby).
    Withdraw {
        /// The active's epoch.
        epoch: Epoch,
    },
    /// Acknowledges [`ControlMessage::Withdraw`].
    Withdrawn {
        /// The active's epoch.
        epoch: Epoch,
    },
    /// Switchover: the active has stopped acting and drained; the standby takes over now.
    HandOver {
        /// The epoch that has ended.
        epoch: Epoch,
        /// Last commit; the standby must have it.
        lsn: Lsn,
    },
    /// The sender acts under this epoch.
    TakenOver {
        /// The new epoch.
        epoch: Epoch,
    },
    /// The receiver is to reset (split brain, pair restart).
    Reset {
        /// Why, for the receiver's reset reasons.
        reason: String,
        /// Highest epoch the sender has seen.
        epoch: Epoch,
    },
    /// The active's heartbeat timing, which the standby makes its own.
    Timing {
        /// Milliseconds between beats.
        interval_ms: u32,
        /// Beats that may be missed.
        misses: u8,
    },
    /// The active's policy for conflicts, which the standby makes its own.
    ConflictPolicy(ConflictPolicy),
    /// Active to standby: an operator restarts it (`reload module`).
    Reload,
}

/// Who the sender is and what it has lived through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Pair.
    pub pair: Option<PairId>,
    /// Operational role.
    pub role: Role,
    /// This start.
    pub incarnation: Incarnation,
    /// Highest epoch seen, durably.
    pub highest_epoch: Epoch,
    /// Epoch under which the newest commit was made, and that commit.
    pub history: (Epoch, Lsn),
    /// Whether it led alone.
    pub alone: bool,
    /// Whether it is active now.
    pub active: bool,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
}
