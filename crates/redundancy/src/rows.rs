//! The states of the transition table (docs/redundancy-transitions.md), as a node can be asked for
//! them: what the table, the model check and the simulation count their coverage by.

use model::{Epoch, Time};
use wire::heartbeat::State;

use crate::active::Mode;
use crate::core::Core;
use crate::phase::Phase;
use crate::votes::Finding;

impl Core {
    /// The highest epoch that anybody is known to have used.
    #[must_use]
    pub const fn seen(&self) -> Epoch {
        self.ctx.seen
    }

    /// The state that this node is in, by its name in the transition table.
    #[must_use]
    pub fn row(&self, now: Time) -> &'static str {
        let ctx = &self.ctx;
        let follows = ctx.peer_says(now).map(|content| content.state);
        match &self.phase {
            Phase::Booting(_) if ctx.peer.connected || follows.is_some() => {
                "Booting, the other will lead"
            }
            Phase::Booting(_) => "Booting, nobody there",
            Phase::Activating(_) => "Activating",
            Phase::Active(active) => match active.mode {
                Mode::Acting if active.standby_stable(now, ctx) => "Active, stable standby",
                Mode::Acting if matches!(follows, Some(State::Synchronizing | State::Standby)) => {
                    "Active, standby not stable"
                }
                Mode::Acting => "Active, no standby",
                Mode::Contested(_) => "Active, contested",
                Mode::Paused(_) => "Active, paused",
                Mode::Quiescing(_) => "Active, quiescing",
                Mode::HandingOver(_) => "Active, handing over",
            },
            Phase::Standby(standby) => match standby.finding().filter(|_| ctx.peer_silent(now)) {
                Some(Finding::Isolated) => "Standby, isolated",
                Some(Finding::Alive { .. }) => "Standby, forbidden",
                Some(Finding::Asking | Finding::Dead) => "Standby, asking",
                None if standby.is_stable(now, ctx) => "Standby, stable",
                None => "Standby, not stable",
            },
            Phase::Resetting(resetting) if resetting.epoch.is_some() => "Resetting, yielding",
            Phase::Resetting(_) => "Resetting",
        }
    }
}
