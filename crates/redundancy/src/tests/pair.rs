//! Two cores, their heartbeat paths, two links, a few VEMs and simple services on virtual time.
//!
//! What is modelled beside the core is kept as simple as its contract: services apply what they
//! are told after a moment, a disk makes writes durable after another, a standby's store holds
//! whatever was committed one step ago while a link carries it.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{Epoch, Incarnation, LinkId, Lsn, NodeKey, PairId, Role, Time};
use wire::control::ControlMessage;
use wire::heartbeat::{Datagram, State};
use wire::log::LogRecord;
use wire::supervision::{Activity, SyncReport, VemReport};

use crate::{
    Command, Core, HeartbeatPath, Input, NodeRecord, Output, ServicesHealth, Start, Timing,
};

/// Primary and secondary.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

const STEP: Duration = Duration::from_millis(1);
const LINK_DELAY: Duration = Duration::from_micros(500);
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
    last_vems: Option<VemReport>,
    last_sync: Option<SyncReport>,
}

/// A host agent.
#[derive(Clone, Copy)]
pub(super) struct Vem {
    pub(super) highest: Epoch,
    /// Which nodes it reaches.
    pub(super) reaches: [bool; 2],
}

/// The site.
pub(super) struct Pair {
    pub(super) now: Time,
    pub(super) sides: [Side; 2],
    /// Up, by link and sending node.
    pub(super) links: [[bool; 2]; 2],
    pub(super) vems: Vec<Vem>,
    /// Per mille of datagrams lost.
    pub(super) loss: u64,
    random: u64,
    /// Counts connections.
    connection: u64,
    connected_since: Option<Time>,
    links_down_since: Option<Time>,
    healthy_since: Time,
    acted: BTreeMap<Epoch, usize>,
    /// Epochs under which someone acted, in order: (time, node, epoch).
    pub(super) acts: Vec<(Time, usize, Epoch)>,
    committed: BTreeSet<(Epoch, Lsn)>,
    commands: u64,
}

impl Side {
    fn new(role: Role) -> Self {
        Self {
            core: None,
            path: HeartbeatPath::new(Time(0), 2),
            durable: NodeRecord {
                role,
                pair: PairId::try_from(7).ok(),
                ..NodeRecord::default()
            },
            history: (Epoch::default(), Lsn(0)),
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
            loss: 0,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            connection: 0,
            connected_since: None,
            links_down_since: None,
            healthy_since: Time(0),
            acted: BTreeMap::new(),
            acts: Vec::new(),
            committed: BTreeSet::new(),
            commands: 0,
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
        self.vems = vec![
            Vem {
                highest: Epoch::default(),
                reaches: [true; 2]
            };
            2
        ];
        self
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

    // ---- the machinery ------------------------------------------------------------------------

    fn awake(&self, node: usize) -> bool {
        self.sides[node].core.is_some() && self.now >= self.sides[node].paused_until
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        for node in [A, B] {
            if self.sides[node].boots_at.is_some_and(|at| self.now >= at) {
                self.boot(node);
            }
        }
        self.connect();
        for node in [A, B] {
            if self.awake(node) {
                self.turn(node);
            }
        }
        self.claim();
        self.replicate();
        self.check();
    }

    fn turn(&mut self, node: usize) {
        let now = self.now;
        if self.sides[node].services_at.is_some_and(|at| now >= at) {
            self.sides[node].services_at = None;
            self.sides[node].health = ServicesHealth::Ready;
            self.tell(node, Input::Services(ServicesHealth::Ready));
        }
        if let Some(sequence) = self.sides[node].applied_due.take() {
            self.tell(node, Input::PostureApplied { sequence });
        }
        while self.sides[node]
            .writes
            .front()
            .is_some_and(|(at, ..)| now >= *at)
        {
            let (_, write, record) = self.sides[node].writes.pop_front().expect("just seen");
            self.sides[node].durable = record;
            self.tell(node, Input::Persisted { write });
        }
        while let Some((at, connection, _)) = self.sides[node].control.front() {
            let ours = self.sides[node].connected;
            if now < *at || ours.is_none_or(|ours| *connection > ours) {
                break;
            }
            let stale = ours != Some(*connection);
            let (_, _, message) = self.sides[node].control.pop_front().expect("just seen");
            if !stale {
                self.tell(node, Input::Control(message));
            }
        }
        while self.sides[node]
            .inbox
            .front()
            .is_some_and(|(at, ..)| now >= *at)
        {
            let (_, link, datagram) = self.sides[node].inbox.pop_front().expect("just seen");
            self.receive(node, link, datagram);
        }
        self.report(node);
        let due = self.sides[node].core.as_ref().and_then(Core::next_deadline);
        if due.is_some_and(|due| now >= due) {
            self.tell(node, Input::Tick);
        }
        self.sides[node].path.main_loop_turned(now);
        while let Some((link, datagram)) = self.sides[node].path.poll_send(now) {
            self.send(node, link, datagram);
        }
    }

    fn receive(&mut self, node: usize, link: LinkId, datagram: Datagram) {
        let now = self.now;
        match datagram {
            Datagram::Heartbeat(frame) => {
                if let Some(told) = self.sides[node].path.received(now, link, &frame) {
                    self.tell(
                        node,
                        Input::Heartbeat {
                            link,
                            content: frame.content,
                            peer_hold_time: told.peer_hold_time,
                            echo: told.echo,
                        },
                    );
                }
            }
            Datagram::Gasp(gasp) => {
                self.send(node, link, Datagram::GaspHeard(gasp.clone()));
                self.tell(node, Input::Gasp(gasp));
            }
            Datagram::GaspHeard(gasp) => {
                if self.sides[node].path.gasp_heard(&gasp) {
                    self.tell(node, Input::GaspHeard(gasp));
                }
            }
        }
    }

    fn send(&mut self, from: usize, link: LinkId, datagram: Datagram) {
        let up = self.links[usize::from(link.0)][from];
        if up && self.sides[1 - from].core.is_some() && self.random(1000) >= self.loss {
            let at = self.now + LINK_DELAY;
            self.sides[1 - from].inbox.push_back((at, link, datagram));
        }
    }

    fn report(&mut self, node: usize) {
        let registered = self.vems.len() as u16;
        let reached = self.vems.iter().filter(|vem| vem.reaches[node]);
        let report = VemReport {
            registered,
            connected: reached.clone().count() as u16,
            highest_epoch: reached.map(|vem| vem.highest).max().unwrap_or_default(),
            clone_seen: false,
        };
        if self.sides[node].last_vems != Some(report) && self.sides[node].services_at.is_none() {
            self.sides[node].last_vems = Some(report);
            self.tell(node, Input::Vems(report));
        }
        let side = &self.sides[node];
        let acting = side.acting().is_some();
        let other = &self.sides[1 - node];
        let acked = if !acting {
            side.history.1
        } else if other.bulk_done {
            other.history.1
        } else {
            Lsn(0)
        };
        let sync = SyncReport {
            lsn: side.history.1,
            epoch: side.history.0,
            acked,
            bulk_done: if acting {
                other.bulk_done && self.carries()
            } else {
                side.bulk_done
            },
            config_hash: side.history.1.0,
        };
        if side.last_sync != Some(sync) && side.services_at.is_none() {
            self.sides[node].last_sync = Some(sync);
            self.tell(node, Input::Sync(sync));
        }
    }

    /// The control connection and bulk path stand when some link works both ways.
    fn carries(&self) -> bool {
        self.links.iter().any(|link| link[A] && link[B])
            && self.sides.iter().all(|side| side.core.is_some())
    }

    fn connect(&mut self) {
        if self.carries() {
            self.links_down_since = None;
            if self.connected_since.is_none() {
                self.connected_since = Some(self.now);
                self.connection += 1;
            }
            let since = self.connected_since.unwrap_or(self.now);
            if self.now.since(since) >= CONNECT {
                for node in [A, B] {
                    let current = Some(self.connection);
                    if self.sides[node].connected != current && self.awake(node) {
                        if self.sides[node].connected.is_some() {
                            self.tell(node, Input::PeerDisconnected);
                        }
                        self.sides[node].connected = current;
                        self.tell(node, Input::PeerConnected);
                    }
                }
            }
            return;
        }
        let since = *self.links_down_since.get_or_insert(self.now);
        // A reset closes its connections; a machine that dies does not.
        let closed = self.sides.iter().any(|side| side.boots_at.is_some());
        if !closed && self.now.since(since) < DISCONNECT {
            return;
        }
        self.connected_since = None;
        for node in [A, B] {
            if self.sides[node].connected.is_some() && self.awake(node) {
                self.sides[node].connected = None;
                self.tell(node, Input::PeerDisconnected);
            }
        }
    }

    fn tell(&mut self, node: usize, input: Input) {
        let now = self.now;
        let Some(core) = &mut self.sides[node].core else {
            return;
        };
        core.handle(now, input);
        let mut outputs = Vec::new();
        while let Some(output) = core.poll_output() {
            outputs.push(output);
        }
        if let Err(violation) = core.check() {
            panic!("{violation} on node {node} at {now}");
        }
        for output in outputs {
            self.carry_out(node, output);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        let now = self.now;
        let carries = self.carries();
        let side = &mut self.sides[node];
        match output {
            Output::Persist { write, record } => {
                side.writes
                    .push_back((now + side.write_time, write, record));
            }
            Output::HeartbeatContent(content) => side.path.set_content(now, content),
            Output::HeartbeatTiming {
                interval_ms,
                misses,
            } => {
                side.path.set_timing(now, interval_ms, misses);
            }
            Output::Control(message) => {
                if let Some(connection) = side.connected.filter(|_| carries) {
                    let at = now + LINK_DELAY;
                    self.sides[1 - node]
                        .control
                        .push_back((at, connection, message));
                }
            }
            Output::Gasp(gasp) => {
                assert!(side.acting().is_none(), "V2: gasps while its services act");
                side.path.start_gasp(now, gasp);
            }
            Output::SealGasp(_) => {}
            Output::Posture {
                sequence,
                activity,
                redundant,
                ..
            } => {
                side.told = activity;
                side.told_sequence = sequence;
                side.redundant = redundant;
                if activity != Activity::Standby {
                    side.bulk_due = None;
                }
                side.applied_due = Some(sequence);
            }
            Output::AloneGranted { question } => {
                assert!(side.durable.alone, "A2: leave without a durable mark");
                side.alone_granted.push(question);
            }
            Output::Log(record) => side.logs.push(record),
            Output::CommandDone { command, result } => side.done.push((command, result)),
            Output::Reset { reason } => {
                assert!(side.acting().is_none(), "V2: resets while its services act");
                side.resets.push(reason);
                self.kill(node);
                self.sides[node].boots_at = Some(now + REBOOT);
            }
            Output::Activated { epoch } => {
                self.acts.push((now, node, epoch));
                let other = self.acted.insert(epoch, node);
                assert!(other.is_none(), "S1: epoch {epoch} used twice");
                let durable = &self.sides[node].durable;
                assert!(
                    durable.reserved_epoch >= epoch || durable.highest_epoch >= epoch,
                    "S2: epoch {epoch} used before it was durable"
                );
            }
        }
    }

    /// VEMs obey the highest claim they hear, and tell everyone.
    fn claim(&mut self) {
        let claims = [self.sides[A].acting(), self.sides[B].acting()];
        for vem in &mut self.vems {
            for (node, claim) in claims.into_iter().enumerate() {
                if vem.reaches[node] && self.now >= self.sides[node].paused_until {
                    vem.highest = vem.highest.max(claim.unwrap_or_default());
                }
            }
        }
    }

    fn replicate(&mut self) {
        let carries = self.carries();
        for node in [A, B] {
            let follows = self.sides[node].told == Activity::Standby;
            if !follows {
                self.sides[node].bulk_done = false;
                continue;
            }
            let leader = &self.sides[1 - node];
            let leads = matches!(leader.told, Activity::Active(_) | Activity::Quiesce(_));
            if !(carries && leads && self.awake(node) && self.awake(1 - node)) {
                continue;
            }
            let history = leader.history;
            let now = self.now;
            let side = &mut self.sides[node];
            if side.bulk_done {
                side.history = history;
            } else if *side.bulk_due.get_or_insert(now + BULK) <= now {
                side.bulk_done = true;
                side.history = history;
            }
        }
    }

    fn check(&mut self) {
        let healthy = self.links == [[true; 2]; 2]
            && self.loss == 0
            && [A, B].into_iter().all(|node| self.awake(node));
        if !healthy {
            self.healthy_since = self.now;
        }
        let hold = Timing::clamped(
            self.sides[A]
                .durable
                .interval_ms
                .max(self.sides[B].durable.interval_ms),
            self.sides[A]
                .durable
                .misses
                .max(self.sides[B].durable.misses),
        );
        let settled = self.now.since(self.healthy_since) > SETTLED + hold.hold_time() * 3;
        if settled {
            assert!(
                self.actives().len() <= 1,
                "S4: two actives: {}",
                self.describe()
            );
        }
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
}
