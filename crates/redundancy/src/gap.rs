//! After a pause: stop, ask, go on.
//!
//! A node that was not run for longer than the hold time may have been taken over from. It stops
//! acting until one round trip to its peer, and to every VEM that is connected, shows no higher
//! epoch, then goes on under the same one. Whoever does not answer within a hold time is not
//! waited for. The fence at the VEMs is what safety rests on; this is a help.
//!
//! Without a grant no standby takes over by itself, but an operator may have told the other node to
//! lead (`force-active`), or its limit for waiting at boot may have come: VEMs know. A peer that is
//! not heard is not waited for then. A standalone node has nobody to ask: no other node can lead in
//! its place, and its VEMs tell of a clone unasked.

use core::time::Duration;

use model::{Epoch, Time};
use wire::heartbeat::State;

use crate::context::Context;

/// Round trips' worth of waiting for an answer of a peer that is heard but does not answer: its
/// side of the link may be deaf, and then it takes over or falls silent within this.
const DEAF_HOLD_TIMES: u32 = 2;

/// An active that has stopped after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Pause {
    resumed: Time,
    /// The posture in which it stopped; VEMs are asked after it.
    posture: u64,
    /// A standby might have taken over by itself.
    granted: bool,
}

/// How long a claim may take from a node that takes over to this one by way of a VEM: half of the
/// interval that a VEM waits for an answer.
fn claims_within(ctx: &Context) -> Duration {
    ctx.timing().interval() / 2
}

/// Every registered VEM can tell this node what it obeys.
fn all_connected(ctx: &Context) -> bool {
    ctx.vems.connected >= ctx.vems.registered
}

impl Pause {
    pub(crate) const fn new(now: Time, posture: u64, granted: bool) -> Self {
        Self {
            resumed: now,
            posture,
            granted,
        }
    }

    /// True when it may go on. A higher epoch has been looked for before.
    pub(crate) fn over(self, now: Time, ctx: &Context, epoch: Epoch) -> bool {
        if ctx.seen > epoch {
            return false;
        }
        let waited = now.since(self.resumed);
        let asked =
            ctx.vems.registered == 0 || ctx.vems.asked >= self.posture || waited >= ctx.hold_time();
        asked
            && match ctx.peer_says(now) {
                Some(content) if ctx.peer.answered_since(self.resumed) => {
                    !matches!(content.state, State::Active)
                }
                Some(_) => waited >= ctx.hold_time() * DEAF_HOLD_TIMES,
                None if !self.granted || waited >= ctx.hold_time() => true,
                // A candidate that has been promised something claims every VEM within a round
                // trip, and they tell: none does, so nobody took over. Waiting on would only make
                // the VEMs find this node silent too.
                None => ctx.promised > epoch && all_connected(ctx) && waited >= claims_within(ctx),
            }
    }

    pub(crate) fn deadline(self, ctx: &Context) -> Time {
        let claims = self.resumed + claims_within(ctx);
        if claims > ctx.last_turn {
            claims
        } else {
            self.resumed + ctx.hold_time()
        }
    }
}
