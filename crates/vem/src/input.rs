//! All that can happen to the host agent.

use model::{Generation, Verdict};
use serde::{Deserialize, Serialize};
use wire::vem::{Fenced, ToVem};

use crate::types::{Flow, FlowId, GatewayId, SlotId};

/// One event. Messages come from gateways whose identity is pinned; the shell has checked it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Time passed.
    Tick,
    /// A connection to a gateway stands.
    Connected(GatewayId),
    /// It is gone.
    Disconnected(GatewayId),
    /// A message on it.
    Received {
        /// From whom.
        gateway: GatewayId,
        /// What.
        message: ToVem,
    },
    /// The content of [`crate::Output::Persist`] is durable.
    Persisted(Fenced),
    /// It could not be written.
    PersistFailed(Fenced),
    /// A packet waits in `slot`: it was redirected to the port's tap, or survived a restart.
    Held {
        /// Where.
        slot: SlotId,
        /// Its flow, as the kernel's entry tells; if there is no entry, its key and any life.
        flow: Flow,
        /// The entry at this moment.
        entry: EntryState,
        /// Length of the packet.
        bytes: u32,
    },
    /// Answer to [`crate::Output::Settle`].
    Settled {
        /// The flow.
        flow: Flow,
        /// How it went.
        outcome: SettleOutcome,
        /// The port's tap had nothing to read after that.
        tap_empty: bool,
    },
    /// Answer to [`crate::Output::Walk`].
    Walked {
        /// Settled flows with a verdict of an older generation.
        stale: Vec<StaleFlow>,
        /// Where to go on; `None` at the end of the map.
        next: Option<FlowId>,
    },
    /// The kernel tells of a flow.
    Reported(KernelReport),
}

/// The kernel's entry of a flow when one of its packets is read from the tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryState {
    /// There is none: it expired.
    Absent,
    /// Undecided.
    Pending,
    /// Permitted, not yet settled.
    Draining,
    /// Permitted.
    Permitted,
    /// Dropped.
    Denied,
}

/// Whether a flow has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleOutcome {
    /// Its packets pass in the kernel from now on.
    Settled,
    /// Packets are still on their way through the tap.
    NotDrained,
    /// There is no such flow any more, or it had settled.
    Gone,
}

/// A flow decided under an older policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleFlow {
    /// The flow.
    pub flow: Flow,
    /// Its verdict.
    pub verdict: Verdict,
    /// The policy it was decided under; 0 for fail-open.
    pub generation: Generation,
}

/// End of a flow, as seen in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelReport {
    /// The flow.
    pub flow: Flow,
    /// What happened.
    pub kind: KernelReportKind,
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes, both directions.
    pub bytes: u64,
}

/// What a [`KernelReport`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelReportKind {
    /// Both ends closed, or a reset.
    Closed,
    /// Silent for its idle time.
    Idle,
    /// The entry expired undecided.
    Undecided,
}
