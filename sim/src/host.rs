//! One host: its agent, the kernel's flow entries, and the file with the highest epoch.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use model::{Direction, Epoch, Generation, Protocol, Time, Verdict};
use vem::{
    EntryState, FailMode, Flow, FlowId, PortIndex, PortSettings, Settings, SettleOutcome, SlotId,
    StaleFlow, Vem,
};
use wire::vem::Fenced;

use crate::clock::Clock;

/// The kernel's entry of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// One life of the flow.
    pub flow: Flow,
    /// How far it is.
    pub state: EntryState,
    /// The policy it was decided under.
    pub generation: Generation,
}

/// See the module.
#[derive(Debug)]
pub struct Host {
    /// Identity.
    pub key: model::NodeKey,
    /// The agent, while it runs.
    pub agent: Option<Vem>,
    /// Counts starts of the agent.
    pub boot: u64,
    /// The file: what the fence holds.
    pub durable: Fenced,
    /// The highest epoch that the agent ever let its gateways know of.
    pub told: Epoch,
    /// Its monotonic clock.
    pub clock: Clock,
    /// The next tick that is scheduled.
    pub tick_at: Option<u64>,
    /// Entries.
    pub kernel: BTreeMap<FlowId, Entry>,
    /// Packets held in the pool, which outlives the agent.
    pub pool: BTreeMap<SlotId, Flow>,
    /// Flows decided by a gateway since the last look.
    pub decided: u64,
    /// Of its port: the first host's fails closed, the second's open, and so on.
    pub fail_mode: FailMode,
    next_slot: u32,
    next_port: u16,
}

/// Entries kept; the oldest make room.
const ENTRIES_MAX: usize = 40;

impl Host {
    /// A host without an agent.
    #[must_use]
    pub fn new(index: usize, clock: Clock) -> Self {
        Self {
            key: model::NodeKey([0x40 + index as u8; 32]),
            agent: None,
            boot: 0,
            durable: Fenced::default(),
            told: Epoch::default(),
            clock,
            tick_at: None,
            kernel: BTreeMap::new(),
            pool: BTreeMap::new(),
            decided: 0,
            fail_mode: if index.is_multiple_of(2) {
                FailMode::Close
            } else {
                FailMode::Open
            },
            next_slot: 0,
            next_port: 1024,
        }
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self, now: u64) -> Time {
        self.clock.read(now)
    }

    /// The world's time of one of its deadlines.
    #[must_use]
    pub fn world_time(&self, deadline: Time) -> u64 {
        self.clock.world_time(deadline)
    }

    /// Starts the agent.
    pub fn start(&mut self, now: u64, index: usize) {
        self.boot += 1;
        self.tick_at = None;
        let settings = Settings {
            host: format!("host-{}", index + 1),
            ports: vec![PortSettings {
                name: "web".to_owned(),
                profile: "web@root".to_owned(),
                fail_mode: self.fail_mode,
            }],
            gateways: 2,
        };
        self.agent = Some(Vem::new(self.clock(now), settings, self.durable, now));
    }

    /// A packet of a new flow has been redirected to the agent. Gives its slot and flow.
    pub fn new_flow(&mut self, now: u64) -> (SlotId, Flow) {
        self.next_port = self.next_port.checked_add(1).unwrap_or(1024);
        let id = FlowId {
            port: PortIndex(0),
            vm_ip: Ipv4Addr::new(10, 9, 0, 1),
            remote_ip: Ipv4Addr::new(10, 9, 1, 1),
            vm_port: 80,
            remote_port: self.next_port,
            protocol: Protocol::TCP,
        };
        let flow = Flow {
            id,
            born_ns: now + 1,
            opened: Direction::Ingress,
        };
        let entry = Entry {
            flow,
            state: EntryState::Pending,
            generation: Generation(0),
        };
        self.kernel.insert(id, entry);
        if self.kernel.len() > ENTRIES_MAX {
            let oldest = self.kernel.values().min_by_key(|entry| entry.flow.born_ns);
            if let Some(id) = oldest.map(|entry| entry.flow.id) {
                self.kernel.remove(&id);
            }
        }
        self.next_slot += 1;
        let slot = SlotId(self.next_slot);
        self.pool.insert(slot, flow);
        (slot, flow)
    }

    /// The state of a flow's entry as a packet of it sees it.
    #[must_use]
    pub fn entry_state(&self, flow: Flow) -> EntryState {
        let entry = self.kernel.get(&flow.id).filter(|entry| entry.flow == flow);
        entry.map_or(EntryState::Absent, |entry| entry.state)
    }

    /// Changes an entry, if that life of the flow still has one.
    pub fn set(&mut self, flow: Flow, state: EntryState, generation: Option<Generation>) {
        if let Some(entry) = self
            .kernel
            .get_mut(&flow.id)
            .filter(|entry| entry.flow == flow)
        {
            entry.state = state;
            entry.generation = generation.unwrap_or(entry.generation);
        }
    }

    /// Removes an entry.
    pub fn forget(&mut self, flow: Flow) {
        if self
            .kernel
            .get(&flow.id)
            .is_some_and(|entry| entry.flow == flow)
        {
            self.kernel.remove(&flow.id);
        }
    }

    /// The kernel settles a flow: nothing of it is on its way any more.
    pub fn settle(&mut self, flow: Flow) -> SettleOutcome {
        match self.entry_state(flow) {
            EntryState::Draining => {
                self.set(flow, EntryState::Permitted, None);
                SettleOutcome::Settled
            }
            EntryState::Absent
            | EntryState::Pending
            | EntryState::Permitted
            | EntryState::Denied => SettleOutcome::Gone,
        }
    }

    /// Settled flows older than a generation, and where to go on.
    #[must_use]
    pub fn walk(
        &self,
        older_than: Generation,
        after: Option<FlowId>,
        limit: u32,
    ) -> (Vec<StaleFlow>, Option<FlowId>) {
        let mut stale = Vec::new();
        let mut last = None;
        let later = self
            .kernel
            .iter()
            .filter(|(id, _)| after.is_none_or(|after| **id > after));
        for (looked, (id, entry)) in later.enumerate() {
            if looked >= limit as usize {
                return (stale, last);
            }
            last = Some(*id);
            let verdict = match entry.state {
                EntryState::Permitted => Verdict::Permit,
                EntryState::Denied => Verdict::Drop,
                EntryState::Absent | EntryState::Pending | EntryState::Draining => continue,
            };
            if entry.generation < older_than {
                let generation = entry.generation;
                stale.push(StaleFlow {
                    flow: entry.flow,
                    verdict,
                    generation,
                });
            }
        }
        (stale, None)
    }
}
