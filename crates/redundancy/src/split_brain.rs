//! Somebody else acts, or has acted later: what an active does about it.
//!
//! - The chapter's rule: if both see each other active, the primary resets. The survivor takes a
//!   new epoch above every one seen before it acts again.
//! - A node that merely stopped after a pause ([`State::Paused`]) is no conflict: it finds the
//!   higher epoch and follows.
//! - A higher epoch told by anybody else authenticated: stop and follow.
//!
//! Not done here: archiving the loser's commits; the log names the position up to which they are
//! lost.

use model::{Epoch, Role, Time};
use wire::heartbeat::State;

use crate::context::Context;

/// What is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nobody else acts.
    Alone,
    /// Both act, and this node survives.
    Survives(Epoch),
    /// Both act, and this node resets.
    Resets(Epoch),
    /// Someone has acted under a higher epoch.
    Superseded(Epoch),
}

/// Judges for a node that acts (`acting`), or has been stopped by a pause, under `epoch` since
/// `since`.
pub(crate) fn judge(now: Time, ctx: &Context, epoch: Epoch, since: Time, acting: bool) -> Verdict {
    let rival = ctx
        .peer_says(now)
        .filter(|content| content.state == State::Active);
    let both = rival.filter(|content| {
        // A lower epoch may be an old frame: only an answer to a beat of ours proves that it is
        // still in force. A higher one needs no proof.
        acting && (content.epoch > epoch || ctx.peer.answered_since(since))
    });
    // A node that greets as active, on a connection made since, is one too: the greeting may come
    // before the first heartbeat.
    let greets = ctx
        .peer
        .greeted_since(since)
        .filter(|hello| acting && hello.active && ctx.peer_says(now).is_none());
    let theirs = both
        .map(|content| content.epoch)
        .or(greets.map(|hello| hello.highest_epoch));
    match theirs {
        Some(theirs) if theirs != epoch => match ctx.role {
            Role::Primary | Role::Standalone => Verdict::Resets(theirs),
            Role::Secondary => Verdict::Survives(theirs),
        },
        Some(_) | None if ctx.seen > epoch => Verdict::Superseded(ctx.seen),
        Some(_) | None => Verdict::Alone,
    }
}
