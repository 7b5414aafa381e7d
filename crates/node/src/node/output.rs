//! All that a node can ask of the world.

use model::{Epoch, LinkId, ServiceName};
use redundancy::NodeRecord;
use serde::{Deserialize, Serialize};
use wire::broker::BrokerFrame;
use wire::checkpoint::Acknowledgement;
use wire::console::ToShell;
use wire::control::ControlMessage;
use wire::heartbeat::{Datagram, Gasp};
use wire::log::LogRecord;
use wire::vem::ToVem;

use crate::service::{SessionId, VemConnection};

/// One effect.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are heartbeats, and few are kept"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeOutput {
    /// Send to the peer.
    Datagram {
        /// On which link.
        link: LinkId,
        /// What.
        datagram: Datagram,
    },
    /// Send on the control connection; dropped if there is none.
    Control(ControlMessage),
    /// Whether this node's broker can have a connection to the peer's. When it cannot any more,
    /// a standing one has broken.
    BulkListens(bool),
    /// Send on the brokers' connection; dropped if there is none.
    Bulk(BrokerFrame),
    /// Close the brokers' connection.
    CloseBulk,
    /// Write the node file; answer with [`super::NodeInput::Persisted`].
    Persist {
        /// To be echoed.
        write: u64,
        /// The whole record.
        record: NodeRecord,
    },
    /// Let the disk work; some time later give [`super::NodeInput::RunWork`].
    Work {
        /// Process that asks.
        pid: u32,
        /// Its work.
        work: u64,
    },
    /// Start a service's process.
    Spawn {
        /// Which.
        service: ServiceName,
    },
    /// The gasp that the guardian sends if the node's processes die.
    SealGasp(Option<Gasp>),
    /// End everything and start afresh.
    Reset {
        /// Why.
        reason: String,
    },
    /// It acts under this epoch from now on.
    Activated {
        /// The epoch.
        epoch: Epoch,
    },
    /// A configuration change is answered (for measurement; nothing to do).
    Changed {
        /// How far it went.
        reached: Acknowledgement,
    },
    /// A line for the log.
    Log(LogRecord),
    /// Whether host agents can connect. When they cannot any more, standing connections broke.
    VemsListen(bool),
    /// Send to a host agent.
    Vem {
        /// Which connection.
        connection: VemConnection,
        /// What.
        message: ToVem,
    },
    /// Close a host agent's connection.
    CloseVem(VemConnection),
    /// Send to an operator's shell.
    Shell {
        /// Which session.
        session: SessionId,
        /// What.
        message: ToShell,
    },
    /// Close an operator's session.
    CloseShell(SessionId),
    /// All operators' sessions have broken.
    ShellsGone,
}
