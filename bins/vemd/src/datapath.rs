//! The datapath in the kernel: its pins, its maps, and what can be asked of it.
//!
//! Invariants:
//! - Programs, maps and links are pinned below `<bpffs>/v<ABI>/`: the datapath runs on without
//!   vemd, and a vemd that starts finds it as it was.
//! - Programs of one build are attached at all ports and taps, or the load is done again.

pub(crate) mod abi;
mod pins;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use model::{Direction, Epoch, Generation, Incarnation, NodeKey, Protocol};
use rustix::time::{ClockId, clock_gettime};
use vem::{EntryState, FailMode, Flow, FlowId, PortIndex, StaleFlow};

use self::abi::{FlowCommand, FlowEntry, FlowKey, HighestEpoch, Operation, Outcome, PortCounters};
pub(crate) use self::pins::{Pins, remove};

/// The kernel takes the timer's memory without waiting, and may find none at first.
const SWEEP_TRIES_MAX: u32 = 2000;
const SWEEP_TRY_EVERY: Duration = Duration::from_millis(1);

/// A protected port as the kernel knows it.
#[derive(Clone, Debug)]
pub(crate) struct PortDevice {
    /// Its ifindex.
    pub(crate) ifindex: u32,
    /// Its interface's name.
    pub(crate) interface: String,
    /// Its tap's ifindex.
    pub(crate) tap_ifindex: u32,
    /// Its tap's name.
    pub(crate) tap: String,
    /// The VM's MAC.
    pub(crate) mac: [u8; 6],
    /// Its fail mode, for the time when vemd is silent.
    pub(crate) fail_mode: FailMode,
}

/// The datapath, open.
pub(crate) struct Datapath {
    devices: Vec<PortDevice>,
    flows: HashMap<MapData, FlowKey, FlowEntry>,
    /// The same map, for what aya does not offer.
    flow_keys: MapData,
    liveness: Array<MapData, u64>,
    highest_epoch: Array<MapData, HighestEpoch>,
    reports: RingBuf<MapData>,
    control: SchedClassifier,
}

/// Now on the clock of the BPF programs, ns.
pub(crate) fn kernel_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

impl Datapath {
    /// Opens the pinned datapath, or loads it; then makes sure that it guards these ports.
    pub(crate) fn open(bpffs: &Path, devices: Vec<PortDevice>) -> Result<Self> {
        let pins = Pins::new(bpffs);
        pins.ensure(&devices)?;
        let datapath = Self {
            flows: pins.hash("flows")?,
            flow_keys: pins.map("flows")?,
            liveness: pins.array("liveness")?,
            highest_epoch: pins.array("highest_epoch")?,
            reports: RingBuf::try_from(aya::maps::Map::RingBuf(pins.map("reports")?))?,
            control: SchedClassifier::from_pin(pins.program("flow_control"))
                .context("pinned program flow_control")?,
            devices,
        };
        datapath.start_sweep()?;
        Ok(datapath)
    }

    /// The descriptor that is readable when reports wait.
    pub(crate) const fn reports(&mut self) -> &mut RingBuf<MapData> {
        &mut self.reports
    }

    /// Says that vemd decides; to be renewed well within `LIVENESS_STALE_NS`.
    pub(crate) fn stamp(&mut self) -> Result<()> {
        self.liveness
            .set(0, kernel_ns(), 0)
            .context("liveness stamp")
    }

    /// The highest epoch of this boot of the kernel.
    pub(crate) fn highest_epoch(&self) -> Result<Epoch> {
        let pinned = self.highest_epoch.get(&0, 0).context("pinned epoch")?;
        Ok(Epoch {
            counter: pinned.counter,
            node: NodeKey(pinned.node),
            incarnation: Incarnation(pinned.incarnation),
        })
    }

    /// Keeps it.
    pub(crate) fn set_highest_epoch(&mut self, epoch: Epoch) -> Result<()> {
        let Epoch {
            counter,
            node,
            incarnation,
        } = epoch;
        let value = HighestEpoch {
            counter,
            node: node.0,
            incarnation: incarnation.0,
        };
        self.highest_epoch.set(0, value, 0).context("pinned epoch")
    }

    /// The port of this ifindex.
    pub(crate) fn port_of(&self, ifindex: u32) -> Option<PortIndex> {
        let index = self
            .devices
            .iter()
            .position(|device| device.ifindex == ifindex)?;
        u16::try_from(index).ok().map(PortIndex)
    }

    fn key(&self, id: &FlowId) -> Option<FlowKey> {
        let device = self.devices.get(usize::from(id.port.0))?;
        Some(FlowKey::new(device.ifindex, id))
    }

    /// The kernel's entry of a flow, as the core wants it. Without an entry the direction is the
    /// packet's.
    pub(crate) fn look_up(&self, id: FlowId, direction: Direction) -> (Flow, EntryState) {
        let entry = self.key(&id).and_then(|key| self.flows.get(&key, 0).ok());
        entry.map_or(
            (
                Flow {
                    id,
                    born_ns: 0,
                    opened: direction,
                },
                EntryState::Absent,
            ),
            |entry| (entry.flow(id), entry.entry_state()),
        )
    }

    /// Changes a flow, in the kernel and under its lock.
    pub(crate) fn command(&self, flow: &Flow, operation: Operation, with: With) -> Result<Outcome> {
        let key = self
            .key(&flow.id)
            .ok_or_else(|| anyhow!("flow of no port"))?;
        self.run(FlowCommand {
            ethernet: [0; 16],
            key,
            operation: operation as u32,
            created_ns: flow.born_ns,
            generation: with.generation.0,
            epoch: with.epoch_counter,
            discarded: with.discarded,
            verdict: with.verdict,
            force: u8::from(with.force),
            zero: [0; 2],
        })
    }

    /// Starts the sweep that ends flows in the kernel, or gives it this build's code.
    fn start_sweep(&self) -> Result<()> {
        let nothing = Flow {
            id: FlowId {
                port: PortIndex(0),
                vm_ip: Ipv4Addr::UNSPECIFIED,
                remote_ip: Ipv4Addr::UNSPECIFIED,
                vm_port: 0,
                remote_port: 0,
                protocol: Protocol(0),
            },
            born_ns: 0,
            opened: Direction::Egress,
        };
        for _ in 0..SWEEP_TRIES_MAX {
            match self.command(&nothing, Operation::Sweep, With::default())? {
                Outcome::Done => return Ok(()),
                Outcome::NoMemory => std::thread::sleep(SWEEP_TRY_EVERY),
                other => return Err(anyhow!("the sweep does not start: {other:?}")),
            }
        }
        Err(anyhow!("the kernel has no memory for the sweep's timer"))
    }

    fn run(&self, command: FlowCommand) -> Result<Outcome> {
        let frame = command.to_bytes();
        let options = TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::new()
        };
        let result = self.control.test_run(options).context("flow command")?;
        match result.return_value {
            0 => Ok(Outcome::Done),
            1 => Ok(Outcome::Absent),
            2 => Ok(Outcome::NotDrained),
            3 => Ok(Outcome::WrongState),
            5 => Ok(Outcome::NoMemory),
            other => Err(anyhow!("the datapath answered {other} to a flow command")),
        }
    }

    /// Looks at up to `limit` entries behind `after` for settled ones older than a generation.
    pub(crate) fn walk(
        &self,
        older_than: Generation,
        after: Option<FlowId>,
        limit: u32,
    ) -> (Vec<StaleFlow>, Option<FlowId>) {
        let mut stale = Vec::new();
        let mut cursor = after.and_then(|id| self.key(&id));
        for _ in 0..limit {
            let Some(key) = pins::next_key(&self.flow_keys, cursor) else {
                return (stale, None);
            };
            cursor = Some(key);
            let Some(id) = self.port_of(key.port).map(|port| key.id(port)) else {
                continue;
            };
            let Ok(entry) = self.flows.get(&key, 0) else {
                continue;
            };
            let verdict = abi::verdict_of(entry.verdict);
            if let Some(verdict) = verdict.filter(|_| entry.state == abi::FLOW_VERDICT)
                && entry.generation < older_than.0
            {
                let generation = Generation(entry.generation);
                stale.push(StaleFlow {
                    flow: entry.flow(id),
                    verdict,
                    generation,
                });
            }
        }
        let next = cursor.map(|key| key.id(self.port_of(key.port).unwrap_or(PortIndex(0))));
        (stale, next)
    }
}

/// What a command carries besides its flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct With {
    pub(crate) verdict: u8,
    pub(crate) generation: Generation,
    pub(crate) epoch_counter: u64,
    pub(crate) discarded: u32,
    pub(crate) force: bool,
}

/// What `show` reads, straight from the pins, with or without a running vemd.
pub(crate) struct View {
    flows: HashMap<MapData, FlowKey, FlowEntry>,
    ports: HashMap<MapData, u32, abi::Port>,
    counters: PerCpuArray<MapData, PortCounters>,
}

impl View {
    /// Opens the pins read-only in spirit: nothing is written.
    pub(crate) fn open(bpffs: &Path) -> Result<Self> {
        let pins = Pins::new(bpffs);
        Ok(Self {
            flows: pins.hash("flows")?,
            ports: pins.hash("ports")?,
            counters: PerCpuArray::try_from(aya::maps::Map::PerCpuArray(pins.map("counters")?))?,
        })
    }

    /// Up to [`abi::FLOWS_MAX`] entries.
    pub(crate) fn flows(&self) -> Vec<(FlowKey, FlowEntry)> {
        self.flows
            .iter()
            .filter_map(Result::ok)
            .take(abi::FLOWS_MAX)
            .collect()
    }

    /// A port's entry.
    pub(crate) fn port(&self, ifindex: u32) -> Option<abi::Port> {
        self.ports.get(&ifindex, 0).ok()
    }

    /// A port's counters, all processors together.
    pub(crate) fn counters(&self, port: &abi::Port) -> Result<[u64; abi::COUNTERS]> {
        let mut sum = [0; abi::COUNTERS];
        let each = self.counters.get(&port.slot, 0).context("port counters")?;
        for processor in each.iter() {
            for (total, count) in sum.iter_mut().zip(processor.count) {
                *total += count;
            }
        }
        Ok(sum)
    }
}
