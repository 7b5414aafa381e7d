//! The host agent: whom to obey, which packets wait, what is asked, and what becomes of a flow.
//!
//! Pure: no I/O, no clock, no randomness. The shell (`vemd`, or a simulation) feeds [`Input`]s to
//! [`Vem::handle`], then takes every [`Output`] from [`Vem::poll_output`] and carries it out in
//! order, and calls again with [`Input::Tick`] at [`Vem::next_deadline`].
//!
//! One module per concern, each a small state machine of its own:
//!
//! | module | concern |
//! |---|---|
//! | [`fence`] | the highest epoch seen, durable before it is used |
//! | `gateways` | connections, and the one that is obeyed |
//! | `votes` | a standby asks whether the active lives |
//! | `waiting` | undecided flows and the packets they hold |
//! | `revalidation` | verdicts of an older policy |
//! | `reports` | what the active is told of flows |
//! | `agent` | the composition: which concern sees which input |
//!
//! Invariants (checked by [`Vem::check`] after each step of every test):
//! 1. What the fence holds never decreases, and is durable before any message that follows from it
//!    leaves: a claim's acceptance, and a *silent* that promises.
//! 2. Every verdict installed while a gateway is obeyed comes from that gateway, under the
//!    highest epoch; epochs are never mixed.
//! 3. A packet of a flow is written back only after the flow's permit, and in the order in which
//!    the packets arrived.
//! 4. Each held slot belongs to exactly one flow, and is given back exactly once: written or
//!    discarded.
//! 5. What a port or a flow holds never exceeds its limits.
//! 6. A request is open exactly while its flow awaits the answer of the obeyed gateway.

mod agent;
pub mod fence;
mod gateways;
mod input;
mod output;
mod reports;
mod revalidation;
mod types;
mod votes;
mod waiting;

pub use agent::{Counters, Settings, Vem};
pub use gateways::{GatewayView, Takeover};
pub use input::{EntryState, Input, KernelReport, KernelReportKind, SettleOutcome, StaleFlow};
pub use output::{Event, Output};
pub use types::{FailMode, Flow, FlowId, GatewayId, PortIndex, PortSettings, SlotId};
pub use waiting::{
    HELD_BYTES_PER_PORT_MAX, HELD_PER_FLOW_MAX, HELD_PER_PORT_MAX, HOLD_LIMIT, SETTLE_FORCE_AFTER,
};
