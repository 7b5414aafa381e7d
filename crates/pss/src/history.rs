//! Recent shared commits, for a standby that lags or comes back.
//!
//! Invariant: entries are gapless, and the first follows `base`.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{Epoch, Lsn};
use wire::checkpoint::{Entry, Operation};

use crate::limits::{HISTORY_BYTES, HISTORY_ENTRIES};

/// A commit with what is compared of it.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    pub(crate) entry: Arc<Entry>,
    pub(crate) bytes: usize,
    /// Hash of the configuration after it.
    pub(crate) config_hash: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    base: (Epoch, Lsn),
    recent: VecDeque<Recent>,
    bytes: usize,
}

/// About what an entry takes in a message.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    let of = |operation: &Operation| match operation {
        Operation::Put { key, value, .. } => 16 + key.len() + value.len(),
        Operation::Delete { key, .. } => 16 + key.len(),
    };
    64 + entry.operations.iter().map(of).sum::<usize>()
}

impl History {
    pub(crate) const fn starting_at(base: (Epoch, Lsn)) -> Self {
        Self {
            base,
            recent: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Epoch and position of the newest commit.
    pub(crate) fn last(&self) -> (Epoch, Lsn) {
        self.recent
            .back()
            .map_or(self.base, |last| (last.entry.epoch, last.entry.lsn))
    }

    /// Appends. An entry that does not follow begins the history anew.
    pub(crate) fn push(&mut self, entry: Arc<Entry>, config_hash: u64) {
        if entry.lsn != self.last().1.next() {
            *self = Self::starting_at((entry.epoch, entry.lsn));
            return;
        }
        let bytes = entry_bytes(&entry);
        self.bytes += bytes;
        self.recent.push_back(Recent {
            entry,
            bytes,
            config_hash,
        });
        while self.recent.len() > HISTORY_ENTRIES || self.bytes > HISTORY_BYTES {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes;
            self.base = (oldest.entry.epoch, oldest.entry.lsn);
        }
    }

    /// Whether everything after `point` is here and `point` is part of this history.
    pub(crate) fn contains(&self, point: (Epoch, Lsn)) -> bool {
        point == self.base
            || self
                .at(point.1)
                .is_some_and(|found| found.entry.epoch == point.0)
    }

    /// The commit at a position, if it is still here.
    pub(crate) fn at(&self, lsn: Lsn) -> Option<&Recent> {
        let index = lsn.0.checked_sub(self.base.1.0 + 1)?;
        self.recent.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let mut expected = self.base.1;
        for recent in &self.recent {
            expected = expected.next();
            if recent.entry.lsn != expected {
                return Err(format!(
                    "{:?} stands where {expected:?} belongs",
                    recent.entry.lsn
                ));
            }
        }
        Ok(())
    }
}
