//! System Manager ↔ System Manager, over the TLS control connection of an HA link.

use model::{ConflictPolicy, Epoch, Incarnation, Lsn, NodeKey, PairId, Role};
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
    /// Of pins and identities; not the redundancy core's business.
    Trust(TrustMessage),
}

/// Most host agents that a pair remembers, removed ones among them: hundreds of hosts (design),
/// and twice as many changes as fit a week of rebuilding hosts. The node file has room for them.
pub const VEM_PINS_MAX: usize = 1200;

/// What is known of one host agent's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VemPin {
    /// Its fingerprint.
    pub key: NodeKey,
    /// Grows with each change of any of them; 0 was pinned by hand.
    pub version: u64,
    /// Trusted; else removed.
    pub pinned: bool,
}

/// Whom the two nodes trust. Beside redundancy: nothing here changes who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrustMessage {
    /// The receiver's identity is about to be forgotten, and the receiver is to forget the
    /// sender's.
    Unpair,
    /// Acknowledges [`TrustMessage::Unpair`]: forgotten, durably.
    Unpaired,
    /// The sender will change its identity to this one, or not any more: its present one. To be
    /// trusted beside the present one.
    NextIdentity {
        /// The next.
        key: NodeKey,
    },
    /// Acknowledges [`TrustMessage::NextIdentity`]: trusted, durably, by the host agents that obey
    /// the sender too.
    NextPinned {
        /// Echoed.
        key: NodeKey,
    },
    /// The sender shows this identity from now on. Whoever dials of the two dials anew.
    IdentityChanged {
        /// The new one.
        key: NodeKey,
    },
    /// Acknowledges a connection under a new identity: the old one is trusted no more, durably.
    OldForgotten {
        /// The identity that is trusted.
        key: NodeKey,
    },
    /// First message on a connection in the place of another.
    Renewed,
    /// All that the sender knows of host agents: at each connection and each change. Of two
    /// entries about one agent, the one of the higher version holds.
    Vems {
        /// Counts the sender's messages of this kind; echoed.
        serial: u64,
        /// At most [`VEM_PINS_MAX`].
        pins: Vec<VemPin>,
    },
    /// Acknowledges [`TrustMessage::Vems`]: taken over, durably.
    VemsPinned {
        /// Echoed.
        serial: u64,
    },
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
    /// Whether it follows, or followed, an active: then it settles by itself who leads, and its
    /// heartbeats tell.
    pub follows: bool,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
}
