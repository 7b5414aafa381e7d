//! Votes: a standby asks whether the active lives, and may be promised something.

use core::time::Duration;

use model::{Epoch, Time};
use wire::vem::{Ballot, FromVem};

use super::Vem;
use crate::output::Event;
use crate::types::GatewayId;
use crate::votes::{Due, Outcome, Request, WITHIN_MAX, WITHIN_MIN};

impl Vem {
    pub(super) fn asked_to_vote(
        &mut self,
        now: Time,
        gateway: GatewayId,
        vote: u64,
        candidate: Option<Epoch>,
        within_ms: u32,
    ) {
        let within = Duration::from_millis(within_ms.into()).clamp(WITHIN_MIN, WITHIN_MAX);
        let request = Request {
            vote,
            candidate,
            within,
        };
        let others = self.gateways.connected_but(gateway);
        let due = self.votes.begin(now, gateway, request, others);
        self.vote_due(now, due);
    }

    /// A gateway says that it acts. Under an epoch below one that was obeyed, it only has not
    /// learnt yet that it was deposed.
    pub(super) fn acts(&mut self, gateway: GatewayId, question: u64, epoch: Epoch, alone: bool) {
        if epoch < self.fence.held().obeyed {
            return;
        }
        if let Some(outcome) = self.votes.acts(gateway, question) {
            self.counters.votes_alive += 1;
            self.ballot(outcome, Ballot::Alive { alone });
        }
    }

    pub(super) fn end_votes(&mut self, now: Time) {
        while let Some(due) = self.votes.due(now) {
            self.vote_due(now, due);
        }
    }

    fn vote_due(&mut self, now: Time, due: Due) {
        match due {
            Due::Inquire { question, gateways } => {
                for gateway in gateways {
                    self.send(gateway, FromVem::Inquire { question });
                }
            }
            Due::Ended(outcome) => self.silent(now, outcome),
        }
    }

    /// The active does not answer: a candidate is promised that nobody below it is obeyed.
    fn silent(&mut self, now: Time, outcome: Outcome) {
        let Outcome {
            gateway, request, ..
        } = outcome;
        let before = self.fence.floor();
        let ballot = match request.candidate {
            Some(candidate) if !self.fence.promise(candidate) => Ballot::Higher,
            Some(_) | None => Ballot::Silent,
        };
        self.counters.votes_silent += u64::from(ballot == Ballot::Silent);
        if self.fence.floor() > before {
            let candidate = self.fence.floor();
            self.floor_is_raised(now, gateway);
            self.log(Event::Promised { gateway, candidate });
        }
        self.ballot(outcome, ballot);
    }

    fn ballot(&mut self, outcome: Outcome, ballot: Ballot) {
        let Request {
            vote, candidate, ..
        } = outcome.request;
        let message = FromVem::Ballot {
            vote,
            candidate,
            ballot,
            fenced: self.fence.held(),
        };
        self.send(outcome.gateway, message);
    }
}
