//! What the peer says: heartbeats and control messages taken in.

use core::time::Duration;

use model::{Epoch, LinkId, Role, Time};
use wire::control::ControlMessage;
use wire::heartbeat::{Content, State};

use crate::commands;
use crate::core::Core;
use crate::output::Output;
use crate::phase::{Loss, Phase, Step};
use crate::pinning;

impl Core {
    /// A heartbeat of the node at the other end.
    pub(crate) fn heard(
        &mut self,
        now: Time,
        link: LinkId,
        content: Content,
        hold_time: Duration,
        echo: Time,
    ) -> Option<Step> {
        let ctx = &mut self.ctx;
        if ctx.role == Role::Standalone {
            return None;
        }
        let (epoch, restart) = (content.epoch, content.restart);
        let starts = content.state == State::Initializing;
        let ordered = ctx.peer.orders_restart();
        let current = ctx.peer.beat(now, link, content, hold_time, echo);
        let before = ctx.peer.fault.clone();
        ctx.peer
            .judge_by_heartbeat(now, (ctx.role, ctx.record.pair));
        ctx.log_fault(before);
        if !current || ctx.peer.fault.is_some() {
            return None;
        }
        let joined = starts.then(|| pinning::joined(ctx, &self.phase, epoch));
        if let Some(step) = joined.flatten() {
            return Some(step);
        }
        ctx.see(epoch);
        // Said in every beat, obeyed or refused once.
        let restart = restart.filter(|_| restart != ordered)?;
        self.ordered_reset("restart of the pair, standby not stable", restart)
    }

    pub(crate) fn control(&mut self, now: Time, message: ControlMessage) -> Option<Step> {
        let ctx = &mut self.ctx;
        if ctx.role == Role::Standalone {
            return None;
        }
        if let ControlMessage::Hello(hello) = &message {
            return self.hello(now, hello.clone());
        }
        // To take leave away, and to say that it has gone, needs no pair: a commit may wait for it.
        let ends_leave = matches!(
            message,
            ControlMessage::Withdraw { .. } | ControlMessage::Withdrawn { .. }
        );
        if ctx.peer.fault.is_some() && !ends_leave {
            return None;
        }
        ctx.peer.note_told(now);
        match &message {
            // Trust is the supervisor's, which does not pass it on.
            ControlMessage::Hello(_) | ControlMessage::Trust(_) => {}
            ControlMessage::Refused(why) => {
                ctx.log(
                    3,
                    "REFUSED",
                    format!("The other supervisor refuses this one: {why}."),
                );
            }
            ControlMessage::TakenOver { epoch } => {
                ctx.see(*epoch);
                ctx.peer.note_taken_over(*epoch);
            }
            ControlMessage::Withdrawn { epoch } => {
                if let Phase::Active(active) = &mut self.phase {
                    active.leave.withdrawn(*epoch);
                }
            }
            ControlMessage::Reset { reason, epoch } => {
                return self.ordered_reset(reason, *epoch);
            }
            ControlMessage::Timing {
                interval_ms,
                misses,
            } => {
                if matches!(self.phase, Phase::Standby(_) | Phase::Booting(_))
                    && (ctx.record.interval_ms, ctx.record.misses) != (*interval_ms, *misses)
                {
                    commands::adopt_timing(ctx, *interval_ms, *misses);
                    ctx.persist(now);
                }
            }
            ControlMessage::ConflictPolicy(policy) => {
                if matches!(self.phase, Phase::Standby(_) | Phase::Booting(_))
                    && ctx.record.conflict_policy != *policy
                {
                    ctx.record.conflict_policy = *policy;
                    ctx.persist(now);
                }
            }
            ControlMessage::Reload => return self.told_to_reload(),
            ControlMessage::Grant { .. }
            | ControlMessage::Withdraw { .. }
            | ControlMessage::HandOver { .. } => self.control_of_an_active(&message),
        }
        None
    }

    /// A standby that is not stable restarts the pair. The order is meant for an active that is
    /// dead in part. One that can read it, acts and is well keeps leading: the standby's side of
    /// the links is at fault.
    fn ordered_reset(&mut self, reason: &str, epoch: Epoch) -> Option<Step> {
        let ctx = &mut self.ctx;
        let Phase::Active(active) = &self.phase else {
            return None;
        };
        if epoch < active.epoch {
            return None;
        }
        if active.is_well(ctx) {
            let text =
                format!("The standby orders a reset ({reason}), but this supervisor is well.");
            ctx.log(4, "RESET_REFUSED", text);
            return None;
        }
        Some(Step::Reset {
            reason: format!("ordered by the other supervisor: {reason}"),
            loss: Loss::None,
        })
    }

    /// An operator at the active restarts this node. An active is not restarted from elsewhere.
    fn told_to_reload(&mut self) -> Option<Step> {
        match &self.phase {
            Phase::Booting(_) | Phase::Standby(_) => {
                let text = "Manual system restart from Command Line Interface".to_owned();
                self.ctx.log_as("PLATFORM", 2, "PFM_SYSTEM_RESET", text);
                Some(Step::Reset {
                    reason: "Reset Requested by CLI command reload module".to_owned(),
                    loss: Loss::None,
                })
            }
            Phase::Activating(_) | Phase::Active(_) | Phase::Resetting(_) => None,
        }
    }

    fn control_of_an_active(&mut self, message: &ControlMessage) {
        match &mut self.phase {
            Phase::Standby(standby) => standby.control(&mut self.ctx, message),
            Phase::Booting(_) | Phase::Activating(_) | Phase::Active(_) | Phase::Resetting(_) => {
                // Whoever does not follow holds no grant.
                if let ControlMessage::Withdraw { epoch } = message {
                    let message = ControlMessage::Withdrawn { epoch: *epoch };
                    self.ctx.outputs.push_back(Output::Control(message));
                }
            }
        }
    }

    fn hello(&mut self, now: Time, hello: wire::control::Hello) -> Option<Step> {
        let mut step = None;
        let ctx = &mut self.ctx;
        let theirs = (hello.role, hello.pair);
        let before = ctx.peer.fault.clone();
        ctx.peer.judge(now, (ctx.role, ctx.record.pair), theirs);
        match ctx.peer.fault.clone() {
            Some(fault) => {
                ctx.log_fault(before);
                ctx.outputs
                    .push_back(Output::Control(ControlMessage::Refused(fault)));
            }
            None => {
                if !hello.active {
                    step = pinning::joined(ctx, &self.phase, hello.highest_epoch);
                }
                ctx.see(hello.highest_epoch);
                if let Phase::Active(_) = self.phase {
                    let timing = ctx.timing();
                    ctx.outputs
                        .push_back(Output::Control(ControlMessage::Timing {
                            interval_ms: timing.interval_ms,
                            misses: timing.misses,
                        }));
                    let policy = ControlMessage::ConflictPolicy(ctx.record.conflict_policy);
                    ctx.outputs.push_back(Output::Control(policy));
                }
            }
        }
        ctx.peer.greet(now, hello);
        step
    }
}
