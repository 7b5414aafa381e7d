//! One storage with its positions, flushes and compaction.
//!
//! Invariants:
//! - `flushed <= position`; what is at or below `flushed` survives whatever the storage survives;
//! - at most one piece of work runs at a time, so an ending piece says which positions it covers;
//! - a commit that arrives while a flush runs is covered by the next one: one flush serves all
//!   that gathered meanwhile (group commit).

use model::{Epoch, Lsn};
use serde::{Deserialize, Serialize};
use wire::checkpoint::{Entry, Namespace, Operation};

use crate::content::Content;
use crate::limits::{COMPACT_BYTES, PAGE_BYTES};
use crate::log;
use crate::storage::{Storage, StorageError, Task, Work};

/// Which of the store's two storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    Persistent,
    Volatile,
}

/// A record of the log, as read.
#[derive(Debug, Deserialize)]
pub(crate) enum Logged {
    /// A replicated commit.
    Shared(Entry),
    /// A commit of this node only.
    Local(Vec<Operation>),
    /// First record of a volatile log.
    Born(Born),
}

/// A record of the log, as written: the same bytes as [`Logged`].
#[derive(Debug, Serialize)]
pub(crate) enum LoggedRef<'a> {
    Shared(&'a Entry),
    Local(&'a [Operation]),
    Born(Born),
}

/// What a volatile storage knows of its persistent companion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Born {
    /// Number of bulk syncs the companion had seen.
    pub(crate) bulk: u64,
    /// An earlier volatile content was lost while its commits had been counted.
    pub(crate) lost: bool,
}

/// First record of a snapshot; its position is the snapshot's.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    /// Newest shared commit in it.
    pub(crate) history: (Epoch, Lsn),
    pub(crate) born: Born,
    /// Records that follow, to notice a missing end.
    pub(crate) pairs: u64,
}

/// Pairs of a snapshot's record.
pub(crate) type Pairs = Vec<(Namespace, Vec<u8>, Vec<u8>)>;

#[derive(Debug)]
enum Running {
    Flush { covers: u64 },
    Snapshot { covers: u64, bytes: u64 },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Journal {
    storage: Box<dyn Storage>,
    /// Whether a flush is needed at all.
    durable: bool,
    position: u64,
    flushed: u64,
    log_bytes: u64,
    snapshot_bytes: u64,
    running: Option<Running>,
}

/// Where a recovery left the storage.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resume {
    pub(crate) position: u64,
    pub(crate) log_bytes: u64,
    pub(crate) snapshot_bytes: u64,
}

impl Journal {
    pub(crate) fn new(storage: Box<dyn Storage>, durable: bool, resume: Resume) -> Self {
        let Resume {
            position,
            log_bytes,
            snapshot_bytes,
        } = resume;
        // What was read back may sit in the page cache only: nothing counts as flushed until
        // one flush has gone over it.
        let flushed = if durable { 0 } else { position };
        Self {
            storage,
            durable,
            position,
            flushed,
            log_bytes,
            snapshot_bytes,
            running: None,
        }
    }

    /// Appends one record.
    pub(crate) fn append(&mut self, record: &LoggedRef<'_>) -> Result<(), StorageError> {
        let mut bytes = Vec::with_capacity(256);
        log::write(&mut bytes, self.position + 1, self.flushed, record);
        self.storage.append(&bytes)?;
        self.position += 1;
        self.log_bytes += bytes.len() as u64;
        if !self.durable {
            self.flushed = self.position;
        }
        Ok(())
    }

    /// Last position written.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// Last position that is durable.
    pub(crate) const fn flushed(&self) -> u64 {
        self.flushed
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    pub(crate) const fn wants_flush(&self) -> bool {
        self.running.is_none() && self.flushed < self.position
    }

    pub(crate) const fn wants_compaction(&self) -> bool {
        let twice = self.snapshot_bytes.saturating_mul(2);
        let limit = if twice > COMPACT_BYTES {
            twice
        } else {
            COMPACT_BYTES
        };
        self.running.is_none() && self.log_bytes > limit
    }

    pub(crate) fn begin_flush(&mut self) -> Work {
        self.running = Some(Running::Flush {
            covers: self.position,
        });
        self.storage.work(Task::Flush)
    }

    /// Begins to replace the snapshot by the namespaces of `content` that `wanted` picks, as of
    /// the last position written.
    pub(crate) fn begin_snapshot(
        &mut self,
        content: &Content,
        wanted: impl Fn(Namespace) -> bool + Copy,
        history: (Epoch, Lsn),
        born: Born,
    ) -> Result<Work, StorageError> {
        self.storage.rotate()?;
        let pairs = content.records(None, wanted).count() as u64;
        let mut bytes = Vec::new();
        log::write(
            &mut bytes,
            self.position,
            self.position,
            &SnapshotHead {
                history,
                born,
                pairs,
            },
        );
        let mut page: Pairs = Vec::new();
        let mut page_bytes = 0;
        for (namespace, key, value) in content.records(None, wanted) {
            page_bytes += key.len() + value.len();
            page.push((namespace, key.to_vec(), value.to_vec()));
            if page_bytes >= PAGE_BYTES {
                log::write(&mut bytes, self.position, self.position, &page);
                page.clear();
                page_bytes = 0;
            }
        }
        if !page.is_empty() {
            log::write(&mut bytes, self.position, self.position, &page);
        }
        let length = bytes.len() as u64;
        self.running = Some(Running::Snapshot {
            covers: self.position,
            bytes: length,
        });
        self.log_bytes = 0;
        Ok(self.storage.work(Task::Snapshot(bytes)))
    }

    /// The running work has succeeded.
    pub(crate) fn work_done(&mut self) {
        match self.running.take() {
            Some(Running::Flush { covers }) => self.flushed = self.flushed.max(covers),
            Some(Running::Snapshot { covers, bytes }) => {
                self.flushed = self.flushed.max(covers);
                self.snapshot_bytes = bytes;
            }
            None => {}
        }
    }
}
