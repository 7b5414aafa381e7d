//! A disk in memory that can lose power, run full and fail: for tests and the simulation.

use std::sync::{Arc, Mutex, MutexGuard};

use super::{Loaded, Storage, StorageError, Task, Work};

#[derive(Clone, Debug, Default)]
struct Segment {
    number: u64,
    bytes: Vec<u8>,
    /// So many of them survive a loss of power.
    durable: usize,
}

#[derive(Debug, Default)]
struct Disk {
    snapshot: Option<Vec<u8>>,
    segments: Vec<Segment>,
    next_number: u64,
    /// Bytes that may still be appended; `None` is endless.
    room: Option<usize>,
    flushes_fail: bool,
}

/// The platters: outlive the process that uses them. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The machine loses power. Of the bytes that were not flushed `kept` decides how many are
    /// there afterwards: it is given their number and returns at most that. Work that was handed
    /// out and has not run must not run any more.
    pub fn lose_power(&self, kept: &mut dyn FnMut(usize) -> usize) {
        let mut disk = self.lock();
        let mut earlier_lost = false;
        for segment in &mut disk.segments {
            let loose = segment.bytes.len() - segment.durable;
            let keep = if earlier_lost {
                0
            } else {
                kept(loose).min(loose)
            };
            earlier_lost |= keep < loose;
            segment.bytes.truncate(segment.durable + keep);
            segment.durable = segment.bytes.len();
        }
    }

    /// Everything is gone: a tmpfs after a loss of power, a replaced disk.
    pub fn wipe(&self) {
        let mut disk = self.lock();
        disk.snapshot = None;
        disk.segments.clear();
    }

    /// Another disk with the same bytes, all of them as if flushed.
    #[must_use]
    pub fn copy(&self) -> Self {
        let disk = self.lock();
        let mut segments = disk.segments.clone();
        for segment in &mut segments {
            segment.durable = segment.bytes.len();
        }
        Self(Arc::new(Mutex::new(Disk {
            snapshot: disk.snapshot.clone(),
            segments,
            next_number: disk.next_number,
            room: None,
            flushes_fail: false,
        })))
    }

    /// Another disk with the bytes that a loss of power now would leave at least.
    #[must_use]
    pub fn durable_copy(&self) -> Self {
        let copy = self.copy();
        let durable: Vec<usize> = self.lock().segments.iter().map(|s| s.durable).collect();
        for (segment, durable) in copy.lock().segments.iter_mut().zip(durable) {
            segment.bytes.truncate(durable);
            segment.durable = durable;
        }
        copy
    }

    /// Bytes of the log, all segments in a row.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        self.lock()
            .segments
            .iter()
            .map(|segment| segment.bytes.len())
            .sum()
    }

    /// Bytes of the log that a loss of power leaves.
    #[must_use]
    pub fn durable_bytes(&self) -> usize {
        self.lock()
            .segments
            .iter()
            .map(|segment| segment.durable)
            .sum()
    }

    /// Cuts the log after `length` bytes, as an interrupted write would.
    pub fn cut(&self, mut length: usize) {
        for segment in &mut self.lock().segments {
            let keep = segment.bytes.len().min(length);
            segment.bytes.truncate(keep);
            segment.durable = segment.durable.min(keep);
            length -= keep;
        }
    }

    /// Inverts one bit of the log, counted over all segments; false if it has no such bit.
    pub fn flip(&self, mut bit: usize) -> bool {
        for segment in &mut self.lock().segments {
            if let Some(byte) = segment.bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
                return true;
            }
            bit -= segment.bytes.len() * 8;
        }
        false
    }

    /// Inverts one bit of the snapshot; false if it has no such bit.
    pub fn flip_snapshot(&self, bit: usize) -> bool {
        let mut disk = self.lock();
        let byte = disk
            .snapshot
            .as_mut()
            .and_then(|bytes| bytes.get_mut(bit / 8));
        byte.map(|byte| *byte ^= 1 << (bit % 8)).is_some()
    }

    /// From now on only `room` bytes can be appended; `None` is endless.
    pub fn set_room(&self, room: Option<usize>) {
        self.lock().room = room;
    }

    /// From now on flushes and snapshots fail, or work again.
    pub fn set_flushes_fail(&self, fail: bool) {
        self.lock().flushes_fail = fail;
    }
}

/// A [`Storage`] on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStorage {
    disk: MemoryDisk,
}

impl MemoryStorage {
    /// Opens the disk.
    #[must_use]
    pub fn open(disk: &MemoryDisk) -> Self {
        let mut inner = disk.lock();
        if inner.segments.is_empty() {
            let number = inner.next_number;
            inner.next_number += 1;
            inner.segments.push(Segment {
                number,
                ..Segment::default()
            });
        }
        drop(inner);
        Self { disk: disk.clone() }
    }
}

fn failed(operation: &'static str, cause: &str) -> StorageError {
    StorageError {
        operation,
        what: "memory".to_owned(),
        cause: cause.to_owned(),
    }
}

impl Storage for MemoryStorage {
    fn load(&mut self) -> Result<Loaded, StorageError> {
        let disk = self.disk.lock();
        let segments = disk
            .segments
            .iter()
            .map(|segment| segment.bytes.clone())
            .collect();
        Ok(Loaded {
            snapshot: disk.snapshot.clone(),
            segments,
        })
    }

    fn truncate(&mut self, index: usize, length: usize) -> Result<(), StorageError> {
        let mut disk = self.disk.lock();
        disk.segments.truncate(index + 1);
        if let Some(segment) = disk.segments.last_mut() {
            segment.bytes.truncate(length);
            segment.durable = length;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let mut disk = self.disk.lock();
        if let Some(room) = disk.room {
            let left = room.checked_sub(bytes.len());
            disk.room = Some(left.ok_or_else(|| failed("append to", "no space left on device"))?);
        }
        match disk.segments.last_mut() {
            Some(segment) => segment.bytes.extend_from_slice(bytes),
            None => return Err(failed("append to", "the disk was wiped while in use")),
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), StorageError> {
        let mut disk = self.disk.lock();
        let number = disk.next_number;
        disk.next_number += 1;
        disk.segments.push(Segment {
            number,
            ..Segment::default()
        });
        Ok(())
    }

    fn work(&mut self, task: Task) -> Work {
        let shared = self.disk.clone();
        let disk = self.disk.lock();
        match task {
            Task::Flush => {
                let lengths: Vec<(u64, usize)> = disk
                    .segments
                    .iter()
                    .map(|s| (s.number, s.bytes.len()))
                    .collect();
                drop(disk);
                Work::new(move || {
                    let mut disk = shared.lock();
                    if disk.flushes_fail {
                        return Err(failed("flush", "input/output error"));
                    }
                    for segment in &mut disk.segments {
                        let asked = lengths.iter().find(|(number, _)| *number == segment.number);
                        let durable = asked.map_or(0, |(_, length)| *length);
                        segment.durable = segment.durable.max(durable.min(segment.bytes.len()));
                    }
                    Ok(())
                })
            }
            Task::Snapshot(bytes) => {
                let newest = disk.segments.last().map(|segment| segment.number);
                drop(disk);
                Work::new(move || {
                    let mut disk = shared.lock();
                    if disk.flushes_fail {
                        return Err(failed("replace", "input/output error"));
                    }
                    disk.snapshot = Some(bytes);
                    disk.segments
                        .retain(|segment| Some(segment.number) >= newest);
                    Ok(())
                })
            }
        }
    }
}
