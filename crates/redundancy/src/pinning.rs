//! The peer's identity becomes trusted here, or is so no more. Who it is, is not the core's
//! business; that there is one, is.
//!
//! | phase | peer pinned | peer unpinned |
//! |---|---|---|
//! | booting, activating | looks for it | forgets it; leads or waits as before |
//! | active | goes on, above what the peer has seen; resets if it is the one to give way | leads alone, marked so |
//! | standby | (has one) | resets: it holds nobody's leave, and waits for a new peer |
//! | resetting | nothing | nothing |

use model::{Epoch, Time};
use wire::supervision::Activity;

use crate::context::Context;
use crate::detection::Peer;
use crate::phase::{Cause, Loss, Phase, Step};

/// A node that has just started, and has `seen` that epoch, meets a node that was never part of a
/// pair: what it has led under it led for itself (as a standalone node does), so it supersedes
/// nobody. The active leads on, above that.
pub(crate) fn joined(ctx: &mut Context, phase: &Phase, seen: Epoch) -> Option<Step> {
    match phase {
        Phase::Active(active)
            if !ctx.record.paired && ctx.seen <= active.epoch && seen > active.epoch =>
        {
            lead_on(ctx, seen)
        }
        Phase::Booting(_)
        | Phase::Activating(_)
        | Phase::Active(_)
        | Phase::Standby(_)
        | Phase::Resetting(_) => None,
    }
}

fn lead_on(ctx: &mut Context, above: Epoch) -> Option<Step> {
    ctx.see(above);
    ctx.tell(Activity::Idle, false);
    Some(Step::Activate(Cause::Paired))
}

/// A peer is pinned, which has seen epochs up to `above`. `gives_way`: if both lead, this node is
/// to restart and follow. Otherwise it leads on, under an epoch above the peer's, or it would be
/// superseded by what a node has led under that now follows.
pub(crate) fn pinned(
    ctx: &mut Context,
    phase: &Phase,
    gives_way: bool,
    above: Epoch,
) -> Option<Step> {
    ctx.pinned = true;
    match phase {
        Phase::Active(_) | Phase::Activating(_) if gives_way => Some(Step::Reset {
            reason: "paired with a supervisor that leads".to_owned(),
            loss: Loss::Forked(ctx.seen),
        }),
        Phase::Active(active) if above > active.epoch => lead_on(ctx, above),
        Phase::Booting(_)
        | Phase::Activating(_)
        | Phase::Active(_)
        | Phase::Standby(_)
        | Phase::Resetting(_) => None,
    }
}

/// No peer is pinned any more: all that was known of it is void.
pub(crate) fn unpinned(now: Time, ctx: &mut Context, phase: &mut Phase) -> Option<Step> {
    ctx.pinned = false;
    ctx.record.peer = None;
    ctx.peer = Peer::new();
    ctx.greeted = None;
    match phase {
        Phase::Standby(_) => Some(Step::Reset {
            reason: "unpaired from the active supervisor".to_owned(),
            loss: Loss::Succeeded,
        }),
        Phase::Active(active) => {
            active.leave.void();
            // Written at once, so that this node leads again should it boot by itself.
            ctx.record.alone = true;
            ctx.persist(now);
            None
        }
        Phase::Booting(_) | Phase::Activating(_) | Phase::Resetting(_) => None,
    }
}
