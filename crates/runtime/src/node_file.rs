//! The node file: what a node must remember of itself, in two checksummed slots.
//!
//! ```text
//! 0         8            16       20         24          56      64
//! +---------+------------+--------+----------+-----------+-------+---------
//! | magic   | generation | length | reserved | SHA-256   | zero  | body
//! +---------+------------+--------+----------+-----------+-------+---------
//! ```
//!
//! Invariants:
//! - a write goes to the slot that does not hold the newest valid content, and is durable when
//!   [`NodeFile::write`] returns: whatever happens during a write, the content before it stays;
//! - the file has its full size from its creation, so that a full disk cannot stop a write;
//! - reading takes the valid slot with the highest generation; a slot is valid only if its digest
//!   matches generation, length and body;
//! - one process at a time may write (an exclusive lock); readers need none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use thiserror::Error;

/// Size of one slot. A record with a thousand pinned host agents takes about 35 KiB.
const SLOT_BYTES: usize = 64 * 1024;
const HEADER_BYTES: usize = 64;
/// Largest content.
pub const BODY_MAX_BYTES: usize = SLOT_BYTES - HEADER_BYTES;
const MAGIC: [u8; 8] = *b"TWNODE\0\x01";

/// Why the node file cannot be used.
#[derive(Debug, Error)]
pub enum NodeFileError {
    /// The system refused.
    #[error("node file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds it for writing: the node runs.
    #[error("node file {path} is in use: the node is running")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// Neither slot is valid.
    #[error("node file {path} is damaged: neither of its two slots is valid")]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// The content does not fit.
    #[error("{length} bytes do not fit the node file's {BODY_MAX_BYTES}")]
    TooLarge {
        /// Its length.
        length: usize,
    },
}

/// The file, held for writing.
#[derive(Debug)]
pub struct NodeFile {
    file: File,
    path: PathBuf,
    generation: u64,
    newest_slot: usize,
}

impl NodeFile {
    /// Makes the file with `body` in both slots. Nothing may be at `path`.
    ///
    /// # Errors
    /// [`NodeFileError`].
    pub fn create(path: &Path, body: &[u8]) -> Result<Self, NodeFileError> {
        let in_file = |source| NodeFileError::File {
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = open(path, flags)?;
        let length = 2 * SLOT_BYTES as u64;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length)
            .map_err(|errno| in_file(errno.into()))?;
        let mut node_file = Self {
            file,
            path: path.to_owned(),
            generation: 0,
            newest_slot: 1,
        };
        node_file.write(body)?;
        node_file.write(body)?;
        node_file.file.sync_all().map_err(in_file)?;
        if let Some(folder) = path.parent() {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(in_file)?;
        }
        Ok(node_file)
    }

    /// Opens the file for writing and reads its content.
    ///
    /// # Errors
    /// [`NodeFileError`].
    pub fn open(path: &Path) -> Result<(Self, Vec<u8>), NodeFileError> {
        let file = open(path, OFlags::RDWR)?;
        let newest = newest_slot(&file, path)?;
        let Slot {
            index,
            generation,
            body,
        } = newest;
        let node_file = Self {
            file,
            path: path.to_owned(),
            generation,
            newest_slot: index,
        };
        Ok((node_file, body))
    }

    /// Reads the content without holding the file; a writer may be at work.
    ///
    /// # Errors
    /// [`NodeFileError`].
    pub fn read(path: &Path) -> Result<Vec<u8>, NodeFileError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| NodeFileError::File {
                path: path.to_owned(),
                source: errno.into(),
            })?;
        Ok(newest_slot(&File::from(fd), path)?.body)
    }

    /// Replaces the content; durable when it returns.
    ///
    /// # Errors
    /// [`NodeFileError`]; the content before the call is then still what is read.
    pub fn write(&mut self, body: &[u8]) -> Result<(), NodeFileError> {
        if body.len() > BODY_MAX_BYTES {
            return Err(NodeFileError::TooLarge { length: body.len() });
        }
        let generation = self.generation + 1;
        let slot = 1 - self.newest_slot;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&generation.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&digest(&bytes[8..20], body));
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        let offset = (slot * SLOT_BYTES) as u64;
        let written = self
            .file
            .write_all_at(&bytes, offset)
            .and_then(|()| self.file.sync_data());
        written.map_err(|source| NodeFileError::File {
            path: self.path.clone(),
            source,
        })?;
        (self.generation, self.newest_slot) = (generation, slot);
        Ok(())
    }
}

fn open(path: &Path, flags: OFlags) -> Result<File, NodeFileError> {
    let in_file = |source: io::Error| NodeFileError::File {
        path: path.to_owned(),
        source,
    };
    let mode = Mode::RUSR | Mode::WUSR;
    let fd = rustix::fs::open(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)
        .map_err(|errno| in_file(errno.into()))?;
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(File::from(fd)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(NodeFileError::InUse {
            path: path.to_owned(),
        }),
        Err(errno) => Err(in_file(errno.into())),
    }
}

struct Slot {
    index: usize,
    generation: u64,
    body: Vec<u8>,
}

fn newest_slot(file: &File, path: &Path) -> Result<Slot, NodeFileError> {
    let in_file = |source| NodeFileError::File {
        path: path.to_owned(),
        source,
    };
    let mut newest: Option<Slot> = None;
    for index in 0..2 {
        let bytes = read_slot(file, index).map_err(in_file)?;
        if let Some((generation, body)) = slot_content(&bytes)
            && newest
                .as_ref()
                .is_none_or(|slot| slot.generation < generation)
        {
            newest = Some(Slot {
                index,
                generation,
                body: body.to_vec(),
            });
        }
    }
    newest.ok_or_else(|| NodeFileError::Damaged {
        path: path.to_owned(),
    })
}

/// The bytes of a slot, as many as the file holds.
fn read_slot(file: &File, index: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SLOT_BYTES];
    let mut filled = 0;
    while filled < SLOT_BYTES {
        match file.read_at(&mut bytes[filled..], (index * SLOT_BYTES + filled) as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Generation and body of a slot; `None` if it is not valid.
#[must_use]
pub fn slot_content(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let header = bytes.get(..HEADER_BYTES)?;
    let generation = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let length = u32::from_le_bytes(header[16..20].try_into().ok()?) as usize;
    let body = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(length)?)?;
    let sound = header[..8] == MAGIC && header[24..56] == digest(&header[8..20], body);
    sound.then_some((generation, body))
}

fn digest(generation_and_length: &[u8], body: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(generation_and_length);
    context.update(body);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{BODY_MAX_BYTES, HEADER_BYTES, NodeFile, NodeFileError, SLOT_BYTES};

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("node");
        (folder, path)
    }

    #[test]
    fn content_survives_and_the_newest_is_read() {
        let (_folder, path) = folder();
        drop(NodeFile::create(&path, b"first").expect("a new file"));
        for round in 0..5_u8 {
            let (mut file, _) = NodeFile::open(&path).expect("the file");
            file.write(&[round; 9]).expect("written");
            assert_eq!(
                NodeFile::read(&path).expect("readable beside a writer"),
                [round; 9]
            );
        }
        assert!(NodeFile::create(&path, b"again").is_err());
        assert_eq!(
            std::fs::metadata(&path).expect("the file").len(),
            2 * SLOT_BYTES as u64
        );
    }

    #[test]
    fn only_one_process_writes() {
        let (_folder, path) = folder();
        let _held = NodeFile::create(&path, b"first").expect("a new file");
        assert!(matches!(
            NodeFile::open(&path),
            Err(NodeFileError::InUse { .. })
        ));
    }

    #[test]
    fn too_much_is_refused_and_the_old_content_stays() {
        let (_folder, path) = folder();
        let mut file = NodeFile::create(&path, b"first").expect("a new file");
        assert!(file.write(&vec![1; BODY_MAX_BYTES + 1]).is_err());
        assert_eq!(NodeFile::read(&path).expect("intact"), b"first");
        file.write(&vec![1; BODY_MAX_BYTES]).expect("the largest");
        assert_eq!(
            NodeFile::read(&path).expect("intact"),
            vec![1; BODY_MAX_BYTES]
        );
    }

    /// The last write is torn at every byte, or has any one bit flipped: the content before it
    /// is read, never a mixture.
    #[test]
    fn a_torn_or_flipped_slot_falls_back_to_the_other() {
        let (_folder, path) = folder();
        let mut file = NodeFile::create(&path, b"before").expect("a new file");
        let before = std::fs::read(&path).expect("the bytes");
        file.write(b"after!").expect("written");
        let after = std::fs::read(&path).expect("the bytes");
        let slot = before
            .iter()
            .zip(&after)
            .position(|(a, b)| a != b)
            .expect("a change");
        let slot = slot / SLOT_BYTES * SLOT_BYTES;
        let written = HEADER_BYTES + 6;
        for torn in 0..written {
            let mut bytes = before.clone();
            bytes[slot..slot + torn].copy_from_slice(&after[slot..slot + torn]);
            std::fs::write(&path, &bytes).expect("the torn file");
            let content = NodeFile::read(&path).expect("one valid slot");
            let complete = bytes[slot..slot + written] == after[slot..slot + written];
            assert_eq!(
                content,
                if complete { b"after!" } else { b"before" },
                "torn at {torn}"
            );
        }
        // The reserved bytes say nothing and are not covered.
        for bit in
            (0..written * 8).filter(|bit| !(160..192).contains(bit) && !(448..512).contains(bit))
        {
            let mut bytes = after.clone();
            bytes[slot + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).expect("the flipped file");
            assert_eq!(
                NodeFile::read(&path).expect("one valid slot"),
                b"before",
                "bit {bit}"
            );
        }
        for length in 0..2 * HEADER_BYTES {
            std::fs::write(&path, &after[..length]).expect("the short file");
            let content = NodeFile::read(&path);
            assert!(
                content.is_err()
                    || content.is_ok_and(|body| body == b"before" || body == b"after!")
            );
        }
        std::fs::write(&path, vec![0; 2 * SLOT_BYTES]).expect("an empty file");
        assert!(matches!(
            NodeFile::read(&path),
            Err(NodeFileError::Damaged { .. })
        ));
    }
}
