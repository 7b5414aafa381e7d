//! The redundancy core: roles, negotiation, heartbeats, failover, switchover, split brain, epochs.
//!
//! A pure state machine: `handle(now, Input)`, `poll_output()`, `next_deadline()`. It is split by
//! role and by concern:
//!
//! | module | holds |
//! |---|---|
//! | `core`, `hearing`, `speech` | routing of inputs, the turn; what the peer says, what it is told |
//! | `phase` | the phases and how one leads to the next |
//! | `boot`, `activating` | who leads; the epoch made durable |
//! | `active` | the active; with `alone` (grant and alone mark), `announcing`, `gap` (after a pause), `split_brain`, `switchover` |
//! | `standby` | the standby: stability, takeover, restart of the pair |
//! | `votes` | the VEMs are asked whether a silent active lives |
//! | `reset` | the last words |
//! | `sync` | whether the standby is in step, and what mends it |
//! | `pinning` | the peer becomes trusted, or is so no more |
//! | `detection`, `epochs` | the peer's liveness; epochs seen and reserved |
//! | `context` | the books every phase keeps: record, writes, what was said |
//! | `status`, `check`, `rows` | the operator's view; the invariants; the states by name |
//! | `heartbeat` | the path that the real-time thread and the simulation drive |

mod activating;
mod active;
mod alone;
mod announcing;
mod boot;
mod check;
mod commands;
mod context;
mod core;
mod detection;
mod epochs;
mod gap;
mod hearing;
mod heartbeat;
mod input;
mod output;
mod phase;
mod pinning;
mod record;
mod reset;
mod rows;
mod speech;
mod split_brain;
mod standby;
mod status;
mod switchover;
mod sync;
mod votes;

pub use crate::core::Core;
pub use check::Violation;
pub use heartbeat::{
    DEFAULT_INTERVAL_MS, DEFAULT_MISSES, GASP_PACE_MS, GASPS_MAX, HeartbeatPath, INTERVAL_MS,
    LINKS_MAX, LinkMonitor, MISSES, Received, Timing,
};
pub use input::{Command, Input, ServicesHealth, Start};
pub use output::Output;
pub use record::{Identities, NodeRecord, RESET_REASONS_MAX, VemPin};

#[cfg(test)]
mod tests;
