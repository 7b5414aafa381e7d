//! The table of connections, and its way to the standby through `pss`.
//!
//! As active the engine notes which connections have changed and commits them in batches, one
//! batch at a time; as standby it follows those commits, so that a takeover restores nothing.
//!
//! ```text
//!              change            batch due               committed
//!   (stored) ─────────▶ dirty ───────────────▶ in flight ──────────▶ (stored)
//!      ▲                  ▲  ◀──────── refused ────┘
//!      │ equal            │ differs
//!      └── comparison of the table with the store, after every (re)load as active, and when more
//!          than DIRTY_MAX had changed
//! ```
//! Invariants: at most [`DIRTY_MAX`] connections are dirty; a closed connection is deleted from
//! the store, and what the store holds of it is not read back by the active that closed it.

use core::time::Duration;
use std::collections::BTreeMap;

use model::{Epoch, ServiceName, Time};
use policy::flow_table::{Connection, ConnectionKey, FlowSnapshot, Stamp};
use policy::{FlowRecord, FlowTable};
use wire::broker::{decode_body, encode_body};
use wire::checkpoint::{Durability, Namespace, Operation, Scope};
use wire::vem::PORT_MAX_BYTES;

/// Where connections are stored: the key is a [`ConnectionKey`], the value a [`FlowRecord`].
pub const CONNECTIONS: Namespace = Namespace {
    owner: ServiceName::PolicyEngine,
    scope: Scope::SharedGlobal,
    durability: Durability::Volatile,
};

/// Most connections whose change is noted: some seconds of the highest rate. Further ones are not
/// noted; once these are stored, the whole table is compared with the store.
pub const DIRTY_MAX: usize = 16_384;
/// Most changes of one commit: some 400 bytes each, so that it fits one broker message.
pub const BATCH_MAX: usize = 128;
/// How long a change may wait for others to share a commit with: the lag of replication.
const BATCH_DELAY: Duration = Duration::from_millis(10);
/// Pause after a refused commit.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
/// Most silent connections closed in one turn.
const EXPIRE_MAX: usize = 256;

type Changes = BTreeMap<ConnectionKey, Option<FlowRecord>>;

/// How far the table is behind, for display and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowLag {
    /// Changes not yet stored.
    pub pending: usize,
    /// Times that the whole table had to be compared because there were too many.
    pub overflows: u64,
}

#[derive(Debug)]
pub(super) struct Flows {
    table: FlowTable,
    dirty: Changes,
    dirty_since: Option<Time>,
    in_flight: Changes,
    retry_at: Time,
    overflowed: bool,
    overflows: u64,
    /// What a (re)load has told so far; `None` while following.
    loading: Option<BTreeMap<ConnectionKey, FlowRecord>>,
    loaded_before: bool,
}

impl Flows {
    pub(super) fn new() -> Self {
        Self {
            table: FlowTable::default(),
            dirty: Changes::new(),
            dirty_since: None,
            in_flight: Changes::new(),
            retry_at: Time::default(),
            overflowed: false,
            overflows: 0,
            loading: None,
            loaded_before: false,
        }
    }

    pub(super) const fn table(&self) -> &FlowTable {
        &self.table
    }

    pub(super) fn lag(&self) -> FlowLag {
        let pending = self.dirty.len() + self.in_flight.len();
        FlowLag {
            pending,
            overflows: self.overflows,
        }
    }

    pub(super) fn begin_epoch(&mut self, epoch: Epoch) {
        self.table.begin_epoch(epoch);
    }

    /// Not active any more: what is not stored belongs to the new active.
    pub(super) fn end_epoch(&mut self) {
        self.dirty.clear();
        self.in_flight.clear();
        self.dirty_since = None;
        self.overflowed = false;
    }

    pub(super) fn permit(&mut self, now: Time, key: ConnectionKey, connection: Connection) {
        if key.port.len() > PORT_MAX_BYTES {
            // `vem_mgr` lets none through; a key of the store has its own limit.
            return;
        }
        if let Some(record) = self.table.insert(now, key, connection) {
            self.change(now, record.key.clone(), Some(record));
        }
    }

    /// Closed at its host, or revoked by a new policy.
    pub(super) fn close(&mut self, now: Time, key: &ConnectionKey) {
        if let Some(record) = self.table.remove(key) {
            self.change(now, record.key, None);
        }
    }

    pub(super) fn touch(&mut self, now: Time, key: &ConnectionKey) {
        self.table.touch(now, key);
    }

    pub(super) fn expire(&mut self, now: Time) {
        for record in self.table.expire(now, EXPIRE_MAX) {
            self.change(now, record.key, None);
        }
    }

    fn change(&mut self, now: Time, key: ConnectionKey, record: Option<FlowRecord>) {
        if self.dirty.len() >= DIRTY_MAX && !self.dirty.contains_key(&key) {
            // What is noted already is stored all the same, so that each comparison makes headway.
            self.overflows += u64::from(!self.overflowed);
            self.overflowed = true;
            return;
        }
        self.dirty.insert(key, record);
        self.dirty_since.get_or_insert(now);
    }

    /// True once after an overflow: the store is to be read again, which compares.
    pub(super) fn take_overflow(&mut self) -> bool {
        let idle = self.dirty.is_empty() && self.in_flight.is_empty() && self.loading.is_none();
        idle && core::mem::take(&mut self.overflowed)
    }

    /// When [`Self::batch`] has something, if no commit is in flight.
    pub(super) fn batch_at(&self) -> Option<Time> {
        let since = self.dirty_since.filter(|_| !self.dirty.is_empty())?;
        let full = self.dirty.len() >= BATCH_MAX;
        Some(if full { since } else { since + BATCH_DELAY }.max(self.retry_at))
    }

    /// The next commit, or nothing if it is not due; `hurry` does not wait for company.
    pub(super) fn batch(&mut self, now: Time, hurry: bool) -> Vec<Operation> {
        let due = hurry || self.batch_at().is_some_and(|at| at <= now);
        if !due || !self.in_flight.is_empty() {
            return Vec::new();
        }
        while self.in_flight.len() < BATCH_MAX
            && let Some((key, record)) = self.dirty.pop_first()
        {
            self.in_flight.insert(key, record);
        }
        self.dirty_since = (!self.dirty.is_empty()).then_some(now);
        let operation = |(key, record): (&ConnectionKey, &Option<FlowRecord>)| {
            let (namespace, key) = (CONNECTIONS, encode_body(key));
            match record {
                Some(record) => Operation::Put {
                    namespace,
                    key,
                    value: encode_body(record),
                },
                None => Operation::Delete { namespace, key },
            }
        };
        self.in_flight.iter().map(operation).collect()
    }

    pub(super) fn committed(&mut self) {
        self.in_flight.clear();
    }

    pub(super) fn refused(&mut self, now: Time) {
        self.retry_at = now + REFUSED_PAUSE;
        for (key, record) in core::mem::take(&mut self.in_flight) {
            self.dirty.entry(key).or_insert(record);
        }
        self.dirty_since.get_or_insert(now);
    }

    /// The store is told anew.
    pub(super) fn reset(&mut self) {
        self.loading = Some(BTreeMap::new());
    }

    /// Something was stored, by us if `active`.
    pub(super) fn operations(&mut self, now: Time, operations: Vec<Operation>, active: bool) {
        for operation in operations {
            let (key, value) = match &operation {
                Operation::Put { key, value, .. } => (key, Some(value)),
                Operation::Delete { key, .. } => (key, None),
            };
            let Ok(key) = decode_body::<ConnectionKey>(key) else {
                continue;
            };
            let record = value.and_then(|value| decode_body::<FlowRecord>(value).ok());
            match (&mut self.loading, record) {
                (Some(loading), Some(record)) => {
                    loading.insert(key, record);
                }
                (Some(loading), None) => {
                    loading.remove(&key);
                }
                (None, _) if active => {}
                (None, Some(record)) => {
                    self.table.apply(now, record);
                }
                (None, None) => {
                    self.table.remove(&key);
                }
            }
        }
    }

    /// All that the store holds has been told.
    pub(super) fn loaded(&mut self, now: Time, active: bool) {
        let Some(stored) = self.loading.take() else {
            return;
        };
        let first = !core::mem::replace(&mut self.loaded_before, true);
        if !active {
            let records = stored.into_values().collect();
            self.table.restore(
                now,
                FlowSnapshot {
                    floor: Stamp::default(),
                    records,
                },
            );
            return;
        }
        if first {
            // A start as active: what is closed meanwhile has a higher stamp and stays closed.
            for record in stored.values().cloned() {
                self.table.apply(now, record);
            }
        }
        self.compare(now, &stored);
    }

    /// Notes as changed whatever the store does not hold as the table does.
    fn compare(&mut self, now: Time, stored: &BTreeMap<ConnectionKey, FlowRecord>) {
        let gone: Vec<ConnectionKey> = stored
            .keys()
            .filter(|key| self.table.connection(key).is_none())
            .cloned()
            .collect();
        for key in gone {
            self.change(now, key, None);
        }
        for record in self.table.snapshot().records {
            let same = stored
                .get(&record.key)
                .is_some_and(|known| known.stamp == record.stamp);
            if record.connection.is_some() && !same {
                self.change(now, record.key.clone(), Some(record));
            }
        }
    }

    pub(super) fn check(&self) {
        self.table.check();
        assert!(
            self.dirty.len() <= DIRTY_MAX + BATCH_MAX,
            "dirty connections"
        );
        assert!(self.in_flight.len() <= BATCH_MAX, "connections in flight");
    }
}
