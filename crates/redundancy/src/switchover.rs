//! Manual switchover (`system switchover`), the active's side.
//!
//! ```text
//!   Acting ─command─► Quiescing ─services drained, or ─► Draining ─standby has all, or ─► HandingOver
//!                        │ deadline: back to Acting          a little while                │  │
//!                        ▼                                                  the peer acts ◄┘  │
//!                     Acting                                                 → reset           ▼
//!                                                              deadline: a new epoch, act again
//! ```

use core::time::Duration;

use model::{Lsn, Time};

use crate::context::Context;

/// How long services may take to finish what is in flight: several times what a decision takes on
/// a loaded machine, and no longer than operators wait without wondering.
pub(crate) const QUIESCE_DEADLINE: Duration = Duration::from_secs(1);
/// How long the standby may take to acknowledge the last commits after that: one report period of
/// `pss`. Kept short: new connections wait meanwhile. What it lacks then is flow state, whose lag
/// is bounded anyway; configuration commits have been waited for already.
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_millis(10);
/// How long the peer may take to act before this node takes its role back.
const TAKEN_OVER_DEADLINE: Duration = Duration::from_secs(1);

/// The refusal, in the chapter's words.
pub(crate) const REFUSAL: &str = "Failed to switchover (standby not ready to takeover in vdc 1)";

/// Waiting for services to finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Quiescing {
    pub(crate) command: u64,
    /// The posture they are to apply.
    pub(crate) sequence: u64,
    pub(crate) deadline: Time,
    /// Set when they have.
    pub(crate) drained_by: Option<Time>,
}

impl Quiescing {
    pub(crate) fn new(now: Time, command: u64, sequence: u64) -> Self {
        Self {
            command,
            sequence,
            deadline: now + QUIESCE_DEADLINE,
            drained_by: None,
        }
    }

    pub(crate) fn applied(&mut self, now: Time, sequence: u64) {
        if sequence >= self.sequence && self.drained_by.is_none() {
            self.drained_by = Some(now + DRAIN_DEADLINE);
        }
    }

    /// True when the epoch may be handed over.
    pub(crate) fn drained(&self, now: Time, ctx: &Context) -> bool {
        self.drained_by
            .is_some_and(|by| ctx.sync.acked >= ctx.sync.lsn || now >= by)
    }

    pub(crate) fn timed_out(&self, now: Time) -> bool {
        self.drained_by.is_none() && now >= self.deadline
    }

    pub(crate) fn next(&self) -> Time {
        self.drained_by.unwrap_or(self.deadline)
    }
}

/// Waiting for the peer to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct HandingOver {
    /// The last commit.
    pub(crate) lsn: Lsn,
    pub(crate) deadline: Time,
}

impl HandingOver {
    pub(crate) fn new(now: Time, ctx: &Context) -> Self {
        let patience = TAKEN_OVER_DEADLINE.max(ctx.hold_time() * 2);
        Self {
            lsn: ctx.sync.lsn,
            deadline: now + patience,
        }
    }
}
