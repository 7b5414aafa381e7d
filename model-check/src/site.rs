//! The state of the model: two nodes with the redundancy core as shipped, two host agents with the
//! epoch fence as shipped, and the simplest network, disks and services that keep the contract.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use core::time::Duration;

use model::{Epoch, Incarnation, Lsn, NodeKey, PairId, Role, Time};
use redundancy::{Core, Input, NodeRecord, ServicesHealth, Start, Timing};
use serde::Serialize;
use vem::fence::Fence;
use wire::control::ControlMessage;
use wire::heartbeat::{Content, Gasp};
use wire::supervision::{Activity, SyncReport, Tally, VemReport};
use wire::vem::Fenced;

use crate::actions::Budget;
use crate::canonical::Encoder;
use crate::rules::{Broken, Rule};

/// Primary and secondary.
pub const A: usize = 0;
/// See [`A`].
pub const B: usize = 1;

/// Timing of the model: a hold time of two ticks, above the core's fixed waits where they are
/// taken as the larger of both.
pub(crate) const INTERVAL_MS: u32 = 1_000;
/// See [`INTERVAL_MS`].
pub(crate) const MISSES: u8 = 2;
/// One step of time: an interval.
pub(crate) const TICK: Duration = Duration::from_millis(INTERVAL_MS as u64);
/// The core wants a turn at least so often; a later one is a pause to it.
pub(crate) const TURN: Duration = Duration::from_millis(100);
/// Where time begins: far enough from zero for "never" to be old.
const BEGINNING: Time = Time(1_000_000_000_000_000);

/// How a node that is down comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Comes {
    /// When somebody starts it.
    WhenStarted,
    /// At the next tick: its guardian starts it.
    Soon,
}

/// One node and its machine.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// The redundancy core, while the node runs.
    pub core: Option<Core>,
    /// How it comes back while it does not.
    pub comes: Comes,
    /// Ticks since it went down.
    pub(crate) down_for: u8,
    /// Its node file.
    pub durable: NodeRecord,
    /// Writes of it under way.
    pub(crate) writes: VecDeque<(u64, NodeRecord)>,
    /// The newest write that was asked for.
    pub(crate) last_write: u64,
    /// Its disk makes nothing durable at the moment.
    pub slow_disk: bool,
    /// Newest commit in its store.
    pub history: (Epoch, Lsn),
    /// Its store holds every commit that was answered.
    pub(crate) has_newest: bool,
    /// Its store follows the active's.
    pub(crate) bulk_done: bool,
    /// A commit waits for leave to go alone.
    pub(crate) commit_waits: bool,
    /// What its services were told.
    pub told: Activity,
    pub(crate) redundant: bool,
    pub(crate) posture: u64,
    /// How they are.
    pub health: ServicesHealth,
    /// What the core was told last.
    pub(crate) last_health: Option<ServicesHealth>,
    pub(crate) last_sync: Option<SyncReport>,
    pub(crate) last_vems: Option<VemReport>,
    /// It believes that the control connection stands.
    pub(crate) connected: bool,
    /// That one is gone, and it has not noticed.
    pub(crate) stale: bool,
    /// Nothing on it gets a turn.
    pub paused: bool,
    pub(crate) paused_ticks: u8,
    /// What has arrived meanwhile.
    pub(crate) waiting: VecDeque<Input>,
    /// Its control messages stay in the pipe …
    pub stalled: bool,
    /// … here.
    pub(crate) pipe: VecDeque<ControlMessage>,
    /// When it last received a beat.
    pub(crate) heard: Time,
    /// What it said of the grant, and of its newest commit.
    pub(crate) granted: bool,
    pub(crate) heard_lsn: Lsn,
    /// What its beats say.
    pub said: Option<Content>,
    pub(crate) timing: (u32, u8),
    /// The guardian's gasp.
    pub(crate) sealed: Option<Gasp>,
    pub(crate) incarnation: u64,
    /// The highest epoch it ever acted under.
    pub(crate) acted: Epoch,
    /// The most that a VEM has told this start.
    pub(crate) learnt: Fenced,
    pub(crate) clone_seen: bool,
    /// The newest vote, and when it was asked for.
    pub(crate) tally: Tally,
    pub(crate) asked: Time,
    /// Its newest posture `Idle`: since then every VEM in reach has told what it has seen.
    pub(crate) idle_since: u64,
    /// It dies after so many further effects.
    pub(crate) dies_after: Option<u8>,
    /// Resets by itself since the last thing that happened to the site.
    pub(crate) resets: u8,
    /// An operator has told this start to lead.
    pub(crate) forced: bool,
}

/// One host agent.
#[derive(Clone, Debug, Serialize)]
pub struct Vem {
    /// The epoch fence.
    pub fence: Fence,
    /// Whom it obeys.
    pub obeyed: Option<(u8, Epoch)>,
    /// The highest epoch it ever obeyed.
    pub(crate) highest_obeyed: Epoch,
    /// Votes that it has yet to answer, by who asked.
    pub(crate) ballots: [Option<(u64, Option<Epoch>)>; 2],
    /// Whether its path to each node carries.
    pub reaches: [bool; 2],
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Site {
    /// Now.
    pub now: Time,
    /// The nodes.
    pub nodes: [Node; 2],
    /// The host agents.
    pub vems: [Vem; 2],
    /// Whether the HA link carries what that node sends.
    pub carries: [bool; 2],
    /// The control connection stands.
    pub(crate) connection: bool,
    /// Both nodes have committed without each other.
    pub(crate) forked: bool,
    /// What may yet happen.
    pub budget: Budget,
    /// Ticks since the link, and the paths to VEMs, were cut.
    pub(crate) cut_for: u8,
    pub(crate) vems_cut_for: u8,
    /// Things that have happened since the pair was last healthy.
    pub(crate) at_once: u8,
    /// Something has happened at this instant: the next thing happens at another.
    pub(crate) busy: bool,
    /// What happened last is undone by healing: the future is that of the state before.
    pub(crate) undone: bool,
    /// The rule that was broken on the way here.
    pub broken: Option<Broken>,
    /// What has not been handed over at this instant; empty between steps.
    pub(crate) queue: VecDeque<Event>,
    pub(crate) fingerprint: u64,
}

/// Something that happens at this instant.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the queue is short and empty between steps"
)]
pub(crate) enum Event {
    /// A core is told.
    Tell(usize, Input),
    /// A write reaches the disk.
    Durable(usize),
    /// A node's beat leaves.
    Beat(usize),
    /// A node's control message leaves.
    Control(usize, ControlMessage),
    /// A node's gasp leaves.
    Gasp(usize, Gasp),
    /// A node claims its VEMs.
    Claim(usize),
    /// Its services have applied a posture.
    Applied(usize, u64),
    /// It resets.
    Reset(usize),
}

impl Hash for Site {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Node {
    fn new(role: Role) -> Self {
        Self {
            core: None,
            comes: Comes::WhenStarted,
            down_for: 1,
            durable: NodeRecord {
                role,
                pair: PairId::try_from(7).ok(),
                interval_ms: INTERVAL_MS,
                misses: MISSES,
                ..NodeRecord::default()
            },
            writes: VecDeque::new(),
            last_write: 0,
            slow_disk: false,
            history: (Epoch::default(), Lsn(0)),
            has_newest: true,
            bulk_done: false,
            commit_waits: false,
            told: Activity::Idle,
            redundant: false,
            posture: 0,
            health: ServicesHealth::Ready,
            last_health: None,
            last_sync: None,
            last_vems: None,
            connected: false,
            stale: false,
            paused: false,
            paused_ticks: 0,
            waiting: VecDeque::new(),
            stalled: false,
            pipe: VecDeque::new(),
            heard: Time(0),
            granted: false,
            heard_lsn: Lsn(0),
            said: None,
            timing: (INTERVAL_MS, MISSES),
            sealed: None,
            incarnation: 0,
            acted: Epoch::default(),
            learnt: Fenced::default(),
            clone_seen: false,
            tally: Tally::default(),
            asked: Time(0),
            idle_since: 0,
            dies_after: None,
            resets: 0,
            forced: false,
        }
    }

    /// It runs and gets turns.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.core.is_some() && !self.paused
    }

    /// The epoch under which its services act.
    #[must_use]
    pub const fn acting(&self) -> Option<Epoch> {
        match self.told {
            Activity::Active(epoch) => Some(epoch),
            Activity::Idle | Activity::Standby | Activity::Quiesce(_) => None,
        }
    }

    pub(crate) fn hold_time(&self) -> Duration {
        Timing::clamped(self.timing.0, self.timing.1).hold_time()
    }
}

impl Site {
    /// Two nodes that have never run, two host agents.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        let vem = Vem {
            fence: Fence::new(Fenced::default()),
            obeyed: None,
            highest_obeyed: Epoch::default(),
            ballots: [None; 2],
            reaches: [true; 2],
        };
        Self {
            now: BEGINNING,
            nodes: [Node::new(Role::Primary), Node::new(Role::Secondary)],
            vems: [vem.clone(), vem],
            carries: [true; 2],
            connection: false,
            forked: false,
            budget,
            cut_for: 0,
            vems_cut_for: 0,
            at_once: 0,
            busy: false,
            undone: false,
            broken: None,
            queue: VecDeque::new(),
            fingerprint: 1,
        }
    }

    pub(crate) fn start(&mut self, node: usize) {
        let now = self.now;
        let side = &mut self.nodes[node];
        side.incarnation += 1;
        side.comes = Comes::WhenStarted;
        side.core = Some(Core::new(Start {
            record: side.durable.clone(),
            incarnation: Incarnation(side.incarnation * 2 + node as u64),
            node: NodeKey([node as u8 + 1; 32]),
            links: 1,
            history: side.history,
        }));
        self.queue.push_back(Event::Tell(node, Input::Tick));
        debug_assert!(now >= BEGINNING, "time does not go back");
    }

    /// Ends every process of the node. What was not on disk is gone.
    pub(crate) fn kill(&mut self, node: usize, comes: Comes) {
        let side = &mut self.nodes[node];
        side.core = None;
        side.comes = comes;
        side.down_for = 0;
        side.writes.clear();
        side.last_write = 0;
        side.told = Activity::Idle;
        side.redundant = false;
        side.posture = 0;
        side.bulk_done = false;
        side.commit_waits = false;
        side.health = ServicesHealth::Ready;
        (side.last_health, side.last_sync, side.last_vems) = (None, None, None);
        (side.connected, side.stale) = (false, false);
        (side.paused, side.paused_ticks) = (false, 0);
        side.waiting.clear();
        side.stalled = false;
        side.pipe.clear();
        side.heard = Time(0);
        (side.granted, side.heard_lsn) = (false, Lsn(0));
        side.said = None;
        side.sealed = None;
        side.learnt = Fenced::default();
        side.clone_seen = false;
        side.tally = Tally::default();
        side.asked = Time(0);
        side.idle_since = 0;
        side.dies_after = None;
        side.forced = false;
        side.timing = (side.durable.interval_ms, side.durable.misses);
        self.connection = false;
        self.nodes[1 - node].pipe.clear();
        self.nodes[1 - node].stale = self.nodes[1 - node].connected;
        for vem in &mut self.vems {
            vem.ballots[node] = None;
            vem.obeyed = vem
                .obeyed
                .filter(|(obeyed, _)| usize::from(*obeyed) != node);
        }
        self.queue.retain(|event| match event {
            Event::Tell(to, _)
            | Event::Applied(to, _)
            | Event::Durable(to)
            | Event::Claim(to)
            | Event::Reset(to) => *to != node,
            Event::Beat(from) | Event::Control(from, _) | Event::Gasp(from, _) => *from != node,
        });
    }

    /// Both directions of the HA link carry.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.carries == [true; 2]
    }

    /// What the store of one node can give that of the other now.
    pub(crate) fn replicates(&self) -> bool {
        self.is_linked() && self.connection && self.nodes.iter().all(Node::is_awake)
    }

    /// One line for traces.
    #[must_use]
    pub fn describe(&self) -> String {
        let node = |node: usize| {
            let side = &self.nodes[node];
            let row = side.core.as_ref().map_or("down", |core| core.row(self.now));
            let acting = side
                .acting()
                .map_or(String::new(), |epoch| format!(" under {epoch}"));
            let marks = [
                (side.paused, " paused"),
                (side.slow_disk, " slow disk"),
                (side.stalled, " stalled"),
            ];
            let marks: String = marks
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, mark)| *mark)
                .collect();
            let reason = side
                .core
                .as_ref()
                .map_or(String::new(), |core| core.status(self.now).reason);
            format!("{row}{acting}{marks} ({reason}) {}", side.history.1.0)
        };
        let vem = |vem: &Vem| format!("{:?} {:?}", vem.obeyed.map(|(by, _)| by + 1), vem.reaches);
        format!(
            "{} || {} | link {:?} conn {} | VEMs {} {}",
            node(A),
            node(B),
            self.carries,
            self.connection,
            vem(&self.vems[0]),
            vem(&self.vems[1])
        )
    }

    pub(crate) fn fail(&mut self, rule: Rule, text: String) {
        self.broken.get_or_insert(Broken { rule, text });
    }

    /// Computes the fingerprint; to be called when a step has ended.
    pub(crate) fn seal(&mut self) {
        let mut encoder = Encoder::new(self.now);
        for (index, node) in self.nodes.iter().enumerate() {
            encoder.encode(index as u8, node);
        }
        // Host agents are alike: their order does not matter.
        let vems = {
            let alone = |vem: &Vem| {
                let mut encoder = Encoder::new(self.now);
                encoder.encode(0, vem);
                encoder.finish()
            };
            let swapped = alone(&self.vems[0]) > alone(&self.vems[1]);
            if swapped { [1, 0] } else { [0, 1] }
        };
        for vem in vems {
            encoder.encode(0, &self.vems[vem]);
        }
        let broken = self.broken.as_ref().map(|broken| broken.rule);
        let rest = (
            self.carries,
            self.connection,
            self.forked,
            (self.cut_for, self.vems_cut_for),
            self.at_once,
            self.busy,
            &self.budget,
            broken,
        );
        encoder.encode(0, &rest);
        let mut hasher = std::hash::DefaultHasher::new();
        encoder.finish().hash(&mut hasher);
        self.fingerprint = hasher.finish();
    }
}
