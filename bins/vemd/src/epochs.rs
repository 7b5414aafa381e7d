//! What the fence holds, on disk: two slots, written in turn, each with its checksum.
//!
//! Invariant: at every moment one slot holds what was written last of all that was acknowledged.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use model::{Epoch, Incarnation, NodeKey};
use wire::vem::Fenced;

const FILE: &str = "epoch";
const MAGIC: [u8; 4] = *b"TWe2";
const EPOCH_BYTES: usize = 8 + 32 + 8;
const RECORD_BYTES: usize = 4 + 2 * EPOCH_BYTES + 4;
/// Slots lie in sectors of their own, so that a torn write harms one only.
const SLOT_BYTES: u64 = 4096;

/// The file.
pub(crate) struct EpochFile {
    file: File,
    next_slot: u64,
}

impl EpochFile {
    /// Opens or creates it; returns what is in it.
    pub(crate) fn open(state_dir: &Path) -> Result<(Self, Fenced)> {
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
        // Neither epoch ever decreases: of two records, the later is the higher in both.
        let fenced = found.iter().flatten().max().copied().unwrap_or_default();
        // The slot that does not hold it is written next.
        let next_slot = u64::from(found[0] == Some(fenced));
        Ok((Self { file, next_slot }, fenced))
    }

    /// Writes `fenced`, and waits until it is durable. Blocks on the disk.
    pub(crate) fn write(&mut self, fenced: Fenced) -> Result<()> {
        let record = encode(fenced);
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

fn read_slot(file: &File, slot: u64) -> Option<Fenced> {
    let mut record = [0; RECORD_BYTES];
    file.read_exact_at(&mut record, slot * SLOT_BYTES).ok()?;
    decode(&record)
}

fn encode(fenced: Fenced) -> [u8; RECORD_BYTES] {
    let mut record = Vec::with_capacity(RECORD_BYTES);
    record.extend(MAGIC);
    for epoch in [fenced.obeyed, fenced.promised] {
        record.extend(epoch.counter.to_le_bytes());
        record.extend(epoch.node.0);
        record.extend(epoch.incarnation.0.to_le_bytes());
    }
    record.extend(crc32fast::hash(&record).to_le_bytes());
    let record = record.try_into();
    record.expect("invariant: RECORD_BYTES is the sum of the parts")
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<Fenced> {
    let (body, checksum) = record.split_at(RECORD_BYTES - 4);
    let checksum = u32::from_le_bytes(*checksum.first_chunk()?);
    if body[..4] != MAGIC || checksum != crc32fast::hash(body) {
        return None;
    }
    Some(Fenced {
        obeyed: decode_epoch(&body[4..])?,
        promised: decode_epoch(&body[4 + EPOCH_BYTES..])?,
    })
}

fn decode_epoch(bytes: &[u8]) -> Option<Epoch> {
    Some(Epoch {
        counter: u64::from_le_bytes(*bytes.first_chunk()?),
        node: NodeKey(*bytes.get(8..)?.first_chunk()?),
        incarnation: Incarnation(u64::from_le_bytes(*bytes.get(40..)?.first_chunk()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fenced(counter: u64) -> Fenced {
        let epoch = |counter, node| Epoch {
            counter,
            node: NodeKey([node; 32]),
            incarnation: Incarnation(counter * 3),
        };
        Fenced {
            obeyed: epoch(counter, 7),
            promised: epoch(counter + 1, 8),
        }
    }

    #[test]
    fn the_last_write_is_found_and_a_torn_one_leaves_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut file, found) = EpochFile::open(folder.path()).expect("new");
        assert_eq!(found, Fenced::default());
        for counter in 1..4 {
            file.write(fenced(counter)).expect("written");
            let (_, found) = EpochFile::open(folder.path()).expect("again");
            assert_eq!(found, fenced(counter));
        }
        let (file, _) = EpochFile::open(folder.path()).expect("again");
        let other = (file.next_slot ^ 1) * SLOT_BYTES;
        file.file.write_all_at(&[9; 20], other).expect("damage");
        let (_, found) = EpochFile::open(folder.path()).expect("again");
        assert_eq!(found, fenced(2));
    }
}
