//! The connections a gateway has decided, and the records that replicate them.
//!
//! Every change of a connection gets a [`Stamp`]: the epoch of the active and a number that only
//! grows. A standby applies a record only if its stamp is above the one it holds for that key, so
//! records may arrive twice, late or out of order.
//!
//! ```text
//!              insert                    remove / expire / close_module
//!   (absent) ─────────▶ Open(verdict…) ─────────────────────────────────▶ Closed
//!                        ▲   │ insert (revalidated: another verdict)        │ │
//!                        └───┴──────────────────────────────────────────────┘ │ forgotten, oldest
//!                          insert (a new connection of the same addresses)    ▼ first
//!                                                                          (absent, below the floor)
//! ```
//!
//! Invariants ([`FlowTable::check`]):
//! - at most `capacity` open connections and `TOMBSTONES_MAX` closed ones are remembered;
//! - a closed connection is remembered until a floor stands above its stamp, and for a key that
//!   is not known no record at or below the floor is applied: so a closed or revoked connection
//!   never returns (S6), however late its record comes. (A record that comes later than all that
//!   is lost, and counted; the connection itself lives on in its host.)
//! - a node that becomes active stamps above everything it has applied.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Direction, Epoch, FlowKey, Generation, ModuleNumber, ObjectName, Time, Verdict};
use serde::{Deserialize, Serialize};

/// Open connections one gateway remembers: four hosts of 65,536 flows each. When it is full a
/// further connection is decided and carried as usual, but not listed nor replicated, and counted.
pub const CAPACITY: usize = 262_144;

/// Closed connections remembered against late records: at 1,000 closings a second, a minute. The
/// oldest is forgotten when there are more, and the floor rises above it.
pub const TOMBSTONES_MAX: usize = 65_536;

/// A connection of which nothing is heard for so long is closed here: twice the longest idle time
/// of a host's own table, so that a lost report does not leave it for ever.
pub const IDLE_MAX: Duration = Duration::from_secs(2 * 3_600);

/// Which connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionKey {
    /// The module that carries it.
    pub module: ModuleNumber,
    /// Its port.
    pub port: String,
    /// Its addresses, as its first packet travelled.
    pub flow: FlowKey,
}

/// What was decided about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Direction of its first packet.
    pub direction: Direction,
    /// The verdict in force.
    pub verdict: Verdict,
    /// The policy that was asked.
    pub policy: ObjectName,
    /// The rule that decided; `None` if none matched.
    pub rule: Option<ObjectName>,
    /// The policy's number then.
    pub generation: Generation,
}

/// The place of a change in the order of all changes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp {
    /// Of the active that made it.
    pub epoch: Epoch,
    /// Grows by one with each change of that active.
    pub number: u64,
}

/// One change, as it is replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Which connection.
    pub key: ConnectionKey,
    /// When, in the order of changes.
    pub stamp: Stamp,
    /// What it is now; `None` if it is closed.
    pub connection: Option<Connection>,
}

/// A whole table, for a peer that starts from nothing. It replaces what the peer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSnapshot {
    /// Below and at this stamp nothing unknown is applied.
    pub floor: Stamp,
    /// Open and closed connections.
    pub records: Vec<FlowRecord>,
}

/// What became of an applied record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was newer and is in force.
    Applied,
    /// The table is full: counted, not kept.
    Full,
    /// Something newer is known, or it lies below the floor: counted, not kept.
    Stale,
}

/// How full the table is, and what it had to refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounters {
    /// Connections not kept because the table was full.
    pub refused_full: u64,
    /// Records not applied because they were stale.
    pub refused_stale: u64,
}

#[derive(Clone, Debug)]
struct Open {
    stamp: Stamp,
    decided: Time,
    heard: Time,
    connection: Connection,
}

/// The table.
#[derive(Clone, Debug)]
pub struct FlowTable {
    capacity: usize,
    open: BTreeMap<ConnectionKey, Open>,
    /// The same, by the time something was last heard of it.
    by_heard: BTreeSet<(Time, ConnectionKey)>,
    closed: BTreeMap<ConnectionKey, Stamp>,
    /// The same, by stamp.
    by_stamp: BTreeMap<Stamp, ConnectionKey>,
    floor: Stamp,
    last: Stamp,
    counters: FlowCounters,
}

impl Default for FlowTable {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

/// A connection as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// Which.
    pub key: &'a ConnectionKey,
    /// What was decided.
    pub connection: &'a Connection,
    /// When, on this node's clock: when it was decided here, or its record was applied.
    pub decided: Time,
}

impl FlowTable {
    /// An empty table for at most `capacity` open connections.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            capacity,
            open: BTreeMap::new(),
            by_heard: BTreeSet::new(),
            closed: BTreeMap::new(),
            by_stamp: BTreeMap::new(),
            floor: Stamp::default(),
            last: Stamp::default(),
            counters: FlowCounters::default(),
        }
    }

    /// This node is active under `epoch` from now on: its changes are stamped with it. An epoch
    /// that is not above the last stamp's changes nothing.
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        if epoch > self.last.epoch {
            self.last = Stamp { epoch, number: 0 };
        }
    }

    /// A connection was decided, or decided anew. Returns the record to replicate, or `None` when
    /// the table is full.
    pub fn insert(
        &mut self,
        now: Time,
        key: ConnectionKey,
        connection: Connection,
    ) -> Option<FlowRecord> {
        if !self.open.contains_key(&key) && self.open.len() >= self.capacity {
            self.counters.refused_full += 1;
            return None;
        }
        let stamp = self.next_stamp();
        self.put(now, key.clone(), stamp, connection.clone());
        Some(FlowRecord {
            key,
            stamp,
            connection: Some(connection),
        })
    }

    /// Something was heard of a connection: it is not idle.
    pub fn touch(&mut self, now: Time, key: &ConnectionKey) {
        if let Some(open) = self.open.get_mut(key) {
            self.by_heard.remove(&(open.heard, key.clone()));
            open.heard = open.heard.max(now);
            self.by_heard.insert((open.heard, key.clone()));
        }
    }

    /// A connection was closed or revoked. Returns the record to replicate; `None` if it is not
    /// known.
    pub fn remove(&mut self, key: &ConnectionKey) -> Option<FlowRecord> {
        if !self.open.contains_key(key) {
            return None;
        }
        let stamp = self.next_stamp();
        self.bury(key.clone(), stamp);
        Some(FlowRecord {
            key: key.clone(),
            stamp,
            connection: None,
        })
    }

    /// Closes at most `limit` connections that have been silent for [`IDLE_MAX`] at `now`.
    pub fn expire(&mut self, now: Time, limit: usize) -> Vec<FlowRecord> {
        let silent = |(heard, _): &&(Time, ConnectionKey)| now.since(*heard) >= IDLE_MAX;
        let keys: Vec<ConnectionKey> = self
            .by_heard
            .iter()
            .take_while(silent)
            .take(limit)
            .map(|(_, key)| key.clone())
            .collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// When [`Self::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.by_heard.first().map(|(heard, _)| *heard + IDLE_MAX)
    }

    /// Closes every connection of a module that is gone for good.
    pub fn close_module(&mut self, module: ModuleNumber) -> Vec<FlowRecord> {
        let of_module = |key: &&ConnectionKey| key.module == module;
        let keys: Vec<ConnectionKey> = self.open.keys().filter(of_module).cloned().collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Applies a change that the active made.
    pub fn apply(&mut self, now: Time, record: FlowRecord) -> Applied {
        let known = (self.open.get(&record.key).map(|open| open.stamp))
            .or_else(|| self.closed.get(&record.key).copied());
        if record.stamp <= known.unwrap_or(self.floor) {
            self.counters.refused_stale += 1;
            return Applied::Stale;
        }
        self.last = self.last.max(record.stamp);
        match record.connection {
            None => self.bury(record.key, record.stamp),
            Some(connection) => {
                if !self.open.contains_key(&record.key) && self.open.len() >= self.capacity {
                    self.counters.refused_full += 1;
                    return Applied::Full;
                }
                self.put(now, record.key, record.stamp, connection);
            }
        }
        Applied::Applied
    }

    /// The whole table.
    #[must_use]
    pub fn snapshot(&self) -> FlowSnapshot {
        let open = self.open.iter().map(|(key, open)| FlowRecord {
            key: key.clone(),
            stamp: open.stamp,
            connection: Some(open.connection.clone()),
        });
        let closed = self.closed.iter().map(|(key, stamp)| FlowRecord {
            key: key.clone(),
            stamp: *stamp,
            connection: None,
        });
        FlowSnapshot {
            floor: self.floor,
            records: open.chain(closed).collect(),
        }
    }

    /// Replaces everything by a snapshot of the active.
    pub fn restore(&mut self, now: Time, snapshot: FlowSnapshot) {
        let (capacity, counters, last) = (self.capacity, self.counters, self.last);
        *self = Self::with_capacity(capacity);
        self.counters = counters;
        self.last = last.max(snapshot.floor);
        for record in snapshot.records {
            self.apply(now, record);
        }
        self.floor = self.floor.max(snapshot.floor);
    }

    /// The open connections in the order of their keys.
    pub fn connections(&self) -> impl Iterator<Item = Shown<'_>> {
        self.open.iter().map(|(key, open)| Shown {
            key,
            connection: &open.connection,
            decided: open.decided,
        })
    }

    /// One connection.
    #[must_use]
    pub fn connection(&self, key: &ConnectionKey) -> Option<&Connection> {
        self.open.get(key).map(|open| &open.connection)
    }

    /// Open connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True if no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Most open connections.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The stamp of the last change made or applied.
    #[must_use]
    pub const fn last_stamp(&self) -> Stamp {
        self.last
    }

    /// What had to be refused.
    #[must_use]
    pub const fn counters(&self) -> FlowCounters {
        self.counters
    }

    fn next_stamp(&mut self) -> Stamp {
        self.last.number += 1;
        self.last
    }

    fn put(&mut self, now: Time, key: ConnectionKey, stamp: Stamp, connection: Connection) {
        let before = self.forget(&key);
        self.by_heard.insert((now, key.clone()));
        let decided = before.unwrap_or(now);
        self.open.insert(
            key,
            Open {
                stamp,
                decided,
                heard: now,
                connection,
            },
        );
    }

    fn bury(&mut self, key: ConnectionKey, stamp: Stamp) {
        self.forget(&key);
        self.by_stamp.insert(stamp, key.clone());
        self.closed.insert(key, stamp);
        while self.closed.len() > TOMBSTONES_MAX {
            let Some((stamp, key)) = self.by_stamp.pop_first() else {
                break;
            };
            self.closed.remove(&key);
            self.floor = self.floor.max(stamp);
        }
    }

    /// Takes a key out of every index; returns when it was decided, if it was open.
    fn forget(&mut self, key: &ConnectionKey) -> Option<Time> {
        if let Some(stamp) = self.closed.remove(key) {
            self.by_stamp.remove(&stamp);
        }
        let open = self.open.remove(key)?;
        self.by_heard.remove(&(open.heard, key.clone()));
        Some(open.decided)
    }

    /// Verifies the invariants.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self) {
        assert!(
            self.open.len() <= self.capacity,
            "more open than the capacity"
        );
        assert!(
            self.closed.len() <= TOMBSTONES_MAX,
            "more closed than are remembered"
        );
        assert_eq!(self.open.len(), self.by_heard.len(), "index by time");
        assert_eq!(self.closed.len(), self.by_stamp.len(), "index by stamp");
        assert!(
            !self.closed.keys().any(|key| self.open.contains_key(key)),
            "open and closed"
        );
        let stamps = self
            .open
            .values()
            .map(|open| open.stamp)
            .chain(self.closed.values().copied());
        assert!(
            stamps.max().unwrap_or_default() <= self.last,
            "a stamp above the last"
        );
    }
}

#[cfg(test)]
mod tests;
