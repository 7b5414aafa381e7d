//! Decision requests on their way to `policy_engine` and back.
//!
//! ```text
//! VEM ──Decide──▶ asked ──answer under our epoch──▶ VEM
//!                  │ ▲
//!   empty answer,  │ │ policy_engine says it is ready; REASK_AFTER passed;
//!   undeliverable, │ │ the broker is back
//!   no answer in   ▼ │
//!   ANSWER_WITHIN  waiting ──LIFETIME──▶ dropped (the VEM asks again by itself)
//! ```
//! Invariants: at most [`BATCHES_MAX`] batches; a batch is asked or waiting, never both.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use model::{ModuleNumber, Time};
use wire::vem::DecisionRequest;

use crate::service::VemConnection;

/// Most batches under way. Each VEM sends a batch of up to 256 requests per turn of its loop; at
/// this many, decisions lag by seconds and the VEMs ask again anyway. The newest is dropped.
pub const BATCHES_MAX: usize = 4096;
/// An answer takes well below a millisecond; one that takes this long was lost with a broker or
/// a `policy_engine`.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);
/// `policy_engine` may learn of a takeover a moment after us; it then tells us, and this is the
/// fallback.
const REASK_AFTER: Duration = Duration::from_millis(5);
/// A VEM asks the request again long before; older ones are not worth an answer.
const LIFETIME: Duration = Duration::from_secs(2);

/// One message of one VEM.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) connection: VemConnection,
    pub(super) module: ModuleNumber,
    pub(super) requests: Vec<DecisionRequest>,
    pub(super) since: Time,
}

#[derive(Debug, Default)]
pub(super) struct Asking {
    asked: BTreeMap<u64, (Batch, Time)>,
    waiting: VecDeque<(Batch, Time)>,
    /// Batches dropped because there were too many or they were too old.
    pub(super) dropped: u64,
}

impl Asking {
    pub(super) fn has_room(&self) -> bool {
        self.asked.len() + self.waiting.len() < BATCHES_MAX
    }

    pub(super) fn asked(&mut self, now: Time, correlation: u64, batch: Batch) {
        self.asked.insert(correlation, (batch, now + ANSWER_WITHIN));
    }

    pub(super) fn answered(&mut self, correlation: u64) -> Option<Batch> {
        self.asked.remove(&correlation).map(|(batch, _)| batch)
    }

    pub(super) fn wait(&mut self, now: Time, batch: Batch) {
        self.waiting.push_back((batch, now + REASK_AFTER));
    }

    /// The broker is gone, and with it what was under way.
    pub(super) fn all_wait(&mut self, now: Time) {
        while let Some((_, (batch, _))) = self.asked.pop_first() {
            self.wait(now, batch);
        }
    }

    /// Batches to ask again now: all that wait if `ready`, else those whose time has come.
    pub(super) fn due(&mut self, now: Time, ready: bool) -> Vec<Batch> {
        let late: Vec<u64> = self
            .asked
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(c, _)| *c)
            .collect();
        let mut due: Vec<Batch> = late.iter().filter_map(|c| self.answered(*c)).collect();
        while let Some((_, at)) = self.waiting.front() {
            if !ready && *at > now {
                break;
            }
            due.extend(self.waiting.pop_front().map(|(batch, _)| batch));
        }
        let before = due.len();
        due.retain(|batch| now.since(batch.since) < LIFETIME);
        self.dropped += (before - due.len()) as u64;
        due
    }

    pub(super) fn forget(&mut self, connection: VemConnection) {
        self.asked
            .retain(|_, (batch, _)| batch.connection != connection);
        self.waiting
            .retain(|(batch, _)| batch.connection != connection);
    }

    /// Begins nothing more; answers to what is asked may still come.
    pub(super) fn stop_waiting(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn clear(&mut self) {
        self.asked.clear();
        self.waiting.clear();
    }

    pub(super) fn is_drained(&self) -> bool {
        self.asked.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let asked = self.asked.values().map(|(_, at)| *at).min();
        asked
            .into_iter()
            .chain(self.waiting.front().map(|(_, at)| *at))
            .min()
    }

    pub(super) fn check(&self) {
        assert!(
            self.asked.len() + self.waiting.len() <= BATCHES_MAX,
            "batches under way"
        );
    }
}
