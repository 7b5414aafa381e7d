//! System Manager ↔ one service, over the socket pair the service inherits.
//!
//! This path stands below `mts`: roles, readiness, redundancy questions of `vshd` and log records
//! travel here, and go on while the broker is dead.

use std::net::SocketAddr;

use model::{
    ConflictPolicy, Epoch, Incarnation, LinkId, Lsn, NodeKey, PairId, PortTraffic, Role,
    ServiceName, Slot,
};
use serde::{Deserialize, Serialize};

use crate::log::LogRecord;
use crate::pairing::{Code, Purpose};

/// What a node does at the moment, as its services are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Activity {
    /// Not settled: hold everything.
    Idle,
    /// Run hot, apply checkpoints, answer nobody.
    Standby,
    /// Decide, under this epoch.
    Active(Epoch),
    /// Finish what is in flight, begin nothing, say when done (switchover).
    Quiesce(Epoch),
}

/// What a service must know of the node, sent at start and at each change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posture {
    /// Counts changes; echoed in [`FromService::Applied`].
    pub sequence: u64,
    /// What the node does.
    pub activity: Activity,
    /// This node's start.
    pub incarnation: Incarnation,
    /// This node's place.
    pub slot: Slot,
    /// Whether the peer's System Manager is connected and follows or leads us.
    pub peer_connected: bool,
    /// Whether configuration commits must wait for the standby (`replicated`).
    pub redundant: bool,
}

/// From the System Manager to a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToService {
    /// What the node does now. The first message after the handshake.
    Posture(Posture),
    /// Answers [`FromService::Ask`].
    Answer {
        /// The question's number.
        question: u64,
        /// The answer.
        answer: Answer,
    },
    /// A log line for open consoles (`vshd` only).
    Console(String),
    /// Ask every registered VEM whether the active lives (`vem_mgr` only); told as
    /// [`VemReport::tally`].
    AskVotes {
        /// Its number.
        vote: u64,
        /// The epoch to be taken over under; `None` is a mere question, without a promise.
        candidate: Option<Epoch>,
        /// How long the active may take to answer a VEM (milliseconds).
        within_ms: u32,
    },
    /// Write a durable archive of what is stored here, with its history (`pss` only): this node
    /// has lost a conflict and follows from its next start. Answered by
    /// [`FromService::Archived`]. Content that was archived at the same history already is not
    /// written twice.
    Archive {
        /// To be echoed.
        number: u64,
        /// The epoch that prevails.
        rival: Epoch,
        /// Why, in the operator's words.
        reason: String,
    },
    /// Synchronise afresh (`pss` of a standby only): it has stalled, or its content differs.
    Resync {
        /// The content is not trusted: take a bulk sync instead of asking for what is missing.
        whole: bool,
    },
    /// Finish and exit within the stop deadline.
    Stop,
    /// Whom to trust from now on (`mts` and `vem_mgr`), durable before it is told.
    Trust(Trust),
}

/// Whom a service with connections to the outside trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The peer: one identity, two while it changes it, none when unpaired.
    pub peer: Vec<NodeKey>,
    /// Of the two nodes, this one dials.
    pub dials: bool,
    /// Host agents.
    pub vems: Vec<NodeKey>,
    /// What host agents are to trust: the identities of both nodes.
    pub gateways: Vec<NodeKey>,
    /// Counts this node's changes of its own identity file since it started.
    pub identity: u64,
}

/// From a service to the System Manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromService {
    /// First message: who this is. `SRV_STATE_HANDSHAKED` from here.
    Handshake {
        /// Its name.
        service: ServiceName,
    },
    /// Its work loop has turned; sent every heartbeat period.
    Heartbeat {
        /// Counts turns of the work loop.
        turns: u64,
    },
    /// The posture with this number is in force; a standby service is hot, a quiesced one drained.
    Applied {
        /// [`Posture::sequence`].
        sequence: u64,
    },
    /// How far synchronisation is (`pss` only), at each change, at most every 10 ms.
    Sync(SyncReport),
    /// What the VEMs know (`vem_mgr` only), at each change.
    Vems(VemReport),
    /// A canary has gone from `vem_mgr` through the decision path and has come back to it
    /// (`vem_mgr` only).
    Canary,
    /// Before the first commit without the standby: may proceed only when answered.
    AskAlone {
        /// Echoed as [`Answer::Done`].
        question: u64,
    },
    /// A question or command.
    Ask {
        /// Chosen by the service, echoed.
        question: u64,
        /// What is asked.
        ask: Ask,
    },
    /// The archive with this number is durable (`pss` only).
    Archived {
        /// [`ToService::Archive`]'s number.
        number: u64,
    },
    /// A line for the log.
    Log(LogRecord),
    /// What the service's ports have counted since it last said so; sent only when something was,
    /// and at most [`PORTS_MAX`] ports.
    Traffic(Vec<PortTraffic>),
    /// How far the host agents that obey this node are with [`Trust::gateways`] (`vem_mgr` only),
    /// at each change.
    Gateways {
        /// What they were told.
        keys: Vec<NodeKey>,
        /// How many have not confirmed it.
        pending: u16,
    },
    /// A host agent is not to be trusted any more (`vem_mgr` only): an operator removed it.
    RemoveVem {
        /// Its identity.
        key: NodeKey,
    },
}

/// Most ports of one process: a bulk port on each of four links is the most there is, with room.
pub const PORTS_MAX: usize = 16;

/// Synchronisation as `pss` measures it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// Last commit here.
    pub lsn: Lsn,
    /// Last commit of the active that is durable here (standby), or there (active).
    pub acked: Lsn,
    /// Bulk sync has ended (standby) or the standby has said so (active).
    pub bulk_done: bool,
    /// Canonical hash of the running configuration.
    pub config_hash: u64,
    /// Epoch under which `lsn` was committed; with it, the node's history.
    pub epoch: Epoch,
}

/// What `vem_mgr` knows of the VEMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VemReport {
    /// VEMs in the replicated inventory.
    pub registered: u16,
    /// Of them, connected to this node now.
    pub connected: u16,
    /// Highest epoch that any VEM has told to have obeyed.
    pub highest_epoch: Epoch,
    /// Highest epoch that any VEM has told to have promised to a candidate.
    pub promised_epoch: Epoch,
    /// VEMs connected that obey this node's epoch.
    pub obeying: u16,
    /// A VEM refused our claim as a clone's.
    pub clone_seen: bool,
    /// The newest vote.
    pub tally: Tally,
    /// The newest posture `Idle` since which every VEM connected has told what it has seen.
    pub asked: u64,
}

/// How a vote of the VEMs stands. A VEM that is not connected, or goes before it has answered, is
/// absent: it is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The vote's number; 0 if none was asked for.
    pub vote: u64,
    /// Its candidate.
    pub candidate: Option<Epoch>,
    /// Asked, and may yet answer.
    pub open: u16,
    /// The active has answered them.
    pub alive: u16,
    /// The active has not.
    pub silent: u16,
    /// It has told one of them that it may commit without a standby.
    pub alone: bool,
}

/// A question or command to the System Manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// `show system redundancy status`.
    RedundancyStatus,
    /// `show redundancy heartbeat`.
    HeartbeatStatus,
    /// `show redundancy traffic`.
    Traffic,
    /// `clear redundancy traffic`.
    ClearTraffic,
    /// `show processes`.
    Processes,
    /// `show logging`: the last `lines`.
    Logging {
        /// How many, at most [`LOG_LINES_MAX`].
        lines: u16,
    },
    /// `system switchover`.
    Switchover,
    /// `system redundancy role`.
    SetRole(Role),
    /// `ha-pair id`.
    SetPairId(PairId),
    /// `system redundancy heartbeat`.
    SetHeartbeat {
        /// Milliseconds, 10 to 10,000.
        interval_ms: u32,
        /// Beats that may be missed before the peer counts as dead, 2 to 20.
        misses: u8,
    },
    /// `system redundancy split-brain`.
    SetConflictPolicy(ConflictPolicy),
    /// `system redundancy boot-wait`: seconds, 10 to 86,400; `None` is for ever.
    SetBootWait(Option<u32>),
    /// `reload`, answered before it happens.
    Reload,
    /// `reload module N` of the other supervisor; only the active may.
    ReloadStandby,
    /// Lead although the peer cannot be asked (`force-active`).
    ForceActive,
    /// `redundancy pair`, `vem enroll`: a one-time code.
    Pair(Purpose),
    /// `redundancy join`.
    Join {
        /// Where the other node listens for it.
        address: SocketAddr,
        /// What it printed.
        code: Code,
    },
    /// `redundancy unpair`.
    Unpair,
    /// `redundancy identity rotate`: another key, even if host agents are away that could not
    /// learn it.
    RotateIdentity {
        /// See above.
        force: bool,
    },
    /// `show redundancy identity`.
    Identity,
}

/// Most lines of one `show logging`.
pub const LOG_LINES_MAX: u16 = 1000;

/// Answer of the System Manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done, or begun.
    Done,
    /// Refused, in the words the operator sees.
    Refused(String),
    /// See [`Ask::RedundancyStatus`].
    RedundancyStatus(Box<RedundancyStatus>),
    /// See [`Ask::HeartbeatStatus`].
    HeartbeatStatus(HeartbeatStatus),
    /// See [`Ask::Traffic`].
    Traffic(Vec<PortTraffic>),
    /// See [`Ask::Processes`].
    Processes(Vec<Process>),
    /// See [`Ask::Logging`].
    Logging(Vec<String>),
    /// Done, and the operator is told this.
    Noted(String),
    /// See [`Ask::Pair`].
    Code(OfferedCode),
    /// See [`Ask::Identity`].
    Identity(Box<IdentityStatus>),
}

/// A code as it is told to the operator, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedCode {
    /// The code.
    pub code: Code,
    /// What it is good for.
    pub purpose: Purpose,
    /// Seconds for which it is valid.
    pub valid_s: u32,
    /// Failures that it outlives, plus one.
    pub tries: u8,
    /// Where the node listens for whoever was told it.
    pub addresses: Vec<SocketAddr>,
}

/// `show redundancy identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// What peers pin of this node.
    pub fingerprint: NodeKey,
    /// What its epochs are ordered by: the fingerprint of its first identity.
    pub node: NodeKey,
    /// The pinned peer.
    pub peer: Option<PinnedPeer>,
    /// The code that is valid now, without the code.
    pub code: Option<CodeStatus>,
    /// Nodes that are here and not paired, those seen last first.
    pub found: Vec<FoundNode>,
    /// Pinned host agents.
    pub vems: Vec<NodeKey>,
}

/// The other node of the pair, as it is pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedPeer {
    /// Its fingerprint.
    pub fingerprint: NodeKey,
    /// Pinned beside it while the peer changes its identity.
    pub next: Option<NodeKey>,
    /// When it was pinned, in seconds since 1970; 0 if by hand.
    pub since_unix_s: u64,
    /// It is connected now.
    pub connected: bool,
}

/// A code that is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeStatus {
    /// What it is good for.
    pub purpose: Purpose,
    /// Seconds until it ends by itself.
    pub left_s: u32,
    /// Tries left.
    pub tries: u8,
}

/// Somebody whose identity is not pinned here, on an HA link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundNode {
    /// Its fingerprint.
    pub fingerprint: NodeKey,
    /// Where it was last seen.
    pub address: String,
    /// How often.
    pub count: u64,
    /// Seconds since it was seen first, and last.
    pub first_s: u64,
    /// See `first_s`.
    pub last_s: u64,
}

/// What `show system redundancy status` is rendered from (behaviour §1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedundancyStatus {
    /// Configured role.
    pub administrative_role: Role,
    /// Role in force.
    pub operational_role: Role,
    /// Operational mode is HA (else None): the pair is synchronised.
    pub mode_ha: bool,
    /// This node's place.
    pub slot: Slot,
    /// This node.
    pub this: SupervisorStatus,
    /// The other one; `None` is *Not present*.
    pub other: Option<SupervisorStatus>,
    /// The epoch in force or last seen.
    pub epoch: Epoch,
    /// Why this node waits, is isolated or not stable; empty when there is nothing to say.
    pub reason: String,
    /// Pair ID, if one is set.
    pub pair: Option<PairId>,
    /// Who resets if both nodes were active.
    pub conflict_policy: ConflictPolicy,
    /// How long this node waits at most for the other one when it boots by itself and may not lead
    /// (seconds); `None` is for ever.
    pub boot_wait_s: Option<u32>,
}

/// One supervisor's three states, in the original's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// `Active`, `Standby`, `Initializing` …
    pub redundancy_state: String,
    /// `Active`, `HA standby`, `Offline`, `Unknown`.
    pub supervisor_state: String,
    /// `Active with HA standby` …
    pub internal_state: String,
}

/// `show redundancy heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatStatus {
    /// Our interval and misses, then those in force (the larger of both sides).
    pub interval_ms: u32,
    /// See `interval_ms`.
    pub misses: u8,
    /// The interval that the peer states (milliseconds); `None` before contact.
    pub peer_interval_ms: Option<u32>,
    /// Hold time in force (milliseconds).
    pub hold_time_ms: u32,
    /// The peer states another timing than ours: until it states the same, the larger hold time
    /// and the shorter interval are in force.
    pub awaits_confirmation: bool,
    /// Canary decisions finished since this start; 0 on a node that has not been active.
    pub canaries: u64,
    /// The machine's watchdog: its device, or why it is not there; `None` if none is configured.
    pub watchdog: Option<Result<String, String>>,
    /// Whether the heartbeat thread got real-time scheduling, and why not.
    pub real_time: Result<(), String>,
    /// One row per link.
    pub links: Vec<LinkStatus>,
}

/// One HA link as measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Which.
    pub link: LinkId,
    /// Its name in the configuration file.
    pub name: String,
    /// Heard within the hold time.
    pub up: bool,
    /// Beats sent, received, lost (gaps of the sequence), refused (bad tag, replay).
    pub sent: u64,
    /// See `sent`.
    pub received: u64,
    /// See `sent`.
    pub lost: u64,
    /// See `sent`.
    pub refused: u64,
    /// Last round trip (microseconds).
    pub round_trip_us: u64,
    /// Mean round trip of the last 500 to 1000 (microseconds).
    pub round_trip_mean_us: u64,
    /// Round trip that 99 of 100 of these do not exceed (microseconds, to an eighth).
    pub round_trip_p99_us: u64,
    /// Largest lateness of an arrival, beyond the interval, in the last 500 to 1000 beats
    /// (microseconds).
    pub jitter_us: u64,
    /// Lateness that 99 of 100 of these do not exceed (microseconds, to an eighth).
    pub jitter_p99_us: u64,
    /// Since the last beat heard (milliseconds); `None` before the first.
    pub last_seen_ms: Option<u64>,
}

/// One row of `show processes`; PIDs are the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `None` is a service that does not run.
    pub pid: Option<u32>,
    /// `S`, `R`, `NR`, `ER` …
    pub state: String,
    /// Program counter, hex, `None` where the kernel does not tell.
    pub pc: Option<String>,
    /// Times started.
    pub start_count: u32,
    /// Terminal, `None` for a daemon.
    pub tty: Option<String>,
    /// Name.
    pub name: String,
}
