//! The System Manager of a node: the redundancy and the service core, joined.
//!
//! A [`Supervisor`] is driven like every core: `handle(now, SupervisorInput)`, then drain
//! `poll_output()`, then sleep until `next_deadline()`. The heartbeat thread (or the simulation)
//! owns a [`redundancy::HeartbeatPath`] beside it.

mod input;
mod output;

pub use input::SupervisorInput;
pub use output::SupervisorOutput;
