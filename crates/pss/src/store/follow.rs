//! As a standby: subscribe, apply, bulk.
//!
//! | phase | `Contained` | `Chunk` | `Entries` | nothing for a while |
//! |---|---|---|---|---|
//! | off | ignored | ignored | ignored | – |
//! | asking | streaming, in step | pulling | ignored | subscribe again |
//! | pulling | ignored | gather; the last one: replace, then ask | ignored | ask for the chunk again |
//! | streaming | ignored | pulling | apply; on a gap: ask | – |
//!
//! While the files are replaced nothing is applied; the phase is `asking` afterwards.

use model::{Epoch, Lsn, Time};
use wire::checkpoint::{Cursor, Entry, Namespace, Replication};
use wire::supervision::Activity;

use super::Store;
use super::disk::belongs;
use crate::content::{Content, is_shared};
use crate::history::History;
use crate::journal::Which;
use crate::limits::SUBSCRIBE_RETRY;
use crate::lineage::Lineage;

/// A history that no active contains: what a store subscribes with when its own is not whole.
const NOTHING_USABLE: (Epoch, Lsn) = (
    Epoch {
        counter: 0,
        node: model::NodeKey([0; 32]),
        incarnation: model::Incarnation(0),
    },
    Lsn(u64::MAX),
);

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Off,
    Asking {
        retry_at: Time,
    },
    Pulling {
        at: (Epoch, Lsn),
        staged: Content,
        cursor: Option<Cursor>,
        retry_at: Time,
    },
    Streaming {
        epoch: Epoch,
    },
}

/// What a standby knows of its active.
#[derive(Debug, Default)]
pub(super) struct Following {
    phase: Phase,
    /// Our history was part of the active's when last compared, and nothing was missing since.
    bulk_done: bool,
    /// Last position acknowledged in this subscription.
    acked: Option<Lsn>,
    /// What is here differs from the active's although the history says otherwise: only a bulk
    /// sync mends that.
    distrusted: bool,
}

/// The files are being replaced by a snapshot. Commits are held meanwhile.
#[derive(Debug)]
pub(super) enum Replacing {
    /// A bulk sync's content, not visible yet.
    Bulk {
        at: (Epoch, Lsn),
        content: Content,
        begun: Option<Which>,
    },
    /// Our own content, behind damage.
    Repair { which: Which, begun: bool },
}

/// One chunk of the active's snapshot.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) at: (Epoch, Lsn),
    pub(super) after: Option<Cursor>,
    pub(super) records: Vec<(Namespace, Vec<u8>, Vec<u8>)>,
    pub(super) next: Option<Cursor>,
}

impl Following {
    pub(super) const fn is_asking(&self) -> bool {
        matches!(self.phase, Phase::Asking { .. })
    }

    /// Whether what the active commits comes as increments.
    pub(super) const fn is_streaming(&self) -> bool {
        matches!(self.phase, Phase::Streaming { .. })
    }

    pub(super) const fn bulk_done(&self) -> bool {
        self.bulk_done
    }

    pub(super) fn peer_connection(&mut self, now: Time) {
        self.acked = None;
        match &mut self.phase {
            Phase::Off => {}
            // Whatever was under way is asked for again; a bulk goes on at its cursor.
            Phase::Asking { retry_at } | Phase::Pulling { retry_at, .. } => *retry_at = now,
            Phase::Streaming { .. } => self.phase = Phase::Asking { retry_at: now },
        }
    }
}

impl Store {
    pub(super) fn begin_following(&mut self, now: Time) {
        self.following = Following::default();
        self.following.phase = Phase::Asking { retry_at: now };
    }

    /// Subscribes anew; a bulk that is under way goes on.
    pub(super) fn subscribe(&mut self, now: Time) {
        self.following.acked = None;
        match &mut self.following.phase {
            Phase::Pulling { retry_at, .. } => *retry_at = now,
            Phase::Off | Phase::Asking { .. } | Phase::Streaming { .. } => {
                self.following.phase = Phase::Asking { retry_at: now };
            }
        }
    }

    /// The System Manager finds that this standby lags or differs, and that it does not mend.
    pub(super) fn resync(&mut self, now: Time, whole: bool) {
        if self.activity() != Activity::Standby || self.replacing.is_some() {
            return;
        }
        if whole {
            self.following.distrusted = true;
            self.following.bulk_done = false;
        }
        self.subscribe(now);
    }

    fn usable_history(&self) -> (Epoch, Lsn) {
        if self.born.lost || self.following.distrusted {
            NOTHING_USABLE
        } else {
            self.history.last()
        }
    }

    pub(super) fn contained(&mut self, epoch: Epoch, have: (Epoch, Lsn)) {
        let asking = matches!(self.following.phase, Phase::Asking { .. });
        if asking && self.replacing.is_none() && have == self.usable_history() {
            self.following.phase = Phase::Streaming { epoch };
            self.following.bulk_done = true;
            self.following.acked = None;
        }
    }

    pub(super) fn entries(&mut self, now: Time, epoch: Epoch, entries: Vec<Entry>) {
        let Phase::Streaming { epoch: followed } = self.following.phase else {
            return;
        };
        if followed != epoch {
            // A new active: whether our history is part of its own has to be asked.
            self.subscribe(now);
            return;
        }
        for entry in entries {
            let (_, last) = self.history.last();
            if entry.lsn <= last {
                continue;
            }
            if entry.lsn != last.next() {
                self.subscribe(now);
                return;
            }
            if let Err(error) = self.write_shared(entry) {
                self.fail(error.to_string());
                return;
            }
            self.counters.applied += 1;
        }
    }

    pub(super) fn chunk(&mut self, now: Time, chunk: Chunk) {
        let Chunk {
            at,
            after,
            records,
            next,
        } = chunk;
        if self.replacing.is_some() {
            return;
        }
        let mut staged = match (core::mem::take(&mut self.following.phase), after) {
            (Phase::Off, _) => return,
            // A first chunk begins anew, also in the middle of a pull: the active has lost or
            // outrun the snapshot it was serving.
            (Phase::Asking { .. } | Phase::Streaming { .. }, None) => Content::new(),
            (Phase::Pulling { at: before, .. }, None) if before != at => Content::new(),
            (
                Phase::Pulling {
                    at: before,
                    staged,
                    cursor,
                    ..
                },
                Some(after),
            ) if before == at && cursor.as_ref() == Some(&after) => staged,
            // A late repetition.
            (phase, _) => {
                self.following.phase = phase;
                return;
            }
        };
        self.following.bulk_done = false;
        for (namespace, key, value) in records {
            if is_shared(namespace) {
                staged.put(namespace, key, value.into());
            }
        }
        if next.is_some() {
            let cursor = next;
            self.following.phase = Phase::Pulling {
                at,
                staged,
                cursor,
                retry_at: now,
            };
            return;
        }
        staged.absorb(&self.content, |namespace| !is_shared(namespace));
        self.following.phase = Phase::Asking { retry_at: now };
        self.replacing = Some(Replacing::Bulk {
            at,
            content: staged,
            begun: None,
        });
        self.replacing_goes_on(now);
    }

    /// The content in memory is to become the snapshot of that storage, in place of what is
    /// damaged there.
    pub(super) fn begin_repair(&mut self, which: Which) {
        self.replacing = Some(Replacing::Repair {
            which,
            begun: false,
        });
        self.replacing_goes_on(Time::default());
    }

    /// Takes the next step of a replacement when the last one is done.
    pub(super) fn replacing_goes_on(&mut self, now: Time) {
        match self.replacing.take() {
            None => {}
            Some(Replacing::Repair {
                which,
                begun: false,
            }) => {
                let idle = match which {
                    Which::Persistent => self.persistent.is_idle(),
                    Which::Volatile => self.volatile.is_idle(),
                };
                if idle && let Err(error) = self.compact(which) {
                    return self.fail(error.to_string());
                }
                self.replacing = Some(Replacing::Repair { which, begun: idle });
            }
            Some(Replacing::Repair { which, begun: true }) => {
                let idle = match which {
                    Which::Persistent => self.persistent.is_idle(),
                    Which::Volatile => self.volatile.is_idle(),
                };
                if !idle {
                    self.replacing = Some(Replacing::Repair { which, begun: true });
                }
            }
            Some(Replacing::Bulk { at, content, begun }) => {
                self.bulk_goes_on(now, at, content, begun);
            }
        }
    }

    /// The durable storage first, then the volatile one, then memory: a crash between the first
    /// two leaves their numbers of bulk syncs different, and the volatile one is not used.
    fn bulk_goes_on(
        &mut self,
        now: Time,
        at: (Epoch, Lsn),
        mut content: Content,
        begun: Option<Which>,
    ) {
        let idle = self.persistent.is_idle() && self.volatile.is_idle();
        let which = match begun {
            _ if !idle => {
                self.replacing = Some(Replacing::Bulk { at, content, begun });
                return;
            }
            None => Which::Persistent,
            Some(Which::Persistent) => Which::Volatile,
            Some(Which::Volatile) => return self.bulk_ends(now, at, content),
        };
        if which == Which::Persistent {
            // In the same snapshot that replaces it: there is no instant with neither.
            self.archive_what_is_replaced(now, &mut content);
            self.born.bulk += 1;
            self.born.lost = false;
        }
        let journal = match which {
            Which::Persistent => &mut self.persistent,
            Which::Volatile => &mut self.volatile,
        };
        let wanted = move |namespace: Namespace| belongs(namespace) == which;
        match journal.begin_snapshot(&content, wanted, at, self.born) {
            Ok(work) => {
                self.start_work(which, work);
                let begun = Some(which);
                self.replacing = Some(Replacing::Bulk { at, content, begun });
            }
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn bulk_ends(&mut self, now: Time, at: (Epoch, Lsn), content: Content) {
        self.content = content;
        self.lineage = Lineage::of(&self.content);
        self.history = History::starting_at(at);
        self.unflushed.clear();
        self.durable = (at.1, self.content.config_hash());
        self.counters.bulks += 1;
        self.following.distrusted = false;
        self.tell_replaced();
        if self.activity() == Activity::Standby {
            self.following.phase = Phase::Asking { retry_at: now };
        }
    }

    /// Acknowledges and asks, as far as it is time.
    pub(super) fn follow(&mut self, now: Time) {
        if self.activity() != Activity::Standby || !self.peer_connected {
            return;
        }
        let have = self.usable_history();
        let durable = self.durable;
        match &mut self.following.phase {
            Phase::Off => {}
            Phase::Streaming { epoch } => {
                let epoch = *epoch;
                if self.following.acked != Some(durable.0) {
                    self.following.acked = Some(durable.0);
                    let (lsn, config_hash) = durable;
                    self.replicate(Replication::Ack {
                        epoch,
                        lsn,
                        config_hash,
                    });
                }
            }
            Phase::Asking { retry_at } => {
                if *retry_at <= now && self.replacing.is_none() {
                    *retry_at = now + SUBSCRIBE_RETRY;
                    self.replicate(Replication::Subscribe { have, cursor: None });
                }
            }
            Phase::Pulling {
                cursor, retry_at, ..
            } => {
                if *retry_at <= now {
                    *retry_at = now + SUBSCRIBE_RETRY;
                    let cursor = cursor.clone();
                    self.replicate(Replication::Subscribe { have, cursor });
                }
            }
        }
    }

    pub(super) fn follow_deadline(&self) -> Option<Time> {
        if self.activity() != Activity::Standby || !self.peer_connected {
            return None;
        }
        match &self.following.phase {
            Phase::Off | Phase::Streaming { .. } => None,
            Phase::Asking { .. } if self.replacing.is_some() => None,
            Phase::Asking { retry_at } | Phase::Pulling { retry_at, .. } => Some(*retry_at),
        }
    }
}
