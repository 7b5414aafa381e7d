//! The ABI of bpf/datapath.h: same layouts, asserted sizes.

use core::net::Ipv4Addr;

use aya::Pod;
use model::{Direction, Protocol, Verdict};
use vem::{EntryState, Flow, FlowId, PortIndex};

/// `TWINWALL_ABI_VERSION`.
pub(crate) const ABI_VERSION: u32 = 1;
/// `FLOWS_MAX`.
pub(crate) const FLOWS_MAX: usize = 65_536;
/// `PORTS_MAX`.
pub(crate) const PORTS_MAX: usize = 64;

/// `struct flow_key`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub(crate) struct FlowKey {
    pub(crate) port: u32,
    pub(crate) vm_ip: [u8; 4],
    pub(crate) remote_ip: [u8; 4],
    pub(crate) vm_port: [u8; 2],
    pub(crate) remote_port: [u8; 2],
    pub(crate) protocol: u8,
    pub(crate) zero: [u8; 3],
}

impl FlowKey {
    /// The key at the port with this ifindex.
    pub(crate) const fn new(ifindex: u32, id: &FlowId) -> Self {
        Self {
            port: ifindex,
            vm_ip: id.vm_ip.octets(),
            remote_ip: id.remote_ip.octets(),
            vm_port: id.vm_port.to_be_bytes(),
            remote_port: id.remote_port.to_be_bytes(),
            protocol: id.protocol.0,
            zero: [0; 3],
        }
    }

    /// The flow's key, at this port of the configuration.
    pub(crate) const fn id(&self, port: PortIndex) -> FlowId {
        let ([a, b, c, d], [e, f, g, h]) = (self.vm_ip, self.remote_ip);
        FlowId {
            port,
            vm_ip: Ipv4Addr::new(a, b, c, d),
            remote_ip: Ipv4Addr::new(e, f, g, h),
            vm_port: u16::from_be_bytes(self.vm_port),
            remote_port: u16::from_be_bytes(self.remote_port),
            protocol: Protocol(self.protocol),
        }
    }
}

/// `struct flow`, as the kernel shows it to user space (the lock reads as zero).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct FlowEntry {
    lock: u32,
    pub(crate) queued: u32,
    pub(crate) created_ns: u64,
    ticket: u64,
    pub(crate) decided_ns: u64,
    pub(crate) last_seen_ns: u64,
    pub(crate) generation: u64,
    pub(crate) epoch: u64,
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
    next_sequence: [u32; 2],
    last_ack: [u32; 2],
    pub(crate) state: u8,
    pub(crate) verdict: u8,
    pub(crate) first_direction: u8,
    pub(crate) tcp: u8,
    fins: u8,
    reported: u8,
    zero: [u8; 2],
}

/// `enum flow_state`.
pub(crate) const FLOW_PENDING: u8 = 1;
/// `enum flow_state`.
pub(crate) const FLOW_DRAINING: u8 = 2;
/// `enum flow_state`.
pub(crate) const FLOW_VERDICT: u8 = 3;

/// `enum verdict`.
pub(crate) const fn verdict_number(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Permit => 1,
        Verdict::Drop => 2,
        Verdict::Reset => 3,
    }
}

/// `enum verdict`; `None` for an undecided flow.
pub(crate) const fn verdict_of(number: u8) -> Option<Verdict> {
    match number {
        1 => Some(Verdict::Permit),
        2 => Some(Verdict::Drop),
        3 => Some(Verdict::Reset),
        _ => None,
    }
}

/// `enum direction`.
pub(crate) const fn direction_of(number: u8) -> Direction {
    if number == 0 {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

impl FlowEntry {
    /// What the core wants to know of it.
    pub(crate) fn entry_state(&self) -> EntryState {
        match (self.state, verdict_of(self.verdict)) {
            (FLOW_PENDING, _) => EntryState::Pending,
            (FLOW_DRAINING, _) => EntryState::Draining,
            (FLOW_VERDICT, Some(Verdict::Permit)) => EntryState::Permitted,
            (FLOW_VERDICT, _) => EntryState::Denied,
            _ => EntryState::Absent,
        }
    }

    /// This life of the key.
    pub(crate) const fn flow(&self, id: FlowId) -> Flow {
        Flow {
            id,
            born_ns: self.created_ns,
            opened: direction_of(self.first_direction),
        }
    }
}

/// `struct port`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Port {
    pub(crate) tap: u32,
    pub(crate) slot: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) fail_mode: u8,
    pub(crate) zero: u8,
}

/// `struct tap`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Tap {
    pub(crate) port: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) zero: [u8; 2],
}

/// `COUNTERS`.
pub(crate) const COUNTERS: usize = 24;

/// Names of `enum counter`, in its order.
pub(crate) const COUNTER_NAMES: [&str; 23] = [
    "from_vm",
    "to_vm",
    "passed",
    "arp",
    "upcalls",
    "queued",
    "reinjected",
    "denied",
    "dropped_spoofed",
    "dropped_not_ours",
    "dropped_ipv6",
    "dropped_ethertype",
    "dropped_fragment",
    "dropped_protocol",
    "dropped_icmp",
    "dropped_malformed",
    "dropped_midstream",
    "dropped_reverse_open",
    "dropped_map_full",
    "dropped_fail_closed",
    "fail_opened",
    "dropped_stray",
    "reports_lost",
];

/// `struct port_counters`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct PortCounters {
    pub(crate) count: [u64; COUNTERS],
}

/// `struct settings`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Settings {
    pub(crate) abi_version: u32,
    pub(crate) reinject_mark: u32,
    pub(crate) upcall_mark: u32,
    pub(crate) build: u32,
}

/// `struct highest_epoch`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct HighestEpoch {
    pub(crate) counter: u64,
    pub(crate) node: [u8; 32],
    pub(crate) incarnation: u64,
}

/// `struct report`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Report {
    pub(crate) key: FlowKey,
    pub(crate) kind: u32,
    pub(crate) created_ns: u64,
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
    pub(crate) epoch: u64,
    pub(crate) verdict: u8,
    pub(crate) first_direction: u8,
    pub(crate) zero: [u8; 6],
}

/// `enum operation`.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Operation {
    Drain = 1,
    Settle = 2,
    Deny = 3,
    Forget = 4,
    Revalidate = 5,
    Sweep = 6,
}

/// `enum outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Absent,
    NotDrained,
    WrongState,
    NoMemory,
}

/// `struct flow_command`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct FlowCommand {
    pub(crate) ethernet: [u8; 16],
    pub(crate) key: FlowKey,
    pub(crate) operation: u32,
    pub(crate) created_ns: u64,
    pub(crate) generation: u64,
    pub(crate) epoch: u64,
    pub(crate) discarded: u32,
    pub(crate) verdict: u8,
    pub(crate) force: u8,
    pub(crate) zero: [u8; 2],
}

impl FlowCommand {
    /// The frame that carries it.
    pub(crate) fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.ethernet);
        put(&self.key.port.to_ne_bytes());
        put(&self.key.vm_ip);
        put(&self.key.remote_ip);
        put(&self.key.vm_port);
        put(&self.key.remote_port);
        put(&[self.key.protocol]);
        put(&self.key.zero);
        put(&self.operation.to_ne_bytes());
        put(&self.created_ns.to_ne_bytes());
        put(&self.generation.to_ne_bytes());
        put(&self.epoch.to_ne_bytes());
        put(&self.discarded.to_ne_bytes());
        put(&[self.verdict, self.force]);
        put(&self.zero);
        debug_assert_eq!(at, bytes.len());
        bytes
    }
}

impl Report {
    /// Reads one from the ring; `None` if it is not one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        Some(Self {
            key: FlowKey {
                port: u32_at(0)?,
                vm_ip: *bytes[4..].first_chunk()?,
                remote_ip: *bytes[8..].first_chunk()?,
                vm_port: *bytes[12..].first_chunk()?,
                remote_port: *bytes[14..].first_chunk()?,
                protocol: bytes[16],
                zero: [0; 3],
            },
            kind: u32_at(20)?,
            created_ns: u64_at(24)?,
            packets: [u64_at(32)?, u64_at(40)?],
            bytes: [u64_at(48)?, u64_at(56)?],
            epoch: u64_at(64)?,
            verdict: bytes[72],
            first_direction: bytes[73],
            zero: [0; 6],
        })
    }
}

/// Lets the type be a map's key or value.
macro_rules! plain {
    ($($name:ident: $size:literal),+ $(,)?) => { $(
        const _: () = assert!(size_of::<$name>() == $size, "layout differs from bpf/datapath.h");
        #[allow(unsafe_code, reason = "map keys and values are plain memory shared with BPF")]
        // SAFETY: `repr(C)`, only integers and arrays of them, without padding (the size is the
        // sum of the fields), so every bit pattern is a value.
        unsafe impl Pod for $name {}
    )+ };
}

plain! {
    FlowKey: 20,
    FlowEntry: 112,
    Port: 16,
    Tap: 12,
    PortCounters: 192,
    Settings: 16,
    HighestEpoch: 48,
}

const _: () = assert!(
    size_of::<Report>() == 80,
    "layout differs from bpf/datapath.h"
);
const _: () = assert!(
    size_of::<FlowCommand>() == 72,
    "layout differs from bpf/datapath.h"
);
