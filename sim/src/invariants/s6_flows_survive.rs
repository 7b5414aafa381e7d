//! S6: a flow that the standby has acknowledged, and that has not been closed, is known to the
//! standby when it takes over; one whose closing it has acknowledged is not, and never returns.

use std::collections::{BTreeMap, BTreeSet};

use model::{Epoch, Lsn};

/// A flow's key as stored.
pub type Key = Vec<u8>;

/// The table of the last active, and since which commit each flow is in it or gone from it.
#[derive(Debug, Default)]
pub struct FlowsSurvive {
    epoch: Epoch,
    lsn: Lsn,
    open: BTreeMap<Key, Lsn>,
    closed: BTreeMap<Key, Lsn>,
}

impl FlowsSurvive {
    /// Whether the active's table of this position is to be looked at.
    #[must_use]
    pub fn wants(&self, epoch: Epoch, lsn: Lsn) -> bool {
        epoch != self.epoch || lsn != self.lsn
    }

    /// Whether the last look was at this epoch's active.
    #[must_use]
    pub fn is_of(&self, epoch: Epoch) -> bool {
        epoch == self.epoch
    }

    /// The active's table as of a commit.
    pub fn looks(&mut self, epoch: Epoch, lsn: Lsn, keys: BTreeSet<Key>) {
        if epoch != self.epoch {
            // Begins anew: what an active of an earlier epoch knew, it has been asked for below.
            self.open.clear();
            self.closed.clear();
        }
        (self.epoch, self.lsn) = (epoch, lsn);
        let gone: Vec<Key> = self
            .open
            .keys()
            .filter(|key| !keys.contains(*key))
            .cloned()
            .collect();
        for key in gone {
            self.open.remove(&key);
            self.closed.insert(key, lsn);
        }
        for key in keys {
            self.closed.remove(&key);
            self.open.entry(key).or_insert(lsn);
        }
    }

    /// A standby that followed `epoch` and acknowledged its commits up to `acked` takes over with
    /// these flows.
    ///
    /// # Errors
    /// If one is missing, or one has come back.
    pub fn takes_over(&self, epoch: Epoch, acked: Lsn, keys: &BTreeSet<Key>) -> Result<(), String> {
        if epoch != self.epoch {
            return Ok(());
        }
        let is_missing = |(key, since): &(&Key, &Lsn)| **since <= acked && !keys.contains(*key);
        if let Some((key, since)) = self.open.iter().find(is_missing) {
            return Err(format!(
                "S6: flow {key:02x?} of commit {} is not known although {} was acknowledged",
                since.0, acked.0
            ));
        }
        let is_back = |(key, since): &(&Key, &Lsn)| **since <= acked && keys.contains(*key);
        if let Some((key, since)) = self.closed.iter().find(is_back) {
            return Err(format!(
                "S6: flow {key:02x?}, closed in commit {}, is back although {} was acknowledged",
                since.0, acked.0
            ));
        }
        Ok(())
    }

    /// A disk was replaced or set back: what was acknowledged from it is not known any more.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}
