//! The site on virtual time: two gateways, hosts, what lies between them, and a queue of events.
//!
//! Everything random is drawn from one generator, in the order of events; the order of events is
//! their time and then the order in which they were scheduled. The same seed therefore gives the
//! same run, which [`Outcome::trace_hash`] proves.

mod deliver;
mod hosts;
mod nodes;
mod run;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use model::ServiceName;
use node::service::SessionId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redundancy::NodeRecord;
use serde::Serialize;
use wire::supervision::RedundancyStatus;

use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::faults::{KEYS, pair, role};
use crate::host::Host;
use crate::invariants::l3_no_lag::NoLag;
use crate::invariants::s1_one_active_per_epoch::OneActivePerEpoch;
use crate::invariants::s4_one_active_when_healthy::OneActiveWhenHealthy;
use crate::invariants::s5_commits_survive::CommitsSurvive;
use crate::invariants::s6_flows_survive::FlowsSurvive;
use crate::invariants::s11_strangers_change_nothing::StrangersChangeNothing;
use crate::machine::Machine;
use crate::network::{Network, Payload};
use crate::operator::Operator;
use crate::trace::Trace;
use crate::wire_path::Overheard;

pub use run::{Options, run};

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds of a second.
pub const S: u64 = 1_000_000_000;

/// Index of a clone's machine, while there is one.
pub const CLONE: usize = 2;

/// What one run did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The invariant that failed, and when.
    pub failure: Option<String>,
    /// Virtual time that passed, in seconds.
    pub simulated_s: f64,
    /// Times that a node began to act.
    pub role_changes: u64,
    /// Faults injected, by whatever kind.
    pub faults: u64,
    /// Of them, cuts of paths.
    pub partitions: u64,
    /// Configuration changes acknowledged as replicated.
    pub replicated: u64,
    /// Flows decided by a gateway.
    pub decided: u64,
    /// Events handled.
    pub events: u64,
    /// Changes of state met by classes of faults; see [`crate::coverage`].
    pub met: BTreeSet<(u8, u8, u8)>,
    /// Hash of everything that happened.
    pub trace_hash: u64,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    NodeTick {
        node: usize,
        boot: u64,
    },
    NodeBoot {
        node: usize,
    },
    Resume {
        node: usize,
        boot: u64,
    },
    Spawned {
        node: usize,
        boot: u64,
        service: ServiceName,
        pid: u32,
    },
    Persisted {
        node: usize,
        boot: u64,
        write: u64,
    },
    Work {
        node: usize,
        boot: u64,
        pid: u32,
        work: u64,
    },
    /// Towards a gateway's address; `sent` tells what the peer really sent from the rest.
    Datagram {
        to: usize,
        link: usize,
        bytes: Vec<u8>,
        sent: Option<u64>,
    },
    /// A clone or its original takes the addresses.
    Steal,
    StreamUp {
        stream: usize,
        life: u64,
        end: usize,
    },
    StreamMessage {
        stream: usize,
        life: u64,
        end: usize,
        payload: Box<Payload>,
    },
    StreamGone {
        stream: usize,
        life: u64,
        end: usize,
    },
    StreamCheck {
        stream: usize,
        life: u64,
    },
    Dial {
        stream: usize,
    },
    HostTick {
        host: usize,
        boot: u64,
    },
    HostBoot {
        host: usize,
    },
    HostPersisted {
        host: usize,
        boot: u64,
        fenced: wire::vem::Fenced,
    },
    NewFlow {
        host: usize,
        again: bool,
    },
    Fault,
    FaultEnds(crate::faults::Undo),
    Operate,
    ShellSays {
        node: usize,
        boot: u64,
        session: SessionId,
        line: Option<String>,
    },
    Look,
}

#[derive(Debug)]
struct Scheduled {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What a clock shows at first: some days, or up to two minutes before a counter of 31 or 32 bits
/// of milliseconds wraps.
fn starting_ns(rng: &mut StdRng) -> u64 {
    let before_ns = rng.random_range(0..120 * S);
    match rng.random_range(0..4_u32) {
        0 => (1 << 31) * MS - before_ns,
        1 => (1 << 32) * MS - before_ns,
        _ => rng.random_range(0..60 * 86_400) * S,
    }
}

/// What is remembered for the invariants.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) s1: OneActivePerEpoch,
    pub(crate) s4: OneActiveWhenHealthy,
    pub(crate) s5: CommitsSurvive,
    pub(crate) s6: FlowsSurvive,
    pub(crate) s11: StrangersChangeNothing,
    pub(crate) l3: NoLag,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// Virtual time, in nanoseconds.
    pub now: u64,
    /// The gateways' machines: 0 is the primary, 1 the secondary, [`CLONE`] a copy of either.
    pub machines: Vec<Machine>,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// Between them.
    pub net: Network,
    pub(crate) rng: StdRng,
    pub(crate) trace: Trace,
    pub(crate) operator: Operator,
    pub(crate) watch: Watch,
    pub(crate) outcome: Outcome,
    pub(crate) coverage: Coverage,
    pub(crate) overheard: Overheard,
    /// What happens to machines that are stopped, until they go on.
    pub(crate) waiting: Vec<(usize, Event)>,
    /// What nodes logged, for scripts.
    pub(crate) logged: Vec<(usize, String, String)>,
    /// Datagrams sent.
    pub(crate) sent: u64,
    /// Seconds by which all wall clocks differ from those of the same seed's other runs.
    pub(crate) wall_offset_s: u64,
    /// A script drives it: nobody types but the script.
    pub(crate) scripted: bool,
    /// Faults are still injected.
    pub(crate) chaos: bool,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    /// Mean pause between faults.
    pub(crate) fault_pause_ns: u64,
    /// Events since time last moved.
    stand_still: u64,
}

impl World {
    /// A site whose machines are about to start.
    #[must_use]
    pub fn new(seed: u64, hosts: usize, readable: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // Profiles fast, default and vm-safe; mostly the default.
        let interval_ms = [10, 0, 0, 0, 0, 1000][rng.random_range(0..6)];
        let record = |slot: usize| NodeRecord {
            role: role(slot),
            pair: pair(),
            peer: Some(KEYS[1 - slot]),
            interval_ms,
            ..NodeRecord::default()
        };
        let mut clock = || Clock::new(starting_ns(&mut rng));
        let machines = vec![
            Machine::new(0, KEYS, record(0), clock()),
            Machine::new(1, KEYS, record(1), clock()),
        ];
        let hosts = (0..hosts)
            .map(|index| Host::new(index, clock()))
            .collect::<Vec<_>>();
        let net = Network::new(hosts.len());
        Self {
            now: S,
            machines,
            net,
            hosts,
            rng,
            trace: Trace::new(readable),
            operator: Operator::default(),
            watch: Watch::default(),
            outcome: Outcome {
                seed,
                ..Outcome::default()
            },
            coverage: Coverage::default(),
            overheard: Overheard::default(),
            waiting: Vec::new(),
            logged: Vec::new(),
            sent: 0,
            wall_offset_s: 0,
            scripted: false,
            chaos: true,
            queue: BinaryHeap::new(),
            order: 0,
            fault_pause_ns: 12 * S,
            stand_still: 0,
        }
    }

    /// `show system redundancy status` of a running node.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn status(&self, node: usize) -> RedundancyStatus {
        let machine = &self.machines[node];
        let running = machine
            .node
            .as_ref()
            .expect("invariant: asked only of a running node");
        running.status(machine.clock(self.now))
    }

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.order += 1;
        let at = at.max(self.now);
        self.queue.push(Reverse(Scheduled {
            at,
            order: self.order,
            event,
        }));
    }

    pub(crate) fn after(&mut self, nanoseconds: u64, event: Event) {
        self.schedule(self.now + nanoseconds, event);
    }

    pub(crate) fn random(&mut self, from: u64, to: u64) -> u64 {
        self.rng.random_range(from..=to)
    }

    /// An invariant does not hold: the first one is the run's failure.
    pub(crate) fn insist(&mut self, result: Result<(), String>) {
        if let Err(what) = result
            && self.outcome.failure.is_none()
        {
            let (seconds, micros) = (self.now / S, self.now / 1000 % 1_000_000);
            self.trace.line(self.now, format_args!("FAILED {what}"));
            self.outcome.failure = Some(format!("at {seconds}.{micros:06} s: {what}"));
        }
    }

    /// When the next event happens.
    fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse(scheduled)| scheduled.at)
    }

    fn next_event(&mut self) -> Option<Event> {
        let Reverse(scheduled) = self.queue.pop()?;
        if scheduled.at > self.now {
            self.stand_still = 0;
        }
        self.now = scheduled.at;
        Some(scheduled.event)
    }
}
