//! The active.
//!
//! Invariants:
//! - V1 an active acts only under an epoch of its own start, at least as high as every one seen;
//! - V2 before anything says that it has stopped, its services have been told to stop;
//! - V3 only in [`Mode::Acting`] are services told to decide.

use core::time::Duration;

use model::{Epoch, Lsn, Role, Time};
use wire::control::ControlMessage;
use wire::heartbeat::{Contest, Gasp, State};
use wire::supervision::Activity;

use crate::alone::Leave;
use crate::context::Context;
use crate::gap::Pause;
use crate::input::ServicesHealth;
use crate::output::Output;
use crate::phase::{Cause, Ended, Loss, Step};
use crate::split_brain::{self, Contested, Rule, Verdict};
use crate::switchover::{HandingOver, Quiescing, REFUSAL};
use crate::sync;

/// What an active is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Mode {
    /// Decides.
    Acting,
    /// Stopped after a pause.
    Paused(Pause),
    /// Has met another active.
    Contested(Contested),
    /// Finishes what is in flight before a switchover.
    Quiescing(Quiescing),
    /// Has yielded in a switchover.
    HandingOver(HandingOver),
}

/// A decision path that has answered canaries and answers none for this long (or the hold time,
/// if that is longer) is stuck. Canaries are sent every 100 ms whether or not there is traffic, so
/// idle is not stuck; a restart of the broker, which they pass through, takes less.
const CANARY_SILENCE: Duration = Duration::from_secs(3);

/// State of the node that leads.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Active {
    pub(crate) epoch: Epoch,
    /// Since when it acts under it.
    pub(crate) since: Time,
    pub(crate) mode: Mode,
    /// Newest commit when it began to act.
    pub(crate) base: (Epoch, Lsn),
    /// What was last brought forward against another active: final for that rival.
    pleaded: Option<Contest>,
    pub(crate) leave: Leave,
    /// The posture whose application ends a takeover.
    over_at: Option<u64>,
    /// Canaries finished when their count last grew, and when that was; `None` before the first.
    canary: Option<(u64, Time)>,
    /// Canaries finished before this epoch or the last interruption: they prove nothing.
    canaries_before: u64,
    /// The other supervisor is known to be there, and was last seen stable.
    present: bool,
    stable: bool,
}

impl Active {
    /// Starts acting under `epoch`, which is durable. What the traffic waits for comes first.
    pub(crate) fn enter(now: Time, ctx: &mut Context, epoch: Epoch, how: Entry) -> Self {
        ctx.see(epoch);
        ctx.record.led_epoch = epoch;
        let sequence = ctx.tell(Activity::Active(epoch), false);
        ctx.outputs.push_back(Output::Activated { epoch });
        ctx.outputs
            .push_back(Output::Control(ControlMessage::TakenOver { epoch }));
        let incarnation = ctx.incarnation;
        ctx.outputs
            .push_back(Output::SealGasp(Some(Gasp { epoch, incarnation })));
        let took_over = match how {
            Entry::TakeOver(ended) => Some(ended),
            Entry::Cause(_) => None,
        };
        let active = Self {
            epoch,
            since: now,
            mode: Mode::Acting,
            base: ctx.history,
            pleaded: None,
            leave: Leave::new(epoch, sequence),
            over_at: took_over.map(|_| sequence),
            canary: None,
            canaries_before: ctx.canary,
            present: took_over.is_some(),
            stable: false,
        };
        active.announce(ctx, how);
        active
    }

    /// What it does, as its services are to be told.
    pub(crate) fn activity(&self) -> Activity {
        match self.mode {
            Mode::Acting => Activity::Active(self.epoch),
            Mode::Contested(contested) if contested.acts => Activity::Active(self.epoch),
            Mode::Quiescing(_) => Activity::Quiesce(self.epoch),
            Mode::Contested(_) | Mode::Paused(_) | Mode::HandingOver(_) => Activity::Idle,
        }
    }

    pub(crate) const fn state(&self) -> State {
        match self.mode {
            Mode::Acting | Mode::Contested(_) | Mode::Quiescing(_) => State::Active,
            Mode::Paused(_) => State::Paused,
            Mode::HandingOver(_) => State::Yielded,
        }
    }

    /// A standby that can take over this instant.
    pub(crate) fn standby_stable(&self, now: Time, ctx: &Context) -> bool {
        self.leave.given()
            && ctx
                .peer_says(now)
                .is_some_and(|content| content.state == State::Standby)
    }

    /// It decides, and every service of it is well.
    pub(crate) fn is_well(&self, ctx: &Context) -> bool {
        self.mode == Mode::Acting && ctx.health == ServicesHealth::Ready
    }

    pub(crate) fn deadline(&self, ctx: &Context) -> Option<Time> {
        match self.mode {
            Mode::Acting => None,
            Mode::Contested(contested) => Some(contested.deadline()),
            Mode::Paused(pause) => Some(pause.deadline(ctx)),
            Mode::Quiescing(quiescing) => Some(quiescing.next()),
            Mode::HandingOver(handing_over) => Some(handing_over.deadline),
        }
    }

    /// This node was not run for `pause`.
    pub(crate) fn paused(&mut self, now: Time, ctx: &mut Context, pause: Duration) {
        // Nothing could be decided meanwhile.
        (self.canary, self.canaries_before) = (None, ctx.canary);
        if pause <= ctx.hold_time() || ctx.role == Role::Standalone {
            return;
        }
        match self.mode {
            Mode::Acting | Mode::Contested(_) | Mode::Paused(_) => {}
            Mode::Quiescing(quiescing) => {
                ctx.done(
                    quiescing.command,
                    Err("Failed to switchover (paused)".to_owned()),
                );
            }
            Mode::HandingOver(mut handing_over) => {
                handing_over.deadline = handing_over.deadline + pause;
                self.mode = Mode::HandingOver(handing_over);
                return;
            }
        }
        self.stop_and_ask(now, ctx);
        let ms = pause.as_millis();
        ctx.log(
            4,
            "PAUSED",
            format!(
                "This supervisor was stopped for {ms} ms; it does not act until it knows that \
                 nobody took over."
            ),
        );
    }

    fn stop_and_ask(&mut self, now: Time, ctx: &mut Context) {
        let posture = ctx.tell(Activity::Idle, self.leave.given());
        self.mode = Mode::Paused(Pause::new(now, posture, self.leave.outstanding()));
    }

    /// A standby has asked VEMs for their votes, and some have promised to refuse this node's epoch.
    /// It stops, and asks whether the standby took over; if not, it takes an epoch that they obey.
    fn doubt(&mut self, now: Time, ctx: &mut Context) {
        match self.mode {
            Mode::Acting => {}
            Mode::Quiescing(quiescing) => {
                ctx.done(
                    quiescing.command,
                    Err("Failed to switchover (the standby is taking over by itself)".to_owned()),
                );
            }
            // It has stopped already, or takes a new epoch if it survives.
            Mode::Paused(_) | Mode::HandingOver(_) | Mode::Contested(_) => return,
        }
        self.stop_and_ask(now, ctx);
        let promised = ctx.promised;
        ctx.log(
            4,
            "PROMISED",
            format!(
                "VEMs that did not reach this supervisor have promised to obey nothing below epoch \
                 {promised}; it does not act until it knows whether the other one took over."
            ),
        );
    }

    /// `system switchover`.
    pub(crate) fn switch_over(&mut self, now: Time, ctx: &mut Context, command: u64) {
        let ready = ctx.peer.connected && self.standby_stable(now, ctx);
        if self.mode != Mode::Acting || !ready {
            return ctx.done(command, Err(REFUSAL.to_owned()));
        }
        let sequence = ctx.tell(Activity::Quiesce(self.epoch), self.leave.given());
        self.mode = Mode::Quiescing(Quiescing::new(now, command, sequence));
        let (ours, theirs) = (ctx.slot(), ctx.slot().other());
        ctx.log(2, "SWITCHOVER_INITIATED", format!(
            "Two gateways are present: {theirs} is becoming active, {ours} is reloading to become \
             standby."
        ));
    }

    pub(crate) fn posture_applied(&mut self, now: Time, ctx: &mut Context, sequence: u64) {
        self.leave.posture_applied(sequence);
        if self.over_at.is_some_and(|over_at| sequence >= over_at) {
            self.over_at = None;
            ctx.log_as(
                "SYSMGR",
                2,
                "SWITCHOVER_OVER",
                "Switchover completed.".to_owned(),
            );
        }
        if let Mode::Quiescing(quiescing) = &mut self.mode {
            quiescing.applied(now, sequence);
        }
    }

    pub(crate) fn evaluate(&mut self, now: Time, ctx: &mut Context) -> Step {
        if let Some(step) = self.give_way(now, ctx) {
            return step;
        }
        if ctx.promised > self.epoch {
            self.doubt(now, ctx);
        }
        match self.mode {
            Mode::Acting => {
                self.leave.advance(now, ctx);
                self.note_presence(now, ctx);
                Step::Stay
            }
            Mode::Contested(_) => Step::Stay,
            Mode::Paused(pause) => {
                let over = pause.over(now, ctx, self.epoch);
                if over && ctx.promised > self.epoch {
                    return Step::Activate(Cause::Promised);
                }
                if over {
                    self.act_again(ctx);
                    ctx.log(
                        4,
                        "RESUMED",
                        "Nobody took over; this supervisor acts again.".into(),
                    );
                }
                Step::Stay
            }
            Mode::Quiescing(quiescing) => self.quiesce(now, ctx, quiescing),
            Mode::HandingOver(handing_over) => {
                if now >= handing_over.deadline {
                    ctx.log_as(
                        "SYSMGR",
                        2,
                        "SWITCHOVER_TIMEOUT",
                        "The standby did not take over; \
                        this supervisor becomes active again."
                            .into(),
                    );
                    return Step::Activate(Cause::TakenBack);
                }
                Step::Stay
            }
        }
    }

    /// Reasons to stop leading, the most urgent first.
    fn give_way(&mut self, now: Time, ctx: &mut Context) -> Option<Step> {
        let handing_over = matches!(self.mode, Mode::HandingOver(_));
        if let Some(step) = self.cloned(ctx) {
            return Some(step);
        }
        if let Some(step) = self.contend(now, ctx) {
            return Some(step);
        }
        if ctx.seen > self.epoch && !matches!(self.mode, Mode::Contested(_)) {
            return Some(self.superseded(now, ctx, handing_over));
        }
        let stable = self.standby_stable(now, ctx);
        if ctx.health == ServicesHealth::Failed {
            let reason = "a service failed".to_owned();
            return Some(if stable || handing_over {
                Step::Yield(reason)
            } else {
                Step::Reset {
                    reason,
                    loss: Loss::None,
                }
            });
        }
        if stable && self.decides_nothing(now, ctx) {
            return Some(Step::Yield("the decision path is stuck".to_owned()));
        }
        if stable && ctx.write_overdue(now) {
            return Some(Step::Yield("the node file cannot be written".to_owned()));
        }
        None
    }

    /// Two starts of one identity have led under one epoch: VEMs have refused this one's claim, or
    /// somebody tells of the other. Which of them is the original nobody can tell from here: this
    /// one gives way, and after its start waits for an operator.
    fn cloned(&self, ctx: &mut Context) -> Option<Step> {
        if !ctx.vems.clone_seen && !ctx.seen.is_clone_of(self.epoch) {
            return None;
        }
        ctx.tell(Activity::Idle, false);
        ctx.log(
            2,
            "CLONE",
            format!(
                "Epoch {} was obeyed already for another start of this very node: a clone of it \
                 runs, or its disk was set back; it stops acting.",
                self.epoch
            ),
        );
        ctx.record.cloned = true;
        let reason = "a clone of this node was seen".to_owned();
        let loss = Loss::Forked(ctx.seen);
        Some(Step::Reset { reason, loss })
    }

    /// Canaries went through this epoch's decision path, and have stopped doing so.
    fn decides_nothing(&mut self, now: Time, ctx: &Context) -> bool {
        let judged = self.mode == Mode::Acting && ctx.health == ServicesHealth::Ready;
        match self.canary {
            _ if !judged => (self.canary, self.canaries_before) = (None, ctx.canary),
            Some((count, since)) if count == ctx.canary => {
                return now.since(since) >= CANARY_SILENCE.max(ctx.hold_time());
            }
            Some(_) => self.canary = Some((ctx.canary, now)),
            None if ctx.canary > self.canaries_before => self.canary = Some((ctx.canary, now)),
            None => {}
        }
        false
    }

    /// Told of a higher epoch, by whomever: stop, and follow after the reset. Who leads after the
    /// start is not negotiated again.
    fn superseded(&self, now: Time, ctx: &mut Context, handed_over: bool) -> Step {
        if handed_over {
            let reason = "Reset due to switchover by operator".to_owned();
            let loss = Loss::Succeeded;
            return Step::Reset { reason, loss };
        }
        ctx.tell(Activity::Idle, false);
        let theirs = ctx.seen;
        ctx.log(
            2,
            "SUPERSEDED",
            format!(
                "Epoch {theirs} is above this supervisor's {}; it stops acting.",
                self.epoch
            ),
        );
        let reason = "a higher epoch was seen".to_owned();
        let loss = split_brain::loss(now, ctx, theirs);
        Step::Reset { reason, loss }
    }

    /// What is brought forward against another active.
    pub(crate) fn contest(&self) -> Option<Contest> {
        match self.mode {
            Mode::Contested(contested) => Some(contested.ours),
            Mode::Acting | Mode::Paused(_) | Mode::Quiescing(_) | Mode::HandingOver(_) => None,
        }
    }

    /// Another active is met, and which of the two resets is judged.
    fn contend(&mut self, now: Time, ctx: &mut Context) -> Option<Step> {
        let rival = split_brain::rival(now, ctx, self.epoch, self.since);
        match self.mode {
            Mode::Paused(_) | Mode::HandingOver(_) => return None,
            Mode::Acting | Mode::Quiescing(_) => self.meet(now, ctx, rival?),
            Mode::Contested(_) => {}
        }
        let Mode::Contested(mut contested) = self.mode else {
            return None;
        };
        match contested.judge(now, ctx, self.epoch, rival) {
            Verdict::Open { acts } => {
                contested.acts = acts;
                self.mode = Mode::Contested(contested);
                ctx.tell(self.activity(), self.leave.given());
                None
            }
            Verdict::Loses(rule) => {
                (contested.acts, contested.loses) = (false, Some(rule));
                self.mode = Mode::Contested(contested);
                ctx.tell(Activity::Idle, false);
                let (slot, words) = (ctx.slot(), rule.words());
                ctx.log(
                    2,
                    "SPLIT_BRAIN_LOST",
                    format!("{slot} stops acting and will reset: {words}."),
                );
                None
            }
            Verdict::Over => {
                self.act_again(ctx);
                let text = "The other supervisor is not active any more; this one acts.";
                ctx.log(4, "SPLIT_BRAIN_OVER", text.to_owned());
                None
            }
            Verdict::Survives(theirs, rule) => {
                ctx.see(theirs);
                ctx.tell(Activity::Idle, false);
                let (other, words) = (ctx.slot().other(), rule.words());
                ctx.log(
                    2,
                    "SPLIT_BRAIN_WON",
                    format!("{other} resets, this supervisor takes a new epoch: {words}."),
                );
                Some(Step::Activate(Cause::Survived))
            }
            Verdict::Resets(theirs) => {
                ctx.tell(Activity::Idle, false);
                let reason = match contested.loses {
                    Some(rule) => format!("both supervisors were active; {}", rule.words()),
                    None => "both supervisors were active; a higher epoch prevails".to_owned(),
                };
                let had_nothing =
                    contested.loses == Some(Rule::History) && contested.ours.history == ctx.history;
                let loss = if had_nothing {
                    Loss::Succeeded
                } else {
                    split_brain::loss(now, ctx, theirs)
                };
                Some(Step::Reset { reason, loss })
            }
        }
    }

    fn meet(&mut self, now: Time, ctx: &mut Context, theirs: Epoch) {
        if let Mode::Quiescing(quiescing) = self.mode {
            let text = "Failed to switchover (the other supervisor is active)";
            ctx.done(quiescing.command, Err(text.to_owned()));
        }
        let pleaded = self.pleaded.filter(|contest| contest.rival == theirs);
        let contest = pleaded.unwrap_or_else(|| split_brain::contest(now, ctx, self.base, theirs));
        self.pleaded = Some(contest);
        self.mode = Mode::Contested(Contested::new(now, ctx, contest));
        let (ours, lsn) = (self.epoch, ctx.sync.lsn.0);
        ctx.log(
            2,
            "SPLIT_BRAIN",
            format!(
                "Both supervisors are active, under epochs {ours} (ours, up to commit {lsn}) and \
                 {theirs}."
            ),
        );
    }

    fn quiesce(&mut self, now: Time, ctx: &mut Context, quiescing: Quiescing) -> Step {
        if quiescing.timed_out(now) || !self.standby_stable(now, ctx) {
            let text = if quiescing.timed_out(now) {
                "Services did not respond to switchover message in 1 seconds"
            } else {
                "The standby is not ready to take over any more"
            };
            self.act_again(ctx);
            ctx.log_as("SYSMGR", 2, "SWITCHOVER_TIMEOUT", text.to_owned());
            ctx.done(
                quiescing.command,
                Err(format!("Failed to switchover ({text})")),
            );
        } else if quiescing.drained(now, ctx) {
            ctx.tell(Activity::Idle, self.leave.given());
            let handing_over = HandingOver::new(now, ctx);
            self.mode = Mode::HandingOver(handing_over);
            ctx.outputs.push_back(Output::SealGasp(None));
            let message = ControlMessage::HandOver {
                epoch: self.epoch,
                lsn: handing_over.lsn,
            };
            ctx.outputs.push_back(Output::Control(message));
            ctx.done(quiescing.command, Ok(String::new()));
        }
        Step::Stay
    }

    fn act_again(&mut self, ctx: &mut Context) {
        self.mode = Mode::Acting;
        ctx.tell(Activity::Active(self.epoch), self.leave.given());
    }

    /// Log lines about the other supervisor.
    fn note_presence(&mut self, now: Time, ctx: &mut Context) {
        if self.over_at.is_some() {
            return;
        }
        let module = ctx.slot().other().module().0;
        let follows = ctx
            .peer_says(now)
            .is_some_and(|content| matches!(content.state, State::Synchronizing | State::Standby));
        if self.present && !follows {
            let gone = ctx.peer_says(now).is_none_or(|content| {
                matches!(content.state, State::Initializing | State::Resetting)
            });
            if gone {
                self.present = false;
                let text = format!("Module {module} removed (Serial number )");
                ctx.log_as("PLATFORM", 2, "MOD_REMOVE", text);
            }
        } else if !self.present && follows {
            self.present = true;
            let text = format!("Module {module} detected (Serial number )");
            ctx.log_as("PLATFORM", 2, "MOD_DETECT", text);
        }
        let stable = self.standby_stable(now, ctx);
        if stable {
            self.leave.note_stable();
        }
        if stable && !self.stable {
            let text = format!("Supervisor {module} is standby (serial: )");
            ctx.log_as("MODULE", 5, "STANDBY_SUP_OK", text);
        }
        if !stable && self.stable && follows {
            let fault = ctx
                .peer_says(now)
                .and_then(|content| sync::of_standby(ctx, content));
            let why = fault.map_or_else(|| "it says so".to_owned(), |fault| fault.to_string());
            let text = format!("The standby is not ready to take over any more: {why}.");
            ctx.log(4, "STANDBY_NOT_READY", text);
        }
        self.stable = stable;
    }
}

/// How a node came to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// As a standby.
    TakeOver(Ended),
    /// Otherwise.
    Cause(Cause),
}
