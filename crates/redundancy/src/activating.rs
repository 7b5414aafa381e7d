//! Activating: a new epoch is being made durable before its first use (epochs E2).

use model::{Epoch, Time};
use wire::heartbeat::State;

use crate::context::Context;
use crate::input::ServicesHealth;
use crate::phase::{Cause, Loss, Step};
use crate::split_brain;

/// State of a node that will lead as soon as its epoch is durable.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Activating {
    pub(crate) epoch: Epoch,
    pub(crate) cause: Cause,
    write: u64,
}

impl Activating {
    /// Chooses an epoch above every one seen and has it written. The alone mark goes with it:
    /// until a standby is granted leave to take over, only this node holds what it will commit.
    pub(crate) fn enter(now: Time, ctx: &mut Context, cause: Cause) -> Self {
        let epoch = ctx.next_epoch();
        ctx.record.reserved_epoch = epoch;
        ctx.record.alone = true;
        let write = ctx.persist(now);
        Self {
            epoch,
            cause,
            write,
        }
    }

    pub(crate) fn evaluate(&mut self, now: Time, ctx: &mut Context) -> Step {
        if ctx.health == ServicesHealth::Failed {
            return Step::Reset {
                reason: "a service failed before leading".into(),
                loss: Loss::None,
            };
        }
        if let Some((State::Active | State::Paused, epoch)) = ctx
            .peer_says(now)
            .map(|content| (content.state, content.epoch))
        {
            match self.cause {
                // No preemption: whoever is active already leads.
                Cause::Standalone
                | Cause::Negotiated
                | Cause::BootedAlone
                | Cause::Waited
                | Cause::Forced => {
                    return Step::Follow(epoch);
                }
                // It took over after all.
                Cause::TakenBack | Cause::Promised => {
                    return Step::Reset {
                        reason: "the other supervisor leads".into(),
                        loss: split_brain::loss(now, ctx, epoch),
                    };
                }
                // The other one resets.
                Cause::Survived | Cause::Paired => {}
            }
        }
        if ctx.floor() >= self.epoch {
            *self = Self::enter(now, ctx, self.cause);
        }
        if ctx.is_durable(self.write) {
            Step::Act(self.epoch, self.cause)
        } else {
            Step::Stay
        }
    }
}
