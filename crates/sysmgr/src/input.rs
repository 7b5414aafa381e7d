//! All that can happen to the service supervisor.

use model::{Incarnation, ServiceName, Slot};
use serde::{Deserialize, Serialize};
use wire::supervision::Activity;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Time passed; nothing else happened.
    Tick,
    /// A process asked for by [`crate::Output::Spawn`] runs.
    Spawned {
        /// Which service.
        service: ServiceName,
        /// Its host PID.
        pid: u32,
    },
    /// It could not be started.
    SpawnFailed {
        /// Which service.
        service: ServiceName,
        /// Why, in the kernel's words.
        error: String,
    },
    /// A process is gone.
    Exited {
        /// Which service.
        service: ServiceName,
        /// Its host PID: an exit of a process that was replaced already changes nothing.
        pid: u32,
        /// How.
        status: ExitStatus,
    },
    /// The service's first message.
    Handshake {
        /// Which service.
        service: ServiceName,
    },
    /// Its work loop has turned.
    Heartbeat {
        /// Which service.
        service: ServiceName,
        /// Turns so far; a count that stands still is not a sign of life.
        turns: u64,
    },
    /// It has applied the posture with this number.
    Applied {
        /// Which service.
        service: ServiceName,
        /// The posture's number.
        sequence: u64,
    },
    /// What the node does from now on.
    SetPosture(PostureChange),
}

/// The part of a posture that changes with the node's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostureChange {
    /// Counts changes.
    pub sequence: u64,
    /// What the node does.
    pub activity: Activity,
    /// The peer follows or leads us.
    pub peer_connected: bool,
    /// Commits wait for the standby.
    pub redundant: bool,
    /// The node's place: changes when a standalone node becomes primary.
    pub slot: Slot,
}

/// How the supervisor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Told to every service.
    pub incarnation: Incarnation,
    /// Told to every service.
    pub slot: Slot,
}
