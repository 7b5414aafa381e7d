//! All that can happen to the redundancy core.

use core::time::Duration;

use model::{ConflictPolicy, Epoch, LinkId, PairId, Role, ServiceName, Time};
use serde::{Deserialize, Serialize};
use wire::control::ControlMessage;
use wire::heartbeat::{Content, Gasp};
use wire::supervision::{SyncReport, VemReport};

use crate::record::NodeRecord;

/// One event. Everything from outside the node has been authenticated by the shell.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are heartbeats, and none is kept"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Time passed; nothing else happened.
    Tick,
    /// A write asked for by [`crate::Output::Persist`] is durable.
    Persisted {
        /// The write's number.
        write: u64,
    },
    /// The write failed: the node file cannot be trusted to hold what it must.
    PersistFailed {
        /// The write's number.
        write: u64,
    },
    /// A heartbeat of the pinned peer.
    Heartbeat {
        /// Where it arrived.
        link: LinkId,
        /// What the peer says.
        content: Content,
        /// The peer's hold time: its interval times its misses.
        peer_hold_time: Duration,
        /// When the newest of our own beats that the peer had received was sent, by our clock;
        /// zero if it had none. What the peer says after a given instant is known by it.
        echo: Time,
    },
    /// The peer's guardian or System Manager says that its processes have died.
    Gasp(Gasp),
    /// The peer has heard our gasp.
    GaspHeard(Gasp),
    /// The control connection to the pinned peer stands.
    PeerConnected,
    /// It has gone. No sign of death by itself: heartbeats decide.
    PeerDisconnected,
    /// A peer has been paired with this running node.
    PeerPinned {
        /// If both lead, this one is to restart and follow.
        gives_way: bool,
        /// The highest epoch that the peer has seen.
        above: Epoch,
    },
    /// The peer was unpaired: nobody is trusted any more, and nothing comes from it.
    PeerUnpinned,
    /// A message on it.
    Control(ControlMessage),
    /// The System Manager's own view of its services.
    Services(ServicesHealth),
    /// A service that synchronisation needs does not run, or all do again.
    Down(Option<ServiceName>),
    /// All services have applied the posture with this number (quiesced, active …).
    PostureApplied {
        /// [`crate::Output::Posture`]'s number.
        sequence: u64,
    },
    /// How far synchronisation is.
    Sync(SyncReport),
    /// `pss` asks leave to commit without the standby.
    AskAlone {
        /// Echoed in [`crate::Output::AloneGranted`].
        question: u64,
    },
    /// What was to be archived is durable.
    Archived {
        /// [`crate::Output::Archive`]'s number.
        number: u64,
    },
    /// What the VEMs know.
    Vems(VemReport),
    /// A canary decision finished.
    Canary {
        /// Counts them.
        finished: u64,
    },
    /// An operator's command.
    Command {
        /// Echoed in [`crate::Output::CommandDone`].
        command: u64,
        /// What is wanted.
        kind: Command,
    },
}

/// What the services' health means for redundancy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServicesHealth {
    /// Some are starting or restarting.
    Starting,
    /// All run and have applied their posture.
    Ready,
    /// A native service died, or escalation ended in failover: this node must not act.
    Failed,
}

/// An operator's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// `system switchover`.
    Switchover,
    /// `system redundancy role`.
    SetRole(Role),
    /// `ha-pair id`.
    SetPairId(PairId),
    /// `system redundancy heartbeat`.
    SetHeartbeat {
        /// Milliseconds.
        interval_ms: u32,
        /// Beats.
        misses: u8,
    },
    /// `system redundancy split-brain`.
    SetConflictPolicy(ConflictPolicy),
    /// `reload`.
    Reload,
    /// `reload module N` of the other supervisor.
    ReloadStandby,
    /// Lead although the peer cannot be asked.
    ForceActive,
    /// `system redundancy boot-wait`: how long a node that boots by itself, and may not lead,
    /// waits before it leads nevertheless (seconds); `None` is for ever.
    SetBootWait(Option<u32>),
}

/// How a node starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// What its node file holds.
    pub record: NodeRecord,
    /// Drawn for this start.
    pub incarnation: model::Incarnation,
    /// Its identity.
    pub node: model::NodeKey,
    /// Number of HA links.
    pub links: u8,
    /// Newest commit in its store: epoch it was made under, position.
    pub history: (Epoch, model::Lsn),
}
