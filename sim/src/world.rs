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
use std::collections::BinaryHeap;

use model::{NodeKey, PairId, Role, ServiceName};
use node::service::SessionId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redundancy::NodeRecord;
use serde::Serialize;
use wire::heartbeat::Datagram;
use wire::supervision::RedundancyStatus;

use crate::host::Host;
use crate::invariants::s1_one_active_per_epoch::OneActivePerEpoch;
use crate::invariants::s4_one_active_when_healthy::OneActiveWhenHealthy;
use crate::invariants::s5_replicated_survives::ReplicatedSurvives;
use crate::machine::Machine;
use crate::network::{Network, Payload};
use crate::operator::Operator;
use crate::trace::Trace;

pub use run::{Options, run};

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds of a second.
pub const S: u64 = 1_000_000_000;

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
    Datagram {
        to: usize,
        link: usize,
        key: u64,
        datagram: Box<Datagram>,
    },
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

/// What is remembered for the invariants.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) s1: OneActivePerEpoch,
    pub(crate) s4: OneActiveWhenHealthy,
    pub(crate) s5: ReplicatedSurvives,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// Virtual time, in nanoseconds.
    pub now: u64,
    /// The gateways' machines: 0 is the primary, 1 the secondary.
    pub machines: [Machine; 2],
    /// The hosts.
    pub hosts: Vec<Host>,
    /// Between them.
    pub net: Network,
    pub(crate) rng: StdRng,
    pub(crate) trace: Trace,
    pub(crate) operator: Operator,
    pub(crate) watch: Watch,
    pub(crate) outcome: Outcome,
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
        let keys = [NodeKey([0xa0; 32]), NodeKey([0xb0; 32])];
        // Profiles fast, default and vm-safe; mostly the default.
        let interval_ms = [10, 0, 0, 0, 1000][rng.random_range(0..5)];
        let record = |role, peer| NodeRecord {
            role,
            pair: PairId::try_from(7).ok(),
            peer: Some(peer),
            interval_ms,
            ..NodeRecord::default()
        };
        let records = [
            record(Role::Primary, keys[1]),
            record(Role::Secondary, keys[0]),
        ];
        let [first, second] = records;
        // Clocks that differ by days, and one beyond 2^31 milliseconds.
        let mut offset = || rng.random_range(0..60 * 86_400) * S;
        let machines = [
            Machine::new(keys[0], keys[1], first, offset()),
            Machine::new(keys[1], keys[0], second, offset()),
        ];
        let hosts = (0..hosts)
            .map(|index| Host::new(index, offset()))
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

    fn next_event(&mut self) -> Option<Event> {
        let Reverse(scheduled) = self.queue.pop()?;
        if scheduled.at > self.now {
            self.stand_still = 0;
        }
        self.now = scheduled.at;
        Some(scheduled.event)
    }
}
