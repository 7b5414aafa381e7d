//! What services and the peer are told.

use model::{Role, Time};
use wire::heartbeat::{Content, State};
use wire::supervision::Activity;

use crate::core::Core;
use crate::detection::Links;
use crate::phase::Phase;
use crate::standby::Standby;

impl Core {
    /// Brings what services and the peer are told up to date.
    pub(crate) fn speak(&mut self, now: Time) {
        let (activity, redundant) = match &self.phase {
            Phase::Active(active) => (active.activity(), active.leave.given()),
            Phase::Standby(_) => (Activity::Standby, false),
            Phase::Booting(_) | Phase::Activating(_) | Phase::Resetting(_) => {
                (Activity::Idle, false)
            }
        };
        self.ctx.tell(activity, redundant);
        if self.ctx.role != Role::Standalone {
            let content = self.compose(now);
            self.ctx.say(content);
            self.note_links(now);
        }
    }

    fn compose(&self, now: Time) -> Content {
        let ctx = &self.ctx;
        let (state, epoch, reserved, grant) = match &self.phase {
            Phase::Booting(_) | Phase::Activating(_) => {
                (State::Initializing, ctx.seen, None, false)
            }
            Phase::Active(active) => (active.state(), active.epoch, None, active.leave.given()),
            Phase::Standby(standby) => {
                let state = Standby::state(standby.is_stable(now, ctx));
                (state, ctx.seen, standby.reserved(ctx), false)
            }
            Phase::Resetting(resetting) => {
                let epoch = resetting.epoch.unwrap_or(ctx.seen);
                (resetting.state(), epoch, None, resetting.grant)
            }
        };
        Content {
            revision: 0,
            pair: ctx.record.pair,
            role: ctx.role,
            incarnation: ctx.incarnation,
            state,
            epoch,
            reserved,
            grant,
            lsn: ctx.sync.lsn,
            acked: ctx.sync.acked,
            config_hash: ctx.sync.config_hash,
            alone: ctx.record.alone,
            canary: ctx.canary,
            base: match &self.phase {
                Phase::Active(active) => active.base,
                Phase::Booting(_)
                | Phase::Activating(_)
                | Phase::Standby(_)
                | Phase::Resetting(_) => Default::default(),
            },
            contest: match &self.phase {
                Phase::Active(active) => active.contest(),
                Phase::Booting(_)
                | Phase::Activating(_)
                | Phase::Standby(_)
                | Phase::Resetting(_) => None,
            },
            restart: match &self.phase {
                Phase::Resetting(resetting) => resetting.restart,
                Phase::Booting(_) | Phase::Activating(_) | Phase::Active(_) | Phase::Standby(_) => {
                    None
                }
            },
            down: ctx.down,
        }
    }

    /// One link down is degraded, and no more.
    fn note_links(&mut self, now: Time) {
        let ctx = &mut self.ctx;
        match ctx.peer.links(now, ctx.own_hold_time(), ctx.links) {
            Links::Degraded if !ctx.degraded => {
                ctx.degraded = true;
                ctx.log(
                    4,
                    "DEGRADED",
                    "An HA link is down; the other one carries on.".into(),
                );
            }
            Links::Up if ctx.degraded => {
                ctx.degraded = false;
                ctx.log(5, "LINKS_UP", "All HA links are up.".to_owned());
            }
            Links::Up | Links::Degraded | Links::Unsettled => {}
        }
    }
}
