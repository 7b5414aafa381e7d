//! What a node reads back from its own disk: the node file, the checkpoint store's log and
//! snapshot. Damage is found, never believed, and never stops the process.

use pss::storage::{Loaded, Storage, StorageError, Task, Work};
use rand::Rng;
use rand::rngs::StdRng;
use redundancy::NodeRecord;
use runtime::node_file;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};
use wire::checkpoint::{Entry, Operation};

use super::{MESSAGE_MEMORY_BYTES, Target};
use crate::generate::generate;

pub(super) fn targets() -> Vec<Target> {
    vec![node_slot(), node_record(), store()]
}

// ---- node file --------------------------------------------------------------------------------

/// Header of a slot, as `runtime::node_file` describes it.
const SLOT_HEADER_BYTES: usize = 64;

fn repair_slot(input: &mut [u8]) {
    if input.len() < SLOT_HEADER_BYTES {
        return;
    }
    let length = (input.len() - SLOT_HEADER_BYTES) as u32;
    input[..8].copy_from_slice(b"TWNODE\0\x01");
    input[16..20].copy_from_slice(&length.to_le_bytes());
    let mut digest = Sha256::new();
    digest.update(&input[8..20]);
    digest.update(&input[SLOT_HEADER_BYTES..]);
    let digest = digest.finalize();
    input[24..56].copy_from_slice(&digest);
}

/// A slot is believed only if its digest is right.
fn node_slot() -> Target {
    Target {
        name: "node-slot",
        seed: Box::new(|random| {
            let body = postcard::to_stdvec(&generate::<NodeRecord>(random));
            let mut slot = vec![0; SLOT_HEADER_BYTES];
            slot[8..16].copy_from_slice(&random.random::<[u8; 8]>());
            slot.extend(body.expect("a Vec grows"));
            repair_slot(&mut slot);
            slot
        }),
        run: Box::new(|input| {
            let Some((_, body)) = node_file::slot_content(input) else {
                return false;
            };
            let mut repaired = input[..SLOT_HEADER_BYTES + body.len()].to_vec();
            repair_slot(&mut repaired);
            assert_eq!(
                &repaired[24..56],
                &input[24..56],
                "a wrong digest was believed"
            );
            true
        }),
        repair: Some(repair_slot),
        memory_bytes: 64 * 1024,
        words: &[],
    }
}

fn node_record() -> Target {
    Target {
        name: "node-record",
        seed: Box::new(|random| {
            postcard::to_stdvec(&generate::<NodeRecord>(random)).expect("a Vec grows")
        }),
        run: Box::new(|input| {
            let Ok((record, _)) = postcard::take_from_bytes::<NodeRecord>(input) else {
                return false;
            };
            let encoded = postcard::to_stdvec(&record).expect("a Vec grows");
            assert_eq!(postcard::from_bytes(&encoded), Ok(record.clone()));
            // Whatever it says, the timing in force is one that an operator may set.
            let timing = redundancy::Timing::clamped(record.interval_ms, record.misses);
            assert!(timing.hold_time().as_secs() <= 200);
            true
        }),
        repair: None,
        memory_bytes: MESSAGE_MEMORY_BYTES,
        words: &[],
    }
}

// ---- checkpoint store -------------------------------------------------------------------------

/// Header of a record, as `pss::log` describes it.
const RECORD_HEADER_BYTES: usize = 28;

/// The bytes of the store's records: the same encoding as the store's own types.
#[derive(Serialize)]
enum Logged {
    Shared(Entry),
    Local(Vec<Operation>),
    Born(Born),
}

#[derive(Serialize)]
struct Born {
    bulk: u64,
    lost: bool,
}

fn record(position: u64, flushed: u64, logged: &Logged) -> Vec<u8> {
    let mut bytes = b"TWR1\0\0\0\0".to_vec();
    bytes.extend(position.to_le_bytes());
    bytes.extend(flushed.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(postcard::to_stdvec(logged).expect("a Vec grows"));
    let length = (bytes.len() - RECORD_HEADER_BYTES) as u32;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Makes the checksums of all records right whose lengths can be followed.
fn repair_log(input: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = input.get(at..at + RECORD_HEADER_BYTES) {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let end = at
            .saturating_add(RECORD_HEADER_BYTES)
            .saturating_add(length);
        // The last record takes what is left.
        let end = end.min(input.len());
        let length = (end - at - RECORD_HEADER_BYTES) as u32;
        input[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
        let mut sum = crc32fast::Hasher::new();
        sum.update(&input[at..at + 24]);
        sum.update(&input[at + RECORD_HEADER_BYTES..end]);
        let sum = sum.finalize();
        input[at + 24..at + RECORD_HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
}

fn log(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for position in 1..=random.random_range(1..6) {
        let logged = match random.random_range(0..4) {
            0 => Logged::Local(generate(random)),
            1 => Logged::Born(Born {
                bulk: random.random(),
                lost: random.random(),
            }),
            _ => Logged::Shared(Entry {
                lsn: model::Lsn(position),
                ..generate(random)
            }),
        };
        bytes.extend(record(position, position - 1, &logged));
    }
    repair_log(&mut bytes);
    bytes
}

/// A disk that holds what it is given.
#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<Loaded>>);

impl Disk {
    fn with(snapshot: Option<&[u8]>, segment: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(Loaded {
            snapshot: snapshot.map(<[u8]>::to_vec),
            segments: vec![segment.to_vec()],
        })))
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Loaded> {
        self.0.lock().expect("one thread")
    }
}

impl Storage for Disk {
    fn load(&mut self) -> Result<Loaded, StorageError> {
        Ok(self.held().clone())
    }

    fn truncate(&mut self, index: usize, length: usize) -> Result<(), StorageError> {
        let mut held = self.held();
        held.segments.truncate(index + 1);
        held.segments[index].truncate(length);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let mut held = self.held();
        if held.segments.is_empty() {
            held.segments.push(Vec::new());
        }
        let last = held.segments.last_mut().expect("invariant: pushed above");
        last.extend(bytes);
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), StorageError> {
        self.held().segments.push(Vec::new());
        Ok(())
    }

    fn work(&mut self, task: Task) -> Work {
        let disk = self.clone();
        Work::new(move || {
            if let Task::Snapshot(bytes) = task {
                disk.held().snapshot = Some(bytes);
            }
            Ok(())
        })
    }
}

/// A store opens over any bytes, keeps its invariants, and finds the same when it opens again.
/// Where the bytes are: bit 0 of the first says whether as the snapshot or as the log, bit 1 on
/// which of the two storages.
fn store() -> Target {
    Target {
        name: "store",
        seed: Box::new(|random| {
            let mut input = vec![random.random()];
            input.extend(log(random));
            input
        }),
        run: Box::new(|input| {
            let Some((place, bytes)) = input.split_first() else {
                return false;
            };
            let full = if place & 1 == 0 {
                Disk::with(None, bytes)
            } else {
                Disk::with(Some(bytes), &[])
            };
            let empty = Disk::with(None, &[]);
            let (persistent, volatile) = if place & 2 == 0 {
                (full, empty)
            } else {
                (empty, full)
            };
            let open = || {
                pss::Store::open(Box::new(persistent.clone()), Box::new(volatile.clone()))
                    .expect("this disk never fails")
            };
            let (store, recovery) = open();
            store.check().expect("the store's invariants");
            let history = store.history();
            drop(store);
            let (again, _) = open();
            assert_eq!(again.history(), history, "opened again");
            recovery.damage.is_none() && !bytes.is_empty()
        }),
        repair: Some(|input| {
            if let Some((_, log)) = input.split_first_mut() {
                repair_log(log);
            }
        }),
        memory_bytes: 4 * MESSAGE_MEMORY_BYTES,
        words: &[],
    }
}
