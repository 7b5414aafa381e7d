//! The highest epoch, on disk: two slots, written in turn, each with its checksum.
//!
//! Invariant: at every moment one slot holds the highest epoch whose write was acknowledged.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use model::{Epoch, Incarnation, NodeKey};

const FILE: &str = "epoch";
const MAGIC: [u8; 4] = *b"TWe1";
const RECORD_BYTES: usize = 4 + 8 + 32 + 8 + 4;
/// Slots lie in sectors of their own, so that a torn write harms one only.
const SLOT_BYTES: u64 = 4096;

/// The file.
pub(crate) struct EpochFile {
    file: File,
    next_slot: u64,
}

impl EpochFile {
    /// Opens or creates it; returns the highest epoch in it.
    pub(crate) fn open(state_dir: &Path) -> Result<(Self, Epoch)> {
        let path = state_dir.join(FILE);
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options
            .open(&path)
            .with_context(|| format!("{}", path.display()))?;
        reserve(&file)
            .and_then(|()| File::open(state_dir)?.sync_all())
            .with_context(|| format!("{}", path.display()))?;
        let found = [read_slot(&file, 0), read_slot(&file, 1)];
        let highest = found.iter().flatten().max().copied().unwrap_or_default();
        // The slot that does not hold the highest is written next.
        let next_slot = u64::from(found[0] == Some(highest));
        Ok((Self { file, next_slot }, highest))
    }

    /// Writes `epoch`, and waits until it is durable. Blocks on the disk.
    pub(crate) fn write(&mut self, epoch: Epoch) -> Result<()> {
        let record = encode(epoch);
        self.file
            .write_all_at(&record, self.next_slot * SLOT_BYTES)
            .context("epoch file")?;
        self.file.sync_data().context("epoch file")?;
        self.next_slot ^= 1;
        Ok(())
    }
}

/// Writes both slots once, so that later writes replace bytes and change nothing else: then waiting
/// for the disk is one write, not a commit of the file system's journal. A takeover waits for it.
fn reserve(file: &File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let whole = 2 * SLOT_BYTES;
    if length < whole {
        let missing = vec![0; (whole - length) as usize];
        file.write_all_at(&missing, length)?;
        file.sync_all()?;
    }
    Ok(())
}

fn read_slot(file: &File, slot: u64) -> Option<Epoch> {
    let mut record = [0; RECORD_BYTES];
    file.read_exact_at(&mut record, slot * SLOT_BYTES).ok()?;
    decode(&record)
}

fn encode(epoch: Epoch) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..4].copy_from_slice(&MAGIC);
    record[4..12].copy_from_slice(&epoch.counter.to_le_bytes());
    record[12..44].copy_from_slice(&epoch.node.0);
    record[44..52].copy_from_slice(&epoch.incarnation.0.to_le_bytes());
    let checksum = crc32fast::hash(&record[..52]);
    record[52..].copy_from_slice(&checksum.to_le_bytes());
    record
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<Epoch> {
    let checksum = u32::from_le_bytes(*record[52..].first_chunk()?);
    if record[..4] != MAGIC || checksum != crc32fast::hash(&record[..52]) {
        return None;
    }
    Some(Epoch {
        counter: u64::from_le_bytes(*record[4..].first_chunk()?),
        node: NodeKey(*record[12..].first_chunk()?),
        incarnation: Incarnation(u64::from_le_bytes(*record[44..].first_chunk()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(counter: u64) -> Epoch {
        Epoch {
            counter,
            node: NodeKey([7; 32]),
            incarnation: Incarnation(counter * 3),
        }
    }

    #[test]
    fn the_last_write_is_found_and_a_torn_one_leaves_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut file, found) = EpochFile::open(folder.path()).expect("new");
        assert_eq!(found, Epoch::default());
        for counter in 1..4 {
            file.write(epoch(counter)).expect("written");
            let (_, found) = EpochFile::open(folder.path()).expect("again");
            assert_eq!(found, epoch(counter));
        }
        let (file, _) = EpochFile::open(folder.path()).expect("again");
        let other = (file.next_slot ^ 1) * SLOT_BYTES;
        file.file.write_all_at(&[9; 20], other).expect("damage");
        let (_, found) = EpochFile::open(folder.path()).expect("again");
        assert_eq!(found, epoch(2));
    }
}
