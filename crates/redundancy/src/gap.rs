//! After a pause: stop, ask, go on.
//!
//! A node that was not run for longer than the hold time may have been taken over from. It stops
//! acting until one round trip to its peer shows no higher epoch, then goes on under the same one.
//! No answer within a hold time leaves it to what the VEMs have told. The fence at the VEMs is
//! what safety rests on; this is a help.

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
}

impl Pause {
    pub(crate) const fn new(now: Time) -> Self {
        Self { resumed: now }
    }

    /// True when it may go on. A higher epoch has been looked for before.
    pub(crate) fn over(self, now: Time, ctx: &Context, epoch: Epoch) -> bool {
        if ctx.seen > epoch {
            return false;
        }
        let waited = now.since(self.resumed);
        match ctx.peer_says(now) {
            Some(content) if ctx.peer.answered_since(self.resumed) => {
                !matches!(content.state, State::Active)
            }
            Some(_) => waited >= ctx.hold_time() * DEAF_HOLD_TIMES,
            None => waited >= ctx.hold_time(),
        }
    }

    pub(crate) fn deadline(self, ctx: &Context) -> Time {
        self.resumed + ctx.hold_time()
    }
}
