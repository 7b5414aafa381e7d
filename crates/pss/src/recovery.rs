//! From bytes to content, when a store is opened.

use model::{Epoch, Lsn};
use serde::{Deserialize, Serialize};
use wire::checkpoint::Entry;

use crate::content::Content;
use crate::journal::{Born, Logged, Pairs, Resume, SnapshotHead, Which};
use crate::log;
use crate::storage::{Storage, StorageError};

/// What was found when a store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Newest shared commit.
    pub history: (Epoch, Lsn),
    /// Bytes of unfinished writes cut off the end of the log: nobody was promised them.
    pub torn_bytes: usize,
    /// The volatile content is gone (the machine lost power) although its commits were counted:
    /// a standby needs a bulk sync.
    pub volatile_lost: bool,
    /// Something that had been promised is damaged. What precedes it is there; what follows it
    /// is not used.
    pub damage: Option<Damage>,
}

/// Damage inside what had been flushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what} after record {position}: {bytes} bytes cannot be used")]
pub struct Damage {
    /// `the log is damaged` …
    pub what: String,
    /// Last record that is sound.
    pub position: u64,
    /// Bytes from the damage to the end.
    pub bytes: usize,
}

/// What one storage held.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) content: Content,
    pub(crate) base: (Epoch, Lsn),
    pub(crate) entries: Vec<Entry>,
    pub(crate) born: Option<Born>,
    pub(crate) resume: Resume,
    pub(crate) torn_bytes: usize,
    pub(crate) damage: Option<Damage>,
}

impl Restored {
    pub(crate) fn newest(&self) -> (Epoch, Lsn) {
        let last = self.entries.last().map(|entry| (entry.epoch, entry.lsn));
        last.filter(|last| last.1 > self.base.1)
            .unwrap_or(self.base)
    }

    fn snapshot(&mut self, bytes: &[u8]) {
        self.resume.snapshot_bytes = bytes.len() as u64;
        let sound = self.snapshot_records(bytes);
        if sound.is_none() {
            let what = "the snapshot is damaged".to_owned();
            let position = self.resume.position;
            self.damage = Some(Damage {
                what,
                position,
                bytes: bytes.len(),
            });
        }
    }

    fn snapshot_records(&mut self, bytes: &[u8]) -> Option<()> {
        let (record, mut at) = log::read(bytes)?;
        let head: SnapshotHead = log::decode(record.body)?;
        self.resume.position = record.position;
        self.base = head.history;
        self.born = Some(head.born);
        let mut pairs = 0;
        while at < bytes.len() {
            let (record, length) = log::read(&bytes[at..])?;
            for (namespace, key, value) in log::decode::<Pairs>(record.body)? {
                self.content.put(namespace, key, value.into());
                pairs += 1;
            }
            at += length;
        }
        (pairs == head.pairs).then_some(())
    }

    /// Reads one segment; gives the offset at which it stopped, if before the end.
    fn segment(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let Some((record, length)) = log::read(&bytes[at..]) else {
                return Some(at);
            };
            if record.position > self.resume.position {
                if record.position != self.resume.position + 1 {
                    return Some(at);
                }
                let Some(logged) = log::decode::<Logged>(record.body) else {
                    return Some(at);
                };
                self.apply(logged);
                self.resume.position = record.position;
            }
            at += length;
            self.resume.log_bytes += length as u64;
        }
        None
    }

    fn apply(&mut self, logged: Logged) {
        match logged {
            Logged::Shared(entry) => {
                self.content.apply(&entry.operations);
                self.entries.push(entry);
            }
            Logged::Local(operations) => self.content.apply(&operations),
            Logged::Born(born) => self.born = Some(born),
        }
    }
}

/// Reads one storage. A torn end is cut off if `repair` is set; damage is left as it is.
pub(crate) fn restore(
    storage: &mut dyn Storage,
    which: Which,
    repair: bool,
) -> Result<Restored, StorageError> {
    let loaded = storage.load()?;
    let mut restored = Restored {
        content: Content::new(),
        ..Restored::default()
    };
    if let Some(bytes) = &loaded.snapshot {
        restored.snapshot(bytes);
    }
    for (index, bytes) in loaded.segments.iter().enumerate() {
        if restored.damage.is_some() {
            break;
        }
        let Some(offset) = restored.segment(bytes) else {
            continue;
        };
        let mut rest = bytes[offset..].to_vec();
        loaded.segments[index + 1..]
            .iter()
            .for_each(|later| rest.extend_from_slice(later));
        let missing = restored.resume.position + 1;
        // A sound record of the right place that cannot be used, or a later one that knew the
        // missing one to be flushed: somebody was promised it.
        let found = log::read(&bytes[offset..]).map(|(record, _)| record.position);
        if found.is_some_and(|position| position <= missing)
            || log::highest_flushed(&rest) >= missing
        {
            let what = format!("the {which:?} log is damaged").to_lowercase();
            let position = restored.resume.position;
            restored.damage = Some(Damage {
                what,
                position,
                bytes: rest.len(),
            });
        } else {
            restored.torn_bytes = rest.len();
            if repair {
                storage.truncate(index, offset)?;
            }
        }
        break;
    }
    restored.content.rehash();
    Ok(restored)
}

/// Epoch and position of the newest shared commit in a store that is not open: what a node needs
/// to know of its history before its services run. Reads only.
///
/// # Errors
/// When a storage cannot be read.
pub fn newest_commit(
    persistent: &mut dyn Storage,
    volatile: &mut dyn Storage,
) -> Result<(Epoch, Lsn), StorageError> {
    let persistent = restore(persistent, Which::Persistent, false)?;
    let volatile = restore(volatile, Which::Volatile, false)?;
    Ok(joined(&persistent, &volatile).newest)
}

/// How the two storages fit together.
pub(crate) struct Joined {
    pub(crate) newest: (Epoch, Lsn),
    pub(crate) volatile_usable: bool,
    pub(crate) volatile_lost: bool,
}

pub(crate) fn joined(persistent: &Restored, volatile: &Restored) -> Joined {
    let bulk = persistent.born.unwrap_or_default().bulk;
    let usable = volatile.damage.is_none() && volatile.born.is_some_and(|born| born.bulk == bulk);
    let counted = persistent.resume.position > 0 || persistent.base.1.0 > 0;
    let lost = match volatile.born {
        Some(born) if usable => born.lost,
        Some(_) | None => counted,
    };
    let mut newest = persistent.newest();
    if usable && volatile.newest().1 > newest.1 {
        newest = volatile.newest();
    }
    Joined {
        newest,
        volatile_usable: usable,
        volatile_lost: lost,
    }
}
