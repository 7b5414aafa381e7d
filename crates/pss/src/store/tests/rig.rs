//! A store with its disks, a broker's worth of glue, and hands to drive it.

use std::collections::{BTreeMap, VecDeque};

use model::{Epoch, Incarnation, NodeKey, Sap, ServiceName, Slot, Time};
use wire::broker::{Destination, Kind, Message, decode_body, encode_body};
use wire::checkpoint::{
    Acknowledgement, Changed, Durability, Namespace, Operation, Request, Response, Scope, ToPss,
};
use wire::supervision::{Activity, Posture, SyncReport};

use crate::storage::{MemoryDisk, MemoryStorage, Work};
use crate::{Input, Output, Recovery, Store};

pub(super) const fn namespace(
    owner: ServiceName,
    scope: Scope,
    durability: Durability,
) -> Namespace {
    Namespace {
        owner,
        scope,
        durability,
    }
}

pub(super) const CONFIG: Namespace = namespace(
    ServiceName::Cfgmgr,
    Scope::SharedGlobal,
    Durability::Persistent,
);
pub(super) const FLOWS: Namespace = namespace(
    ServiceName::PolicyEngine,
    Scope::SharedGlobal,
    Durability::Volatile,
);
pub(super) const OWN: Namespace =
    namespace(ServiceName::Vshd, Scope::Private, Durability::Persistent);

pub(super) fn epoch(counter: u64, node: u8) -> Epoch {
    Epoch {
        counter,
        node: NodeKey([node; 32]),
        incarnation: Incarnation(u64::from(node)),
    }
}

pub(super) fn put(namespace: Namespace, key: &str, value: &str) -> Operation {
    Operation::Put {
        namespace,
        key: key.into(),
        value: value.into(),
    }
}

#[derive(Debug)]
pub(super) struct Rig {
    pub(super) persistent: MemoryDisk,
    pub(super) volatile: MemoryDisk,
    pub(super) store: Store,
    pub(super) recovery: Recovery,
    pub(super) now: Time,
    pub(super) works: VecDeque<(u64, Work)>,
    /// Work runs as soon as it is handed out.
    pub(super) quick_disk: bool,
    pub(super) to_peer: VecDeque<Message>,
    pub(super) answers: BTreeMap<u64, Response>,
    pub(super) changes: Vec<(Sap, Changed)>,
    pub(super) questions: Vec<u64>,
    pub(super) applied: Vec<u64>,
    pub(super) archived: Vec<u64>,
    pub(super) sync: SyncReport,
    pub(super) failed: Option<String>,
    sequence: u64,
    correlation: u64,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::on(MemoryDisk::new(), MemoryDisk::new())
    }

    pub(super) fn on(persistent: MemoryDisk, volatile: MemoryDisk) -> Self {
        let (store, recovery) = Store::open(
            Box::new(MemoryStorage::open(&persistent)),
            Box::new(MemoryStorage::open(&volatile)),
        )
        .expect("a disk in memory can be read");
        Self {
            persistent,
            volatile,
            store,
            recovery,
            now: Time::from_ms(1000),
            works: VecDeque::new(),
            quick_disk: true,
            to_peer: VecDeque::new(),
            answers: BTreeMap::new(),
            changes: Vec::new(),
            questions: Vec::new(),
            applied: Vec::new(),
            archived: Vec::new(),
            sync: SyncReport::default(),
            failed: None,
            sequence: 0,
            correlation: 0,
        }
    }

    /// The process dies and is started again; disks keep what was written.
    pub(super) fn restart(&mut self) {
        let now = self.now;
        *self = Self::on(self.persistent.clone(), self.volatile.clone());
        self.now = now;
    }

    /// The machine loses power, keeping `kept` of the loose bytes, and starts again.
    pub(super) fn lose_power(&mut self, kept: usize) {
        self.persistent.lose_power(&mut |_| kept);
        self.volatile.wipe();
        self.restart();
    }

    pub(super) fn feed(&mut self, input: Input) {
        self.store.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            while let Some(output) = self.store.poll_output() {
                self.carry_out(output);
            }
            self.store.check().expect("an invariant of the store");
            if !self.quick_disk || !self.run_work() {
                break;
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send(message) => match (message.destination, message.kind) {
                (Destination::Peer, Kind::Notification) => self.to_peer.push_back(message),
                (_, Kind::Response) => {
                    let response = decode_body(&message.body).expect("a response");
                    self.answers.insert(message.correlation, response);
                }
                _ => {
                    let changed = decode_body(&message.body).expect("a change");
                    self.changes.push((message.sap, changed));
                }
            },
            Output::Work { work } => {
                let taken = self.store.take_work(work).expect("work is there once");
                self.works.push_back((work, taken));
            }
            Output::Sync(report) => self.sync = report,
            Output::AskAlone { question } => self.questions.push(question),
            Output::Applied { sequence } => self.applied.push(sequence),
            Output::Archived { number } => self.archived.push(number),
            Output::Log(_) => {}
            Output::Failed { reason } => self.failed = Some(reason),
        }
    }

    /// Runs one piece of waiting work; false if there is none.
    pub(super) fn run_work(&mut self) -> bool {
        let Some((work, taken)) = self.works.pop_front() else {
            return false;
        };
        let result = taken.run().map_err(|error| error.to_string());
        self.store
            .handle(self.now, Input::WorkDone { work, result });
        true
    }

    pub(super) fn finish_work(&mut self) {
        while self.run_work() {
            self.drain();
        }
    }

    pub(super) fn pass(&mut self, milliseconds: u64) {
        let end = Time(self.now.0 + milliseconds * 1_000_000);
        while let Some(deadline) = self.store.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(deadline);
            self.feed(Input::Tick);
            // A deadline that does not move would be a busy loop in production.
            assert!(
                self.store.next_deadline().is_none_or(|at| at > self.now),
                "busy loop"
            );
        }
        self.now = end;
    }

    pub(super) fn posture(&mut self, activity: Activity, redundant: bool) -> u64 {
        self.sequence += 1;
        self.feed(Input::Posture(Posture {
            sequence: self.sequence,
            activity,
            incarnation: Incarnation(1),
            slot: Slot::Sup1,
            peer_connected: true,
            redundant,
        }));
        self.sequence
    }

    pub(super) fn request_from(&mut self, source: Sap, from_peer: bool, request: Request) -> u64 {
        self.correlation += 1;
        let correlation = self.correlation;
        self.feed(Input::Message(Message {
            source,
            from_peer,
            destination: Destination::Local,
            sap: ServiceName::Pss.sap(),
            kind: Kind::Request,
            correlation,
            body: encode_body(&ToPss::Request(request)),
        }));
        correlation
    }

    pub(super) fn commit(
        &mut self,
        operations: Vec<Operation>,
        acknowledgement: Acknowledgement,
    ) -> u64 {
        let (Operation::Put { namespace, .. } | Operation::Delete { namespace, .. }) =
            operations.first().expect("a test commits something");
        let source = namespace.owner.sap();
        self.request_from(
            source,
            false,
            Request::Commit {
                operations,
                acknowledgement,
            },
        )
    }

    pub(super) fn reached(&self, correlation: u64) -> Option<Acknowledgement> {
        match self.answers.get(&correlation) {
            Some(Response::Committed { reached, .. }) => Some(*reached),
            Some(Response::Refused(reason)) => panic!("refused: {reason}"),
            _ => None,
        }
    }

    pub(super) fn refusal(&self, correlation: u64) -> String {
        match self.answers.get(&correlation) {
            Some(Response::Refused(reason)) => reason.clone(),
            other => panic!("{other:?} instead of a refusal"),
        }
    }

    pub(super) fn text(&self, namespace: Namespace, key: &str) -> Option<String> {
        let value = self.store.value(namespace, key.as_bytes())?;
        Some(String::from_utf8(value).expect("tests store text"))
    }
}
