//! One run: chaos with safety checked at every step, then peace and service within a bound.

use model::Incarnation;
use rand::Rng;

use super::{Event, MS, Outcome, S, World};
use crate::faults;
use crate::invariants::{
    l1_one_active_with_standby, l2_equal_configuration, l4_few_role_changes,
    l5_the_active_is_announced, l6_commands_end, l7_traffic_is_decided,
};

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Virtual seconds of chaos.
    pub chaos_s: u64,
    /// Hosts.
    pub hosts: usize,
    /// Mean pause between faults, in milliseconds.
    pub pause_ms: u64,
    /// Print every step.
    pub readable: bool,
    /// What wall clocks show more, in seconds.
    pub wall_offset_s: u64,
}

impl Default for Options {
    /// A short dense run: the median seed has more than ten faults and three role changes.
    fn default() -> Self {
        Self {
            chaos_s: 120,
            hosts: 2,
            pause_ms: 5_000,
            readable: false,
            wall_offset_s: 0,
        }
    }
}

/// After the last fault the site must serve within this: two restarts of a node, a bulk sync, the
/// hold time of the slowest profile and the longest pause of a restarting service.
const SERVES_WITHIN_NS: u64 = 90 * S;
/// … and go on serving for this long.
const SERVES_FOR_NS: u64 = 5 * S;
/// How often service is looked for.
const LOOK_NS: u64 = 250 * MS;

/// Events at one instant: more is a deadline that does not move.
const STAND_STILL_MAX: u64 = 100_000;

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut world = World::new(seed, options.hosts, options.readable);
    world.wall_offset_s = options.wall_offset_s;
    world.fault_pause_ns = options.pause_ms.max(1) * MS;
    world.begin();
    let end_of_chaos = world.now + options.chaos_s * S;
    while world.now < end_of_chaos && world.outcome.failure.is_none() {
        world.step();
    }
    if world.outcome.failure.is_none() {
        world.peace();
    }
    let mut outcome = world.outcome;
    outcome.simulated_s = (world.now - S) as f64 / S as f64;
    outcome.replicated = world.watch.s5.len() as u64;
    outcome.met = world.coverage.met;
    outcome.trace_hash = world.trace.hash();
    outcome
}

impl World {
    fn begin(&mut self) {
        for node in 0..2 {
            let delay = self.random(0, 3 * S);
            self.after(delay, Event::NodeBoot { node });
        }
        self.begin_hosts();
        let first = self.random(4 * S, 12 * S);
        self.after(first, Event::Fault);
        self.after(4 * S, Event::Operate);
    }

    /// Hosts start, and whoever can connects.
    pub(crate) fn begin_hosts(&mut self) {
        for host in 0..self.hosts.len() {
            let delay = self.random(0, 2 * S);
            self.after(delay, Event::HostBoot { host });
            self.after(3 * S, Event::NewFlow { host, again: true });
        }
        for stream in 0..self.net.streams.len() {
            let delay = self.random(0, 250 * MS);
            self.after(delay, Event::Dial { stream });
        }
    }

    /// Handles all that happens until then, or until an invariant fails.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.outcome.failure.is_none() && self.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    /// Handles the next event; true if it was a look.
    fn step(&mut self) -> bool {
        let Some(event) = self.next_event() else {
            return false;
        };
        let look = matches!(event, Event::Look);
        self.outcome.events += 1;
        self.stand_still += 1;
        if self.stand_still > STAND_STILL_MAX {
            self.insist(Err(format!("time stands still at {event:?}")));
        }
        self.handle(event);
        self.check();
        look
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::NodeTick { .. }
            | Event::NodeBoot { .. }
            | Event::Resume { .. }
            | Event::Spawned { .. }
            | Event::Persisted { .. }
            | Event::Work { .. }
            | Event::Datagram { .. }
            | Event::ShellSays { .. } => self.node_event(event),
            Event::StreamUp { stream, life, end } => self.stream_up(stream, life, end),
            Event::StreamMessage {
                stream,
                life,
                end,
                payload,
            } => {
                self.stream_message(stream, life, end, payload);
            }
            Event::StreamGone { stream, life, end } => self.stream_gone(stream, life, end),
            Event::StreamCheck { stream, life } => self.stream_check(stream, life),
            Event::Dial { stream } => self.dial(stream),
            Event::HostTick { host, boot } => self.host_tick(host, boot),
            Event::HostBoot { host } => self.host_boot(host),
            Event::HostPersisted { host, boot, fenced } => self.host_persisted(host, boot, fenced),
            Event::NewFlow { host, again } => self.new_flow(host, again),
            Event::Steal => self.steal(),
            Event::Fault => faults::inject(self),
            Event::FaultEnds(undo) => faults::end(self, undo),
            Event::Operate => self.operate(),
            Event::Look => {}
        }
    }

    /// What can be seen in one state of the world.
    fn check(&mut self) {
        let awake = self
            .machines
            .iter()
            .all(|machine| machine.is_awake() && machine.is_paired_rightly());
        let acting = |machine: &crate::machine::Machine| {
            machine
                .node
                .as_ref()
                .is_some_and(|node| node.acting().is_some())
        };
        let actives = self
            .machines
            .iter()
            .filter(|machine| acting(machine))
            .count();
        let healthy = awake && self.machines.len() == 2 && self.net.links_are_healthy();
        let result = self.watch.s4.step(self.now, healthy, actives);
        self.insist(result);
    }

    /// All faults end; the site must come to serve, and go on.
    fn peace(&mut self) {
        self.chaos = false;
        self.trace.line(self.now, format_args!("all faults end"));
        faults::end_all(self);
        let began = self.now;
        let changes = self.outcome.role_changes;
        let mut serves_since = None;
        let mut missing = String::new();
        self.after(LOOK_NS, Event::Look);
        while self.outcome.failure.is_none() {
            if !self.step() {
                continue;
            }
            self.after(LOOK_NS, Event::Look);
            let result = l6_commands_end::holds(self.now, self.typing().map(|at| at.max(began)));
            self.insist(result);
            match self.serves(changes) {
                Ok(()) => {
                    let since = *serves_since.get_or_insert(self.now);
                    if self.now - since >= SERVES_FOR_NS {
                        return self.at_the_end();
                    }
                }
                Err(what) => {
                    missing = what;
                    serves_since = None;
                }
            }
            if self.now - began > SERVES_WITHIN_NS {
                self.insist(Err(format!("{missing} (90 s after the last fault)")));
            }
        }
    }

    /// L1 to L7 together.
    fn serves(&mut self, changes: u64) -> Result<(), String> {
        let (active, epoch) = l1_one_active_with_standby::holds(self)?;
        l2_equal_configuration::holds(self)?;
        let mut l3 = core::mem::take(&mut self.watch.l3);
        let lag = l3.holds(self, active);
        self.watch.l3 = l3;
        lag?;
        l4_few_role_changes::holds(self.outcome.role_changes - changes)?;
        l5_the_active_is_announced::holds(self, active, epoch)?;
        l7_traffic_is_decided::holds(self, active)
    }

    pub(crate) fn at_the_end(&mut self) {
        let acting = (0..2).find(|node| self.acts_now(*node));
        let running = acting.map(|node| self.running(node)).unwrap_or_default();
        let archives = self.archives();
        let result = self.watch.s5.check(&running, &archives);
        self.insist(result);
    }

    pub(super) fn incarnation(&mut self) -> Incarnation {
        Incarnation(self.rng.random())
    }
}
