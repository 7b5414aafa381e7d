//! Measured events, in memory shared between the process that measures and the
//! one that reports.
//!
//! A log is a file on the lab's tmpfs: a header of 8 words, then records of 4
//! words. Writing one touches memory only, so a real-time loop never waits for
//! a disk, a lock or a reader.
//!
//! Invariants:
//! - R1: one writer; `count` is raised after its record is complete.
//! - R2: a full log drops and counts; a report says so and vouches for nothing.
//! - R3: every event that began before `settled_ns` is in the log.

use crate::sys::SharedWords;
use anyhow::{Context, bail};
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// One event; what the words mean is the log's own.
pub type Record = [u64; RECORD_WORDS];

const RECORD_WORDS: usize = 4;
const HEADER_WORDS: usize = 8;
/// "twinrec1": a log of another layout is refused.
const MAGIC: u64 = 0x7477_696e_7265_6331;

const AT_MAGIC: usize = 0;
const AT_COUNT: usize = 1;
const AT_CAPACITY: usize = 2;
const AT_SETTLED: usize = 3;
const AT_DROPPED: usize = 4;

/// The writing end of a log.
#[derive(Debug)]
pub struct RecordLog {
    shared: SharedWords,
    count: usize,
    capacity: usize,
}

/// What a reader finds in a log.
#[derive(Debug, Default, Clone)]
pub struct RecordSet {
    /// The records, in the order they were written.
    pub records: Vec<Record>,
    /// Every event before this is among them, monotonic ns.
    pub settled_ns: u64,
    /// How many records did not fit.
    pub dropped: u64,
}

impl RecordLog {
    /// Makes an empty log for `capacity` records.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path, capacity: usize) -> anyhow::Result<Self> {
        let words = HEADER_WORDS + capacity * RECORD_WORDS;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        file.set_len((words * size_of::<u64>()) as u64)
            .with_context(|| format!("no room for {}", path.display()))?;
        let shared = SharedWords::map(&file).with_context(|| path.display().to_string())?;
        let log = Self {
            shared,
            count: 0,
            capacity,
        };
        log.word(AT_CAPACITY)
            .store(capacity as u64, Ordering::Relaxed);
        log.word(AT_MAGIC).store(MAGIC, Ordering::Release);
        Ok(log)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.shared.words()[index]
    }

    /// Adds a record, or counts it when the log is full (R2).
    pub fn push(&mut self, record: Record) {
        if self.count == self.capacity {
            self.word(AT_DROPPED).fetch_add(1, Ordering::Relaxed);
            return;
        }
        let start = HEADER_WORDS + self.count * RECORD_WORDS;
        for (offset, value) in record.into_iter().enumerate() {
            self.word(start + offset).store(value, Ordering::Relaxed);
        }
        self.count += 1;
        self.word(AT_COUNT)
            .store(self.count as u64, Ordering::Release);
    }

    /// States that every event before `at_ns` is in the log (R3).
    pub fn settle(&self, at_ns: u64) {
        self.word(AT_SETTLED).store(at_ns, Ordering::Release);
    }
}

/// Up to when a log is complete, monotonic ns, without reading its records.
///
/// # Errors
/// When there is no such log, or it is damaged.
pub fn read_settled(path: &Path) -> anyhow::Result<u64> {
    let shared = map(path)?;
    Ok(shared.words()[AT_SETTLED].load(Ordering::Acquire))
}

fn map(path: &Path) -> anyhow::Result<SharedWords> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("there is no {}", path.display()))?;
    let shared = SharedWords::map(&file).with_context(|| path.display().to_string())?;
    let words = shared.words();
    if words.len() < HEADER_WORDS || words[AT_MAGIC].load(Ordering::Acquire) != MAGIC {
        bail!("{} is damaged", path.display());
    }
    Ok(shared)
}

/// Reads what a log holds at the moment.
///
/// # Errors
/// When there is no such log, or it is damaged.
pub fn read(path: &Path) -> anyhow::Result<RecordSet> {
    let shared = map(path)?;
    let words = shared.words();
    // `settled` is read first: what it vouches for was counted before it.
    let settled_ns = words[AT_SETTLED].load(Ordering::Acquire);
    let count = words[AT_COUNT].load(Ordering::Acquire) as usize;
    let body = words[HEADER_WORDS..].get(..count.saturating_mul(RECORD_WORDS));
    let records = body
        .with_context(|| format!("{} is damaged", path.display()))?
        .chunks_exact(RECORD_WORDS)
        .map(|record| std::array::from_fn(|index| record[index].load(Ordering::Relaxed)))
        .collect();
    Ok(RecordSet {
        records,
        settled_ns,
        dropped: words[AT_DROPPED].load(Ordering::Relaxed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_read_while_the_log_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.rec");
        let mut log = RecordLog::create(&path, 2).expect("a log");
        assert!(read(&path).expect("empty").records.is_empty());
        log.push([1, 2, 3, 4]);
        log.settle(99);
        let set = read(&path).expect("one");
        assert_eq!(
            (set.records, set.settled_ns, set.dropped),
            (vec![[1, 2, 3, 4]], 99, 0)
        );
        log.push([5, 6, 7, 8]);
        log.push([9, 9, 9, 9]);
        let set = read(&path).expect("full");
        assert_eq!((set.records.len(), set.dropped), (2, 1));
    }

    #[test]
    fn a_log_is_never_reused_and_a_foreign_file_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.rec");
        let _log = RecordLog::create(&path, 1).expect("a log");
        assert!(RecordLog::create(&path, 1).is_err());
        let other = folder.path().join("y.rec");
        std::fs::write(&other, [7u8; 256]).expect("a file");
        assert!(read(&other).is_err());
    }
}
