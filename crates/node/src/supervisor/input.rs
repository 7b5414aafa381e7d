//! All that can happen to a node's System Manager.

use core::time::Duration;

use model::{LinkId, PortTraffic, ServiceName, Time};
use serde::{Deserialize, Serialize};
use sysmgr::ExitStatus;
use wire::control::ControlMessage;
use wire::heartbeat::{Content, Gasp};
use wire::supervision::FromService;

use crate::trust::TrustEvent;

/// One event. Everything from outside the node has been authenticated by the shell: it comes from
/// the pinned peer, or from a process that this System Manager started.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are heartbeats, and few are kept"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorInput {
    /// The deadline has come.
    Tick,
    /// A heartbeat of the peer, already filtered and measured by
    /// [`redundancy::HeartbeatPath::received`].
    Heartbeat {
        /// Where it arrived.
        link: LinkId,
        /// What the peer says.
        content: Content,
        /// The peer's interval times its misses.
        peer_hold_time: Duration,
        /// The frame's `echo_ns`: when the newest of our beats that the peer had received was
        /// sent; zero if it had none.
        echo: Time,
    },
    /// The peer's processes have died.
    Gasp(Gasp),
    /// The peer has heard our gasp.
    GaspHeard(Gasp),
    /// The control connection to the pinned peer stands.
    PeerConnected,
    /// It has gone.
    PeerDisconnected,
    /// A message on it.
    Control(ControlMessage),
    /// The write asked for by [`super::SupervisorOutput::Persist`], and all before it, are durable.
    Persisted {
        /// Its number.
        write: u64,
    },
    /// It failed.
    PersistFailed {
        /// Its number.
        write: u64,
    },
    /// Something of a pairing, or at a door.
    Trust(TrustEvent),
    /// The wall clock, for display; at start and now and then.
    WallClock {
        /// Seconds since 1970.
        unix_s: u64,
    },
    /// A service's process runs.
    Spawned {
        /// Which.
        service: ServiceName,
        /// Host PID.
        pid: u32,
    },
    /// It could not be started.
    SpawnFailed {
        /// Which.
        service: ServiceName,
        /// Why.
        error: String,
    },
    /// It is gone.
    Exited {
        /// Which.
        service: ServiceName,
        /// Host PID, as in [`SupervisorInput::Spawned`].
        pid: u32,
        /// How.
        status: ExitStatus,
    },
    /// What the shell's own ports (heartbeat, control) have counted since it last said so.
    Traffic(Vec<PortTraffic>),
    /// A message of a service.
    FromService {
        /// Which.
        service: ServiceName,
        /// What it says.
        message: FromService,
    },
}
