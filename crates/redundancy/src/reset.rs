//! Ending: the last words, the reason on disk, the reset.
//!
//! Order of yielding: services are told to stop acting → heartbeats say *yielded* → a gasp on all
//! links until it is heard → reset. Neither a deaf peer nor a dead disk keeps the node from it.
//!
//! Order of losing a conflict: services are told to stop acting → the archive is asked for →
//! it is durable, or its deadline has passed → reset. Nothing is lost by not waiting: the store
//! archives by itself before content that has forked is replaced. The wait is for the operator,
//! who is to find the archive although the store's process is about to end.

use core::time::Duration;

use model::{Epoch, Time};
use wire::control::ControlMessage;
use wire::heartbeat::{Gasp, State};
use wire::supervision::Activity;

use crate::context::Context;
use crate::output::Output;

/// How long the reset waits for the reason to be durable and the gasp to be heard.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long the reset of a node that has lost a conflict waits for the archive: a configuration
/// and a table of connections are a few MB, and a disk that takes longer is ailing.
pub(crate) const ARCHIVE_DEADLINE: Duration = Duration::from_secs(5);
/// Number of the one archive that one start of the node asks for.
const ARCHIVE: u64 = 1;

/// State of a node that is ending.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Resetting {
    reason: String,
    write: u64,
    gasp: Option<Gasp>,
    heard: bool,
    until: Time,
    done: bool,
    /// What the last heartbeats of the active granted: a standby must still be able to act on it.
    pub(crate) grant: bool,
    pub(crate) epoch: Option<Epoch>,
    /// The active of this epoch is to reset too.
    pub(crate) restart: Option<Epoch>,
    /// Until when the archive is waited for.
    archive_by: Option<Time>,
}

impl Resetting {
    /// Ends an epoch, if `yields` names it, and the node.
    pub(crate) fn enter(
        now: Time,
        ctx: &mut Context,
        reason: String,
        yields: Option<Epoch>,
        grant: bool,
    ) -> Self {
        ctx.tell(Activity::Idle, false);
        ctx.outputs.push_back(Output::SealGasp(None));
        let gasp = yields.map(|epoch| Gasp {
            epoch,
            incarnation: ctx.incarnation,
        });
        ctx.note_reset(&reason);
        let write = ctx.persist(now);
        ctx.log(2, "RESET", format!("This supervisor resets: {reason}."));
        Self {
            reason,
            write,
            gasp,
            heard: false,
            until: now + LAST_WORDS,
            done: false,
            grant,
            epoch: yields,
            restart: None,
            archive_by: None,
        }
    }

    /// Orders the active of `epoch` to reset: on the control connection, and in every beat on every
    /// link for as long as last words are waited for. An active that is dead in part may have
    /// either of them left.
    pub(crate) fn restart(&mut self, ctx: &mut Context, epoch: Epoch) {
        self.restart = Some(epoch);
        let reason = self.reason.clone();
        let message = ControlMessage::Reset { reason, epoch };
        ctx.outputs.push_back(Output::Control(message));
    }

    /// Has what this node committed archived before the end.
    pub(crate) fn archive(&mut self, now: Time, ctx: &mut Context, rival: Epoch) {
        self.archive_by = Some(now + ARCHIVE_DEADLINE);
        ctx.outputs.push_back(Output::Archive {
            number: ARCHIVE,
            rival,
            reason: self.reason.clone(),
        });
    }

    /// It is durable.
    pub(crate) fn archived(&mut self, number: u64) {
        if number == ARCHIVE {
            self.archive_by = None;
        }
    }

    /// The gasp itself, once heartbeats say the same.
    pub(crate) fn gasp(&self, ctx: &mut Context) {
        if let Some(gasp) = &self.gasp {
            ctx.outputs.push_back(Output::Gasp(gasp.clone()));
        }
    }

    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) const fn state(&self) -> State {
        if self.epoch.is_some() {
            State::Yielded
        } else {
            State::Resetting
        }
    }

    pub(crate) fn heard(&mut self, gasp: &Gasp) {
        self.heard |= self.gasp.as_ref() == Some(gasp);
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        (!self.done).then_some(self.archive_by.unwrap_or(self.until))
    }

    pub(crate) fn evaluate(&mut self, now: Time, ctx: &mut Context) {
        if self.done {
            return;
        }
        let superseded = self.epoch.is_some_and(|epoch| ctx.seen > epoch);
        let said = (self.gasp.is_none() && self.restart.is_none()) || self.heard || superseded;
        if self.archive_by.is_some_and(|by| now < by) {
            return;
        }
        if self.archive_by.take().is_some() {
            ctx.log(
                3,
                "ARCHIVE_LATE",
                "The archive is not written yet; it will be before anything is replaced.".into(),
            );
        }
        if now >= self.until || (said && ctx.is_durable(self.write)) {
            self.done = true;
            ctx.outputs.push_back(Output::Reset {
                reason: self.reason.clone(),
            });
        }
    }
}
