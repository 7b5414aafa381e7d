//! The checkpoint store of a node: transactions in namespaces, a log, and its replication.
//!
//! [`Store`] is a core: `handle(now, Input)`, `poll_output()`, `next_deadline()`. It owns two
//! [`Storage`]s: one durable (a directory on disk), one that survives the process but not the
//! machine (a directory on tmpfs). Appends are plain writes and happen inside `handle`; whatever
//! waits for a disk is handed out as [`Output::Work`] and runs elsewhere, so the loop that drives
//! the store never waits for one.
//!
//! Invariants ([`Store::check`] holds what one state shows; the crash tests hold the rest):
//! - every commit to a `SharedGlobal` namespace has the next LSN: gapless, from 1, and (epoch,
//!   LSN) names one commit for ever, so equal pairs mean equal histories;
//! - a commit is acknowledged at a level only when it is there: written (`Volatile`), flushed
//!   (`Local`), flushed and acknowledged by the peer (`Replicated`);
//! - a persistent shared commit is answered `Local` only with the System Manager's leave to be
//!   alone, unless `Local` was asked for on a redundant pair;
//! - after a crash the content is a prefix of what was written that holds all that was
//!   acknowledged; what is damaged inside that prefix is reported, never skipped in silence;
//! - a standby holds a prefix of its active's history, or is in a bulk sync, which replaces
//!   everything shared at its end and nothing before;
//! - a persistent commit that the active does not have is archived before its content is
//!   replaced, and the archive stays on this node until both have it;
//! - nothing from an epoch below the highest seen is applied;
//! - a watcher that was told [`wire::checkpoint::Response::Watching`] is told of every later
//!   commit, or to read again.
//!
//! | module | holds |
//! |---|---|
//! | [`limits`] | every bound |
//! | [`storage`] | what a disk must offer: files, memory |
//! | `log` | framing of records, scanning, damage |
//! | `journal` | one storage with its positions, flushes and compaction |
//! | `recovery` | from bytes to content at start |
//! | `content` | the namespaces in memory |
//! | `history` | recent shared commits, for a standby that lags |
//! | `lineage` | which epochs the persistent commits were made in: containment, long after |
//! | `store` | the core: commits, reads, watches, serving, following, archives |

mod content;
mod history;
mod input;
mod journal;
pub mod limits;
mod lineage;
mod log;
mod output;
mod recovery;
pub mod storage;
mod store;

pub use content::config_namespace;
pub use input::Input;
pub use output::Output;
pub use recovery::{Damage, Recovery, newest_commit};
pub use storage::{Storage, StorageError, Work};
pub use store::{Counters, Store};
