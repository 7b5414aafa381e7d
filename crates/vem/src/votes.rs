//! A standby asks whether the active lives.
//!
//! The VEM asks every other gateway that is connected whether it acts, and tells the standby *alive*
//! as soon as one answers under an epoch not below the one obeyed, *silent* when none has answered
//! in time or none is left to answer.
//!
//! Invariants:
//! - at most one vote of each gateway is under way;
//! - a vote under way waits for at least one gateway, never for the one that asked.
//!
//! A vote that follows a mere question of the same standby within its time, and finds the gateways
//! that did not answer still quiet, is *silent* at once.
//!
//! | vote | answered under a current epoch | the last gateway asked is gone | time is up |
//! |---|---|---|---|
//! | none | – | – | – |
//! | under way | → none, *alive* | → none, *silent* | → none, *silent*; once asked anew if noticed late |

use core::time::Duration;

use model::{Epoch, Time};

use crate::types::GatewayId;

/// Longest time a standby can give the active to answer: the longest heartbeat interval.
pub(crate) const WITHIN_MAX: Duration = Duration::from_secs(10);
/// Shortest time, whatever the standby says: the shortest heartbeat interval. A round trip takes
/// well below a millisecond; the rest is for two processes to be scheduled.
pub(crate) const WITHIN_MIN: Duration = Duration::from_millis(10);

/// One vote under way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    gateway: GatewayId,
    request: Request,
    question: u64,
    asked: Vec<GatewayId>,
    until: Time,
    asked_anew: bool,
}

/// What a standby asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) vote: u64,
    pub(crate) candidate: Option<Epoch>,
    pub(crate) within: Duration,
}

/// A vote has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) gateway: GatewayId,
    pub(crate) request: Request,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A vote has ended.
    Ended(Outcome),
    /// These are to be asked (again).
    Inquire {
        question: u64,
        gateways: Vec<GatewayId>,
    },
}

/// The votes under way, at most one of each gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Votes {
    pending: Vec<Pending>,
    questions: u64,
    quiet: Option<Quiet>,
}

/// Gateways that have not answered a mere question in its time, nor said anything since: the vote
/// that follows it at once need not ask them again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Quiet {
    asked_by: GatewayId,
    gateways: Vec<GatewayId>,
    until: Time,
}

impl Votes {
    /// Begins a vote for `gateway`, to be answered by `others`; replaces an older one of it.
    pub(crate) fn begin(
        &mut self,
        now: Time,
        gateway: GatewayId,
        request: Request,
        others: Vec<GatewayId>,
    ) -> Due {
        self.forget(gateway);
        let quiet = self.quiet.take();
        let known = quiet.is_some_and(|quiet| {
            quiet.asked_by == gateway && now <= quiet.until && quiet.gateways == others
        });
        if others.is_empty() || known {
            return Due::Ended(Outcome { gateway, request });
        }
        self.questions += 1;
        let question = self.questions;
        self.pending.push(Pending {
            gateway,
            request,
            question,
            asked: others.clone(),
            until: now + request.within,
            asked_anew: false,
        });
        let gateways = others;
        Due::Inquire { question, gateways }
    }

    /// `gateway` acts, under an epoch that counts.
    pub(crate) fn acts(&mut self, gateway: GatewayId, question: u64) -> Option<Outcome> {
        let answers =
            |pending: &Pending| pending.question == question && pending.asked.contains(&gateway);
        let at = self.pending.iter().position(answers)?;
        let Pending {
            gateway, request, ..
        } = self.pending.remove(at);
        Some(Outcome { gateway, request })
    }

    /// `gateway` has said something.
    pub(crate) fn heard(&mut self, gateway: GatewayId) {
        self.quiet
            .take_if(|quiet| quiet.gateways.contains(&gateway));
    }

    /// The connection of `gateway` is gone, or it asks anew.
    pub(crate) fn forget(&mut self, gateway: GatewayId) {
        self.pending.retain(|pending| pending.gateway != gateway);
    }

    /// `gateway` cannot answer any more.
    pub(crate) fn lost(&mut self, gateway: GatewayId) {
        self.forget(gateway);
        for pending in &mut self.pending {
            pending.asked.retain(|asked| *asked != gateway);
        }
    }

    /// The next thing that is due.
    pub(crate) fn due(&mut self, now: Time) -> Option<Due> {
        let ready = |pending: &Pending| pending.asked.is_empty() || pending.until <= now;
        let at = self.pending.iter().position(ready)?;
        let pending = &mut self.pending[at];
        // Noticed so late, it was this VEM that did not listen.
        let late = now.since(pending.until) >= pending.request.within;
        if late && !pending.asked_anew && !pending.asked.is_empty() {
            self.questions += 1;
            pending.question = self.questions;
            pending.until = now + pending.request.within;
            pending.asked_anew = true;
            let (question, gateways) = (pending.question, pending.asked.clone());
            return Some(Due::Inquire { question, gateways });
        }
        let ended = self.pending.remove(at);
        let Pending {
            gateway, request, ..
        } = ended;
        if request.candidate.is_none() && !ended.asked.is_empty() {
            self.quiet = Some(Quiet {
                asked_by: gateway,
                gateways: ended.asked,
                until: now + request.within,
            });
        }
        Some(Due::Ended(Outcome { gateway, request }))
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.pending.iter().map(|pending| pending.until).min()
    }

    pub(crate) fn check(&self) {
        for (index, pending) in self.pending.iter().enumerate() {
            let later = &self.pending[index + 1..];
            assert!(
                later.iter().all(|other| other.gateway != pending.gateway),
                "two votes of one gateway"
            );
            assert!(!pending.asked.is_empty(), "a vote that nobody answers");
            assert!(
                !pending.asked.contains(&pending.gateway),
                "a standby answers its own vote"
            );
        }
    }
}
