//! Two actives: who they are, which of them resets, and how both come to the same answer.
//!
//! Each side that finds another active says a [`Contest`] in its heartbeats: what it brings
//! forward against that rival, final once said. Either judges when it has heard the other's, so
//! both judge the same two. The lower epoch stops acting as soon as it hears of the higher.
//!
//! ```text
//!   acting ──hears another active──► Contested ──the rival's contest; this side survives──► a new
//!      ▲                              │  │  └──── this side loses ──► stops, waits            epoch
//!      └── the rival is gone, and ────┘  │                              │
//!          its epoch was the lower       │ the rival is gone or deaf,   │ the rival acts under a
//!                                        ▼ and its epoch is the higher  ▼ new epoch
//!                                      reset, with an archive         reset, with an archive
//! ```
//!
//! The verdict, first rule that tells them apart:
//! 1. history: a side whose commits are all part of the other's resets: it loses nothing;
//! 2. the policy, if both were given the same: `primary-resets`, `newest-config`, `most-vems`;
//! 3. the primary resets (chapter, "Split brain").
//!
//! Invariants:
//! - C1 of two contests exactly one side survives;
//! - C2 a side that loses ends only when it hears that the other has survived, or that it must
//!   end whoever survives since its epoch is the lower: so both never end for one contest;
//! - C3 the survivor acts again under a new epoch above every one seen.

use core::time::Duration;

use model::{ConflictPolicy, Epoch, Incarnation, Lsn, Role, Time};
use serde::Serialize;
use wire::heartbeat::{Contest, State};

use crate::context::Context;
use crate::phase::Loss;

/// How long a side that has stopped waits for the other to judge, or to act again under its new
/// epoch: several round trips, and a write of the node file on a busy disk. Beyond that, the
/// higher epoch goes on as if nothing had happened, and the lower resets.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Which rule told the two sides apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Rule {
    /// One side's commits are all part of the other's.
    History,
    /// The policy.
    Policy(ConflictPolicy),
    /// The chapter's: the policies differ, or do not tell them apart.
    Primary,
}

impl Rule {
    pub(crate) fn words(self) -> String {
        match self {
            Self::History => "all its commits are part of the other's".to_owned(),
            Self::Policy(policy) => format!("by the policy {policy}"),
            Self::Primary => "the primary resets where the policy does not decide".to_owned(),
        }
    }
}

/// Whether this side survives, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fate {
    pub(crate) survives: bool,
    pub(crate) rule: Rule,
}

/// Judges between two sides (C1): seen from the other, the same rule says the opposite.
pub(crate) fn fate(role: Role, ours: &Contest, theirs: &Contest) -> Fate {
    let has =
        |one: &Contest, history| contained(history, one.base) || contained(history, one.history);
    let (we, they) = (has(theirs, ours.history), has(ours, theirs.history));
    if we != they {
        let (survives, rule) = (they, Rule::History);
        return Fate { survives, rule };
    }
    let survives = match ours.policy {
        policy if policy != theirs.policy => None,
        ConflictPolicy::PrimaryResets => None,
        ConflictPolicy::NewestConfig => {
            // An age that nobody knows is the oldest.
            let age = |contest: &Contest| contest.config_age_s.map_or(u64::MAX, u64::from);
            let (ours, theirs) = (age(ours), age(theirs));
            (ours != theirs).then_some(ours < theirs)
        }
        ConflictPolicy::MostVems => (ours.vems != theirs.vems).then_some(ours.vems > theirs.vems),
    };
    let chapters = role == Role::Secondary;
    match survives {
        Some(survives) => Fate {
            survives,
            rule: Rule::Policy(ours.policy),
        },
        None if ours.policy == theirs.policy && ours.policy == ConflictPolicy::PrimaryResets => {
            Fate {
                survives: chapters,
                rule: Rule::Policy(ours.policy),
            }
        }
        None => Fate {
            survives: chapters,
            rule: Rule::Primary,
        },
    }
}

/// All commits up to `history` are part of a log that reached `base`. What is certain from two
/// positions alone: an epoch's commits are made by one node, one after the other.
pub(crate) fn contained(history: (Epoch, Lsn), base: (Epoch, Lsn)) -> bool {
    history.1 == Lsn(0) || (history.0 == base.0 && history.1 <= base.1)
}

/// An active that has met another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Contested {
    pub(crate) ours: Contest,
    /// The start of the rival.
    incarnation: Option<Incarnation>,
    since: Time,
    /// It has been judged, and this side loses.
    pub(crate) loses: Option<Rule>,
    /// Its services decide meanwhile.
    pub(crate) acts: bool,
}

/// What is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not decided: wait, with or without acting meanwhile.
    Open {
        /// This side's epoch is the higher, and it has not been judged to lose.
        acts: bool,
    },
    /// This side loses, as of now: stop.
    Loses(Rule),
    /// The rival is gone, and its epoch was the lower.
    Over,
    /// Act again under a new epoch.
    Survives(Epoch, Rule),
    /// End, for the epoch that prevails.
    Resets(Epoch),
}

impl Contested {
    /// A side that brings `ours` forward. Its commits may go on, what it has said does not change.
    pub(crate) fn new(now: Time, ctx: &Context, ours: Contest) -> Self {
        Self {
            ours,
            incarnation: ctx.peer.incarnation(),
            since: now,
            loses: None,
            acts: true,
        }
    }

    pub(crate) fn deadline(&self) -> Time {
        self.since + PATIENCE
    }

    /// Judges, for a node of `epoch`; `rival` as [`rival`] finds it now.
    pub(crate) fn judge(
        &self,
        now: Time,
        ctx: &Context,
        epoch: Epoch,
        rival: Option<Epoch>,
    ) -> Verdict {
        let superseded = ctx.seen > epoch;
        let patient = now < self.deadline();
        let content = ctx.peer_says(now);
        let Some(theirs) = rival else {
            // A rival that has survived says so only when its new epoch is durable.
            let settles = content.is_some_and(|content| content.state == State::Initializing)
                && ctx.peer.incarnation() == self.incarnation;
            return match superseded {
                _ if settles && patient => Verdict::Open { acts: false },
                true => Verdict::Resets(ctx.seen),
                false => Verdict::Over,
            };
        };
        if theirs != self.ours.rival {
            // The same rival under a new epoch has survived. Any other begins a new contest.
            let survived = theirs > epoch && ctx.peer.incarnation() == self.incarnation;
            return if survived {
                Verdict::Resets(theirs)
            } else {
                Verdict::Over
            };
        }
        let said = content
            .and_then(|content| content.contest)
            .filter(|contest| contest.rival == epoch);
        match (said, self.loses) {
            (Some(said), None) => {
                let fate = fate(ctx.role, &self.ours, &said);
                if fate.survives {
                    Verdict::Survives(theirs, fate.rule)
                } else {
                    Verdict::Loses(fate.rule)
                }
            }
            (_, Some(_)) if patient => Verdict::Open { acts: false },
            (None, None) if patient || !superseded => Verdict::Open { acts: !superseded },
            (Some(_) | None, _) if superseded => Verdict::Resets(ctx.seen),
            (Some(_) | None, _) => Verdict::Over,
        }
    }
}

/// What this side brings forward against `rival`.
pub(crate) fn contest(now: Time, ctx: &Context, base: (Epoch, Lsn), rival: Epoch) -> Contest {
    Contest {
        rival,
        history: ctx.history,
        base,
        policy: ctx.record.conflict_policy,
        config_age_s: ctx.config_age_s(now),
        vems: ctx.vems.obeying,
    }
}

/// What a node leaves behind that ends for the epoch of `rival`: nothing that `rival` lacks, if
/// that is known.
pub(crate) fn loss(now: Time, ctx: &Context, rival: Epoch) -> Loss {
    let has_all = ctx.peer_says(now).is_some_and(|content| {
        content.state == State::Active
            && content.epoch == rival
            && (contained(ctx.history, content.base)
                || contained(ctx.history, (content.epoch, content.lsn)))
    });
    if has_all {
        Loss::Succeeded
    } else {
        Loss::Forked(rival)
    }
}

/// The other active's epoch, if there is one. `since`: when this node began to act under `epoch`.
pub(crate) fn rival(now: Time, ctx: &Context, epoch: Epoch, since: Time) -> Option<Epoch> {
    let says = ctx.peer_says(now);
    // A node that greets as active, on a connection made since, is one: the greeting may come
    // before the first heartbeat.
    let greets = ctx.peer.greeted_since(since).filter(|hello| hello.active);
    let acts = says
        .filter(|content| content.state == State::Active)
        // A lower epoch may be an old frame: only a greeting, or an answer to a beat of ours,
        // proves that it is still in force. A higher one needs no proof.
        .filter(|content| {
            content.epoch > epoch || greets.is_some() || ctx.peer.answered_since(since)
        })
        .map(|content| content.epoch);
    let greets = greets
        .filter(|_| ctx.peer.only_greeted())
        .map(|hello| hello.highest_epoch);
    // So is one whose word that it has taken over comes before its first heartbeat since.
    let took_over = ctx
        .peer
        .taken_over()
        .filter(|theirs| *theirs > epoch && says.is_none_or(|content| content.epoch < *theirs));
    acts.or(greets)
        .or(took_over)
        .filter(|theirs| *theirs != epoch)
}

#[cfg(test)]
mod tests;
