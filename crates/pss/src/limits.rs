//! Every bound of the store, with its reason.

use core::time::Duration;

/// Largest encoded commit, in bytes: a replicated entry must fit one broker message (128 KiB)
/// with its envelope. Larger commits are refused.
pub const COMMIT_MAX_BYTES: usize = 120 * 1024;

/// Largest record of the log or the snapshot, in bytes. A length above it is damage.
pub const RECORD_MAX_BYTES: usize = 512 * 1024;

/// Most bytes of keys and values of one service: 64 k connections of 500 bytes twice over.
/// Beyond it commits are refused.
pub const SERVICE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Records of a bulk chunk or of a page are gathered up to this many bytes (and at least one
/// record): a chunk with the largest value (96 KiB) still fits one broker message.
pub const PAGE_BYTES: usize = 64 * 1024;

/// Entries are gathered into one message up to this many bytes, and at least one entry.
pub const BATCH_BYTES: usize = 64 * 1024;

/// Unacknowledged bytes on their way to the standby. Below the broker's peer queue, above
/// bandwidth × delay of any HA link (10 Gbit/s × 2 ms). Full: the next acknowledgement goes on.
pub const REPLICATION_WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Recent shared commits kept in memory for a standby that lags or reconnects.
pub const HISTORY_ENTRIES: usize = 65_536;

/// See [`HISTORY_ENTRIES`]. A standby that needs older ones is synchronised in bulk.
pub const HISTORY_BYTES: usize = 32 * 1024 * 1024;

/// A log is compacted when it is longer than this and than twice the last snapshot, so that
/// compaction writes at most half as much again as the log did.
pub const COMPACT_BYTES: u64 = 8 * 1024 * 1024;

/// Commits that wait for an acknowledgement. Each service keeps one or a few in flight. Full:
/// refused.
pub const PENDING_COMMITS: usize = 4096;

/// Commits held while a bulk sync replaces the files (some 10 ms). Full: refused.
pub const HELD_COMMITS: usize = 256;

/// Watches, by (namespace, service): a service watches a handful. Full: refused.
pub const WATCHES: usize = 256;

/// How long a commit waits for a standby that is alive but does not acknowledge. A dead one ends
/// the wait earlier, when the redundancy core declares the pair not redundant (a hold time).
pub const REPLICATION_WAIT: Duration = Duration::from_secs(1);

/// Without an answer a standby subscribes again.
pub const SUBSCRIBE_RETRY: Duration = Duration::from_millis(300);

/// Without an acknowledgement an active sends again what is not acknowledged.
pub const RESEND: Duration = Duration::from_millis(500);

/// An active that knows of no subscription asks for one this often.
pub const FOLLOW_PERIOD: Duration = Duration::from_millis(500);

/// Least time between two synchronisation reports that differ only in positions.
pub const REPORT_PERIOD: Duration = Duration::from_millis(10);

/// A watcher whose queue was full is told to read again after this long.
pub const WATCH_RETRY: Duration = Duration::from_millis(100);

/// Epochs whose persistent commits a lineage remembers: one for each takeover that was followed
/// by a change, so years of them. Older: a node that was away since then is archived although its
/// history may be part of the active's.
pub const LINEAGE_EPOCHS: usize = 1024;

/// Archives of lost conflicts that are kept, on a node that waits to hand them over and on the
/// pair. Each is an event that an operator should look at; with one more the oldest goes.
pub const ARCHIVES: usize = 16;

/// Keys and values of one archive: some times the largest configuration with the inventory. The
/// configuration goes in first; what has no room is counted in the head.
pub const ARCHIVE_MAX_BYTES: usize = 2 * 1024 * 1024;

/// Records of one archive, for the same reason.
pub const ARCHIVE_MAX_RECORDS: usize = 8192;

/// Operations of one transaction of an archive: as many as a service may have in one.
pub const OPERATIONS_BATCH: usize = 256;

/// A standby that was not answered offers its archive again.
pub const ARCHIVE_RETRY: Duration = Duration::from_millis(500);

/// Requests to archive that wait: the System Manager makes one at a time. Full: the oldest is
/// dropped, which its deadline covers.
pub const ARCHIVE_REQUESTS: usize = 4;
