//! What the node knows and has said, whichever phase it is in.

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;

use model::{Epoch, Incarnation, Lsn, NodeKey, Role, ServiceName, Slot, Time};
use wire::control::{ControlMessage, Hello};
use wire::heartbeat::Content;
use wire::log::LogRecord;
use wire::supervision::{Activity, SyncReport, VemReport};

use crate::detection::Peer;
use crate::epochs;
use crate::heartbeat::Timing;
use crate::input::{ServicesHealth, Start};
use crate::output::Output;
use crate::record::{NodeRecord, RESET_REASONS_MAX};

/// Pause before a write that failed is tried again: a full or failing disk seldom mends sooner.
const WRITE_RETRY: Duration = Duration::from_secs(1);
/// A write that takes longer than this (or the hold time, if that is longer) shows a disk on which
/// nothing will be kept; an active with a stable standby then yields.
const WRITE_OVERDUE: Duration = Duration::from_secs(5);
/// Operator commands that wait for a write; more are refused.
const COMMANDS_MAX: usize = 16;

/// Commits that may wait for leave at once; `pss` asks for one at a time, the rest is slack for
/// its restarts. Beyond, the oldest question is dropped, and its asker asks again.
const QUESTIONS_MAX: usize = 16;

/// Takeovers that a node may have missed: more than one a second in a hundred years.
const EPOCH_LEAP_MAX: u64 = 1 << 32;

/// Writes under way whose epoch is remembered; beyond, the oldest is taken as not durable until a
/// newer one is.
const EPOCHS_MAX: usize = 64;

/// Writes of the node file under way.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Writes {
    issued: u64,
    durable: u64,
    pending_since: Option<Time>,
    /// Reserved epoch of the newest durable record, and of those under way.
    durable_epoch: Epoch,
    epochs: VecDeque<(u64, Epoch)>,
    retry_at: Option<Time>,
    /// (write, command, note) answered when the write is durable.
    commands: VecDeque<(u64, u64, String)>,
}

/// The last posture told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Told {
    pub(crate) activity: Activity,
    pub(crate) redundant: bool,
    pub(crate) peer_connected: bool,
}

/// Commits of the former active that had not arrived here when this node took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Gap {
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// Where they are.
    pub(crate) on: Slot,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, on } = self;
        write!(
            f,
            "commits {} to {} of the former active, which had not arrived here; {on} has them, and \
             archives them when it returns",
            first.0, last.0
        )
    }
}

/// Facts and books of one node.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Context {
    pub(crate) node: NodeKey,
    pub(crate) incarnation: Incarnation,
    pub(crate) links: u8,
    pub(crate) record: NodeRecord,
    /// Role in force.
    pub(crate) role: Role,
    /// First turn.
    pub(crate) started: Option<Time>,
    /// This turn, or the last.
    pub(crate) last_turn: Time,
    pub(crate) peer: Peer,
    /// There is a peer that is trusted.
    pub(crate) pinned: bool,
    /// Highest epoch anybody is known to have used.
    pub(crate) seen: Epoch,
    /// Highest epoch that a VEM has promised to a candidate. Nobody need ever have acted under it,
    /// and so it deposes nobody for good; but VEMs refuse what is below.
    pub(crate) promised: Epoch,
    /// Newest commit here and its epoch, once known.
    pub(crate) history: (Epoch, Lsn),
    /// `pss` has reported since the start.
    pub(crate) history_known: bool,
    pub(crate) sync: SyncReport,
    /// When a change of the configuration was seen to be committed.
    configured: Option<Time>,
    pub(crate) vems: VemReport,
    /// Votes of the VEMs asked for.
    votes: u64,
    pub(crate) health: ServicesHealth,
    /// A service that synchronisation needs and that does not run.
    pub(crate) down: Option<ServiceName>,
    pub(crate) down_since: Option<Time>,
    pub(crate) canary: u64,
    pub(crate) writes: Writes,
    pub(crate) posture_sequence: u64,
    pub(crate) told: Option<Told>,
    /// What this node told the peer of itself on this connection: alone mark and history.
    pub(crate) greeted: Option<(bool, (Epoch, Lsn))>,
    pub(crate) said: Option<Content>,
    revision: u64,
    /// Commits that wait for leave to go ahead without the standby.
    pub(crate) questions: Vec<u64>,
    /// A VEM told an epoch that was not believed; said once.
    disbelieved: bool,
    pub(crate) degraded: bool,
    /// What this active lacks, until a standby holds a copy again.
    pub(crate) gap: Option<Gap>,
    pub(crate) outputs: VecDeque<Output>,
}

impl Context {
    pub(crate) fn new(start: Start) -> Self {
        let seen = start.record.highest_epoch;
        Self {
            node: start.node,
            incarnation: start.incarnation,
            links: start.links,
            role: start.record.role,
            pinned: start.record.peer.is_some(),
            record: start.record,
            started: None,
            last_turn: Time(0),
            peer: Peer::new(),
            seen,
            promised: Epoch::default(),
            history: start.history,
            history_known: false,
            sync: SyncReport::default(),
            configured: None,
            vems: VemReport::default(),
            votes: 0,
            health: ServicesHealth::Starting,
            down: None,
            down_since: None,
            canary: 0,
            writes: Writes::default(),
            posture_sequence: 0,
            told: None,
            greeted: None,
            said: None,
            revision: 0,
            questions: Vec::new(),
            disbelieved: false,
            degraded: false,
            gap: None,
            outputs: VecDeque::new(),
        }
    }

    pub(crate) fn timing(&self) -> Timing {
        Timing::clamped(self.record.interval_ms, self.record.misses)
    }

    /// Our own hold time.
    pub(crate) fn own_hold_time(&self) -> Duration {
        self.timing().hold_time()
    }

    /// The hold time in force.
    pub(crate) fn hold_time(&self) -> Duration {
        self.peer.hold_time(self.own_hold_time())
    }

    pub(crate) fn peer_silent(&self, now: Time) -> bool {
        self.peer.silent(now, self.own_hold_time())
    }

    /// What the node at the other end says, if it is heard, be it of our pair or not.
    pub(crate) fn stranger_says(&self, now: Time) -> Option<&Content> {
        self.peer.heard(now, self.own_hold_time())
    }

    /// What our peer says, if it is heard.
    pub(crate) fn peer_says(&self, now: Time) -> Option<&Content> {
        self.peer.says(now, self.own_hold_time())
    }

    /// How long this node waits at most for the other one when it boots by itself.
    pub(crate) fn boot_wait(&self) -> Option<Duration> {
        let seconds = self.record.boot_wait_s?;
        Some(Duration::from_secs(seconds.into()))
    }

    pub(crate) fn slot(&self) -> Slot {
        self.role.slot()
    }

    /// Somebody has used this epoch.
    pub(crate) fn see(&mut self, epoch: Epoch) {
        self.seen = self.seen.max(epoch);
    }

    /// What the VEMs know. One that tells an epoch which nobody can have reached since this node
    /// last looked is not believed: it would leave none above it, and the pair without a lead for
    /// good.
    pub(crate) fn told_by_vems(&mut self, mut report: VemReport) {
        let known = self.seen.max(self.record.highest_epoch).counter;
        let possible = known.saturating_add(EPOCH_LEAP_MAX);
        for told in [&mut report.highest_epoch, &mut report.promised_epoch] {
            if told.counter > possible {
                if !self.disbelieved {
                    self.disbelieved = true;
                    self.log(
                        2,
                        "IMPOSSIBLE_EPOCH",
                        format!(
                            "A host agent tells an epoch that nobody can have reached: {told}."
                        ),
                    );
                }
                *told = self.seen;
            }
        }
        self.vems = report;
        self.see(report.highest_epoch);
        self.promised = self.promised.max(report.promised_epoch);
    }

    pub(crate) fn note_down(&mut self, now: Time, service: Option<ServiceName>) {
        self.down_since = service.map(|_| self.down_since.unwrap_or(now));
        self.down = service;
    }

    /// Takes in how far synchronisation is.
    pub(crate) fn take_sync(&mut self, now: Time, report: SyncReport) {
        // What a bulk sync brings was configured at some time before.
        let in_step = self.history_known && self.sync.bulk_done == report.bulk_done;
        if in_step && self.sync.config_hash != report.config_hash {
            self.configured = Some(now);
        }
        self.sync = report;
        self.history = (report.epoch, report.lsn);
        self.history_known = true;
    }

    /// Seconds since the configuration was last changed, if this node has seen that.
    pub(crate) fn config_age_s(&self, now: Time) -> Option<u32> {
        self.configured
            .map(|at| u32::try_from(now.since(at).as_secs()).unwrap_or(u32::MAX))
    }

    /// This node has acted under `epoch`, or was about to: not a clone of it, nor the same disk
    /// before it was set back.
    pub(crate) fn has_led(&self, epoch: Epoch) -> bool {
        let led = self.record.led_epoch;
        let known = epoch == led || epoch == self.record.reserved_epoch;
        let earlier = epoch < led && !epoch.is_clone_of(led);
        epoch.node == self.node && (known || earlier)
    }

    pub(crate) fn next_epoch(&self) -> Epoch {
        // Above the peer's reservation too: it may be taking over under it this instant.
        let reserved = self.peer.reserved().unwrap_or_default();
        epochs::next(
            &self.record,
            self.floor().max(reserved),
            self.node,
            self.incarnation,
        )
    }

    // ---- writes -------------------------------------------------------------------------------

    /// Has the record, with the highest epoch seen, written. Returns the write's number.
    pub(crate) fn persist(&mut self, now: Time) -> u64 {
        self.record.highest_epoch = self.record.highest_epoch.max(self.seen);
        self.writes.issued += 1;
        self.writes.pending_since.get_or_insert(now);
        let write = self.writes.issued;
        self.writes
            .epochs
            .push_back((write, self.record.reserved_epoch));
        if self.writes.epochs.len() > EPOCHS_MAX {
            self.writes.epochs.pop_front();
        }
        self.outputs.push_back(Output::Persist {
            write,
            record: self.record.clone(),
        });
        write
    }

    pub(crate) fn persisted(&mut self, now: Time, write: u64) {
        if write > self.writes.issued {
            return;
        }
        self.writes.durable = self.writes.durable.max(write);
        while let Some((number, epoch)) = self.writes.epochs.front().copied()
            && number <= self.writes.durable
        {
            self.writes.epochs.pop_front();
            self.writes.durable_epoch = self.writes.durable_epoch.max(epoch);
        }
        self.writes.pending_since = (self.writes.durable < self.writes.issued).then_some(now);
        while let Some((waits, command, _)) = self.writes.commands.front() {
            if *waits > self.writes.durable {
                break;
            }
            let command = *command;
            let note = self.writes.commands.pop_front().map(|(_, _, note)| note);
            self.done(command, Ok(note.unwrap_or_default()));
        }
    }

    /// The highest epoch known to be durable as reserved or used by this node.
    pub(crate) const fn durable_epoch(&self) -> Epoch {
        self.writes.durable_epoch
    }

    pub(crate) fn persist_failed(&mut self, now: Time, write: u64) {
        if write > self.writes.durable && write <= self.writes.issued {
            self.writes.retry_at = Some(now + WRITE_RETRY);
            self.log(
                2,
                "NODE_FILE_WRITE_FAILED",
                "The node file could not be written.".into(),
            );
        }
    }

    pub(crate) fn retry_write(&mut self, now: Time) {
        if self.writes.retry_at.is_some_and(|at| now >= at) {
            self.writes.retry_at = None;
            if self.writes.durable < self.writes.issued {
                self.persist(now);
            }
        }
    }

    /// Number of the newest write.
    #[cfg(test)]
    pub(crate) const fn issued(&self) -> u64 {
        self.writes.issued
    }

    pub(crate) const fn is_durable(&self, write: u64) -> bool {
        write <= self.writes.durable
    }

    /// A write has been under way for too long.
    pub(crate) fn write_overdue(&self, now: Time) -> bool {
        let limit = WRITE_OVERDUE.max(self.hold_time());
        self.writes
            .pending_since
            .is_some_and(|since| now.since(since) >= limit)
    }

    /// Writes the record and answers the command when it is durable.
    pub(crate) fn persist_for(&mut self, now: Time, command: u64, note: String) {
        if self.writes.commands.len() == COMMANDS_MAX {
            self.done(
                command,
                Err("too many commands wait for the node file".to_owned()),
            );
            return;
        }
        let write = self.persist(now);
        self.writes.commands.push_back((write, command, note));
    }

    pub(crate) fn note_reset(&mut self, reason: &str) {
        let reasons = &mut self.record.reset_reasons;
        if reasons.len() >= RESET_REASONS_MAX {
            reasons.drain(..=reasons.len() - RESET_REASONS_MAX);
        }
        reasons.push(reason.to_owned());
    }

    /// A commit asks leave to go ahead without the standby.
    pub(crate) fn ask_alone(&mut self, question: u64) {
        if !self.questions.contains(&question) {
            if self.questions.len() == QUESTIONS_MAX {
                self.questions.remove(0);
            }
            self.questions.push(question);
        }
    }

    // ---- saying -------------------------------------------------------------------------------

    pub(crate) fn done(&mut self, command: u64, result: Result<String, String>) {
        self.outputs
            .push_back(Output::CommandDone { command, result });
    }

    /// Asks the VEMs whether the active lives; returns the vote's number.
    pub(crate) fn ask_votes(&mut self, candidate: Option<Epoch>) -> u64 {
        self.votes += 1;
        let vote = self.votes;
        self.outputs.push_back(Output::AskVotes {
            vote,
            candidate,
            within_ms: self.timing().interval_ms,
        });
        vote
    }

    /// Lowest epoch under which a VEM obeys anybody, as far as they have told.
    pub(crate) fn floor(&self) -> Epoch {
        self.seen.max(self.promised)
    }

    pub(crate) fn log(&mut self, severity: u8, mnemonic: &str, text: String) {
        self.log_as("REDUNDANCY", severity, mnemonic, text);
    }

    pub(crate) fn log_as(&mut self, facility: &str, severity: u8, mnemonic: &str, text: String) {
        self.outputs.push_back(Output::Log(LogRecord {
            facility: facility.to_owned(),
            severity,
            mnemonic: mnemonic.to_owned(),
            text,
            service: None,
        }));
    }

    /// Says why the node at the other end is not our peer, if that is not what was so before.
    pub(crate) fn log_fault(&mut self, before: Option<String>) {
        if let Some(fault) = self.peer.fault.clone()
            && before.as_ref() != Some(&fault)
        {
            self.log(3, "NOT_PAIRED", format!("No pair is formed: {fault}."));
        }
    }

    /// Tells the services what the node does, if that has changed. Returns the posture's number.
    pub(crate) fn tell(&mut self, activity: Activity, redundant: bool) -> u64 {
        let known = self.peer.incarnation().is_some() && self.peer.fault.is_none();
        let peer_connected = self.role != Role::Standalone && self.peer.connected && known;
        let told = Told {
            activity,
            redundant,
            peer_connected,
        };
        if self.told != Some(told) {
            self.told = Some(told);
            self.posture_sequence += 1;
            self.outputs.push_back(Output::Posture {
                sequence: self.posture_sequence,
                activity,
                redundant,
                peer_connected,
            });
        }
        self.posture_sequence
    }

    /// Says this in heartbeats, if it is news.
    pub(crate) fn say(&mut self, mut content: Content) {
        content.revision = self.revision;
        if self.said.as_ref() != Some(&content) {
            self.revision += 1;
            content.revision = self.revision;
            self.said = Some(content.clone());
            self.outputs.push_back(Output::HeartbeatContent(content));
        }
    }

    /// The peer's present incarnation has greeted, and acts.
    pub(crate) fn peer_greets_as_active(&self) -> bool {
        let hello = self.peer.hello.as_ref();
        hello
            .is_some_and(|hello| hello.active && Some(hello.incarnation) == self.peer.incarnation())
    }

    /// Greets the peer once per connection, when this node knows its own history. A standalone
    /// node talks to nobody.
    pub(crate) fn greet(&mut self, now: Time, active: bool, follows: bool) {
        let talks = self.role != Role::Standalone && self.peer.connected;
        if !talks || self.greeted.is_some() || !self.history_known {
            return;
        }
        self.greeted = Some((self.record.alone, self.history));
        let uptime = self
            .started
            .map_or(Duration::ZERO, |started| now.since(started));
        self.outputs
            .push_back(Output::Control(ControlMessage::Hello(Hello {
                pair: self.record.pair,
                role: self.role,
                incarnation: self.incarnation,
                highest_epoch: self.seen,
                history: self.history,
                alone: self.record.alone,
                active,
                follows,
                uptime_ms: uptime.as_millis() as u64,
            })));
    }
}
