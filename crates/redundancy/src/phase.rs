//! The phases of a node and how one leads to the next.

use model::Epoch;

use crate::activating::Activating;
use crate::active::Active;
use crate::boot::Booting;
use crate::reset::Resetting;
use crate::standby::Standby;

/// What a node is doing. Each phase's state exists only in that phase.
///
/// ```text
///                 may lead                 epoch durable
///   Booting ────────────────► Activating ────────────────► Active
///    ▲   │ meets an active       ▲  │ meets an active       │ │ │
///    │   ▼                       │  ▼                       │ │ │ conflict survived, or
///    │  Standby ◄────────────────┼── (Standby)              │ │ │ the peer never took over
///    │   │ │ │                   └──────────────────────────┼─┘ └─► Activating
///    │   │ │ └─ stable, active ended: reserved epoch ───────►┘
///    │   │ └─── unstable, active ended ─────► Resetting ◄── yields, lost a conflict, handed over
///    └───┘ unstable, active restarted            │
///                                                └──► the guardian starts the node afresh
/// ```
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) enum Phase {
    /// Started; nobody is known to lead.
    Booting(Booting),
    /// Will lead as soon as its epoch is durable.
    Activating(Activating),
    /// Leads.
    Active(Box<Active>),
    /// Follows.
    Standby(Standby),
    /// Ends.
    Resetting(Resetting),
}

/// Why a node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Cause {
    /// It is standalone.
    Standalone,
    /// Both booted; history, then precedence, chose it.
    Negotiated,
    /// It booted alone and may lead.
    BootedAlone,
    /// An operator wants it.
    Forced,
    /// It survived a conflict of two actives.
    Survived,
    /// It was paired with a node that has led under a higher epoch, and stays.
    Paired,
    /// It handed over, and nobody took over.
    TakenBack,
    /// VEMs had promised to obey nothing below a standby's epoch, and it did not take over.
    Promised,
    /// It booted alone, and waited as long as the operator had set.
    Waited,
}

/// Why a standby takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Ended {
    /// The active was silent on every link for the hold time.
    Silent,
    /// The active says that it has yielded.
    Yielded,
    /// Its guardian or System Manager says that its processes died.
    Gasped,
    /// A switchover was ordered.
    HandedOver,
    /// The active's node has started afresh.
    Restarted,
}

impl Ended {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Silent => "the active has been silent on every link for the hold time",
            Self::Yielded => "the active has yielded",
            Self::Gasped => "the active's processes have died",
            Self::HandedOver => "the active has handed over",
            Self::Restarted => "the active has restarted",
        }
    }
}

/// What a phase wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Stay,
    /// To begin the negotiation again.
    Negotiate,
    /// To lead under a new epoch.
    Activate(Cause),
    /// To act under this epoch, which is durable.
    Act(Epoch, Cause),
    /// To follow the active of this epoch.
    Follow(Epoch),
    /// To act under this reserved epoch, at once.
    TakeOver(Epoch, Ended),
    /// To stop acting, let the standby take over, and end.
    Yield(String),
    /// To end, and to have the active of this epoch end too (chapter: "restart the pair").
    RestartPair {
        /// Why.
        reason: String,
        /// The active's epoch, or the highest seen.
        epoch: Epoch,
    },
    /// To stop acting and end.
    Reset {
        /// Why.
        reason: String,
        /// Who leads instead, if anybody does.
        loss: Loss,
    },
}

/// What a node that ends leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nobody is known to lead instead.
    None,
    /// Another leads, to whom this node has handed over: it may not lead alone after the start.
    Succeeded,
    /// Another leads under this epoch, who may not have what this node committed: that is
    /// archived before the end, and this node may not lead alone after the start.
    Forked(Epoch),
}
