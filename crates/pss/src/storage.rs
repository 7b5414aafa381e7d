//! What a disk must offer the store.
//!
//! One storage is a snapshot and the log segments written since. A segment is appended to until
//! the next one is begun; a snapshot replaces its predecessor atomically and makes the segments
//! before the current one superfluous.

mod file;
mod memory;
#[cfg(test)]
mod tests;

pub use file::FileStorage;
pub use memory::{MemoryDisk, MemoryStorage};

/// A storage operation that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {what}: {cause}")]
pub struct StorageError {
    /// `append to`, `flush` …
    pub operation: &'static str,
    /// The file or directory.
    pub what: String,
    /// The system's words.
    pub cause: String,
}

/// Something that may take as long as a disk takes. To be run once, on any thread.
pub struct Work(Box<dyn FnOnce() -> Result<(), StorageError> + Send>);

impl Work {
    /// Wraps what is to be done.
    pub fn new(work: impl FnOnce() -> Result<(), StorageError> + Send + 'static) -> Self {
        Self(Box::new(work))
    }

    /// Does it.
    ///
    /// # Errors
    /// When the storage fails; nothing is then known of what it holds.
    pub fn run(self) -> Result<(), StorageError> {
        (self.0)()
    }
}

impl core::fmt::Debug for Work {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Work")
    }
}

/// What [`Storage::work`] is to do.
#[derive(Debug)]
pub enum Task {
    /// All that was appended until now becomes durable.
    Flush,
    /// These bytes become the snapshot, durably and atomically; the segments before the current
    /// one are removed.
    Snapshot(Vec<u8>),
}

/// All that a storage holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The snapshot, if there is one.
    pub snapshot: Option<Vec<u8>>,
    /// Contents of the segments, oldest first.
    pub segments: Vec<Vec<u8>>,
}

/// See the module.
pub trait Storage: core::fmt::Debug + Send {
    /// Reads everything.
    ///
    /// # Errors
    /// When something that exists cannot be read.
    fn load(&mut self) -> Result<Loaded, StorageError>;

    /// Cuts the segment at `index` of [`Loaded::segments`] to `length` bytes, durably, and
    /// removes those after it. Only right after [`Storage::load`].
    ///
    /// # Errors
    /// When it cannot be done; the storage is then as before or as asked for.
    fn truncate(&mut self, index: usize, length: usize) -> Result<(), StorageError>;

    /// Appends to the current segment. All or nothing, unless the process or the machine dies.
    ///
    /// # Errors
    /// When not everything could be written, `ENOSPC` for one; what was written is taken back.
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Begins a new segment.
    ///
    /// # Errors
    /// When it cannot be created; the current one then stays.
    fn rotate(&mut self) -> Result<(), StorageError>;

    /// Prepares the slow part of `task` as of now.
    fn work(&mut self, task: Task) -> Work;
}
