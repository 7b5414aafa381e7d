//! Votes: the VEMs are asked whether a silent active lives.
//!
//! Two nodes cannot tell a dead peer from a cut link; the VEMs, which reach both, can help. Each
//! asks the active on its own connection and answers *alive* or *silent* within one heartbeat
//! interval; one that is not connected or does not answer is absent.
//!
//! Invariants:
//! - B1 only answers to the newest vote, for the epoch that is reserved now, are counted;
//! - B2 more *alive* than *silent* forbids to conclude that the active is dead; a tie does not;
//! - B3 with VEMs registered, no answer at all forbids it too: the node is isolated;
//! - B4 a takeover rests on a vote with a candidate, that is, on promises.
//!
//! In the last interval before the silence is complete the standby asks ahead, for no promise
//! (`standby`); the first vote then follows from that question:
//!
//! ```text
//!              ┌── alive ──► ask again a hold time later, for no promise ──┐
//!   vote with ─┤                                                           ├─ silent: vote with a
//!   candidate  ├── nobody answers: isolated; ask again ────────────────────┘  candidate again
//!              └── silent, or a tie ──► the active is dead
//! ```
//!
//! A vote with a candidate binds the VEMs that answer *silent*: they refuse the active, should it
//! live, until it takes a new epoch. So once the first has not led to a takeover, mere questions
//! are asked until their answer would have: a cut that lasts costs a living active one new epoch,
//! not one per vote.
//!
//! No VEM registered: the chapter's rule decides alone. A death told by the active itself (yield,
//! gasp, handover) needs no vote.

use core::time::Duration;

use model::{Epoch, Time};
use serde::Serialize;
use wire::supervision::Tally;

use crate::context::Context;

/// How long after the active's time is up a VEM's answer is waited for: a round trip to the VEM,
/// and its write of the promise on a busy disk. One that comes later still counts until the next
/// vote.
const ANSWER_GRACE: Duration = Duration::from_millis(50);

/// What the VEMs say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) enum Finding {
    /// Not known yet.
    #[default]
    Asking,
    /// Most that answered hear the active.
    Alive {
        /// So many.
        alive: u16,
        /// So many do not.
        silent: u16,
    },
    /// None can be asked, or none answers.
    Isolated,
    /// The active is dead, as far as anybody can tell.
    Dead,
}

/// The vote under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Round {
    vote: u64,
    candidate: Option<Epoch>,
    asked: Time,
    /// When whoever has not answered counts as absent.
    until: Time,
}

/// The votes since the active is silent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Votes {
    round: Option<Round>,
    /// What the last vote found.
    last: Finding,
    /// When no VEM could be asked, or none answered, last.
    isolated: Option<Time>,
    /// A vote has not led to a takeover: ask without a candidate first.
    cautious: bool,
}

impl Votes {
    /// What the VEMs say of a silent active, to a standby that would take over under `candidate`
    /// (`None`: it could not, and wants to know all the same). Asks them as needed.
    pub(crate) fn find(
        &mut self,
        now: Time,
        ctx: &mut Context,
        candidate: Option<Epoch>,
    ) -> Finding {
        if ctx.vems.registered == 0 {
            return Finding::Dead;
        }
        if ctx.vems.connected == 0 {
            self.round = None;
            return self.note(now, Finding::Isolated);
        }
        let current = self
            .round
            .filter(|round| round.candidate.is_none() || round.candidate == candidate);
        let Some(round) = current else {
            return self.ask(now, ctx, candidate.filter(|_| !self.cautious));
        };
        match judge(now, round, ctx.vems.tally) {
            Finding::Asking => self.last,
            // Who cannot take over acts on it only later: it may have changed.
            Finding::Dead if candidate.is_none() && now.since(round.asked) >= ctx.hold_time() => {
                self.last = Finding::Asking;
                self.ask(now, ctx, None)
            }
            Finding::Dead => self.conclude(now, ctx, round, candidate),
            finding @ (Finding::Alive { .. } | Finding::Isolated) => {
                self.note(now, finding);
                if now.since(round.asked) >= ctx.hold_time() {
                    self.ask(now, ctx, None);
                }
                finding
            }
        }
    }

    /// The active has told a VEM, since it is silent here, that it may commit without this standby.
    pub(crate) fn says_alone(&self, ctx: &Context) -> bool {
        self.round
            .is_some_and(|round| counted(round, ctx.vems.tally).alone)
    }

    /// What was found last, while VEMs are or would be asked.
    pub(crate) fn finding(&self) -> Option<Finding> {
        let asks = self.round.is_some() || self.isolated.is_some();
        asks.then_some(self.last)
    }

    /// The vote under way.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> Option<(u64, Option<Epoch>)> {
        self.round.map(|round| (round.vote, round.candidate))
    }

    /// When there is something to do although nothing happens.
    pub(crate) fn deadline(&self, ctx: &Context) -> Option<Time> {
        let hold_time = ctx.hold_time();
        let round = self
            .round
            .map(|round| [round.until, round.asked + hold_time]);
        let isolated = self.isolated.map(|last| last + hold_time);
        let all = round.into_iter().flatten().chain(isolated);
        all.filter(|deadline| *deadline > ctx.last_turn).min()
    }

    fn ask(&mut self, now: Time, ctx: &mut Context, candidate: Option<Epoch>) -> Finding {
        self.round = Some(Round {
            vote: ctx.ask_votes(candidate),
            candidate,
            asked: now,
            until: now + ctx.timing().interval() + ANSWER_GRACE,
        });
        self.last
    }

    /// Takes note of a finding that forbids a takeover.
    fn note(&mut self, now: Time, finding: Finding) -> Finding {
        self.isolated = (finding == Finding::Isolated).then_some(now);
        self.cautious = true;
        self.last = finding;
        finding
    }

    /// Most VEMs find the active silent. What cut this node off from VEMs and active alike rarely
    /// heals towards both in the same instant: after that the active gets another hold time.
    fn conclude(
        &mut self,
        now: Time,
        ctx: &mut Context,
        round: Round,
        candidate: Option<Epoch>,
    ) -> Finding {
        if round.candidate.is_some() || candidate.is_none() {
            return Finding::Dead;
        }
        let waits = |last: Time| now.since(last) < ctx.hold_time();
        if self.isolated.is_some_and(waits) {
            return Finding::Isolated;
        }
        (self.isolated, self.last) = (None, Finding::Asking);
        self.ask(now, ctx, candidate)
    }
}

/// Answers to an older vote, or for another epoch, count nothing (B1).
fn counted(round: Round, tally: Tally) -> Tally {
    let ours = (tally.vote, tally.candidate) == (round.vote, round.candidate);
    if ours { tally } else { Tally::default() }
}

/// Judges a vote as soon as the answers that are missing can change nothing.
fn judge(now: Time, round: Round, tally: Tally) -> Finding {
    let Tally {
        vote,
        open,
        alive,
        silent,
        ..
    } = counted(round, tally);
    let over = now >= round.until || (vote == round.vote && open == 0);
    let open = if over { 0 } else { open };
    if alive + silent == 0 {
        return if over {
            Finding::Isolated
        } else {
            Finding::Asking
        };
    }
    if alive > silent + open {
        Finding::Alive { alive, silent }
    } else if silent >= alive + open {
        Finding::Dead
    } else {
        Finding::Asking
    }
}

#[cfg(test)]
mod tests;
