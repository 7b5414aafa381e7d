//! As the active: stream the log to the standby.
//!
//! ```text
//!            Subscribe, history contained
//!   nobody ────────────────────────────────▶ streaming ──(acks diverge, too old)──▶ nobody
//!     │  ▲                                       ▲
//!     │  └──────────── peer gone ────────────────┤
//!     └── Subscribe, not contained ──▶ a chunk is answered; the standby asks for the next, and
//!                                      subscribes with the snapshot's position at the end
//! ```
//! A bulk sync has no state here but the frozen content: the standby pulls.

use std::collections::VecDeque;

use model::{Epoch, Lsn, Time};
use wire::checkpoint::{Cursor, Replication};

use super::Store;
use crate::content::{Content, is_shared};
use crate::limits::{BATCH_BYTES, FOLLOW_PERIOD, PAGE_BYTES, REPLICATION_WINDOW_BYTES, RESEND};

/// The shared content as of one commit, for the standby to pull.
#[derive(Debug)]
struct Frozen {
    at: (Epoch, Lsn),
    content: Content,
}

#[derive(Debug)]
struct Subscriber {
    /// Next entry to send.
    next: Lsn,
    /// Sent and not acknowledged, oldest first, with their sizes.
    in_flight: VecDeque<(Lsn, usize)>,
    in_flight_bytes: usize,
    /// It has acknowledged since it subscribed.
    heard: bool,
    resend_at: Time,
}

/// What an active knows of its standby.
#[derive(Debug, Default)]
pub(super) struct Serving {
    subscriber: Option<Subscriber>,
    frozen: Option<Frozen>,
    /// Durable at the standby.
    acked: Lsn,
    /// The standby was in step when last heard; stays while the connection is away.
    in_step: bool,
    /// The standby's content differs at an equal position: no increments until it was replaced.
    diverged: bool,
    follow_at: Option<Time>,
}

impl Serving {
    pub(super) const fn acked(&self) -> Lsn {
        self.acked
    }

    pub(super) const fn in_step(&self) -> bool {
        self.in_step
    }

    pub(super) const fn has_subscriber(&self) -> bool {
        self.subscriber.is_some()
    }

    pub(super) fn peer_connection(&mut self, now: Time) {
        self.subscriber = None;
        self.follow_at = Some(now);
    }

    pub(super) fn check(&self, last: Lsn) -> Result<(), String> {
        if self.acked > last {
            return Err("the standby has acknowledged what does not exist".to_owned());
        }
        let Some(subscriber) = &self.subscriber else {
            return Ok(());
        };
        let bytes: usize = subscriber.in_flight.iter().map(|(_, bytes)| bytes).sum();
        if bytes != subscriber.in_flight_bytes {
            return Err("bytes in flight to the standby are miscounted".to_owned());
        }
        Ok(())
    }
}

impl Store {
    pub(super) fn begin_serving(&mut self, now: Time) {
        self.serving = Serving {
            follow_at: Some(now),
            ..Serving::default()
        };
        self.archiving.begin_serving();
        // What this node holds is the pair's content from now on, whole or not.
        self.born.lost = false;
    }

    pub(super) fn subscribed(&mut self, now: Time, have: (Epoch, Lsn), cursor: Option<Cursor>) {
        let Some(epoch) = self.acting() else { return };
        if !self.serving.diverged && self.history.contains(have) {
            self.serving.frozen = None;
            self.serving.acked = self.serving.acked.min(have.1);
            self.serving.subscriber = Some(Subscriber {
                next: have.1.next(),
                in_flight: VecDeque::new(),
                in_flight_bytes: 0,
                heard: false,
                resend_at: now + RESEND,
            });
            self.replicate(Replication::Contained { epoch, have });
            return;
        }
        self.serving.subscriber = None;
        self.serving.in_step = false;
        self.serving.acked = Lsn(0);
        self.serving.follow_at = Some(now + FOLLOW_PERIOD);
        self.send_chunk(epoch, cursor);
    }

    /// Sends the records after `cursor`, of the same frozen content if there still is one from
    /// which increments can follow, else of a new one from its start.
    fn send_chunk(&mut self, epoch: Epoch, cursor: Option<Cursor>) {
        let usable = |frozen: &Frozen| {
            cursor
                .as_ref()
                .is_none_or(|cursor| cursor.snapshot == frozen.at.1)
                && self.history.contains(frozen.at)
        };
        if cursor.is_none() || !self.serving.frozen.as_ref().is_some_and(usable) {
            let mut content = Content::new();
            content.absorb(&self.content, is_shared);
            self.lineage.put_into(&mut content);
            self.serving.frozen = Some(Frozen {
                at: self.history.last(),
                content,
            });
        }
        let Some(frozen) = &self.serving.frozen else {
            return;
        };
        let snapshot = frozen.at.1;
        let cursor = cursor.filter(|cursor| cursor.snapshot == snapshot);
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut next = None;
        for (namespace, key, value) in frozen.content.records(cursor.as_ref(), |_| true) {
            bytes += 8 + key.len() + value.len();
            if !records.is_empty() && bytes > PAGE_BYTES {
                next = records
                    .last()
                    .map(|(namespace, key, _): &(_, Vec<u8>, _)| Cursor {
                        snapshot,
                        namespace: *namespace,
                        key: key.clone(),
                    });
                break;
            }
            records.push((namespace, key.to_vec(), value.to_vec()));
        }
        if next.is_none() {
            // The standby holds it all now and comes back with this very position.
            self.serving.diverged = false;
        }
        let history = frozen.at.0;
        let after = cursor;
        self.replicate(Replication::Chunk {
            epoch,
            snapshot,
            history,
            after,
            records,
            next,
        });
    }

    pub(super) fn acknowledged(&mut self, now: Time, epoch: Epoch, lsn: Lsn, config_hash: u64) {
        if self.acting() != Some(epoch) || lsn > self.history.last().1 {
            return;
        }
        let Some(subscriber) = &mut self.serving.subscriber else {
            return;
        };
        let ours = if lsn == self.history.last().1 {
            self.content.config_hash()
        } else {
            self.history.at(lsn).map_or(0, |recent| recent.config_hash)
        };
        if ours != 0 && ours != config_hash {
            self.serving.subscriber = None;
            self.serving.diverged = true;
            self.serving.in_step = false;
            self.serving.follow_at = Some(now);
            let text = format!(
                "The standby's configuration differs at {}; it is replaced",
                lsn.0
            );
            self.log(3, "STANDBY_DIVERGED", text);
            return;
        }
        while let Some((first, bytes)) = subscriber.in_flight.front()
            && *first <= lsn
        {
            subscriber.in_flight_bytes -= bytes;
            subscriber.in_flight.pop_front();
        }
        subscriber.next = subscriber.next.max(lsn.next());
        subscriber.heard = true;
        subscriber.resend_at = now + RESEND;
        self.serving.acked = self.serving.acked.max(lsn);
        self.serving.in_step = true;
    }

    pub(super) fn serve(&mut self, now: Time) {
        let Some(epoch) = self.acting() else { return };
        if !self.peer_connected {
            return;
        }
        if self.serving.subscriber.is_none() {
            if self.serving.follow_at.is_none_or(|at| at <= now) {
                self.serving.follow_at = Some(now + FOLLOW_PERIOD);
                self.replicate(Replication::Follow { epoch });
            }
            return;
        }
        self.repeat_unacknowledged(now);
        while self.send_batch(epoch, now) {}
    }

    fn repeat_unacknowledged(&mut self, now: Time) {
        let Some(subscriber) = &mut self.serving.subscriber else {
            return;
        };
        if subscriber.resend_at > now {
            return;
        }
        subscriber.resend_at = now + RESEND;
        if let Some((first, _)) = subscriber.in_flight.front() {
            subscriber.next = *first;
            subscriber.in_flight.clear();
            subscriber.in_flight_bytes = 0;
        }
    }

    /// Sends one message of entries if the window allows; false when there is nothing to do.
    fn send_batch(&mut self, epoch: Epoch, now: Time) -> bool {
        let Some(subscriber) = &mut self.serving.subscriber else {
            return false;
        };
        let mut entries = Vec::new();
        let mut batch_bytes = 0;
        while subscriber.in_flight_bytes < REPLICATION_WINDOW_BYTES {
            let Some(recent) = self.history.at(subscriber.next) else {
                break;
            };
            if !entries.is_empty() && batch_bytes + recent.bytes > BATCH_BYTES {
                break;
            }
            if subscriber.in_flight.is_empty() {
                subscriber.resend_at = now + RESEND;
            }
            batch_bytes += recent.bytes;
            entries.push((*recent.entry).clone());
            subscriber
                .in_flight
                .push_back((subscriber.next, recent.bytes));
            subscriber.in_flight_bytes += recent.bytes;
            subscriber.next = subscriber.next.next();
        }
        if entries.is_empty() {
            let fallen_behind = subscriber.in_flight.is_empty()
                && subscriber.next <= self.history.last().1
                && self.history.at(subscriber.next).is_none();
            if fallen_behind {
                self.serving.subscriber = None;
                self.serving.follow_at = Some(now);
            }
            return false;
        }
        self.counters.sent += entries.len() as u64;
        self.replicate(Replication::Entries { epoch, entries });
        true
    }

    pub(super) fn serve_deadline(&self) -> Option<Time> {
        if self.acting().is_none() || !self.peer_connected {
            return None;
        }
        match &self.serving.subscriber {
            None => Some(self.serving.follow_at.unwrap_or_default()),
            Some(subscriber) if subscriber.in_flight.is_empty() => None,
            Some(subscriber) => Some(subscriber.resend_at),
        }
    }
}
