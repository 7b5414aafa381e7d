//! What is kept of a node that lost a conflict: the archive of its content, as `pss` stores it and
//! `vshd` shows it, and as the pair hands it over.
//!
//! An archive is one head and one record for each pair of key and value that was archived, under
//! these keys:
//! ```text
//! h<id>                                     the head
//! r<id><sap><scope><durability><key>        one archived value, as it was
//! ```
//! It is kept in [`HELD`] on the node that lost, until it stands in [`KEPT`], which both nodes
//! have. A head is written last and removed first: records without one are leftovers.

use model::{Epoch, Lsn, Sap, ServiceName, Slot};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Durability, Namespace, Scope};

/// Archives of this node that the pair does not have yet.
pub const HELD: Namespace = Namespace {
    owner: ServiceName::Pss,
    scope: Scope::SharedLocal,
    durability: Durability::Persistent,
};

/// Archives of the pair.
pub const KEPT: Namespace = Namespace {
    owner: ServiceName::Pss,
    scope: Scope::SharedGlobal,
    durability: Durability::Persistent,
};

/// Longest reason, in bytes; a longer one is cut.
pub const REASON_MAX_BYTES: usize = 256;

const HEAD: u8 = b'h';
const RECORD: u8 = b'r';
const ID_BYTES: usize = 8 + 32 + 8 + 8;
const TAG_BYTES: usize = 2 + 1 + 1;

/// Names an archive: the newest persistent commit in it. One commit, one content, one archive.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ConflictId {
    /// The epoch it was made under.
    pub epoch: Epoch,
    /// Its position.
    pub lsn: Lsn,
}

/// What is known of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictHead {
    /// See [`ConflictId`].
    pub id: ConflictId,
    /// The number an operator types; 0 while only the losing node has it.
    pub number: u32,
    /// The node whose content it is.
    pub slot: Slot,
    /// When it was archived (seconds since 1970, for display); 0 if that was not known.
    pub taken_unix_s: u64,
    /// The epoch that prevailed.
    pub rival: Epoch,
    /// Why, in words; at most [`REASON_MAX_BYTES`].
    pub reason: String,
    /// Persistent commits that only this content has; `None` until both histories were compared.
    pub commits: Option<u64>,
    /// Records of each replicated namespace when it was archived. Those of volatile ones are
    /// counted, not archived.
    pub counts: Vec<(Namespace, u32)>,
    /// Records that had no room in the archive.
    pub left_out: u32,
}

impl ConflictId {
    fn bytes(self) -> [u8; ID_BYTES] {
        let mut bytes = [0; ID_BYTES];
        bytes[..8].copy_from_slice(&self.epoch.counter.to_be_bytes());
        bytes[8..40].copy_from_slice(&self.epoch.node.0);
        bytes[40..48].copy_from_slice(&self.epoch.incarnation.0.to_be_bytes());
        bytes[48..].copy_from_slice(&self.lsn.0.to_be_bytes());
        bytes
    }

    /// Key of the head.
    #[must_use]
    pub fn head_key(self) -> Vec<u8> {
        [&[HEAD][..], &self.bytes()].concat()
    }

    /// What the keys of all its records begin with.
    #[must_use]
    pub fn record_prefix(self) -> Vec<u8> {
        [&[RECORD][..], &self.bytes()].concat()
    }

    /// Key of the archived value of `key` in `namespace`.
    #[must_use]
    pub fn record_key(self, namespace: Namespace, key: &[u8]) -> Vec<u8> {
        let scope = match namespace.scope {
            Scope::Private => 0,
            Scope::SharedLocal => 1,
            Scope::SharedGlobal => 2,
        };
        let durability = match namespace.durability {
            Durability::Volatile => 0,
            Durability::Persistent => 1,
        };
        let Sap(sap) = namespace.owner.sap();
        let mut bytes = self.record_prefix();
        bytes.extend_from_slice(&sap.to_be_bytes());
        bytes.extend_from_slice(&[scope, durability]);
        bytes.extend_from_slice(key);
        bytes
    }

    /// The archived key inside a record's key; `None` if it is not one of this archive's.
    #[must_use]
    pub fn archived_key(self, key: &[u8]) -> Option<&[u8]> {
        key.strip_prefix(self.record_prefix().as_slice())?
            .get(TAG_BYTES..)
    }
}

/// Whether a key of [`HELD`] or [`KEPT`] is a head's.
#[must_use]
pub fn is_head(key: &[u8]) -> bool {
    key.len() == 1 + ID_BYTES && key[0] == HEAD
}

/// What the keys of all heads begin with.
pub const HEAD_PREFIX: &[u8] = &[HEAD];

/// What the keys of all records begin with.
pub const RECORD_PREFIX: &[u8] = &[RECORD];

/// The stored form of a head.
#[must_use]
pub fn encode_head(head: &ConflictHead) -> Vec<u8> {
    postcard::to_allocvec(head).expect("a Vec grows, and all of a head is sized")
}

/// A stored head; `None` if the bytes are not one.
#[must_use]
pub fn decode_head(bytes: &[u8]) -> Option<ConflictHead> {
    let (head, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_heads_records_and_what_was_archived() {
        let id = ConflictId {
            lsn: Lsn(7),
            ..ConflictId::default()
        };
        let other = ConflictId {
            lsn: Lsn(8),
            ..ConflictId::default()
        };
        let record = id.record_key(KEPT, b"running");
        assert!(is_head(&id.head_key()) && !is_head(&record));
        assert_eq!(id.archived_key(&record), Some(&b"running"[..]));
        assert_eq!(other.archived_key(&record), None);
        assert_ne!(record, id.record_key(HELD, b"running"));
    }

    #[test]
    fn a_head_comes_back_and_rubbish_does_not() {
        let head = ConflictHead {
            id: ConflictId::default(),
            number: 3,
            slot: Slot::Sup2,
            taken_unix_s: 1,
            rival: Epoch::default(),
            reason: "both were active".to_owned(),
            commits: Some(2),
            counts: vec![(KEPT, 4)],
            left_out: 0,
        };
        let mut bytes = encode_head(&head);
        assert_eq!(decode_head(&bytes), Some(head));
        bytes.push(0);
        assert_eq!(decode_head(&bytes), None);
    }
}
