//! All that can happen to a node.

use model::{LinkId, ServiceName};
use serde::{Deserialize, Serialize};
use wire::broker::BrokerFrame;
use wire::control::ControlMessage;
use wire::heartbeat::Datagram;

use crate::service::{SessionId, ShellEvent, VemConnection, VemEvent};

/// One event. Everything from outside has been authenticated.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are heartbeats, and few are kept"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeInput {
    /// The deadline has come.
    Tick,
    /// A datagram of the peer.
    Datagram {
        /// Where it arrived.
        link: LinkId,
        /// What.
        datagram: Datagram,
    },
    /// The control connection stands.
    ControlConnected,
    /// It is gone.
    ControlGone,
    /// A message on it.
    Control(ControlMessage),
    /// The connection between the brokers stands.
    BulkConnected,
    /// It is gone.
    BulkGone,
    /// A frame on it.
    Bulk(BrokerFrame),
    /// A write of the node file is durable.
    Persisted {
        /// Its number.
        write: u64,
    },
    /// It failed.
    PersistFailed {
        /// Its number.
        write: u64,
    },
    /// A process asked for by [`super::NodeOutput::Spawn`] runs.
    Spawned {
        /// Which service.
        service: ServiceName,
        /// Its number, never used before in this node.
        pid: u32,
    },
    /// It could not be started.
    SpawnFailed {
        /// Which service.
        service: ServiceName,
        /// Why.
        error: String,
    },
    /// A service's process is killed.
    Kill {
        /// Which service.
        service: ServiceName,
    },
    /// A service's process is stopped as by `SIGSTOP`: what reaches it waits.
    Stop {
        /// Which service.
        service: ServiceName,
    },
    /// It goes on.
    Continue {
        /// Which service.
        service: ServiceName,
    },
    /// What the wall clock shows, for display; may jump.
    WallClock {
        /// Seconds since 1970.
        unix_s: u64,
    },
    /// The disk gets to [`super::NodeOutput::Work`] now.
    RunWork {
        /// Process that asked.
        pid: u32,
        /// Its work.
        work: u64,
    },
    /// Something of a host agent.
    Vem {
        /// Which connection.
        connection: VemConnection,
        /// What.
        event: VemEvent,
    },
    /// Something of an operator's shell.
    Shell {
        /// Which session.
        session: SessionId,
        /// What.
        event: ShellEvent,
    },
}
