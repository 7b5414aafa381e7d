//! The standby's grant and the alone mark: who holds what was committed.
//!
//! Invariants:
//! - A1 while a grant stands, the node file does not bear the alone mark;
//! - A2 leave to commit alone is given only when no grant stands and the mark is durable;
//! - A3 a grant is given only to a standby that holds every commit up to a position noted after
//!   its bulk sync, with an equal configuration hash.
//!
//! ```text
//!   None ──standby has caught up──► Preparing ──mark cleared, durable──► Given
//!    ▲                                  │ fell behind                      │ commit without it,
//!    │◄─────────────────────────────────┘                                  ▼ fell behind
//!    └──── acknowledged, silent for the hold time, or restarted ─── Withdrawing
//! ```

use core::time::Duration;

use model::{Epoch, Incarnation, Lsn, Time};
use wire::control::ControlMessage;
use wire::heartbeat::{Content, State};

use crate::context::Context;
use crate::output::Output;
use crate::sync::{self, Fault};

/// Restarts in a row after which a standby that never becomes stable is shown as failed (behaviour
/// §1: three attempts).
const FAILED_RESTARTS: u32 = 3;
/// A grant that the standby does not seem to have is sent again after this.
const GRANT_AGAIN: Duration = Duration::from_millis(500);

/// Hold times after which a standby that does not answer a withdrawal counts as deaf: one until it
/// asks the VEMs again, and the vote.
const DEAF_HOLD_TIMES: u32 = 2;

/// How the standby stands to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Grant {
    /// It may not take over.
    None,
    /// The alone mark is being cleared by this write.
    Preparing(u64),
    /// It may take over.
    Given,
    /// Told that it may not any more, since then; not known whether it has heard.
    Withdrawing(Time),
}

/// The active's side of the grant.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Leave {
    epoch: Epoch,
    pub(crate) grant: Grant,
    /// The standby that the grant is about.
    standby: Option<Incarnation>,
    /// Position noted when its bulk sync was first seen done (A3).
    target: Option<Lsn>,
    /// Since when it lags or differs.
    behind_since: Option<Time>,
    acked: Lsn,
    /// Starts of the other node since it was last stable.
    restarts: u32,
    sent: Time,
    /// The write that made the alone mark durable.
    mark: Option<u64>,
    /// Why there is no stable standby.
    pub(crate) lacks: String,
    /// The posture with which services lead, until all have applied it: what `pss` says of
    /// synchronisation before is of the time when this node followed (A3).
    leading: Option<u64>,
}

impl Leave {
    /// No standby yet. The record's alone mark may still be on its way to the disk. `leading` is
    /// the posture that tells services to lead.
    pub(crate) fn new(epoch: Epoch, leading: u64) -> Self {
        Self {
            epoch,
            grant: Grant::None,
            standby: None,
            target: None,
            behind_since: None,
            acked: Lsn(0),
            restarts: 0,
            sent: Time(0),
            mark: None,
            lacks: String::new(),
            leading: Some(leading),
        }
    }

    /// All services have applied the posture with this number.
    pub(crate) fn posture_applied(&mut self, sequence: u64) {
        self.leading = self.leading.filter(|leading| sequence < *leading);
    }

    pub(crate) fn given(&self) -> bool {
        self.grant == Grant::Given
    }

    /// Its holder is not trusted any more: nothing it might do under it counts.
    pub(crate) fn void(&mut self) {
        self.grant = Grant::None;
        self.target = None;
    }

    /// The standby is stable.
    pub(crate) const fn note_stable(&mut self) {
        self.restarts = 0;
    }

    /// The standby has restarted again and again without becoming stable.
    pub(crate) const fn standby_failed(&self) -> bool {
        self.restarts >= FAILED_RESTARTS
    }

    /// Someone might take over: the grant is not certainly void.
    pub(crate) const fn outstanding(&self) -> bool {
        matches!(self.grant, Grant::Given | Grant::Withdrawing(_))
    }

    /// The standby has acknowledged that its grant is void.
    pub(crate) fn withdrawn(&mut self, epoch: Epoch) {
        if epoch == self.epoch && matches!(self.grant, Grant::Withdrawing(_)) {
            self.grant = Grant::None;
        }
    }

    /// Advances the grant; to be called in every turn of an acting active.
    pub(crate) fn advance(&mut self, now: Time, ctx: &mut Context) {
        self.forget_a_restarted_standby(ctx);
        let lacks = self.what_lacks(now, ctx);
        self.lacks = lacks.clone().unwrap_or_default();
        match self.grant {
            Grant::None if lacks.is_none() => {
                ctx.record.alone = false;
                ctx.record.paired = true;
                self.mark = None;
                self.grant = Grant::Preparing(ctx.persist(now));
            }
            Grant::None => self.mark_alone(now, ctx),
            Grant::Preparing(write) => {
                if lacks.is_some() {
                    self.grant = Grant::None;
                } else if ctx.is_durable(write) {
                    self.give(now, ctx);
                }
            }
            Grant::Given => self.keep_or_withdraw(now, ctx),
            Grant::Withdrawing(since) => self.confirm_withdrawal(now, ctx, since),
        }
        self.answer(now, ctx);
    }

    fn forget_a_restarted_standby(&mut self, ctx: &Context) {
        if self.standby != ctx.peer.incarnation() {
            self.restarts += u32::from(self.standby.is_some());
            self.standby = ctx.peer.incarnation();
            self.target = None;
            self.behind_since = None;
            // A node that has started afresh holds no grant.
            self.grant = Grant::None;
        }
    }

    /// What the standby lacks for a grant; `None` is nothing.
    fn what_lacks(&mut self, now: Time, ctx: &Context) -> Option<String> {
        let Some(content) = ctx.peer_says(now) else {
            return Some("no standby is heard".into());
        };
        if !matches!(content.state, State::Synchronizing | State::Standby) {
            return Some("the other supervisor does not follow yet".into());
        }
        if content.epoch != self.epoch {
            return Some("the standby follows another epoch".into());
        }
        if !ctx.peer.connected {
            return Some("no control connection to the standby".into());
        }
        if self.leading.is_some() {
            return Some("services do not lead yet".into());
        }
        let fault = sync::of_standby(ctx, content);
        if !ctx.sync.bulk_done {
            self.target = None;
            return Some("bulk synchronization is in progress".into());
        }
        let target = *self.target.get_or_insert(ctx.sync.lsn);
        if ctx.sync.acked < target {
            let lacks = target.0 - ctx.sync.acked.0;
            return Some(Fault::Behind(lacks).to_string());
        }
        match fault {
            // Beyond the target it may lag a little.
            Some(Fault::Behind(_)) | None => {}
            Some(fault) => return Some(fault.to_string()),
        }
        if content.config_hash != ctx.sync.config_hash {
            return Some("the standby is about to apply a change of the configuration".into());
        }
        (!ctx.questions.is_empty()).then(|| "a commit waits to go ahead alone".into())
    }

    fn mark_alone(&mut self, now: Time, ctx: &mut Context) {
        if !ctx.record.alone || self.mark.is_none() {
            ctx.record.alone = true;
            self.mark = Some(ctx.persist(now));
        }
    }

    fn give(&mut self, now: Time, ctx: &mut Context) {
        self.grant = Grant::Given;
        self.behind_since = None;
        // Whoever had what was missing has followed, and archived it.
        ctx.gap = None;
        self.send_grant(now, ctx);
    }

    fn send_grant(&mut self, now: Time, ctx: &mut Context) {
        self.sent = now;
        let message = ControlMessage::Grant {
            epoch: self.epoch,
            lsn: ctx.sync.acked,
        };
        ctx.outputs.push_back(Output::Control(message));
    }

    fn keep_or_withdraw(&mut self, now: Time, ctx: &mut Context) {
        if !ctx.questions.is_empty() {
            return self.withdraw(now, ctx, "a commit goes ahead without the standby");
        }
        if ctx.peer.fault.is_some() && ctx.stranger_says(now).is_some() {
            return self.withdraw(now, ctx, "it is not of this pair any more");
        }
        // A silent standby keeps its grant until a commit has to go ahead without it: it may be
        // the one that is right about who is dead.
        let Some(content) = ctx.peer_says(now).cloned() else {
            return;
        };
        if let Some(why) = self.behind(now, ctx, &content) {
            return self.withdraw(now, ctx, &why.to_string());
        }
        let unsure = content.state == State::Synchronizing;
        if unsure && now.since(self.sent) >= GRANT_AGAIN.max(ctx.hold_time()) {
            self.send_grant(now, ctx);
        }
    }

    /// Why the standby has been out of step for too long, if it has (sync Y1).
    fn behind(&mut self, now: Time, ctx: &Context, content: &Content) -> Option<Fault> {
        let advanced = ctx.sync.acked > self.acked;
        self.acked = ctx.sync.acked;
        let fault = sync::of_standby(ctx, content)
            .filter(|fault| !(advanced && matches!(fault, Fault::Behind(_))));
        let Some(fault) = fault else {
            self.behind_since = None;
            return None;
        };
        let since = *self.behind_since.get_or_insert(now);
        (sync::lasted(now, ctx, since) >= sync::limit(ctx)).then_some(fault)
    }

    fn withdraw(&mut self, now: Time, ctx: &mut Context, why: &str) {
        self.grant = Grant::Withdrawing(now);
        self.target = None;
        ctx.outputs
            .push_back(Output::Control(ControlMessage::Withdraw {
                epoch: self.epoch,
            }));
        ctx.log(
            4,
            "GRANT_WITHDRAWN",
            format!("The standby may not take over: {why}."),
        );
    }

    /// A standby that is heard but deaf cannot answer; VEMs tell it, within a hold time and a vote,
    /// that its grant is void. What it says two hold times later is taken for an answer.
    fn confirm_withdrawal(&mut self, now: Time, ctx: &mut Context, since: Time) {
        let deaf = ctx.vems.registered > 0 && now.since(since) >= ctx.hold_time() * DEAF_HOLD_TIMES;
        let says_so = ctx.stranger_says(now).is_some_and(|content| {
            content.state != State::Standby && (deaf || ctx.peer.answered_since(since))
        });
        if says_so || ctx.peer_silent(now) {
            self.grant = Grant::None;
            self.mark_alone(now, ctx);
        }
    }

    fn answer(&mut self, now: Time, ctx: &mut Context) {
        if ctx.questions.is_empty() || self.grant != Grant::None {
            return;
        }
        self.mark_alone(now, ctx);
        if self.mark.is_some_and(|write| ctx.is_durable(write)) {
            for question in core::mem::take(&mut ctx.questions) {
                ctx.outputs.push_back(Output::AloneGranted { question });
            }
        }
    }
}
