//! Routing: what happens is taken in, then the phase decides, until it has nothing more to do.

use core::time::Duration;

use model::{Epoch, Role, Time};
use wire::heartbeat::State;
use wire::supervision::{Activity, RedundancyStatus};

use crate::activating::Activating;
use crate::active::{Active, Entry, Mode};
use crate::boot::Booting;
use crate::commands;
use crate::context::Context;
use crate::input::{Command, Input, Start};
use crate::output::Output;
use crate::phase::{Cause, Loss, Phase, Step};
use crate::pinning;
use crate::reset::Resetting;
use crate::standby::Standby;
use crate::status;

/// Phases that one turn may pass through: Booting → Activating → Active is the longest way, and
/// one more shows that it has come to rest.
const STEPS_MAX: usize = 6;

/// Longest time between turns (or the interval, if that is shorter): how exactly a pause of this
/// node is known, and thus how much silence of the peer is not held against it.
const TURN: Duration = Duration::from_millis(100);

/// The redundancy core of one node.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Core {
    pub(crate) ctx: Context,
    pub(crate) phase: Phase,
    /// When the next turn was due at the latest.
    expected: Option<Time>,
}

impl Core {
    /// A node that has just started. The first [`Input::Tick`] begins.
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self {
            ctx: Context::new(start),
            phase: Phase::Booting(Booting::enter(Time(0))),
            expected: None,
        }
    }

    /// Tells it what happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        if self.ctx.started.is_none() {
            self.begin(now);
        }
        self.note_pause(now);
        self.ctx.retry_write(now);
        if let Some(step) = self.take_in(now, input) {
            self.go(now, step);
        }
        for _ in 0..STEPS_MAX {
            let step = self.evaluate(now);
            if step == Step::Stay {
                break;
            }
            self.go(now, step);
        }
        self.speak(now);
        self.expected = self.next_deadline();
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.ctx.outputs.pop_front()
    }

    /// When it wants [`Input::Tick`]: at least once per 100 ms or interval, to know a pause when it
    /// ends.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let turn = self.expected_turn();
        let phase = match &self.phase {
            Phase::Booting(booting) => booting.deadline(&self.ctx),
            Phase::Activating(_) => None,
            Phase::Active(active) => active.deadline(&self.ctx),
            Phase::Standby(standby) => standby.deadline(&self.ctx),
            Phase::Resetting(resetting) => resetting.deadline(),
        };
        // A deadline that has passed without effect (an isolated standby's) must not spin.
        let last = self.last_turn();
        let phase = phase.filter(|deadline| *deadline > last);
        Some(phase.map_or(turn, |deadline| deadline.min(turn)))
    }

    /// Role in force.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.ctx.role
    }

    /// What is on disk or on its way there.
    #[must_use]
    pub const fn record(&self) -> &crate::record::NodeRecord {
        &self.ctx.record
    }

    /// The highest epoch this node has seen anybody use, itself included.
    #[must_use]
    pub fn highest_epoch(&self) -> Epoch {
        self.ctx.floor()
    }

    /// The epoch under which this node acts now, if it does.
    #[must_use]
    pub fn acting(&self) -> Option<Epoch> {
        match self.ctx.told.map(|told| told.activity) {
            Some(Activity::Active(epoch)) => Some(epoch),
            Some(Activity::Idle | Activity::Standby | Activity::Quiesce(_)) | None => None,
        }
    }

    /// True while this node could take over from its active at once.
    #[must_use]
    pub fn is_stable_standby(&self) -> bool {
        matches!(
            self.ctx.said.as_ref().map(|said| said.state),
            Some(State::Standby)
        )
    }

    /// `show system redundancy status`.
    #[must_use]
    pub fn status(&self, now: Time) -> RedundancyStatus {
        status::compose(now, &self.ctx, &self.phase)
    }

    fn begin(&mut self, now: Time) {
        self.ctx.started = Some(now);
        self.phase = Phase::Booting(Booting::enter(now));
        self.ctx.tell(Activity::Idle, false);
        let timing = self.ctx.timing();
        self.ctx.outputs.push_back(Output::HeartbeatTiming {
            interval_ms: timing.interval_ms,
            misses: timing.misses,
        });
        self.ctx.outputs.push_back(Output::SealGasp(None));
    }

    fn expected_turn(&self) -> Time {
        self.last_turn() + self.turn()
    }

    fn turn(&self) -> Duration {
        self.ctx.timing().interval().min(TURN)
    }

    fn last_turn(&self) -> Time {
        self.ctx.last_turn
    }

    /// Silence during which this node did not listen proves nothing; a long one may have cost it
    /// its epoch.
    fn note_pause(&mut self, now: Time) {
        let last = core::mem::replace(&mut self.ctx.last_turn, now);
        let Some(expected) = self.expected else {
            return;
        };
        let late = now.since(expected);
        if late < self.turn() {
            return;
        }
        self.ctx.peer.forgive(late);
        let gap = now.since(last);
        match &mut self.phase {
            Phase::Booting(booting) => booting.forgive(late),
            Phase::Active(active) => active.paused(now, &mut self.ctx, gap),
            Phase::Activating(_) | Phase::Standby(_) | Phase::Resetting(_) => {}
        }
    }

    /// Takes one input into the books. Only inputs that are orders lead to a step by themselves.
    fn take_in(&mut self, now: Time, input: Input) -> Option<Step> {
        let ctx = &mut self.ctx;
        match input {
            Input::Tick => {}
            Input::Persisted { write } => ctx.persisted(now, write),
            Input::PersistFailed { write } => ctx.persist_failed(now, write),
            Input::Heartbeat {
                link,
                content,
                peer_hold_time,
                echo,
            } => return self.heard(now, link, content, peer_hold_time, echo),
            Input::Gasp(gasp) => match &mut self.phase {
                Phase::Standby(standby) => {
                    standby.gasped(&gasp);
                }
                Phase::Booting(_)
                | Phase::Activating(_)
                | Phase::Active(_)
                | Phase::Resetting(_) => {}
            },
            Input::GaspHeard(gasp) => {
                if let Phase::Resetting(resetting) = &mut self.phase {
                    resetting.heard(&gasp);
                }
            }
            Input::PeerConnected => {
                ctx.peer.reconnect(true);
                ctx.greeted = None;
            }
            Input::PeerDisconnected => {
                ctx.peer.reconnect(false);
                ctx.greeted = None;
            }
            Input::PeerPinned { gives_way, above } => {
                return pinning::pinned(ctx, &self.phase, gives_way, above);
            }
            Input::PeerUnpinned => return pinning::unpinned(now, ctx, &mut self.phase),
            Input::Control(message) => return self.control(now, message),
            Input::Services(health) => ctx.health = health,
            Input::Down(service) => ctx.note_down(now, service),
            Input::PostureApplied { sequence } => {
                if let Phase::Active(active) = &mut self.phase {
                    active.posture_applied(now, ctx, sequence);
                }
            }
            Input::Sync(report) => ctx.take_sync(now, report),
            Input::Archived { number } => {
                if let Phase::Resetting(resetting) = &mut self.phase {
                    resetting.archived(number);
                }
            }
            Input::AskAlone { question } => ctx.ask_alone(question),
            Input::Vems(report) => {
                ctx.told_by_vems(report);
            }
            Input::Canary { finished } => ctx.canary = ctx.canary.max(finished),
            Input::Command { command, kind } => return self.command(now, command, kind),
        }
        None
    }

    fn command(&mut self, now: Time, command: u64, kind: Command) -> Option<Step> {
        let switches = self.switches();
        let ctx = &mut self.ctx;
        match kind {
            Command::Switchover => match &mut self.phase {
                Phase::Active(active) => active.switch_over(now, ctx, command),
                Phase::Booting(_)
                | Phase::Activating(_)
                | Phase::Standby(_)
                | Phase::Resetting(_) => {
                    let text = "Failed to switchover (this supervisor is not active)";
                    ctx.done(command, Err(text.to_owned()));
                }
            },
            Command::SetRole(role) => commands::set_role(now, ctx, command, role),
            // Halfway, this node must still hear whether the other one has taken over.
            Command::SetPairId(_) if switches => {
                let text = "Failed to set the pair ID (a switchover is in progress)";
                ctx.done(command, Err(text.to_owned()));
            }
            Command::SetPairId(pair) => commands::set_pair_id(now, ctx, command, pair),
            Command::SetHeartbeat {
                interval_ms,
                misses,
            } => {
                let leads = matches!(self.phase, Phase::Active(_));
                commands::set_heartbeat(now, ctx, command, (interval_ms, misses), leads);
            }
            Command::SetConflictPolicy(policy) => {
                let leads = matches!(self.phase, Phase::Active(_));
                commands::set_conflict_policy(now, ctx, command, policy, leads);
            }
            Command::SetBootWait(seconds) => commands::set_boot_wait(now, ctx, command, seconds),
            Command::Reload => {
                ctx.done(command, Ok(String::new()));
                return Some(self.reload(now));
            }
            Command::ReloadStandby => self.reload_standby(now, command),
            Command::ForceActive => return self.force_active(now, command),
        }
        None
    }

    /// A switchover is under way here.
    fn switches(&self) -> bool {
        let Phase::Active(active) = &self.phase else {
            return false;
        };
        matches!(active.mode, Mode::Quiescing(_) | Mode::HandingOver(_))
    }

    fn reload(&mut self, now: Time) -> Step {
        let text = "Manual system restart from Command Line Interface".to_owned();
        self.ctx.log_as("PLATFORM", 2, "PFM_SYSTEM_RESET", text);
        let reason = "Reset Requested by CLI command reload".to_owned();
        match &self.phase {
            Phase::Active(active) if active.standby_stable(now, &self.ctx) => Step::Yield(reason),
            Phase::Resetting(_) => Step::Stay,
            Phase::Booting(_) | Phase::Activating(_) | Phase::Active(_) | Phase::Standby(_) => {
                Step::Reset {
                    reason,
                    loss: Loss::None,
                }
            }
        }
    }

    /// `reload module N` of the other supervisor: an order over the control connection, so that it
    /// is the pinned peer's, and nobody else's.
    fn reload_standby(&mut self, now: Time, command: u64) {
        let ctx = &mut self.ctx;
        let module = ctx.role.slot().other().module().0;
        let acts =
            |peer: &wire::heartbeat::Content| matches!(peer.state, State::Active | State::Paused);
        let refusal = match &self.phase {
            Phase::Active(_) if !ctx.peer.connected => "the other supervisor is not connected",
            Phase::Active(_) if ctx.peer_says(now).is_some_and(acts) => {
                "the other supervisor is active too"
            }
            Phase::Active(_) => {
                let text = format!("Manual restart of Module {module} from Command Line Interface");
                ctx.log_as("PLATFORM", 2, "PFM_MODULE_RESET", text);
                ctx.outputs
                    .push_back(Output::Control(wire::control::ControlMessage::Reload));
                return ctx.done(command, Ok(String::new()));
            }
            Phase::Booting(_) | Phase::Activating(_) | Phase::Standby(_) | Phase::Resetting(_) => {
                "this supervisor is not active"
            }
        };
        let text = format!("Failed to reload module {module} ({refusal})");
        ctx.done(command, Err(text));
    }

    fn force_active(&mut self, now: Time, command: u64) -> Option<Step> {
        let ctx = &mut self.ctx;
        let led = ctx
            .peer_says(now)
            .is_some_and(|content| matches!(content.state, State::Active | State::Paused));
        let refusal = match &self.phase {
            Phase::Booting(_) | Phase::Standby(_) if led => "the other supervisor is active",
            Phase::Booting(_) | Phase::Standby(_) => {
                ctx.done(command, Ok(String::new()));
                ctx.record.cloned = false;
                return Some(Step::Activate(Cause::Forced));
            }
            Phase::Activating(_) | Phase::Active(_) => "this supervisor is active already",
            Phase::Resetting(_) => "this supervisor is resetting",
        };
        ctx.done(command, Err(format!("Failed to force active ({refusal})")));
        None
    }

    fn evaluate(&mut self, now: Time) -> Step {
        let ctx = &mut self.ctx;
        let active = match &self.phase {
            Phase::Active(active) => active.state() == State::Active,
            Phase::Booting(_) | Phase::Activating(_) | Phase::Standby(_) | Phase::Resetting(_) => {
                false
            }
        };
        ctx.greet(now, active, matches!(self.phase, Phase::Standby(_)));
        match &mut self.phase {
            Phase::Booting(booting) => booting.evaluate(now, ctx),
            Phase::Activating(activating) => activating.evaluate(now, ctx),
            Phase::Active(active) => active.evaluate(now, ctx),
            Phase::Standby(standby) => standby.evaluate(now, ctx),
            Phase::Resetting(resetting) => {
                resetting.evaluate(now, ctx);
                Step::Stay
            }
        }
    }

    /// Carries a step out. Each entry tells the services first.
    fn go(&mut self, now: Time, step: Step) {
        let ctx = &mut self.ctx;
        self.phase = match step {
            Step::Stay => return,
            Step::Negotiate => {
                ctx.tell(Activity::Idle, false);
                ctx.greeted = None;
                Phase::Booting(Booting::enter(now))
            }
            Step::Activate(cause) => {
                ctx.tell(Activity::Idle, false);
                ctx.outputs.push_back(Output::SealGasp(None));
                Phase::Activating(Activating::enter(now, ctx, cause))
            }
            Step::Act(epoch, cause) => Phase::Active(Box::new(Active::enter(
                now,
                ctx,
                epoch,
                Entry::Cause(cause),
            ))),
            Step::Follow(epoch) => Phase::Standby(Standby::enter(now, ctx, epoch)),
            Step::TakeOver(epoch, ended) => Phase::Active(Box::new(Active::enter(
                now,
                ctx,
                epoch,
                Entry::TakeOver(ended),
            ))),
            Step::Yield(reason) => {
                let (epoch, grant) = self.led();
                let ctx = &mut self.ctx;
                Phase::Resetting(Resetting::enter(now, ctx, reason, epoch, grant))
            }
            Step::RestartPair { reason, epoch } => {
                let mut resetting = Resetting::enter(now, ctx, reason, None, false);
                resetting.restart(ctx, epoch);
                Phase::Resetting(resetting)
            }
            Step::Reset { reason, loss } => {
                // A grant that stands outlives its giver: the standby is to act on it.
                let (_, grant) = self.led();
                let ctx = &mut self.ctx;
                if loss != Loss::None {
                    // Somebody else leads: this node's history is not the newest any more.
                    ctx.record.alone = false;
                    ctx.record.paired = true;
                }
                let mut resetting = Resetting::enter(now, ctx, reason, None, grant);
                if let Loss::Forked(rival) = loss {
                    resetting.archive(now, ctx, rival);
                }
                Phase::Resetting(resetting)
            }
        };
        self.speak(now);
        if let Phase::Resetting(resetting) = &self.phase {
            resetting.gasp(&mut self.ctx);
        }
    }

    /// The epoch this node leads under, and whether its grant stands.
    fn led(&self) -> (Option<Epoch>, bool) {
        match &self.phase {
            Phase::Active(active) => (Some(active.epoch), active.leave.given()),
            Phase::Booting(_) | Phase::Activating(_) | Phase::Standby(_) | Phase::Resetting(_) => {
                (None, false)
            }
        }
    }

    /// Pauses longer than this make an active ask before it goes on.
    #[must_use]
    pub fn hold_time(&self) -> Duration {
        self.ctx.hold_time()
    }
}
