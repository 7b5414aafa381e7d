//! Requests of services: access, transactions, acknowledgements, leave to be alone.

use model::{Lsn, ServiceName, Time};
use wire::broker::Message;
use wire::checkpoint::{
    Acknowledgement, Durability, Entry, KEY_MAX_BYTES, Namespace, OPERATIONS_MAX, Operation,
    Request, Response, VALUE_MAX_BYTES,
};
use wire::supervision::Activity;

use super::Store;
use crate::Output;
use crate::content::{is_shared, namespace_of};
use crate::history::entry_bytes;
use crate::journal::LoggedRef;
use crate::limits::{
    COMMIT_MAX_BYTES, HELD_COMMITS, PENDING_COMMITS, REPLICATION_WAIT, SERVICE_MAX_BYTES,
};

/// The System Manager's leave to answer commits without the standby. It holds until the pair is
/// redundant again or the epoch changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alone {
    NotAsked,
    Asked { question: u64 },
    Granted,
}

/// A commit that is written and not yet answered.
#[derive(Debug)]
pub(super) struct PendingCommit {
    request: Message,
    lsn: Lsn,
    namespace: Namespace,
    /// Position in the persistent journal that makes it durable.
    position: u64,
    wanted: Acknowledgement,
    since: Time,
}

impl PendingCommit {
    pub(super) fn is_shared(&self) -> bool {
        is_shared(self.namespace)
    }
}

impl Store {
    pub(super) fn request(&mut self, now: Time, message: Message, request: Request) {
        match request {
            Request::Commit {
                operations,
                acknowledgement,
            } => {
                if self.replacing.is_none() {
                    self.commit(now, message, operations, acknowledgement);
                } else if self.held.len() < HELD_COMMITS {
                    self.held.push_back(message);
                } else {
                    self.refuse(
                        &message,
                        "the store is being replaced; try again".to_owned(),
                    );
                }
            }
            Request::Get { namespace, key } => self.get(&message, namespace, &key),
            Request::Range { namespace, after } => self.range(&message, namespace, &after),
            Request::Watch { namespace } => self.watch(&message, namespace),
            Request::ClearConflict { number } => self.clear_conflict(now, message, number),
        }
    }

    pub(super) fn release_held(&mut self, now: Time) {
        while self.replacing.is_none()
            && let Some(message) = self.held.pop_front()
        {
            self.message(now, message);
        }
    }

    pub(super) fn refuse(&mut self, message: &Message, reason: String) {
        self.counters.refused += 1;
        self.respond(message, &Response::Refused(reason));
    }

    fn commit(
        &mut self,
        now: Time,
        message: Message,
        operations: Vec<Operation>,
        wanted: Acknowledgement,
    ) {
        let namespace = match self.admissible(&message, &operations) {
            Ok(namespace) => namespace,
            Err(reason) => return self.refuse(&message, reason),
        };
        let written = if is_shared(namespace) {
            self.write_own_shared(operations)
        } else {
            self.write_local(namespace, &operations)
        };
        let lsn = match written {
            Ok(lsn) => lsn,
            Err(reason) => return self.refuse(&message, reason),
        };
        self.counters.commits += 1;
        if wanted == Acknowledgement::Volatile {
            self.respond(
                &message,
                &Response::Committed {
                    lsn,
                    reached: wanted,
                },
            );
            return;
        }
        self.await_commit(now, message, namespace, lsn, wanted);
    }

    /// Answers `request` when the commit at `lsn` is as durable as `wanted`.
    pub(super) fn await_commit(
        &mut self,
        now: Time,
        request: Message,
        namespace: Namespace,
        lsn: Lsn,
        wanted: Acknowledgement,
    ) {
        let position = self.persistent.position();
        self.pending.push(PendingCommit {
            request,
            lsn,
            namespace,
            position,
            wanted,
            since: now,
        });
    }

    pub(super) fn write_own_shared(&mut self, operations: Vec<Operation>) -> Result<Lsn, String> {
        let epoch = self.acting().ok_or("this gateway is not active")?;
        let lsn = self.history.last().1.next();
        self.write_shared(Entry {
            lsn,
            epoch,
            operations,
        })
        .map_err(|error| error.to_string())?;
        Ok(lsn)
    }

    pub(super) fn write_local(
        &mut self,
        namespace: Namespace,
        operations: &[Operation],
    ) -> Result<Lsn, String> {
        let journal = match namespace.durability {
            Durability::Persistent => &mut self.persistent,
            Durability::Volatile => &mut self.volatile,
        };
        journal
            .append(&LoggedRef::Local(operations))
            .map_err(|error| error.to_string())?;
        self.content.apply(operations);
        let lsn = self.history.last().1;
        self.tell_watchers(lsn, operations);
        Ok(lsn)
    }

    /// Whether the caller may make this transaction now; gives its first namespace, whose scope
    /// class and durability all its operations share.
    fn admissible(&self, message: &Message, operations: &[Operation]) -> Result<Namespace, String> {
        let first = operations
            .first()
            .ok_or("a transaction without operations")?;
        let namespace = namespace_of(first);
        if operations.len() > OPERATIONS_MAX {
            return Err(format!(
                "more than {OPERATIONS_MAX} operations in one transaction"
            ));
        }
        let mut added = 0;
        for operation in operations {
            let at = namespace_of(operation);
            if message.from_peer || at.owner.sap() != message.source {
                return Err(format!("only {} of this node writes there", at.owner));
            }
            if is_shared(at) != is_shared(namespace) || at.durability != namespace.durability {
                return Err("one transaction, one durability, replicated or not".to_owned());
            }
            added += self.bytes_added(operation)?;
        }
        let entry = Entry {
            lsn: Lsn(0),
            epoch: self.highest_epoch,
            operations: Vec::new(),
        };
        if added + entry_bytes(&entry) > COMMIT_MAX_BYTES {
            return Err(format!(
                "a transaction of more than {COMMIT_MAX_BYTES} bytes"
            ));
        }
        if self.content.bytes_of(namespace.owner) + added > SERVICE_MAX_BYTES {
            return Err(format!(
                "{} holds {SERVICE_MAX_BYTES} bytes already",
                namespace.owner
            ));
        }
        if self.pending.len() >= PENDING_COMMITS {
            return Err(format!("{PENDING_COMMITS} commits wait already"));
        }
        if is_shared(namespace) {
            self.may_commit_shared(namespace)?;
        }
        Ok(namespace)
    }

    fn bytes_added(&self, operation: &Operation) -> Result<usize, String> {
        let (key, value) = match operation {
            Operation::Put { key, value, .. } => (key.len(), value.len()),
            Operation::Delete { key, .. } => (key.len(), 0),
        };
        if key == 0 || key > KEY_MAX_BYTES {
            return Err(format!(
                "a key of {key} bytes: 1 to {KEY_MAX_BYTES} are allowed"
            ));
        }
        if value > VALUE_MAX_BYTES {
            return Err(format!(
                "a value of {value} bytes: {VALUE_MAX_BYTES} are allowed"
            ));
        }
        Ok(16 + key + value)
    }

    /// A quiescing node lets flow state go on to the standby until it hands over, and nothing
    /// that an operator waits for.
    pub(super) fn may_commit_shared(&self, namespace: Namespace) -> Result<(), String> {
        match (self.activity(), namespace.durability) {
            (Activity::Active(_), _) | (Activity::Quiesce(_), Durability::Volatile) => Ok(()),
            (Activity::Quiesce(_), Durability::Persistent) => {
                Err("a switchover is in progress".to_owned())
            }
            (Activity::Standby, _) => Err("this gateway is standby".to_owned()),
            (Activity::Idle, _) => Err("no gateway is active here".to_owned()),
        }
    }

    // ---- acknowledging

    pub(super) fn resolve_pending(&mut self, now: Time) {
        let mut waiting = Vec::new();
        for commit in core::mem::take(&mut self.pending) {
            match self.reached(now, &commit) {
                Some(reached) => {
                    let response = Response::Committed {
                        lsn: commit.lsn,
                        reached,
                    };
                    self.respond(&commit.request, &response);
                }
                None => waiting.push(commit),
            }
        }
        self.pending = waiting;
        // On a redundant pair the leave is for the commits that waited for it, not for later
        // ones: those wait for the standby again.
        if self.alone == Alone::Granted && self.is_redundant() {
            self.alone = Alone::NotAsked;
        }
    }

    fn is_durable(&self, commit: &PendingCommit) -> bool {
        commit.namespace.durability == Durability::Volatile
            || self.persistent.flushed() >= commit.position
    }

    /// The level to answer with now; `None` while it waits.
    fn reached(&mut self, now: Time, commit: &PendingCommit) -> Option<Acknowledgement> {
        if !self.is_durable(commit) {
            return None;
        }
        let persistent = commit.namespace.durability == Durability::Persistent;
        let here = if persistent {
            Acknowledgement::Local
        } else {
            Acknowledgement::Volatile
        };
        if !is_shared(commit.namespace) {
            return Some(here);
        }
        self.acting()?;
        if self.serving.acked() >= commit.lsn {
            return Some(Acknowledgement::Replicated);
        }
        let redundant = self.is_redundant();
        let overdue = now >= commit.since + REPLICATION_WAIT;
        match commit.wanted {
            Acknowledgement::Volatile => Some(here),
            Acknowledgement::Local if redundant => Some(here),
            Acknowledgement::Replicated if redundant && !overdue => None,
            Acknowledgement::Local | Acknowledgement::Replicated if !persistent => Some(here),
            Acknowledgement::Local | Acknowledgement::Replicated => {
                self.is_alone().then_some(Acknowledgement::Local)
            }
        }
    }

    fn is_alone(&mut self) -> bool {
        match self.alone {
            Alone::Granted => true,
            Alone::Asked { .. } => false,
            Alone::NotAsked => {
                let question = self.number();
                self.alone = Alone::Asked { question };
                self.outputs.push_back(Output::AskAlone { question });
                false
            }
        }
    }

    pub(super) fn alone_answered(&mut self, question: u64, granted: bool) {
        if self.alone == (Alone::Asked { question }) {
            self.alone = if granted {
                Alone::Granted
            } else {
                Alone::NotAsked
            };
            if !granted {
                self.give_up_pending(
                    "the standby does not answer and this gateway may not be alone",
                );
            }
        }
    }

    /// Answers what is written and cannot be promised at any level.
    pub(super) fn give_up_pending(&mut self, reason: &str) {
        let (shared, local): (Vec<_>, Vec<_>) = core::mem::take(&mut self.pending)
            .into_iter()
            .partition(PendingCommit::is_shared);
        self.pending = local;
        for commit in shared {
            self.counters.refused += 1;
            self.respond(&commit.request, &Response::Unknown(reason.to_owned()));
        }
    }

    pub(super) fn commit_deadline(&self) -> Option<Time> {
        // A commit that waits for the disk too goes on when that answers, not by the clock.
        let waits = |commit: &&PendingCommit| {
            commit.is_shared()
                && commit.wanted == Acknowledgement::Replicated
                && self.is_durable(commit)
        };
        if self.alone != Alone::NotAsked || !self.is_redundant() || self.acting().is_none() {
            return None;
        }
        let oldest = self
            .pending
            .iter()
            .filter(waits)
            .map(|commit| commit.since)
            .min()?;
        Some(oldest + REPLICATION_WAIT)
    }

    /// The service that a message is from, if it is one of this node's.
    pub(super) fn caller(message: &Message) -> Option<ServiceName> {
        let named = |service: &ServiceName| service.sap() == message.source;
        ServiceName::ALL
            .into_iter()
            .find(named)
            .filter(|_| !message.from_peer)
    }
}
