//! Writing the node file off the main loop, in order.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use redundancy::NodeRecord;
use runtime::node_file::NodeFile;
use tokio::sync::mpsc;

use super::Event;
use crate::node_record;

/// Writes waiting for the disk. The core holds back what depends on a write, so more than a few
/// only wait while the disk is stuck; then the write fails at once.
const QUEUE_MAX: usize = 64;

/// The thread's handle.
pub(super) struct Persistence {
    writes: SyncSender<(u64, NodeRecord)>,
}

impl Persistence {
    /// Starts the thread.
    pub(super) fn start(mut file: NodeFile, events: mpsc::Sender<Event>) -> std::io::Result<Self> {
        let (writes, queue) = sync_channel::<(u64, NodeRecord)>(QUEUE_MAX);
        std::thread::Builder::new()
            .name("node-file".to_owned())
            .spawn(move || {
                while let Ok((write, record)) = queue.recv() {
                    let result = node_record::encode(&record)
                        .and_then(|body| file.write(&body).map_err(Into::into))
                        .map_err(|error| format!("{error:#}"));
                    if events
                        .blocking_send(Event::Persisted { write, result })
                        .is_err()
                    {
                        return;
                    }
                }
            })?;
        Ok(Self { writes })
    }

    /// Queues a write; an error is one that never will be written.
    pub(super) fn write(&self, write: u64, record: NodeRecord) -> Result<(), &'static str> {
        self.writes
            .try_send((write, record))
            .map_err(|error| match error {
                TrySendError::Full(_) => "the disk does not keep up",
                TrySendError::Disconnected(_) => "the writing thread has died",
            })
    }
}
