//! What a lost conflict leaves: archives, taken, handed over, kept by the pair, cleared.
//!
//! ```text
//!   conflict lost ──Archive──▶ HELD here ─┐            the node resets meanwhile
//!   bulk sync would replace ──▶ HELD here ┴─ in step again: Offered ⇄ Wanted, Records ──▶ KEPT by
//!   what the active lacks        (the same snapshot)                 the active, replicated
//!                                HELD here removed ◀───── Kept: durable on both nodes ───────┘
//! ```
//! Invariants:
//! - one archive for one newest persistent commit ([`ConflictId`]): asking again, or finding at a
//!   bulk sync what was archived on demand, changes nothing but what is known of it;
//! - an archive is removed from [`HELD`] only when [`KEPT`] of this node has it and the active has
//!   said that both are durable;
//! - at most [`ARCHIVES`] of each; with one more the oldest goes.

mod keeping;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use model::{Epoch, Lsn, Slot, Time};
use wire::checkpoint::{Durability, Namespace, Operation, Replication};
use wire::conflict::{
    ConflictHead, ConflictId, HEAD_PREFIX, HELD, KEPT, REASON_MAX_BYTES, decode_head, encode_head,
};
use wire::supervision::Activity;

use super::Store;
use crate::Output;
use crate::content::{Content, config_namespace, is_shared};
use crate::limits::{
    ARCHIVE_MAX_BYTES, ARCHIVE_MAX_RECORDS, ARCHIVE_REQUESTS, ARCHIVE_RETRY, ARCHIVES,
    OPERATIONS_BATCH, PAGE_BYTES,
};
use crate::lineage::Lineage;

/// Last number given to an archive of the pair; numbers are never given twice.
const NUMBER_KEY: &[u8] = b"number";

/// Key and value as stored.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug)]
struct Asked {
    number: u64,
    rival: Epoch,
    reason: String,
}

/// An archive that comes from the standby.
#[derive(Debug)]
struct Incoming {
    head: ConflictHead,
    records: Records,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Archiving {
    asked: VecDeque<Asked>,
    /// Requests whose archive is written, and the position that makes it durable.
    written: Vec<(u64, u64)>,
    /// Wall time as told, and when.
    wall: Option<(u64, Time)>,
    offer_at: Time,
    incoming: Option<Incoming>,
    /// Archives of the pair committed, or first asked about, under this epoch: from which
    /// position on they are durable.
    committed: BTreeMap<ConflictId, Lsn>,
}

impl Archiving {
    pub(super) const fn wall_clock(&mut self, now: Time, unix_s: u64) {
        self.wall = Some((unix_s, now));
    }

    fn unix_s(&self, now: Time) -> u64 {
        self.wall
            .map_or(0, |(unix_s, at)| unix_s + now.since(at).as_secs())
    }

    pub(super) fn begin_serving(&mut self) {
        self.incoming = None;
        self.committed.clear();
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.asked.len() > ARCHIVE_REQUESTS {
            return Err("too many requests to archive wait".to_owned());
        }
        let Some(incoming) = &self.incoming else {
            return Ok(());
        };
        let bytes: usize = incoming
            .records
            .iter()
            .map(|(k, v)| k.len() + v.len())
            .sum();
        if bytes == incoming.bytes && bytes <= ARCHIVE_MAX_BYTES {
            Ok(())
        } else {
            Err("the bytes of an archive on its way are miscounted".to_owned())
        }
    }
}

/// Heads in a namespace, in the order of their histories.
fn heads(content: &Content, namespace: Namespace) -> impl Iterator<Item = ConflictHead> + '_ {
    content
        .beginning(namespace, HEAD_PREFIX)
        .filter_map(|(_, value)| decode_head(value))
}

fn put(namespace: Namespace, key: Vec<u8>, value: Vec<u8>) -> Operation {
    Operation::Put {
        namespace,
        key,
        value,
    }
}

/// What writes an archive, the head last.
fn writing(namespace: Namespace, head: &ConflictHead, records: Records) -> Vec<Operation> {
    let records = records
        .into_iter()
        .map(|(key, value)| put(namespace, key, value));
    let head = put(namespace, head.id.head_key(), encode_head(head));
    records.chain([head]).collect()
}

/// What removes an archive, the head first.
fn removing(content: &Content, namespace: Namespace, id: ConflictId) -> Vec<Operation> {
    let prefix = id.record_prefix();
    let records = content
        .beginning(namespace, &prefix)
        .map(|(key, _)| key.to_vec());
    [id.head_key()]
        .into_iter()
        .chain(records)
        .map(|key| Operation::Delete { namespace, key })
        .collect()
}

/// Cuts operations into transactions that fit a message.
fn batches(operations: Vec<Operation>) -> Vec<Vec<Operation>> {
    let mut batches: Vec<Vec<Operation>> = Vec::new();
    let mut bytes = 0;
    for operation in operations {
        let more = 16
            + match &operation {
                Operation::Put { key, value, .. } => key.len() + value.len(),
                Operation::Delete { key, .. } => key.len(),
            };
        bytes += more;
        match batches.last_mut() {
            Some(batch) if bytes <= PAGE_BYTES && batch.len() < OPERATIONS_BATCH => {
                batch.push(operation);
            }
            Some(_) | None => {
                bytes = more;
                batches.push(vec![operation]);
            }
        }
    }
    batches
}

/// The archive of what is persistent and replicated in `content`; `None` if nothing is.
fn taken(
    content: &Content,
    lineage: &Lineage,
    slot: Slot,
    rival: Epoch,
    reason: &str,
) -> Option<(ConflictHead, Records)> {
    let (epoch, lsn) = lineage.newest();
    if lsn == Lsn(0) {
        return None;
    }
    let id = ConflictId { epoch, lsn };
    let mut counts: BTreeMap<Namespace, u32> = BTreeMap::new();
    let mut records = Records::new();
    let mut bytes = 0;
    let mut left_out = 0;
    let configuration = content.records(None, |namespace| namespace == config_namespace());
    let others = content.records(None, |namespace| {
        is_shared(namespace) && namespace != config_namespace() && namespace != KEPT
    });
    for (namespace, key, value) in configuration.chain(others) {
        *counts.entry(namespace).or_default() += 1;
        if namespace.durability == Durability::Volatile {
            continue;
        }
        let key = id.record_key(namespace, key);
        let size = key.len() + value.len();
        if bytes + size > ARCHIVE_MAX_BYTES || records.len() == ARCHIVE_MAX_RECORDS {
            left_out += 1;
            continue;
        }
        bytes += size;
        records.push((key, value.to_vec()));
    }
    let end = reason.floor_char_boundary(REASON_MAX_BYTES);
    let head = ConflictHead {
        id,
        number: 0,
        slot,
        taken_unix_s: 0,
        rival,
        reason: reason[..end].to_owned(),
        commits: None,
        counts: counts.into_iter().collect(),
        left_out,
    };
    Some((head, records))
}

// ---- on the node that lost

impl Store {
    fn slot(&self) -> Slot {
        self.posture
            .as_ref()
            .map_or(Slot::Sup1, |posture| posture.slot)
    }

    fn held(&self, id: ConflictId) -> Option<ConflictHead> {
        decode_head(self.content.get(HELD, &id.head_key())?)
    }

    pub(super) fn archive_asked(&mut self, number: u64, rival: Epoch, reason: String) {
        let asked = &mut self.archiving.asked;
        if asked.len() == ARCHIVE_REQUESTS {
            asked.pop_front();
        }
        asked.push_back(Asked {
            number,
            rival,
            reason,
        });
    }

    /// Takes the archives that were asked for, and says which are durable.
    pub(super) fn archive(&mut self, now: Time) {
        // While the files are replaced what is to be archived is in that replacement.
        while self.replacing.is_none()
            && let Some(asked) = self.archiving.asked.pop_front()
        {
            if let Err(error) = self.take_archive(now, &asked) {
                // No answer: the System Manager goes on at its deadline, and a bulk sync archives
                // before it replaces.
                self.log(3, "CONFLICT_NOT_ARCHIVED", error);
                continue;
            }
            let position = self.persistent.position();
            self.archiving.written.push((asked.number, position));
        }
        let flushed = self.persistent.flushed();
        let durable = self
            .archiving
            .written
            .extract_if(.., |(_, position)| *position <= flushed);
        let outputs = durable.map(|(number, _)| Output::Archived { number });
        self.outputs.extend(outputs);
    }

    fn take_archive(&mut self, now: Time, asked: &Asked) -> Result<(), String> {
        let taken = taken(
            &self.content,
            &self.lineage,
            self.slot(),
            asked.rival,
            &asked.reason,
        );
        let Some((mut head, records)) = taken else {
            return Ok(());
        };
        if self.held(head.id).is_some() {
            return Ok(());
        }
        head.taken_unix_s = self.archiving.unix_s(now);
        let held: Vec<ConflictId> = heads(&self.content, HELD).map(|head| head.id).collect();
        let mut operations = Vec::new();
        for oldest in held.iter().take((held.len() + 1).saturating_sub(ARCHIVES)) {
            operations.extend(removing(&self.content, HELD, *oldest));
        }
        operations.extend(writing(HELD, &head, records));
        for batch in batches(operations) {
            self.write_local(HELD, &batch)?;
        }
        let text = format!(
            "The configuration up to commit {} of epoch {} is archived: {}",
            head.id.lsn.0, head.id.epoch, head.reason
        );
        self.log(4, "CONFLICT_ARCHIVED", text);
        Ok(())
    }

    /// `content` is about to replace ours: what it lacks of ours is archived in it, and what this
    /// node holds of the pair's archives is held. An archive of commits that `content` has goes.
    pub(super) fn archive_what_is_replaced(&mut self, now: Time, content: &mut Content) {
        let theirs = Lineage::of(content);
        let missing = theirs.missing_of(&self.lineage);
        let same_place = theirs.newest() == self.lineage.newest();
        let differs = same_place && self.content.config_hash() != content.config_hash();
        let (epoch, lsn) = self.lineage.newest();
        let newest = ConflictId { epoch, lsn };
        let uncompared: Vec<ConflictHead> = heads(content, HELD)
            .filter(|head| head.commits.is_none())
            .collect();
        for mut head in uncompared {
            let id = head.id;
            if theirs.includes(id.epoch, id.lsn) && !(id == newest && differs) {
                let keys = removing(content, HELD, id);
                content.apply(&keys);
            } else if id == newest {
                head.commits = Some(missing);
                content.put(HELD, id.head_key(), encode_head(&head).into());
            }
        }
        let lost = missing > 0 || differs;
        if lost && content.get(HELD, &newest.head_key()).is_none() {
            self.hold(now, content, missing);
        }
        if missing > 0 {
            self.hold_archives_of_the_pair(content);
        }
        let ids: Vec<ConflictId> = heads(content, HELD).map(|head| head.id).collect();
        for oldest in ids.iter().take(ids.len().saturating_sub(ARCHIVES)) {
            let keys = removing(content, HELD, *oldest);
            content.apply(&keys);
        }
    }

    fn hold(&mut self, now: Time, content: &mut Content, missing: u64) {
        let reason = if missing > 0 {
            "the active did not have these commits"
        } else {
            "the active's configuration differed at the same commit"
        };
        let rival = self.highest_epoch;
        let taken = taken(&self.content, &self.lineage, self.slot(), rival, reason);
        let Some((mut head, records)) = taken else {
            return;
        };
        head.taken_unix_s = self.archiving.unix_s(now);
        head.commits = Some(missing);
        let text = format!(
            "{} commits up to {} of epoch {} are archived: {reason}",
            missing, head.id.lsn.0, head.id.epoch
        );
        content.apply(&writing(HELD, &head, records));
        self.log(4, "CONFLICT_ARCHIVED", text);
    }

    /// Archives that the pair kept on this side of a fork only: to be handed over again.
    fn hold_archives_of_the_pair(&self, content: &mut Content) {
        for mut head in heads(&self.content, KEPT) {
            if content.get(KEPT, &head.id.head_key()).is_some() {
                continue;
            }
            head.number = 0;
            let prefix = head.id.record_prefix();
            for (key, value) in self.content.beginning(KEPT, &prefix) {
                content.put(HELD, key.to_vec(), Arc::clone(value));
            }
            content.put(HELD, head.id.head_key(), encode_head(&head).into());
        }
    }

    fn may_hand_over(&self) -> bool {
        self.activity() == Activity::Standby
            && self.peer_connected
            && self.following.is_streaming()
            && self.replacing.is_none()
    }

    fn first_held(&self) -> Option<ConflictHead> {
        heads(&self.content, HELD).next()
    }

    pub(super) fn hand_over(&mut self, now: Time) {
        if !self.may_hand_over() || self.archiving.offer_at > now {
            return;
        }
        let Some(head) = self.first_held() else {
            return;
        };
        let id = head.id;
        if head.commits.is_none() && self.lineage.includes(id.epoch, id.lsn) {
            // The conflict was lost, and no change with it.
            self.let_go(now, id);
            return;
        }
        self.archiving.offer_at = now + ARCHIVE_RETRY;
        let head = Box::new(head);
        self.replicate(Replication::ArchiveOffered { head });
    }

    pub(super) fn hand_over_deadline(&self) -> Option<Time> {
        let leads = matches!(self.activity(), Activity::Active(_)) && self.replacing.is_none();
        let may = leads || self.may_hand_over();
        (may && self.first_held().is_some()).then_some(self.archiving.offer_at)
    }

    pub(super) fn archive_wanted(&mut self, now: Time, archive: ConflictId, from: u32) {
        if !self.may_hand_over() || self.held(archive).is_none() {
            return;
        }
        let prefix = archive.record_prefix();
        let mut rest = self
            .content
            .beginning(HELD, &prefix)
            .skip(from as usize)
            .peekable();
        let mut records = Records::new();
        let mut bytes = 0;
        while let Some((key, value)) = rest.peek() {
            bytes += 8 + key.len() + value.len();
            if !records.is_empty() && bytes > PAGE_BYTES {
                break;
            }
            records.push((key.to_vec(), value.to_vec()));
            rest.next();
        }
        let last = rest.peek().is_none();
        drop(rest);
        self.archiving.offer_at = now + ARCHIVE_RETRY;
        self.replicate(Replication::ArchiveRecords {
            archive,
            from,
            records,
            last,
        });
    }

    pub(super) fn archive_kept(&mut self, now: Time, archive: ConflictId) {
        let replicated = self.content.get(KEPT, &archive.head_key()).is_some();
        if self.may_hand_over() && replicated {
            self.let_go(now, archive);
        }
    }

    /// Removes an archive that need not be held here any more.
    fn let_go(&mut self, now: Time, archive: ConflictId) {
        self.archiving.offer_at = now;
        for batch in batches(removing(&self.content, HELD, archive)) {
            if let Err(error) = self.write_local(HELD, &batch) {
                self.archiving.offer_at = now + ARCHIVE_RETRY;
                return self.log(3, "CONFLICT_NOT_REMOVED", error);
            }
        }
    }
}
