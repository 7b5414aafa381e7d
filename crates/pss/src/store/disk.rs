//! Records, flushes, compaction.

use model::Time;
use wire::checkpoint::{Durability, Entry, Namespace, Operation};

use super::{Store, Unflushed};
use crate::Output;
use crate::content::namespace_of;
use crate::journal::{LoggedRef, Which};
use crate::storage::{StorageError, Work};

impl Store {
    /// Writes and applies one shared commit, ours or the active's.
    pub(super) fn write_shared(&mut self, entry: Entry) -> Result<(), StorageError> {
        let persistent = entry.operations.first().is_none_or(is_persistent);
        let journal = if persistent {
            &mut self.persistent
        } else {
            &mut self.volatile
        };
        journal.append(&LoggedRef::Shared(&entry))?;
        self.content.apply(&entry.operations);
        if persistent {
            self.lineage.push(entry.epoch, entry.lsn);
        }
        self.tell_watchers(entry.lsn, &entry.operations);
        self.history.push(entry.into(), self.content.config_hash());
        self.note_unflushed();
        Ok(())
    }

    pub(super) fn note_unflushed(&mut self) {
        let (_, lsn) = self.history.last();
        let config_hash = self.content.config_hash();
        let position = self.persistent.position();
        match self.unflushed.back_mut() {
            Some(last) if last.position == position => {
                *last = Unflushed {
                    lsn,
                    config_hash,
                    position,
                }
            }
            Some(_) | None => self.unflushed.push_back(Unflushed {
                lsn,
                config_hash,
                position,
            }),
        }
    }

    pub(super) fn note_flushed(&mut self) {
        while let Some(first) = self.unflushed.front()
            && first.position <= self.persistent.flushed()
        {
            self.durable = (first.lsn, first.config_hash);
            self.unflushed.pop_front();
        }
    }

    pub(super) fn start_work(&mut self, which: Which, work: Work) {
        let number = self.number();
        self.works.insert(number, (which, Some(work)));
        self.outputs.push_back(Output::Work { work: number });
    }

    pub(super) fn work_done(&mut self, now: Time, work: u64, result: Result<(), String>) {
        let Some((which, _)) = self.works.remove(&work) else {
            return;
        };
        if let Err(reason) = result {
            self.fail(reason);
            return;
        }
        match which {
            Which::Persistent => self.persistent.work_done(),
            Which::Volatile => self.volatile.work_done(),
        }
        self.note_flushed();
        self.replacing_goes_on(now);
    }

    pub(super) fn compact(&mut self, which: Which) -> Result<(), StorageError> {
        let history = self.history.last();
        self.lineage.put_into(&mut self.content);
        let journal = match which {
            Which::Persistent => &mut self.persistent,
            Which::Volatile => &mut self.volatile,
        };
        let wanted = move |namespace: Namespace| belongs(namespace) == which;
        let work = journal.begin_snapshot(&self.content, wanted, history, self.born)?;
        self.counters.compactions += 1;
        self.start_work(which, work);
        Ok(())
    }

    pub(super) fn disk_work(&mut self) -> Result<(), StorageError> {
        if self.replacing.is_none() {
            if self.persistent.wants_compaction() {
                self.compact(Which::Persistent)?;
            }
            if self.volatile.wants_compaction() {
                self.compact(Which::Volatile)?;
            }
        }
        if self.persistent.wants_flush() {
            let work = self.persistent.begin_flush();
            self.counters.flushes += 1;
            self.start_work(Which::Persistent, work);
        }
        Ok(())
    }
}

/// The storage that a namespace lives in.
pub(super) const fn belongs(namespace: Namespace) -> Which {
    match namespace.durability {
        Durability::Persistent => Which::Persistent,
        Durability::Volatile => Which::Volatile,
    }
}

fn is_persistent(operation: &Operation) -> bool {
    namespace_of(operation).durability == Durability::Persistent
}
