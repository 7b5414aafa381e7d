//! What the other node's store says. The broker vouches that it is the other node's.

use model::Time;
use wire::checkpoint::Replication;

use super::Store;
use super::follow::Chunk;

impl Store {
    pub(super) fn replication(&mut self, now: Time, replication: Replication) {
        match replication {
            Replication::Subscribe { have, cursor } => self.subscribed(now, have, cursor),
            Replication::Ack {
                epoch,
                lsn,
                config_hash,
            } => {
                self.acknowledged(now, epoch, lsn, config_hash);
            }
            Replication::Chunk {
                epoch,
                snapshot,
                history,
                after,
                records,
                next,
            } => {
                if self.accepts(epoch) {
                    let at = (history, snapshot);
                    self.chunk(
                        now,
                        Chunk {
                            at,
                            after,
                            records,
                            next,
                        },
                    );
                }
            }
            Replication::Entries { epoch, entries } => {
                if self.accepts(epoch) {
                    self.entries(now, epoch, entries);
                }
            }
            Replication::Follow { epoch } => {
                if self.accepts(epoch) && !self.following.is_asking() {
                    self.subscribe(now);
                }
            }
            Replication::Contained { epoch, have } => {
                if self.accepts(epoch) {
                    self.contained(epoch, have);
                }
            }
            Replication::ArchiveOffered { head } => self.archive_offered(*head),
            Replication::ArchiveWanted {
                epoch,
                archive,
                from,
            } => {
                if self.accepts(epoch) {
                    self.archive_wanted(now, archive, from);
                }
            }
            Replication::ArchiveRecords {
                archive,
                from,
                records,
                last,
            } => self.archive_records(now, archive, from, records, last),
            Replication::ArchiveKept { epoch, archive } => {
                if self.accepts(epoch) {
                    self.archive_kept(now, archive);
                }
            }
        }
    }
}
