//! A service ↔ `pss`, and `pss` ↔ `pss` of the other node. Bodies of broker messages to SAP `pss`.

use model::{Epoch, Lsn, ServiceName};
use serde::{Deserialize, Serialize};

/// Largest key, in bytes.
pub const KEY_MAX_BYTES: usize = 256;
/// Largest value, in bytes: one running configuration of some thousand rules.
pub const VALUE_MAX_BYTES: usize = 96 * 1024;
/// Most operations of one transaction.
pub const OPERATIONS_MAX: usize = 256;

/// Who may read a namespace (chapter, "Persistent Storage Service").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Only the owning service.
    Private,
    /// Services of the same node.
    SharedLocal,
    /// Services of either node, and modules. Replicated to the standby.
    SharedGlobal,
}

/// What a namespace survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Durability {
    /// A restart of the service and of `pss`.
    Volatile,
    /// A reload of the node and loss of power, once acknowledged.
    Persistent,
}

/// A namespace is one service's data of one scope and durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Namespace {
    /// Owner, the only writer.
    pub owner: ServiceName,
    /// Readers.
    pub scope: Scope,
    /// What it survives.
    pub durability: Durability,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Writes `key`.
    Put {
        /// Where.
        namespace: Namespace,
        /// At most [`KEY_MAX_BYTES`].
        key: Vec<u8>,
        /// At most [`VALUE_MAX_BYTES`].
        value: Vec<u8>,
    },
    /// Removes `key`.
    Delete {
        /// Where.
        namespace: Namespace,
        /// Which.
        key: Vec<u8>,
    },
}

/// How far a commit must have gone before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Acknowledgement {
    /// In memory: survives the service, not the node.
    Volatile,
    /// Durable on this node.
    Local,
    /// Durable on both nodes.
    Replicated,
}

/// A request to `pss`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// All or nothing, one LSN.
    Commit {
        /// At most [`OPERATIONS_MAX`].
        operations: Vec<Operation>,
        /// Level waited for. If `Replicated` is not reached within a hold time the answer says
        /// which level was, after the node has durably marked itself alone.
        acknowledgement: Acknowledgement,
    },
    /// Reads one key.
    Get {
        /// Where.
        namespace: Namespace,
        /// Which.
        key: Vec<u8>,
    },
    /// Reads keys in order, after `after`, as many as fit one answer.
    Range {
        /// Where.
        namespace: Namespace,
        /// Exclusive start; empty is the beginning.
        after: Vec<u8>,
    },
    /// From now on sends [`Changed`] notifications for the namespace.
    Watch {
        /// Which.
        namespace: Namespace,
    },
    /// From `vshd`: forget the archived conflict of this number, on both nodes.
    ClearConflict {
        /// [`crate::conflict::ConflictHead::number`].
        number: u32,
    },
}

/// Answer of `pss`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The commit's position and the level reached.
    Committed {
        /// Its LSN.
        lsn: Lsn,
        /// Level reached.
        reached: Acknowledgement,
    },
    /// Answer to `Get`.
    Value(Option<Vec<u8>>),
    /// Answer to `Range`: pairs, and whether more follow.
    Pairs {
        /// Key and value.
        pairs: Vec<(Vec<u8>, Vec<u8>)>,
        /// Ask again after the last key.
        more: bool,
    },
    /// Answer to `Watch`: everything committed after this LSN will be told.
    Watching {
        /// Position of the watch.
        from: Lsn,
    },
    /// Refused, in words.
    Refused(String),
    /// A commit that was written here, and will not be answered: this node stopped leading, or may
    /// not go on alone. It stands if the active has it, and not otherwise. In words, why.
    Unknown(String),
}

/// Notification to a watcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// One commit's operations in the watched namespace.
    Commit {
        /// Its LSN.
        lsn: Lsn,
        /// In order.
        operations: Vec<Operation>,
    },
    /// Everything was replaced (a bulk sync ended): read again. A `pss` that has started anew
    /// sends it to every service, because it does not know who watched: watch and read again.
    Replaced {
        /// Position after it.
        lsn: Lsn,
    },
}

/// `pss` ↔ `pss`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replication {
    /// Standby to active: send me what follows `have`; after a broken bulk sync, with its cursor.
    Subscribe {
        /// The standby's history: the epoch of its newest commit and the commit.
        have: (Epoch, Lsn),
        /// Where an unfinished bulk sync stands.
        cursor: Option<Cursor>,
    },
    /// A chunk of the snapshot as of `snapshot`.
    Chunk {
        /// The active's epoch.
        epoch: Epoch,
        /// The snapshot's position.
        snapshot: Lsn,
        /// Epoch under which the commit at that position was made.
        history: Epoch,
        /// The cursor this chunk follows; `None` if it is the first.
        after: Option<Cursor>,
        /// Namespace, key, value; in order.
        records: Vec<(Namespace, Vec<u8>, Vec<u8>)>,
        /// Position after this chunk; `None` if it was the last.
        next: Option<Cursor>,
    },
    /// Commits in order, gapless.
    Entries {
        /// The active's epoch.
        epoch: Epoch,
        /// In order.
        entries: Vec<Entry>,
    },
    /// Standby to active: durable here up to `lsn`.
    Ack {
        /// The active's epoch.
        epoch: Epoch,
        /// Position.
        lsn: Lsn,
        /// Canonical hash of the configuration as of `lsn`.
        config_hash: u64,
    },
    /// Active to standby: I lead and know of no subscription of yours. Subscribe.
    Follow {
        /// The active's epoch.
        epoch: Epoch,
    },
    /// Answers [`Replication::Subscribe`]: your history is part of mine, what follows it comes
    /// as [`Replication::Entries`].
    Contained {
        /// The active's epoch.
        epoch: Epoch,
        /// The history subscribed with, echoed.
        have: (Epoch, Lsn),
    },
    /// Standby to active: I hold an archive of what I had before I followed you. Repeated until
    /// [`Replication::ArchiveKept`]; answered by that or by [`Replication::ArchiveWanted`].
    ArchiveOffered {
        /// Its head.
        head: Box<crate::conflict::ConflictHead>,
    },
    /// Active to standby: send me its records from this one on.
    ArchiveWanted {
        /// The active's epoch.
        epoch: Epoch,
        /// Which archive.
        archive: crate::conflict::ConflictId,
        /// Number of records that are here.
        from: u32,
    },
    /// Standby to active: records of an archive.
    ArchiveRecords {
        /// Which archive.
        archive: crate::conflict::ConflictId,
        /// Number of records before these.
        from: u32,
        /// Key and value as they are stored; in order.
        records: Vec<(Vec<u8>, Vec<u8>)>,
        /// These were the last.
        last: bool,
    },
    /// Active to standby: durable on both nodes; yours may go.
    ArchiveKept {
        /// The active's epoch.
        epoch: Epoch,
        /// Which archive.
        archive: crate::conflict::ConflictId,
    },
}

/// Position inside a snapshot: the last record sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The snapshot it belongs to.
    pub snapshot: Lsn,
    /// Namespace of the last record.
    pub namespace: Namespace,
    /// Its key.
    pub key: Vec<u8>,
}

/// One commit of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Position.
    pub lsn: Lsn,
    /// Epoch it was made under.
    pub epoch: Epoch,
    /// What it did.
    pub operations: Vec<Operation>,
}

/// All that is sent to SAP `pss`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToPss {
    /// From a service of this node.
    Request(Request),
    /// From the other node's `pss`.
    Replication(Replication),
}
