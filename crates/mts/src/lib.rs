//! The broker of a node: carries messages between its services, and to and from the services of
//! the other node.
//!
//! [`Broker`] is pure: the process that owns the sockets feeds it [`Input`]s and carries out its
//! [`Output`]s in order. Nothing here survives the process. Persistent and logged messages are
//! not part of it yet.
//!
//! Invariants:
//! - a message's `source` is the SAP its sender bound, and `from_peer` is true exactly for
//!   messages that came over the peer's connection: neither can be forged by a client;
//! - one SAP is bound by at most one client, and a client binds at most one SAP;
//! - FIFO for each (sender, receiver): messages are never reordered between two SAPs;
//! - every queue is bounded by the constants of [`limits`]; a message that finds no room is
//!   answered [`wire::broker::Kind::Undeliverable`] if it is a request (or a notification with a
//!   non-zero correlation, by which its sender asks to be told), and counted in any case;
//! - a message that came from the peer is never sent back to it: no loops;
//! - at most [`limits::CLIENT_WINDOW_FRAMES`] frames are with the shell for one client, so a
//!   reader that stops reading fills its own queue and nobody else's.

mod broker;
mod input;
pub mod limits;
mod output;
mod queue;
#[cfg(test)]
mod tests;

pub use broker::{Broker, Counters};
pub use input::{ClientId, Input};
pub use output::Output;
