//! On the active: archives of the standby become the pair's, and are cleared.

use model::{Epoch, Lsn, ServiceName, Time};
use wire::broker::Message;
use wire::checkpoint::{Acknowledgement, Operation, Replication};
use wire::conflict::{ConflictHead, ConflictId, HELD, KEPT};
use wire::supervision::Activity;

use super::{Incoming, NUMBER_KEY, Records, batches, heads, put, removing, writing};
use crate::limits::{ARCHIVE_MAX_BYTES, ARCHIVE_MAX_RECORDS, ARCHIVE_RETRY, ARCHIVES};
use crate::store::Store;

impl Store {
    pub(in crate::store) fn archive_offered(&mut self, head: ConflictHead) {
        let Activity::Active(epoch) = self.activity() else {
            return;
        };
        let archive = head.id;
        if self.content.get(KEPT, &archive.head_key()).is_some() {
            let newest = self.history.last().1;
            let lsn = *self.archiving.committed.entry(archive).or_insert(newest);
            if self.durable.0 >= lsn && self.serving.acked() >= lsn {
                self.replicate(Replication::ArchiveKept { epoch, archive });
            }
            return;
        }
        let under_way = self.archiving.incoming.as_ref();
        if under_way.is_none_or(|incoming| incoming.head.id != archive) {
            self.archiving.incoming = Some(Incoming {
                head,
                records: Records::new(),
                bytes: 0,
            });
        }
        self.want_more(epoch);
    }

    fn want_more(&mut self, epoch: Epoch) {
        let Some(incoming) = &self.archiving.incoming else {
            return;
        };
        let archive = incoming.head.id;
        let from = u32::try_from(incoming.records.len()).unwrap_or(u32::MAX);
        self.replicate(Replication::ArchiveWanted {
            epoch,
            archive,
            from,
        });
    }

    pub(in crate::store) fn archive_records(
        &mut self,
        now: Time,
        archive: ConflictId,
        from: u32,
        records: Records,
        last: bool,
    ) {
        let Activity::Active(epoch) = self.activity() else {
            return;
        };
        let Some(incoming) = &mut self.archiving.incoming else {
            return;
        };
        if incoming.head.id != archive || incoming.records.len() != from as usize {
            return;
        }
        let own = records
            .iter()
            .all(|(key, _)| archive.archived_key(key).is_some());
        let bytes: usize = records.iter().map(|(k, v)| k.len() + v.len()).sum();
        if !own
            || incoming.bytes + bytes > ARCHIVE_MAX_BYTES
            || incoming.records.len() + records.len() > ARCHIVE_MAX_RECORDS
        {
            self.archiving.incoming = None;
            let text = "The standby's archive does not keep to its bounds; it is not taken";
            return self.log(3, "CONFLICT_NOT_ARCHIVED", text.to_owned());
        }
        incoming.bytes += bytes;
        incoming.records.extend(records);
        if !last {
            return self.want_more(epoch);
        }
        if let Some(incoming) = self.archiving.incoming.take() {
            self.keep(now, incoming);
        }
    }

    /// Commits an archive that has come whole, and removes what is too old.
    fn keep(&mut self, now: Time, incoming: Incoming) {
        let Incoming {
            mut head, records, ..
        } = incoming;
        let last = self.content.get(KEPT, NUMBER_KEY).map_or(0, |bytes| {
            u32::from_be_bytes(bytes.as_ref().try_into().unwrap_or_default())
        });
        head.number = last + 1;
        if head.taken_unix_s == 0 {
            head.taken_unix_s = self.archiving.unix_s(now);
        }
        let mut kept: Vec<(u32, ConflictId)> = heads(&self.content, KEPT)
            .map(|head| (head.number, head.id))
            .collect();
        kept.sort_unstable();
        let mut operations = Vec::new();
        for (_, oldest) in kept.iter().take((kept.len() + 1).saturating_sub(ARCHIVES)) {
            operations.extend(removing(&self.content, KEPT, *oldest));
        }
        let number = head.number.to_be_bytes().to_vec();
        operations.push(put(KEPT, NUMBER_KEY.to_vec(), number));
        operations.extend(writing(KEPT, &head, records));
        match self.commit_batches(operations) {
            Ok(lsn) => {
                self.archiving.committed.insert(head.id, lsn);
                let text = format!(
                    "What {} had alone is kept as conflict {}: see show redundancy conflicts {}",
                    head.slot, head.number, head.number
                );
                self.log(4, "CONFLICT_KEPT", text);
            }
            Err(error) => self.log(3, "CONFLICT_NOT_ARCHIVED", error),
        }
    }

    /// A node that lost a conflict and leads again before it could hand its archive over keeps it
    /// for the pair itself.
    pub(in crate::store) fn keep_what_is_held(&mut self, now: Time) {
        let acts = matches!(self.activity(), Activity::Active(_));
        if !acts || self.replacing.is_some() || self.archiving.offer_at > now {
            return;
        }
        let Some(head) = self.first_held() else {
            return;
        };
        let id = head.id;
        let known = self.content.get(KEPT, &id.head_key()).is_some()
            || self.lineage.includes(id.epoch, id.lsn);
        if !known {
            let prefix = id.record_prefix();
            let records: Records = self
                .content
                .beginning(HELD, &prefix)
                .map(|(key, value)| (key.to_vec(), value.to_vec()))
                .collect();
            let bytes = 0;
            self.keep(
                now,
                Incoming {
                    head,
                    records,
                    bytes,
                },
            );
        }
        // After it in the same log: no loss of power leaves neither.
        if known || self.content.get(KEPT, &id.head_key()).is_some() {
            self.let_go(now, id);
        } else {
            self.archiving.offer_at = now + ARCHIVE_RETRY;
        }
    }

    /// Gives the position of the last.
    fn commit_batches(&mut self, operations: Vec<Operation>) -> Result<Lsn, String> {
        let mut last = self.history.last().1;
        for batch in batches(operations) {
            last = self.write_own_shared(batch)?;
            self.counters.commits += 1;
        }
        Ok(last)
    }

    pub(in crate::store) fn clear_conflict(&mut self, now: Time, message: Message, number: u32) {
        if message.from_peer || message.source != ServiceName::Vshd.sap() {
            return self.refuse(
                &message,
                "only vshd of this node clears conflicts".to_owned(),
            );
        }
        if let Err(reason) = self.may_commit_shared(KEPT) {
            return self.refuse(&message, reason);
        }
        let found = heads(&self.content, KEPT).find(|head| head.number == number);
        let Some(head) = found else {
            return self.refuse(&message, format!("there is no conflict {number}"));
        };
        let wanted = if self.is_redundant() {
            Acknowledgement::Replicated
        } else {
            Acknowledgement::Local
        };
        match self.commit_batches(removing(&self.content, KEPT, head.id)) {
            Ok(lsn) => self.await_commit(now, message, KEPT, lsn, wanted),
            Err(reason) => self.refuse(&message, reason),
        }
    }
}
