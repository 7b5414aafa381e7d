//! The core: what it holds, what it is told, and the order in which things are settled.
//!
//! | module | concern |
//! |---|---|
//! | `archive` | what a lost conflict leaves: taking, handing over, clearing archives |
//! | `commit` | requests of services: access, transactions, acknowledgements, leave to be alone |
//! | `disk` | records, flushes, compaction |
//! | `read` | reads and watches |
//! | `replication` | what the other node's store says, to whom it concerns |
//! | `serve` | as the active: stream to the standby |
//! | `follow` | as a standby: subscribe, apply, bulk |

mod archive;
mod commit;
mod disk;
mod follow;
mod read;
mod replication;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{Epoch, Lsn, Sap, ServiceName, Time};
use serde::{Deserialize, Serialize};
use wire::broker::{Destination, Kind, Message, decode_body, encode_body};
use wire::checkpoint::{Entry, Namespace, Replication, Response, ToPss};
use wire::log::LogRecord;
use wire::supervision::{Activity, Posture, SyncReport};

use crate::content::Content;
use crate::history::History;
use crate::journal::{Born, Journal, LoggedRef, Which};
use crate::limits::REPORT_PERIOD;
use crate::lineage::Lineage;
use crate::recovery::{Damage, Recovery, joined, restore};
use crate::storage::{Storage, StorageError, Work};
use crate::{Input, Output};

use archive::Archiving;
use commit::{Alone, PendingCommit};
use follow::{Following, Replacing};
use serve::Serving;

/// What the store has done, for `show` and for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Commits taken, shared and local.
    pub commits: u64,
    /// Commits refused.
    pub refused: u64,
    /// Flushes begun.
    pub flushes: u64,
    /// Compactions begun.
    pub compactions: u64,
    /// Entries applied as a standby.
    pub applied: u64,
    /// Bulk syncs finished as a standby.
    pub bulks: u64,
    /// Messages of an epoch below the highest seen, refused.
    pub stale: u64,
    /// Entries sent to the standby, repetitions included.
    pub sent: u64,
}

/// The newest shared commit that is written but not yet known to be durable here, by the position
/// that makes it so.
#[derive(Clone, Copy, Debug)]
struct Unflushed {
    lsn: Lsn,
    config_hash: u64,
    position: u64,
}

/// The checkpoint store. See the crate's head for its invariants.
#[derive(Debug)]
pub struct Store {
    persistent: Journal,
    volatile: Journal,
    born: Born,
    damage: Option<Damage>,
    content: Content,
    history: History,
    lineage: Lineage,
    archiving: Archiving,
    unflushed: VecDeque<Unflushed>,
    /// Last shared commit durable here, and the configuration's hash as of it.
    durable: (Lsn, u64),
    posture: Option<Posture>,
    highest_epoch: Epoch,
    peer_connected: bool,
    alone: Alone,
    pending: Vec<PendingCommit>,
    held: VecDeque<Message>,
    watches: BTreeSet<(Sap, Namespace)>,
    dirty_watchers: BTreeMap<Sap, Time>,
    serving: Serving,
    following: Following,
    replacing: Option<Replacing>,
    applied_due: Option<u64>,
    reported: Option<(Time, SyncReport)>,
    works: BTreeMap<u64, (Which, Option<Work>)>,
    numbers: u64,
    failed: bool,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl Store {
    /// Opens the store over its two storages: one that survives the machine's loss of power and
    /// one that survives the process.
    ///
    /// # Errors
    /// When a storage cannot be read, or its torn end cannot be cut off. Damage is no error: it
    /// is in the [`Recovery`], and the store holds what precedes it.
    pub fn open(
        mut persistent: Box<dyn Storage>,
        mut volatile: Box<dyn Storage>,
    ) -> Result<(Self, Recovery), StorageError> {
        let on_disk = restore(persistent.as_mut(), Which::Persistent, true)?;
        let in_memory = restore(volatile.as_mut(), Which::Volatile, true)?;
        let joined = joined(&on_disk, &in_memory);
        let recovery = Recovery {
            history: joined.newest,
            torn_bytes: on_disk.torn_bytes + in_memory.torn_bytes,
            volatile_lost: joined.volatile_lost,
            damage: on_disk.damage.clone(),
        };
        let born = Born {
            bulk: on_disk.born.unwrap_or_default().bulk,
            lost: joined.volatile_lost,
        };
        let mut content = on_disk.content;
        let mut entries = on_disk.entries;
        let mut base = on_disk.base;
        let lineage = lineage_of(&content, base, &entries);
        if joined.volatile_usable {
            content.absorb(&in_memory.content, |_| true);
            entries.extend(in_memory.entries);
            base = if in_memory.base.1 > base.1 {
                in_memory.base
            } else {
                base
            };
        }
        entries.retain(|entry| entry.lsn > base.1);
        entries.sort_by_key(|entry| entry.lsn);
        let mut history = History::starting_at(base);
        // Past configurations' hashes are not known any more; 0 is "do not compare".
        entries
            .into_iter()
            .for_each(|entry| history.push(entry.into(), 0));
        let persistent = Journal::new(persistent, true, on_disk.resume);
        let mut volatile = Journal::new(volatile, false, in_memory.resume);
        // Records without the one that must be the first are nobody's we know: to put it behind them
        // would make them count at the next start.
        let foreign = in_memory.born.is_none() && in_memory.resume.position > 0;
        if in_memory.born.is_none() && in_memory.damage.is_none() && !foreign {
            volatile.append(&LoggedRef::Born(born))?;
        }
        let mut store = Self::assemble(persistent, volatile, content, history);
        store.born = born;
        store.lineage = lineage;
        store.damage = on_disk.damage;
        if !joined.volatile_usable && (in_memory.born.is_some() || foreign) {
            store.begin_repair(Which::Volatile);
        }
        Ok((store, recovery))
    }

    fn assemble(
        persistent: Journal,
        volatile: Journal,
        content: Content,
        history: History,
    ) -> Self {
        let mut store = Self {
            persistent,
            volatile,
            born: Born::default(),
            damage: None,
            content,
            history,
            lineage: Lineage::default(),
            archiving: Archiving::default(),
            unflushed: VecDeque::new(),
            durable: (Lsn(0), 0),
            posture: None,
            highest_epoch: Epoch::default(),
            peer_connected: false,
            alone: Alone::NotAsked,
            pending: Vec::new(),
            held: VecDeque::new(),
            watches: BTreeSet::new(),
            dirty_watchers: BTreeMap::new(),
            serving: Serving::default(),
            following: Following::default(),
            replacing: None,
            applied_due: None,
            reported: None,
            works: BTreeMap::new(),
            numbers: 0,
            failed: false,
            counters: Counters::default(),
            outputs: VecDeque::new(),
        };
        store.highest_epoch = store.history.last().0;
        store.note_unflushed();
        store
    }

    /// Takes one event in.
    pub fn handle(&mut self, now: Time, input: Input) {
        if self.failed {
            return;
        }
        match input {
            Input::Tick => {}
            Input::BrokerConnected => self.tell_everyone_to_read_again(),
            Input::BrokerLost => self.peer_connection(now, false),
            Input::PeerConnected(connected) => self.peer_connection(now, connected),
            Input::Message(message) => self.message(now, message),
            Input::Posture(posture) => self.take_posture(now, posture),
            Input::AloneAnswered { question, granted } => self.alone_answered(question, granted),
            Input::Resync { whole } => self.resync(now, whole),
            Input::Archive {
                number,
                rival,
                reason,
            } => self.archive_asked(number, rival, reason),
            Input::WallClock { unix_s } => self.archiving.wall_clock(now, unix_s),
            Input::WorkDone { work, result } => self.work_done(now, work, result),
        }
        self.settle(now);
    }

    /// The next effect to be carried out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the store wants [`Input::Tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let report = self.reported.filter(|(_, told)| *told != self.report());
        let deadlines = [
            report.map(|(at, _)| at + REPORT_PERIOD),
            self.commit_deadline(),
            self.dirty_watchers.values().min().copied(),
            self.serve_deadline(),
            self.follow_deadline(),
            self.hand_over_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The slow part of [`Output::Work`]; `None` if it was taken already.
    pub fn take_work(&mut self, work: u64) -> Option<Work> {
        self.works.get_mut(&work)?.1.take()
    }

    /// What has been done so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Epoch and position of the newest shared commit.
    #[must_use]
    pub fn history(&self) -> (Epoch, Lsn) {
        self.history.last()
    }

    /// Reads one key whatever its scope: for `show` and for tests.
    #[must_use]
    pub fn value(&self, namespace: Namespace, key: &[u8]) -> Option<Vec<u8>> {
        self.content.get(namespace, key).map(|value| value.to_vec())
    }

    /// All pairs of a namespace: for tests.
    #[must_use]
    pub fn pairs(&self, namespace: Namespace) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.content
            .records(None, |found| found == namespace)
            .map(|(_, key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }

    // ---- postures

    const fn activity(&self) -> Activity {
        match &self.posture {
            Some(posture) => posture.activity,
            None => Activity::Idle,
        }
    }

    /// The epoch under which this node acts, if it does.
    const fn acting(&self) -> Option<Epoch> {
        match self.activity() {
            Activity::Active(epoch) | Activity::Quiesce(epoch) => Some(epoch),
            Activity::Idle | Activity::Standby => None,
        }
    }

    fn is_redundant(&self) -> bool {
        self.posture
            .as_ref()
            .is_some_and(|posture| posture.redundant)
    }

    fn take_posture(&mut self, now: Time, posture: Posture) {
        let first = self.posture.is_none();
        let was_acting = self.acting();
        let was_standby = self.activity() == Activity::Standby;
        let was_redundant = self.is_redundant();
        let sequence = posture.sequence;
        self.posture = Some(posture);
        if first && let Some(damage) = self.damage.take() {
            if self.acting().is_some() {
                // Numbers after the damage were given out under this very epoch; going on would
                // give them out twice. A new start of the node comes back under a new epoch.
                self.fail(format!("{damage}, and this gateway is acting"));
                return;
            }
            self.begin_repair(Which::Persistent);
        }
        if self.is_redundant() && !was_redundant {
            self.alone = Alone::NotAsked;
        }
        if let Some(epoch) = self.acting() {
            self.highest_epoch = self.highest_epoch.max(epoch);
            if was_acting != Some(epoch) {
                self.alone = Alone::NotAsked;
                self.begin_serving(now);
            }
        }
        match (self.activity(), was_standby) {
            (Activity::Standby, false) => self.begin_following(now),
            (Activity::Standby, true) => {}
            (Activity::Active(_) | Activity::Quiesce(_) | Activity::Idle, _) => {
                self.following = Following::default();
            }
        }
        if self.activity() == Activity::Standby {
            self.serving = Serving::default();
            self.give_up_pending("this supervisor is standby now");
        }
        self.applied_due = Some(sequence);
    }

    fn peer_connection(&mut self, now: Time, connected: bool) {
        self.peer_connected = connected;
        self.serving.peer_connection(now);
        self.following.peer_connection(now);
    }

    // ---- messages

    fn message(&mut self, now: Time, message: Message) {
        match message.kind {
            Kind::Request | Kind::Notification => {}
            Kind::Response => return,
            Kind::Undeliverable => {
                self.watcher_missed(now, message.source);
                return;
            }
        }
        match decode_body::<ToPss>(&message.body) {
            Ok(ToPss::Request(request)) => self.request(now, message, request),
            Ok(ToPss::Replication(replication)) => {
                if message.from_peer && message.source == ServiceName::Pss.sap() {
                    self.replication(now, replication);
                }
            }
            Err(error) => self.respond(&message, &Response::Refused(error.to_string())),
        }
    }

    /// Whether an active of this epoch is to be followed.
    fn accepts(&mut self, epoch: Epoch) -> bool {
        if self.activity() != Activity::Standby {
            return false;
        }
        if epoch < self.highest_epoch {
            self.counters.stale += 1;
            return false;
        }
        self.highest_epoch = epoch;
        true
    }

    fn respond(&mut self, request: &Message, response: &Response) {
        if request.kind != Kind::Request {
            return;
        }
        self.send(Message {
            source: ServiceName::Pss.sap(),
            from_peer: false,
            destination: if request.from_peer {
                Destination::Peer
            } else {
                Destination::Local
            },
            sap: request.source,
            kind: Kind::Response,
            correlation: request.correlation,
            body: encode_body(response),
        });
    }

    fn replicate(&mut self, replication: Replication) {
        self.send(Message {
            source: ServiceName::Pss.sap(),
            from_peer: false,
            destination: Destination::Peer,
            sap: ServiceName::Pss.sap(),
            kind: Kind::Notification,
            correlation: 0,
            body: encode_body(&ToPss::Replication(replication)),
        });
    }

    fn send(&mut self, message: Message) {
        self.outputs.push_back(Output::Send(message));
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn log(&mut self, severity: u8, mnemonic: &str, text: String) {
        self.outputs.push_back(Output::Log(LogRecord {
            facility: "PSS".to_owned(),
            severity,
            mnemonic: mnemonic.to_owned(),
            text,
            service: Some(ServiceName::Pss),
        }));
    }

    fn fail(&mut self, reason: String) {
        self.log(2, "STORAGE_FAILED", reason.clone());
        self.failed = true;
        self.outputs.push_back(Output::Failed { reason });
    }

    // ---- settling

    /// What follows from the state as it is now, after each event.
    fn settle(&mut self, now: Time) {
        if self.failed {
            return;
        }
        self.note_flushed();
        self.release_held(now);
        self.archive(now);
        if let Err(error) = self.disk_work() {
            self.fail(error.to_string());
            return;
        }
        self.resolve_pending(now);
        self.serve(now);
        self.follow(now);
        self.hand_over(now);
        self.keep_what_is_held(now);
        self.watchers_due(now);
        self.report_sync(now);
        self.apply_posture(now);
    }

    fn report(&self) -> SyncReport {
        let acting = self.acting().is_some();
        let (epoch, lsn) = self.history.last();
        SyncReport {
            lsn,
            epoch,
            acked: if acting {
                self.serving.acked()
            } else {
                self.durable.0
            },
            bulk_done: if acting {
                self.serving.in_step()
            } else {
                self.following.bulk_done()
            },
            config_hash: self.content.config_hash(),
        }
    }

    fn report_sync(&mut self, now: Time) {
        let report = self.report();
        let due = match self.reported {
            None => true,
            Some((at, told)) => {
                told.bulk_done != report.bulk_done || (told != report && now >= at + REPORT_PERIOD)
            }
        };
        if due {
            self.tell_report(now, report);
        }
    }

    fn tell_report(&mut self, now: Time, report: SyncReport) {
        self.reported = Some((now, report));
        self.outputs.push_back(Output::Sync(report));
    }

    /// Says that a posture is in force once it is, after a report that is up to date.
    fn apply_posture(&mut self, now: Time) {
        let Some(sequence) = self.applied_due else {
            return;
        };
        let settled = match self.activity() {
            Activity::Idle | Activity::Standby => true,
            Activity::Active(_) => self.replacing.is_none(),
            Activity::Quiesce(_) => self.is_drained(),
        };
        if !settled {
            return;
        }
        self.applied_due = None;
        let report = self.report();
        if self.reported.is_none_or(|(_, told)| told != report) {
            self.tell_report(now, report);
        }
        self.outputs.push_back(Output::Applied { sequence });
    }

    /// Nothing waits for a disk or for the standby.
    fn is_drained(&self) -> bool {
        let acked = !self.serving.has_subscriber() || self.serving.acked() >= self.history.last().1;
        self.pending.is_empty() && self.unflushed.is_empty() && acked && self.held.is_empty()
    }

    /// Checks the invariants at the crate's head that can be seen in one state.
    ///
    /// # Errors
    /// The first one that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        self.history.check()?;
        self.lineage.check()?;
        self.archiving.check()?;
        let counted = self.content.counted_bytes();
        for (owner, bytes) in counted {
            if self.content.bytes_of(owner) != bytes {
                return Err(format!("the bytes of {owner} are miscounted"));
            }
        }
        for journal in [&self.persistent, &self.volatile] {
            if journal.flushed() > journal.position() {
                return Err("more is flushed than was written".to_owned());
            }
        }
        if self.durable.0 > self.history.last().1 {
            return Err("more is durable than exists".to_owned());
        }
        if self.activity() == Activity::Standby && self.pending.iter().any(PendingCommit::is_shared)
        {
            return Err("a standby owes an answer".to_owned());
        }
        self.serving.check(self.history.last().1)
    }
}

/// The lineage of what a durable storage held: as of its snapshot, and the log after it. That of a
/// snapshot without one begins with the snapshot.
fn lineage_of(content: &Content, base: (Epoch, Lsn), entries: &[Entry]) -> Lineage {
    let mut lineage = Lineage::of(content);
    if lineage == Lineage::default() && base.1 > Lsn(0) {
        lineage.push(base.0, base.1);
    }
    for entry in entries {
        lineage.push(entry.epoch, entry.lsn);
    }
    lineage
}
