//! What a command must be told by others: asked one by one, each answered, refused or overdue.

use cli::Invocation;
use model::{ServiceName, Time};
use wire::checkpoint::ToPss;
use wire::supervision::{Answer, FromService};

use super::Vshd;
use super::dispatch::{self, Outcome};
use super::session::{Asked, Fetch, Pending, Reply, Session, State};
use crate::service::SessionId;

impl Vshd {
    pub(super) fn begin(
        &mut self,
        now: Time,
        id: SessionId,
        invocation: Invocation,
        line: String,
        fetches: std::collections::VecDeque<Fetch>,
        limit: core::time::Duration,
    ) {
        self.begin_as(now, id, (invocation, line, None), fetches, limit);
    }

    /// The operator has said yes.
    pub(super) fn confirmed(&mut self, now: Time, id: SessionId, asked: Asked, line: String) {
        let what = (asked.invocation, line, Some(asked.notice));
        self.begin_as(now, id, what, [asked.then].into(), dispatch::SHOW_LIMIT);
    }

    fn begin_as(
        &mut self,
        now: Time,
        id: SessionId,
        (invocation, line, confirmed): (Invocation, String, Option<String>),
        fetches: std::collections::VecDeque<Fetch>,
        limit: core::time::Duration,
    ) {
        let deadline = now + limit;
        let replies = Vec::new();
        let mut pending = Pending {
            invocation,
            line,
            fetches,
            replies,
            number: 0,
            deadline,
            confirmed,
        };
        self.ask(&mut pending);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.state = State::Busy(Box::new(pending));
        }
    }

    /// Sends the question at the head of `pending`.
    pub(super) fn ask(&mut self, pending: &mut Pending) {
        let Some(fetch) = pending.fetches.front() else {
            return;
        };
        pending.number = match fetch {
            Fetch::Manager(ask) => {
                let question = self.out.number();
                self.out.supervise(FromService::Ask {
                    question,
                    ask: ask.clone(),
                });
                question
            }
            Fetch::Cfgmgr(body) => self.out.request(ServiceName::Cfgmgr, body),
            Fetch::Pss(request) => self
                .out
                .request(ServiceName::Pss, &ToPss::Request(request.clone())),
            Fetch::PolicyEngine(body) => self.out.request(ServiceName::PolicyEngine, body),
            Fetch::VemMgr(body) => self.out.request(ServiceName::VemMgr, body),
            Fetch::Activation => self.out.number(),
        };
    }

    /// Tells the sessions that wait for it that this node is active, if it is.
    pub(super) fn activated(&mut self, now: Time) {
        if self.active_since.is_none() {
            return;
        }
        let awaited = |session: &Session| match &session.state {
            State::Busy(pending) if pending.fetches.front() == Some(&Fetch::Activation) => {
                Some(pending.number)
            }
            State::Busy(_) | State::Ready | State::Asking(_) | State::Attached(_) => None,
        };
        let numbers: Vec<u64> = self.sessions.values().filter_map(awaited).collect();
        for number in numbers {
            self.reply(now, number, Reply::Activated);
        }
    }

    /// Sends again, under the same numbers, what may have been lost with the broker: shows are
    /// harmless, and `cfgmgr` makes a change of one number once.
    pub(super) fn ask_again(&mut self) {
        for session in self.sessions.values() {
            let State::Busy(pending) = &session.state else {
                continue;
            };
            let number = pending.number;
            match pending.fetches.front() {
                Some(Fetch::Cfgmgr(body)) => self.out.repeat(ServiceName::Cfgmgr, number, body),
                Some(Fetch::PolicyEngine(body)) => {
                    self.out.repeat(ServiceName::PolicyEngine, number, body);
                }
                Some(Fetch::VemMgr(body)) => self.out.repeat(ServiceName::VemMgr, number, body),
                Some(Fetch::Pss(request)) => {
                    let body = ToPss::Request(request.clone());
                    self.out.repeat(ServiceName::Pss, number, &body);
                }
                Some(Fetch::Manager(_) | Fetch::Activation) | None => {}
            }
        }
    }

    /// The session that waits for `number`.
    pub(super) fn waiting(&self, number: u64) -> Option<SessionId> {
        self.sessions
            .iter()
            .find_map(|(id, session)| match &session.state {
                State::Busy(pending) if pending.number == number => Some(*id),
                State::Busy(_) | State::Ready | State::Asking(_) | State::Attached(_) => None,
            })
    }

    pub(super) fn take_pending(&mut self, id: SessionId) -> Option<Box<Pending>> {
        let session = self.sessions.get_mut(&id)?;
        match core::mem::replace(&mut session.state, State::Ready) {
            State::Busy(pending) => Some(pending),
            other @ (State::Ready | State::Asking(_) | State::Attached(_)) => {
                session.state = other;
                None
            }
        }
    }

    pub(super) fn reply(&mut self, now: Time, number: u64, reply: Reply) {
        let Some(id) = self.waiting(number) else {
            return;
        };
        let Some(mut pending) = self.take_pending(id) else {
            return;
        };
        pending.fetches.pop_front();
        // What is not allowed is not waited for.
        let refused = matches!(&reply, Reply::Manager(Answer::Refused(_)));
        pending.replies.push(reply);
        if !pending.fetches.is_empty() && !refused {
            self.ask(&mut pending);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.state = State::Busy(pending);
            }
            self.activated(now);
            return;
        }
        let columns = self
            .sessions
            .get(&id)
            .map_or(0, |session| session.prompt_columns);
        let outcome = dispatch::finish(&pending, columns, &self.known(now));
        self.outcome(now, id, &pending.invocation, &pending.line, outcome);
        self.work(now, id);
    }

    pub(super) fn failed(&mut self, now: Time, id: SessionId, why: &str) {
        let Some(pending) = self.take_pending(id) else {
            return;
        };
        let whom = pending.fetches.front().map_or("the node", Fetch::whom);
        let outcome = Outcome::Failed(format!("% {whom} {why}\n"));
        self.outcome(now, id, &pending.invocation, &pending.line, outcome);
        self.work(now, id);
    }
}
