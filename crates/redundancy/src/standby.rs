//! The standby.
//!
//! Invariants:
//! - T1 only a stable standby takes over: bulk sync done, all services ready, a valid reservation,
//!   and the active's grant, in its last words on both the control connection and the heartbeat;
//! - T2 the takeover is under the reserved epoch and waits for no disk;
//! - T3 while VEMs are registered, silence alone does not make an active dead: they are asked
//!   (`votes`), and a standby that reaches none of them is isolated;
//! - T4 the pair is restarted at most [`PAIR_RESTARTS_MAX`] times per [`PAIR_RESTART_WINDOW`].

use core::time::Duration;

use model::{Epoch, Lsn, Time};
use wire::control::ControlMessage;
use wire::heartbeat::State;
use wire::supervision::Activity;

use crate::context::{Context, Gap};
use crate::epochs::Reservation;
use crate::input::ServicesHealth;
use crate::output::Output;
use crate::phase::{Ended, Loss, Step};
use crate::sync::Watch;
use crate::votes::{Finding, Votes};

/// Restarts of the pair that an unstable standby may cause …
pub(crate) const PAIR_RESTARTS_MAX: usize = 3;
/// … within this: a fault that three restarts in ten minutes do not mend needs an operator, who
/// then finds a node that waits and says why instead of one that is never up.
pub(crate) const PAIR_RESTART_WINDOW: Duration = Duration::from_secs(600);
/// Silence before an unstable standby restarts the pair (or the hold time, if that is longer). It
/// cannot take over, so nothing is lost by waiting, and a hiccup of the active costs no reset.
const RESTART_PATIENCE: Duration = Duration::from_secs(2);
/// Loss of the bulk state that is tolerated, in hold times: `pss` loses its connection when the
/// active dies, before the silence is long enough to conclude so.
const BULK_LOSS_HOLD_TIMES: u32 = 2;

/// State of a node that follows.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Standby {
    /// The active's epoch.
    pub(crate) epoch: Epoch,
    reservation: Reservation,
    /// The active's leave, as it said on the control connection.
    granted: Option<Epoch>,
    /// The same, as its newest heartbeat says.
    grant_stands: bool,
    /// When `pss` was last known to be in sync.
    in_sync: Option<Time>,
    watch: Watch,
    /// The restarts of the pair are used up.
    failed: bool,
    /// How the active has ended, if it said so.
    ended: Option<Ended>,
    /// What the VEMs say of the active, since it is silent.
    votes: Votes,
    /// Last commit of the active, as it said.
    active_lsn: Lsn,
    /// Why it is not stable, or does not take over.
    pub(crate) reason: String,
    logged: String,
}

/// When a standby asks the VEMs ahead, if the active stays silent.
fn asks_ahead_at(ctx: &Context) -> Option<Time> {
    let silence = ctx.peer.silence_deadline(ctx.own_hold_time())?;
    Some(Time(
        silence
            .0
            .saturating_sub(ctx.timing().interval().as_nanos() as u64),
    ))
}

impl Standby {
    /// Follows the active of `epoch`. From here on this node has a peer, and its own alone mark,
    /// if it bore one, is superseded.
    pub(crate) fn enter(now: Time, ctx: &mut Context, epoch: Epoch) -> Self {
        ctx.see(epoch);
        ctx.questions.clear();
        let base = ctx.peer_says(now).map(|content| content.base);
        // Certain; what else has forked, `pss` finds when it compares the logs.
        let forked = ctx.history.0 > epoch
            || base.is_some_and(|base| ctx.history.0 == base.0 && ctx.history.1 > base.1);
        if forked {
            let lsn = ctx.history.1.0;
            ctx.log(
                2,
                "HISTORY_FORKED",
                format!(
                    "Commits up to {lsn} here are not part of the active's history; they are \
                     archived before its content replaces them."
                ),
            );
        }
        ctx.record.alone = false;
        ctx.record.paired = true;
        ctx.tell(Activity::Standby, false);
        ctx.outputs.push_back(Output::SealGasp(None));
        let slot = ctx.slot();
        ctx.log(
            5,
            "ROLE_CHANGE",
            format!("{slot} -> standby of epoch {epoch}."),
        );
        let mut standby = Self {
            epoch,
            reservation: Reservation::None,
            granted: None,
            grant_stands: false,
            in_sync: None,
            watch: Watch::default(),
            failed: false,
            ended: None,
            votes: Votes::default(),
            active_lsn: Lsn(0),
            reason: String::new(),
            logged: String::new(),
        };
        standby.reserve(now, ctx);
        standby
    }

    fn reserve(&mut self, now: Time, ctx: &mut Context) {
        let epoch = ctx.next_epoch();
        ctx.record.reserved_epoch = epoch;
        self.reservation = Reservation::Writing(epoch, ctx.persist(now));
    }

    /// The epoch it would take over under.
    pub(crate) fn reserved(&self, ctx: &Context) -> Option<Epoch> {
        self.reservation.valid(ctx.seen, ctx.promised)
    }

    pub(crate) fn is_stable(&self, now: Time, ctx: &Context) -> bool {
        self.lacks(now, ctx).is_empty()
    }

    /// The vote under way.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> Option<(u64, Option<Epoch>)> {
        self.votes.asked()
    }

    /// What the VEMs have last said of the active, while they are asked.
    pub(crate) fn finding(&self) -> Option<Finding> {
        self.votes.finding()
    }

    /// It has restarted the pair as often as it may, and waits for an operator.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }

    pub(crate) const fn state(stable: bool) -> State {
        if stable {
            State::Standby
        } else {
            State::Synchronizing
        }
    }

    /// What it lacks for being stable.
    fn lacks(&self, now: Time, ctx: &Context) -> Vec<&'static str> {
        let tolerated = ctx.hold_time() * BULK_LOSS_HOLD_TIMES;
        let parts = [
            (
                self.in_sync
                    .is_some_and(|at| ctx.sync.bulk_done || now.since(at) < tolerated),
                "synchronization",
            ),
            (!self.watch.out_of_step, "the active's newest content"),
            (ctx.health == ServicesHealth::Ready, "ready services"),
            (ctx.peer.fault.is_none(), "a supervisor of its pair"),
            // Its reservation may even be above that epoch, by the incarnation alone.
            (
                ctx.seen.node != ctx.node || ctx.has_led(ctx.seen),
                "an identity of its own (a clone of this supervisor has led)",
            ),
            (self.reserved(ctx).is_some(), "a reserved epoch"),
            (
                self.granted == Some(self.epoch) && self.grant_stands,
                "the active's grant",
            ),
        ];
        parts
            .into_iter()
            .filter(|(holds, _)| !holds)
            .map(|(_, part)| part)
            .collect()
    }

    /// A message of the active.
    pub(crate) fn control(&mut self, ctx: &mut Context, message: &ControlMessage) {
        match message {
            ControlMessage::Grant { epoch, lsn } => {
                if *epoch == self.epoch {
                    self.granted = Some(*epoch);
                    self.active_lsn = self.active_lsn.max(*lsn);
                }
            }
            ControlMessage::Withdraw { epoch } => {
                self.granted = None;
                let message = ControlMessage::Withdrawn { epoch: *epoch };
                ctx.outputs.push_back(Output::Control(message));
            }
            ControlMessage::HandOver { epoch, lsn } => {
                if *epoch == self.epoch {
                    self.active_lsn = self.active_lsn.max(*lsn);
                    self.ended = Some(Ended::HandedOver);
                }
            }
            ControlMessage::Hello(_)
            | ControlMessage::Refused(_)
            | ControlMessage::Withdrawn { .. }
            | ControlMessage::TakenOver { .. }
            | ControlMessage::Reset { .. }
            | ControlMessage::Timing { .. }
            | ControlMessage::ConflictPolicy(_)
            | ControlMessage::Reload
            | ControlMessage::Trust(_) => {}
        }
    }

    /// The last word of a node. True if it was our active's.
    pub(crate) fn gasped(&mut self, gasp: &wire::heartbeat::Gasp) -> bool {
        let ours = gasp.epoch == self.epoch && gasp.incarnation == self.epoch.incarnation;
        if ours {
            self.ended.get_or_insert(Ended::Gasped);
        }
        ours
    }

    pub(crate) fn deadline(&self, ctx: &Context) -> Option<Time> {
        let silence = ctx.peer.silence_deadline(ctx.own_hold_time());
        let ahead = asks_ahead_at(ctx);
        let all = silence.into_iter().chain(ahead);
        let all = all.filter(|deadline| *deadline > ctx.last_turn);
        all.chain(self.votes.deadline(ctx)).min()
    }

    /// The last interval of the hold time is enough for the VEMs to ask the active: so the vote,
    /// when the silence is complete, finds them prepared and takes a round trip. What is asked
    /// ahead binds nobody, and is forgotten if the active is heard after all.
    fn ask_ahead(&mut self, now: Time, ctx: &mut Context, stable: bool) {
        if stable && asks_ahead_at(ctx).is_some_and(|at| now >= at) {
            self.votes.find(now, ctx, None);
        } else {
            self.votes = Votes::default();
        }
    }

    pub(crate) fn evaluate(&mut self, now: Time, ctx: &mut Context) -> Step {
        if ctx.health == ServicesHealth::Failed {
            return Step::Reset {
                reason: "a service failed".to_owned(),
                loss: Loss::None,
            };
        }
        if ctx.peer.fault.is_some() {
            // What a node that is not of this pair has granted does not come back with it.
            (self.granted, self.grant_stands) = (None, false);
        }
        self.listen(now, ctx);
        if ctx.peer_silent(now) && self.votes.says_alone(ctx) {
            // It cannot take its leave back here, and tells so through the VEMs.
            (self.granted, self.grant_stands) = (None, false);
        }
        if let Reservation::Writing(epoch, write) = self.reservation
            && ctx.is_durable(write)
        {
            self.reservation = Reservation::Durable(epoch);
        }
        if self.watch.out_of_step {
            self.in_sync = None;
        } else if ctx.sync.bulk_done {
            self.in_sync = Some(now);
        }
        let lacks = self.lacks(now, ctx);
        self.failed = false;
        let step = match self.active_has_ended(now, ctx) {
            // Not heard yet, but it greets as the active that it has become meanwhile.
            Some(Ended::Restarted) if ctx.peer_greets_as_active() => Step::Negotiate,
            Some(ended) if lacks.is_empty() => self.take_over(now, ctx, ended),
            Some(ended) => self.give_up(now, ctx, ended, &lacks),
            None => {
                self.ask_ahead(now, ctx, lacks.is_empty());
                self.reason = if lacks.is_empty() {
                    String::new()
                } else {
                    format!("not stable: lacks {}", lacks.join(", "))
                };
                Step::Stay
            }
        };
        // Only after the decision: an active's last words must not void what it is decided by.
        if step == Step::Stay && self.reservation.needed(ctx.seen, ctx.promised) {
            self.reserve(now, ctx);
        }
        if self.logged != self.reason {
            self.logged.clone_from(&self.reason);
            let is = if self.reason.is_empty() {
                "stable: ready to take over"
            } else {
                &self.reason
            };
            ctx.log(5, "STANDBY", format!("This supervisor is {is}."));
        }
        step
    }

    fn listen(&mut self, now: Time, ctx: &mut Context) {
        let Some(content) = ctx.peer_says(now).cloned() else {
            return self.watch.look_away();
        };
        if content.state == State::Active && content.epoch == self.epoch {
            self.watch.look(now, ctx, &content);
        } else {
            self.watch.look_away();
        }
        match content.state {
            State::Active | State::Paused => {
                if content.epoch != self.epoch && content.epoch >= ctx.seen {
                    self.epoch = content.epoch;
                    self.granted = None;
                    self.ended = None;
                }
                if content.epoch == self.epoch {
                    self.grant_stands = content.grant;
                    self.active_lsn = self.active_lsn.max(content.lsn);
                }
            }
            State::Yielded => {
                if content.incarnation == self.epoch.incarnation {
                    self.active_lsn = self.active_lsn.max(content.lsn);
                    self.ended.get_or_insert(Ended::Yielded);
                }
            }
            State::Resetting => {
                if content.incarnation == self.epoch.incarnation {
                    // It may have taken back its leave and committed alone, unheard (T1).
                    self.grant_stands &= content.grant;
                    self.active_lsn = self.active_lsn.max(content.lsn);
                    self.ended.get_or_insert(Ended::Gasped);
                }
            }
            State::Initializing | State::Synchronizing | State::Standby => {}
        }
    }

    fn active_has_ended(&self, now: Time, ctx: &Context) -> Option<Ended> {
        let restarted = ctx
            .peer
            .incarnation()
            .is_some_and(|now| now != self.epoch.incarnation);
        if restarted {
            Some(Ended::Restarted)
        } else if self.ended.is_some() {
            self.ended
        } else {
            ctx.peer_silent(now).then_some(Ended::Silent)
        }
    }

    fn take_over(&mut self, now: Time, ctx: &mut Context, ended: Ended) -> Step {
        let Some(epoch) = self.reserved(ctx) else {
            return Step::Stay;
        };
        if ended == Ended::Silent && !self.is_dead(now, ctx, Some(epoch)) {
            return Step::Stay;
        }
        debug_assert!(self.is_stable(now, ctx), "T1");
        if self.active_lsn > ctx.sync.acked {
            let gap = Gap {
                first: ctx.sync.acked.next(),
                last: self.active_lsn,
                on: ctx.slot().other(),
            };
            ctx.log(
                2,
                "COMMITS_MISSING",
                format!("This supervisor takes over without {gap}."),
            );
            ctx.gap = Some(gap);
        }
        Step::TakeOver(epoch, ended)
    }

    /// T3. Says why, if a silent active is not to be taken for dead.
    fn is_dead(&mut self, now: Time, ctx: &mut Context, candidate: Option<Epoch>) -> bool {
        self.reason = match self.votes.find(now, ctx, candidate) {
            Finding::Dead => return true,
            Finding::Asking => "the active is silent; asking the VEMs whether it lives".to_owned(),
            Finding::Alive { alive, silent } => format!(
                "the active is silent here, but {alive} of {} VEMs hear it; asking them again \
                 every {} ms",
                alive + silent,
                ctx.hold_time().as_millis()
            ),
            Finding::Isolated => "isolated: neither the active nor any VEM is reached".to_owned(),
        };
        false
    }

    /// An unstable standby whose active has ended (chapter: "it tries to restart the pair").
    fn give_up(&mut self, now: Time, ctx: &mut Context, ended: Ended, lacks: &[&str]) -> Step {
        match ended {
            // It has restarted already: what is left of restarting the pair is to negotiate.
            Ended::Restarted => return Step::Negotiate,
            // It acts again by itself if nobody takes over; if it dies, it falls silent.
            Ended::Yielded | Ended::HandedOver => {
                let silent = ctx.peer_silent(now);
                if !silent {
                    self.reason = format!("not stable: lacks {}", lacks.join(", "));
                    return Step::Stay;
                }
            }
            // While the VEMs hear it, or nobody is reached, a restart mends nothing.
            Ended::Silent if !self.is_dead(now, ctx, None) => return Step::Stay,
            Ended::Silent if !ctx.peer.silent(now, RESTART_PATIENCE) => {
                let lacks = lacks.join(", ");
                self.reason = format!("not stable: lacks {lacks}, and {}", ended.words());
                return Step::Stay;
            }
            Ended::Silent | Ended::Gasped => {}
        }
        let restarts = &mut ctx.record.pair_restarts;
        // A stamp from the future is from before the machine's start: its age is unknown, and it
        // counts as fresh.
        for at in restarts.iter_mut() {
            *at = (*at).min(now);
        }
        restarts.retain(|at| now.since(*at) < PAIR_RESTART_WINDOW);
        if restarts.len() >= PAIR_RESTARTS_MAX {
            self.failed = true;
            self.reason = format!(
                "isolated: {}, and the pair was restarted {PAIR_RESTARTS_MAX} times already",
                ended.words()
            );
            return Step::Stay;
        }
        restarts.push(now);
        let reason = format!("restart of the pair: {}, standby not stable", ended.words());
        let epoch = ctx.seen;
        Step::RestartPair { reason, epoch }
    }
}
