//! A service's book-keeping of its requests to `pss`.
//!
//! Invariants (see [`CheckpointClient::check`]):
//! - at most one commit is in flight, so that repeating an unanswered one cannot overtake a
//!   later one;
//! - a request is pending until it is answered: it is repeated after a reconnection of the
//!   broker, after a restart of `pss`, and when no answer came in its time; a commit may thus
//!   take effect twice, which writes the same values again;
//! - of one watched namespace a reader sees `Reset`, then operations in an order in which
//!   applying them yields the store's content, `Loaded` when all that existed has been told, and
//!   no change is missed after it. `Reset` may come again at any time.
//!
//! ```text
//! watch:   Asking ──Watching──▶ Reading ──last page──▶ Following
//!            ▲                     │                       │
//!            └── BrokerConnected, Replaced (also: pss restarted) ──┘
//! ```

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use model::{Lsn, Sap, ServiceName, Time};
use wire::broker::{Destination, Kind, Message, decode_body, encode_body};
use wire::checkpoint::{Acknowledgement, Changed, Namespace, Operation, Request, Response, ToPss};

/// Marks correlations of this client among those of its service.
const CORRELATION_MARK: u64 = 1 << 63;
/// Pause before a request that could not be delivered is repeated: `pss` restarts in some ten
/// milliseconds.
const UNDELIVERABLE_RETRY: Duration = Duration::from_millis(20);
/// A read is answered from memory; without an answer for this long it was lost.
const READ_RETRY: Duration = Duration::from_secs(1);
/// A replicated commit may wait for a hold time (vm-safe: 3 s, explicit: more) before it is
/// answered; repeating it earlier than needed costs a second copy of it.
const COMMIT_RETRY: Duration = Duration::from_secs(15);

/// Names one commit of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What a service learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointEvent {
    /// The commit is done.
    Committed {
        /// Which.
        ticket: Ticket,
        /// Its position.
        lsn: Lsn,
        /// Level reached.
        reached: Acknowledgement,
    },
    /// The commit did not happen.
    CommitRefused {
        /// Which.
        ticket: Ticket,
        /// Why.
        reason: String,
    },
    /// The commit may have happened: whatever the store tells next is what holds.
    CommitUnknown {
        /// Which.
        ticket: Ticket,
        /// Why it is not known.
        reason: String,
    },
    /// Forget what you know of the namespace: it is told anew from here.
    Reset(Namespace),
    /// Apply these in order.
    Operations(Namespace, Vec<Operation>),
    /// All that existed has been told.
    Loaded(Namespace),
}

/// A commit is in flight already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a commit of this service is still in flight")]
pub struct CommitInFlight;

#[derive(Clone, Debug)]
struct Pending {
    request: Request,
    retry_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchState {
    Asking { correlation: u64 },
    Reading { correlation: u64 },
    Following,
}

/// See the module.
#[derive(Debug)]
pub struct CheckpointClient {
    source: Sap,
    connected: bool,
    next_correlation: u64,
    pending: BTreeMap<u64, Pending>,
    commit: Option<u64>,
    watches: BTreeMap<Namespace, WatchState>,
    messages: VecDeque<Message>,
    events: VecDeque<CheckpointEvent>,
}

impl CheckpointClient {
    /// A client of `service`, started at `now`; the time keeps its correlations apart from those
    /// of an earlier run, whose late answers may still arrive.
    #[must_use]
    pub fn new(service: ServiceName, now: Time) -> Self {
        Self {
            source: service.sap(),
            connected: false,
            next_correlation: now.0 & !CORRELATION_MARK,
            pending: BTreeMap::new(),
            commit: None,
            watches: BTreeMap::new(),
            messages: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Keeps the service told of `namespace` from now on.
    pub fn watch(&mut self, now: Time, namespace: Namespace) {
        self.begin_watch(now, namespace);
    }

    /// Commits `operations`, all or nothing.
    ///
    /// # Errors
    /// While an earlier commit is in flight.
    pub fn commit(
        &mut self,
        now: Time,
        operations: Vec<Operation>,
        acknowledgement: Acknowledgement,
    ) -> Result<Ticket, CommitInFlight> {
        if self.commit.is_some() {
            return Err(CommitInFlight);
        }
        let correlation = self.ask(
            now,
            Request::Commit {
                operations,
                acknowledgement,
            },
        );
        self.commit = Some(correlation);
        Ok(Ticket(correlation))
    }

    /// Whether a commit is in flight.
    #[must_use]
    pub const fn commit_in_flight(&self) -> bool {
        self.commit.is_some()
    }

    /// Whether the namespace has been told completely since the last `Reset`.
    #[must_use]
    pub fn is_loaded(&self, namespace: Namespace) -> bool {
        self.watches.get(&namespace) == Some(&WatchState::Following)
    }

    /// The broker is connected: everything unanswered is asked again.
    pub fn broker_connected(&mut self, now: Time) {
        self.connected = true;
        self.restart(now);
    }

    /// The broker is gone.
    pub fn broker_lost(&mut self) {
        self.connected = false;
        self.messages.clear();
    }

    /// Takes a message if it is for this client; gives it back if not.
    pub fn message(&mut self, now: Time, message: Message) -> Option<Message> {
        if message.sap != self.source || message.from_peer {
            return Some(message);
        }
        let from_pss = message.source == ServiceName::Pss.sap();
        match message.kind {
            Kind::Notification if from_pss => {
                if let Ok(changed) = decode_body::<Changed>(&message.body) {
                    self.changed(now, changed);
                }
                None
            }
            Kind::Response if message.correlation & CORRELATION_MARK != 0 => {
                if from_pss && let Ok(response) = decode_body::<Response>(&message.body) {
                    self.answered(now, message.correlation, response);
                }
                None
            }
            Kind::Undeliverable if message.correlation & CORRELATION_MARK != 0 => {
                if let Some(pending) = self.pending.get_mut(&message.correlation) {
                    pending.retry_at = now + UNDELIVERABLE_RETRY;
                }
                None
            }
            Kind::Notification | Kind::Request | Kind::Response | Kind::Undeliverable => {
                Some(message)
            }
        }
    }

    /// Repeats what has waited too long.
    pub fn tick(&mut self, now: Time) {
        if !self.connected {
            return;
        }
        let due: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, p)| p.retry_at <= now)
            .map(|(c, _)| *c)
            .collect();
        for correlation in due {
            self.send(now, correlation);
        }
    }

    /// When [`Self::tick`] is wanted.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let earliest = self.pending.values().map(|pending| pending.retry_at).min();
        earliest.filter(|_| self.connected)
    }

    /// The next message to send.
    pub fn poll_message(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<CheckpointEvent> {
        self.events.pop_front()
    }

    /// Panics if an invariant of the module does not hold.
    pub fn check(&self) {
        let commits = self
            .pending
            .values()
            .filter(|p| matches!(p.request, Request::Commit { .. }));
        assert_eq!(
            commits.count(),
            usize::from(self.commit.is_some()),
            "commits in flight"
        );
        for (namespace, state) in &self.watches {
            let expected = match state {
                WatchState::Asking { correlation } | WatchState::Reading { correlation } => {
                    self.pending.contains_key(correlation)
                }
                WatchState::Following => true,
            };
            assert!(expected, "the watch of {namespace:?} waits for nothing");
        }
    }

    /// Begins everything anew: `pss` may have forgotten us, or its content was replaced.
    fn restart(&mut self, now: Time) {
        let namespaces: Vec<Namespace> = self.watches.keys().copied().collect();
        if let Some(correlation) = self.commit {
            self.send(now, correlation);
        }
        for namespace in namespaces {
            self.begin_watch(now, namespace);
        }
    }

    fn begin_watch(&mut self, now: Time, namespace: Namespace) {
        if let Some(WatchState::Asking { correlation } | WatchState::Reading { correlation }) =
            self.watches.get(&namespace)
        {
            self.pending.remove(correlation);
        }
        let correlation = self.ask(now, Request::Watch { namespace });
        self.watches
            .insert(namespace, WatchState::Asking { correlation });
    }

    fn read_page(&mut self, now: Time, namespace: Namespace, after: Vec<u8>) {
        let correlation = self.ask(now, Request::Range { namespace, after });
        self.watches
            .insert(namespace, WatchState::Reading { correlation });
    }

    fn ask(&mut self, now: Time, request: Request) -> u64 {
        let correlation = self.next_correlation | CORRELATION_MARK;
        self.next_correlation = (self.next_correlation + 1) & !CORRELATION_MARK;
        self.pending.insert(
            correlation,
            Pending {
                request,
                retry_at: now,
            },
        );
        self.send(now, correlation);
        correlation
    }

    fn send(&mut self, now: Time, correlation: u64) {
        let Some(pending) = self.pending.get_mut(&correlation) else {
            return;
        };
        pending.retry_at = now
            + match pending.request {
                Request::Commit { .. } => COMMIT_RETRY,
                // `vshd` asks for the last itself, for an operator.
                Request::Get { .. }
                | Request::Range { .. }
                | Request::Watch { .. }
                | Request::ClearConflict { .. } => READ_RETRY,
            };
        if self.connected {
            self.messages.push_back(Message {
                source: self.source,
                from_peer: false,
                destination: Destination::Local,
                sap: ServiceName::Pss.sap(),
                kind: Kind::Request,
                correlation,
                body: encode_body(&ToPss::Request(pending.request.clone())),
            });
        }
    }

    fn answered(&mut self, now: Time, correlation: u64, response: Response) {
        let Some(pending) = self.pending.remove(&correlation) else {
            return;
        };
        match (pending.request, response) {
            (Request::Commit { .. }, Response::Committed { lsn, reached }) => {
                self.commit = None;
                let ticket = Ticket(correlation);
                self.events.push_back(CheckpointEvent::Committed {
                    ticket,
                    lsn,
                    reached,
                });
            }
            (Request::Commit { .. }, Response::Unknown(reason)) => {
                self.commit = None;
                let ticket = Ticket(correlation);
                self.events
                    .push_back(CheckpointEvent::CommitUnknown { ticket, reason });
            }
            (Request::Commit { .. }, Response::Refused(reason)) => {
                self.commit = None;
                let ticket = Ticket(correlation);
                self.events
                    .push_back(CheckpointEvent::CommitRefused { ticket, reason });
            }
            (Request::Watch { namespace }, Response::Watching { .. }) => {
                self.events.push_back(CheckpointEvent::Reset(namespace));
                self.read_page(now, namespace, Vec::new());
            }
            (Request::Range { namespace, after }, Response::Pairs { pairs, more }) => {
                self.page(now, namespace, after, pairs, more);
            }
            // A refused read (pss not ready), or an answer of the wrong shape: ask again later.
            (request, _) => {
                let retry_at = now + UNDELIVERABLE_RETRY;
                self.pending
                    .insert(correlation, Pending { request, retry_at });
            }
        }
    }

    fn page(
        &mut self,
        now: Time,
        namespace: Namespace,
        after: Vec<u8>,
        pairs: Vec<(Vec<u8>, Vec<u8>)>,
        more: bool,
    ) {
        let last = pairs.last().map_or(after, |(key, _)| key.clone());
        if !pairs.is_empty() {
            let put = |(key, value)| Operation::Put {
                namespace,
                key,
                value,
            };
            let operations = pairs.into_iter().map(put).collect();
            self.events
                .push_back(CheckpointEvent::Operations(namespace, operations));
        }
        if more {
            self.read_page(now, namespace, last);
        } else {
            self.watches.insert(namespace, WatchState::Following);
            self.events.push_back(CheckpointEvent::Loaded(namespace));
        }
    }

    fn changed(&mut self, now: Time, changed: Changed) {
        match changed {
            Changed::Replaced { .. } => self.restart(now),
            Changed::Commit { operations, .. } => {
                let mut by_namespace: BTreeMap<Namespace, Vec<Operation>> = BTreeMap::new();
                for operation in operations {
                    let (Operation::Put { namespace, .. } | Operation::Delete { namespace, .. }) =
                        &operation;
                    by_namespace.entry(*namespace).or_default().push(operation);
                }
                for (namespace, operations) in by_namespace {
                    match self.watches.get(&namespace) {
                        Some(WatchState::Reading { .. } | WatchState::Following) => {
                            let event = CheckpointEvent::Operations(namespace, operations);
                            self.events.push_back(event);
                        }
                        // It is in what will be read.
                        Some(WatchState::Asking { .. }) | None => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
