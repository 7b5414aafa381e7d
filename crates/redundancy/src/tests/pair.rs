//! Two cores, their heartbeat paths, two links, a few VEMs and simple services on virtual time.
//!
//! What is modelled beside the core is kept as simple as its contract: services apply what they
//! are told after a moment, a disk makes writes durable after another, a standby's store holds
//! whatever was committed one step ago while a link carries it.

mod machinery;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{Epoch, Incarnation, LinkId, Lsn, NodeKey, PairId, Role, Time};
use wire::control::ControlMessage;
use wire::heartbeat::{Datagram, State};
use wire::log::LogRecord;
use wire::supervision::{Activity, SyncReport, Tally, VemReport};
use wire::vem::Fenced;

use crate::{Command, Core, HeartbeatPath, Input, NodeRecord, ServicesHealth, Start};

/// Primary and secondary.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

const STEP: Duration = Duration::from_millis(1);
const LINK_DELAY: Duration = Duration::from_micros(500);
/// From a node to a VEM, or back.
const VEM_DELAY: Duration = Duration::from_millis(1);
const CONNECT: Duration = Duration::from_millis(20);
/// TCP notices a dead link late.
const DISCONNECT: Duration = Duration::from_millis(1500);
const BULK: Duration = Duration::from_millis(50);
const SERVICES_START: Duration = Duration::from_millis(100);
const REBOOT: Duration = Duration::from_millis(400);
const WRITE: Duration = Duration::from_millis(2);
/// Healthy links and awake nodes for so long must leave one active (S4).
const SETTLED: Duration = Duration::from_secs(3);

/// One node and its machine.
pub(super) struct Side {
    pub(super) core: Option<Core>,
    path: HeartbeatPath,
    pub(super) durable: NodeRecord,
    pub(super) history: (Epoch, Lsn),
    /// Every commit it holds.
    pub(super) log: BTreeSet<(Epoch, Lsn)>,
    pub(super) bulk_done: bool,
    bulk_due: Option<Time>,
    pub(super) told: Activity,
    told_sequence: u64,
    redundant: bool,
    applied_due: Option<u64>,
    writes: VecDeque<(Time, u64, NodeRecord)>,
    pub(super) write_time: Duration,
    inbox: VecDeque<(Time, LinkId, Datagram)>,
    /// With the connection each message was sent on.
    control: VecDeque<(Time, u64, ControlMessage)>,
    /// The connection it knows of.
    connected: Option<u64>,
    incarnation: u64,
    boots_at: Option<Time>,
    pub(super) paused_until: Time,
    services_at: Option<Time>,
    pub(super) health: ServicesHealth,
    questions: u64,
    pub(super) alone_granted: Vec<u64>,
    pub(super) logs: Vec<LogRecord>,
    pub(super) done: Vec<(u64, Result<String, String>)>,
    pub(super) resets: Vec<String>,
    /// How long an archive takes; `None` is for ever.
    pub(super) archive_time: Option<Duration>,
    archive_due: Option<(Time, u64)>,
    /// Histories that were archived.
    pub(super) archives: Vec<(Epoch, Lsn)>,
    /// The commits in them.
    pub(super) archived: BTreeSet<(Epoch, Lsn)>,
    pub(super) resyncs: Vec<bool>,
    /// Its configuration is not what its history says, until a bulk sync.
    pub(super) corrupt: bool,
    /// It applies nothing, until it is told to ask again.
    pub(super) stalls: bool,
    /// The newest vote of the VEMs.
    pub(super) tally: Tally,
    /// The newest posture since which its VEMs have answered.
    asked: u64,
    last_vems: Option<VemReport>,
    last_sync: Option<SyncReport>,
}

/// A host agent. Its fence and its votes are the contract of `crates/vem`, without its disk.
#[derive(Clone, Copy, Default)]
pub(super) struct Vem {
    pub(super) fenced: Fenced,
    /// Which nodes it reaches.
    pub(super) reaches: [bool; 2],
    /// The vote it is asked for.
    ballot: Option<Ballot>,
    /// Who has been told that the active is silent, and until when that counts for a vote.
    quiet: Option<(usize, Time)>,
}

/// A vote that a VEM has not answered yet.
#[derive(Clone, Copy)]
struct Ballot {
    asked_by: usize,
    vote: u64,
    candidate: Option<Epoch>,
    /// When it reaches the VEM, and when the active's time is up.
    from: Time,
    until: Time,
}

impl Vem {
    pub(super) fn reaching(reaches: [bool; 2]) -> Self {
        Self {
            reaches,
            ..Self::default()
        }
    }

    pub(super) fn obeys(&self, epoch: Epoch) -> bool {
        self.fenced.obeyed == epoch && self.fenced.floor() == epoch
    }
}

/// The site.
pub(super) struct Pair {
    pub(super) now: Time,
    pub(super) sides: [Side; 2],
    /// Up, by link and sending node.
    pub(super) links: [[bool; 2]; 2],
    pub(super) vems: Vec<Vem>,
    /// Connections to VEMs stand although nothing passes on them, as TCP's do for a while.
    pub(super) connections_outlive: bool,
    /// Per mille of datagrams lost.
    pub(super) loss: u64,
    /// Datagrams are lost altogether, while connections stand.
    pub(super) deaf: bool,
    random: u64,
    /// Counts connections.
    connection: u64,
    connected_since: Option<Time>,
    links_down_since: Option<Time>,
    healthy_since: Time,
    acted: BTreeMap<Epoch, usize>,
    /// Epochs under which someone acted, in order: (time, node, epoch).
    pub(super) acts: Vec<(Time, usize, Epoch)>,
    commands: u64,
    /// That node's machine dies after so many more of its effects.
    pub(super) crash: Option<(usize, u64)>,
    /// Every commit made.
    committed: BTreeSet<(Epoch, Lsn)>,
}

impl Side {
    fn new(role: Role) -> Self {
        Self {
            core: None,
            path: HeartbeatPath::new(Time(0), 2),
            durable: NodeRecord {
                role,
                pair: PairId::try_from(7).ok(),
                peer: Some(NodeKey([99; 32])),
                ..NodeRecord::default()
            },
            history: (Epoch::default(), Lsn(0)),
            log: BTreeSet::new(),
            bulk_done: false,
            bulk_due: None,
            told: Activity::Idle,
            told_sequence: 0,
            redundant: false,
            applied_due: None,
            writes: VecDeque::new(),
            write_time: WRITE,
            inbox: VecDeque::new(),
            control: VecDeque::new(),
            connected: None,
            incarnation: 0,
            boots_at: None,
            paused_until: Time(0),
            services_at: None,
            health: ServicesHealth::Starting,
            questions: 0,
            alone_granted: Vec::new(),
            logs: Vec::new(),
            done: Vec::new(),
            resets: Vec::new(),
            archive_time: Some(WRITE),
            archive_due: None,
            archives: Vec::new(),
            archived: BTreeSet::new(),
            resyncs: Vec::new(),
            corrupt: false,
            stalls: false,
            tally: Tally::default(),
            asked: 0,
            last_vems: None,
            last_sync: None,
        }
    }

    pub(super) fn acting(&self) -> Option<Epoch> {
        match self.told {
            Activity::Active(epoch) => Some(epoch),
            Activity::Idle | Activity::Standby | Activity::Quiesce(_) => None,
        }
    }

    pub(super) fn mnemonics(&self) -> Vec<&str> {
        self.logs
            .iter()
            .map(|record| record.mnemonic.as_str())
            .collect()
    }
}

impl Pair {
    /// Two nodes that have never run, links up, no VEM.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Time::from_ms(1_000),
            sides: [Side::new(Role::Primary), Side::new(Role::Secondary)],
            links: [[true; 2]; 2],
            vems: Vec::new(),
            connections_outlive: false,
            loss: 0,
            deaf: false,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            connection: 0,
            connected_since: None,
            links_down_since: None,
            healthy_since: Time(0),
            acted: BTreeMap::new(),
            acts: Vec::new(),
            commands: 0,
            crash: None,
            committed: BTreeSet::new(),
        }
    }

    /// A pair of which A is active and B stable.
    pub(super) fn stable(seed: u64) -> Self {
        let mut pair = Self::new(seed);
        pair.boot(A);
        pair.boot(B);
        pair.run_until("A leads and B is stable", 10_000, |pair| {
            pair.sides[A].acting().is_some() && pair.is_stable(B) && pair.mode_ha(A)
        });
        pair
    }

    /// Two VEMs that reach both nodes.
    pub(super) fn with_vems(mut self) -> Self {
        self.add_vems(2);
        self.run(10);
        self
    }

    pub(super) fn add_vems(&mut self, count: usize) {
        self.vems = vec![Vem::reaching([true; 2]); count];
    }

    pub(super) fn set_timing(&mut self, interval_ms: u32, misses: u8) {
        for side in &mut self.sides {
            side.durable.interval_ms = interval_ms;
            side.durable.misses = misses;
        }
    }

    pub(super) fn random(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    // ---- what a test does ---------------------------------------------------------------------

    pub(super) fn boot(&mut self, node: usize) {
        let now = self.now;
        let side = &mut self.sides[node];
        side.incarnation += 1;
        side.boots_at = None;
        side.inbox.clear();
        side.control.clear();
        side.writes.clear();
        side.connected = None;
        side.bulk_done = false;
        side.bulk_due = None;
        side.told = Activity::Idle;
        side.told_sequence = 0;
        side.asked = 0;
        side.redundant = false;
        side.applied_due = None;
        side.last_vems = None;
        side.last_sync = None;
        side.health = ServicesHealth::Starting;
        side.services_at = Some(now + SERVICES_START);
        side.path = HeartbeatPath::new(now, 2);
        side.core = Some(Core::new(Start {
            record: side.durable.clone(),
            incarnation: Incarnation(side.incarnation * 2 + node as u64),
            node: NodeKey([node as u8 + 1; 32]),
            links: 2,
            history: side.history,
        }));
        self.connected_since = None;
        self.tell(node, Input::Tick);
    }

    /// The machine is gone, with what was not yet on disk.
    pub(super) fn kill(&mut self, node: usize) {
        let side = &mut self.sides[node];
        side.core = None;
        side.told = Activity::Idle;
        side.boots_at = None;
        side.writes.clear();
        side.archive_due = None;
        side.inbox.clear();
        side.control.clear();
        self.connected_since = None;
    }

    pub(super) fn pause(&mut self, node: usize, ms: u64) {
        self.sides[node].paused_until = self.now + Duration::from_millis(ms);
    }

    pub(super) fn cut(&mut self) {
        self.links = [[false; 2]; 2];
    }

    pub(super) fn heal(&mut self) {
        self.links = [[true; 2]; 2];
    }

    /// One commit by whoever acts on `node`; refused (false) if it has no leave.
    pub(super) fn commit(&mut self, node: usize) -> bool {
        let Some(epoch) = self.sides[node].acting() else {
            return false;
        };
        let lsn = self.sides[node].history.1.next();
        self.sides[node].history = (epoch, lsn);
        self.sides[node].log.insert((epoch, lsn));
        self.committed.insert((epoch, lsn));
        true
    }

    pub(super) fn ask_alone(&mut self, node: usize) -> u64 {
        self.sides[node].questions += 1;
        let question = self.sides[node].questions;
        self.tell(node, Input::AskAlone { question });
        question
    }

    pub(super) fn command(&mut self, node: usize, kind: Command) -> u64 {
        self.commands += 1;
        let command = self.commands;
        self.tell(node, Input::Command { command, kind });
        command
    }

    pub(super) fn result(&self, node: usize, command: u64) -> Option<Result<String, String>> {
        let done = self.sides[node]
            .done
            .iter()
            .find(|(number, _)| *number == command);
        done.map(|(_, result)| result.clone())
    }

    pub(super) fn fail_service(&mut self, node: usize) {
        self.sides[node].health = ServicesHealth::Failed;
        self.tell(node, Input::Services(ServicesHealth::Failed));
    }

    pub(super) fn set_health(&mut self, node: usize, health: ServicesHealth) {
        self.sides[node].health = health;
        self.sides[node].services_at = None;
        self.tell(node, Input::Services(health));
    }

    // ---- what a test asks ---------------------------------------------------------------------

    pub(super) fn core(&self, node: usize) -> &Core {
        self.sides[node].core.as_ref().expect("the node runs")
    }

    /// Its machine is about to start.
    pub(super) fn boots(&self, node: usize) -> bool {
        self.sides[node].boots_at.is_some()
    }

    pub(super) fn role(&self, node: usize) -> Option<Role> {
        self.sides[node].core.as_ref().map(Core::role)
    }

    pub(super) fn is_stable(&self, node: usize) -> bool {
        self.sides[node]
            .core
            .as_ref()
            .is_some_and(Core::is_stable_standby)
    }

    pub(super) fn mode_ha(&self, node: usize) -> bool {
        self.core(node).status(self.now).mode_ha
    }

    pub(super) fn reason(&self, node: usize) -> String {
        self.core(node).status(self.now).reason
    }

    /// The state that the peer last heard is not asked for; what this node says is.
    pub(super) fn says(&self, node: usize) -> Option<State> {
        self.sides[node]
            .core
            .as_ref()?
            .ctx
            .said
            .as_ref()
            .map(|said| said.state)
    }

    pub(super) fn redundant(&self, node: usize) -> bool {
        self.sides[node].redundant
    }

    /// S5: commits that are neither in the active's log nor in an archive.
    pub(super) fn gone(&self) -> Vec<(Epoch, Lsn)> {
        let leader = self.actives().first().copied();
        let kept = |commit: &&(Epoch, Lsn)| {
            let led = leader.is_some_and(|leader| self.sides[leader].log.contains(commit));
            led || self.sides.iter().any(|side| side.archived.contains(commit))
        };
        self.committed
            .iter()
            .filter(|commit| !kept(commit))
            .copied()
            .collect()
    }

    /// One leads, the other is stable, and both say so.
    pub(super) fn is_whole(&self) -> bool {
        let actives = self.actives();
        self.sides.iter().all(|side| side.core.is_some())
            && actives.len() == 1
            && self.is_stable(1 - actives[0])
            && self.mode_ha(actives[0])
    }

    pub(super) fn actives(&self) -> Vec<usize> {
        [A, B]
            .into_iter()
            .filter(|node| self.sides[*node].acting().is_some())
            .collect()
    }

    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.now < end {
            self.step();
        }
    }

    /// Runs until `met`; how long that took.
    #[track_caller]
    pub(super) fn run_until(
        &mut self,
        what: &str,
        within_ms: u64,
        met: impl Fn(&Self) -> bool,
    ) -> Duration {
        let start = self.now;
        while !met(self) {
            let waited = self.now.since(start);
            assert!(
                waited < Duration::from_millis(within_ms),
                "not within {within_ms} ms: {what}; {}",
                self.describe()
            );
            self.step();
        }
        self.now.since(start)
    }

    pub(super) fn describe(&self) -> String {
        let side = |node: usize| match &self.sides[node].core {
            Some(core) => format!("{:?} {:?}", self.sides[node].told, core.status(self.now)),
            None => "dead".to_owned(),
        };
        format!("A: {}\nB: {}", side(A), side(B))
    }
}
