//! The heartbeat datagram.
//!
//! Sealed with ChaCha20-Poly1305 under a key exported from the control connection:
//! `key id (8) ‖ counter (8) ‖ ciphertext ‖ tag (16)`; the nonce is `direction (4) ‖ counter (8)`.
//! Nothing behind the key id and counter is looked at before the tag has been verified.

use model::{ConflictPolicy, Epoch, Incarnation, Lsn, PairId, Role, ServiceName};
use serde::{Deserialize, Serialize};

/// Largest datagram on an HA link; the content is below 500 bytes, and whatever is longer is
/// dropped unread.
pub const DATAGRAM_MAX_BYTES: usize = 1200;

/// What a node says of itself in each heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts the sender's beats on this link; also tells loss and order.
    pub sequence: u64,
    /// The sender's clock when sent, echoed by the peer to measure the round trip (nanoseconds).
    pub sent_ns: u64,
    /// The last `sent_ns` received from the peer on this link, 0 if none.
    pub echo_ns: u64,
    /// How long the sender held that echo (nanoseconds).
    pub echo_held_ns: u64,
    /// The sender's interval (milliseconds) and misses allowed: its hold time.
    pub interval_ms: u32,
    /// See `interval_ms`.
    pub misses: u8,
    /// What the redundancy core says.
    pub content: Content,
}

/// The part of a heartbeat that the redundancy core composes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Counts what the core has said since its start: of two contents of one incarnation, by
    /// whichever links they came, the larger is the newer.
    pub revision: u64,
    /// The sender's pair.
    pub pair: Option<PairId>,
    /// Its operational role.
    pub role: Role,
    /// Its start.
    pub incarnation: Incarnation,
    /// What it is doing.
    pub state: State,
    /// Epoch it acts under, or highest it has seen.
    pub epoch: Epoch,
    /// The epoch it would take over under; a stable standby has one.
    pub reserved: Option<Epoch>,
    /// The active's leave for this standby to take over, by the active's epoch.
    pub grant: bool,
    /// Its last commit.
    pub lsn: Lsn,
    /// The last commit of the peer that is durable here.
    pub acked: Lsn,
    /// Hash of its running configuration, canonical.
    pub config_hash: u64,
    /// Whether it was alone when it last committed.
    pub alone: bool,
    /// Finished canary decisions: grows while the decision path is alive.
    pub canary: u64,
    /// Newest commit when it began to act; the default if it does not.
    pub base: (Epoch, Lsn),
    /// What an active that has met another active brings forward.
    pub contest: Option<Contest>,
    /// The active of this epoch is to reset: the sender, an unstable standby, restarts the pair.
    pub restart: Option<Epoch>,
    /// A service that synchronisation needs and that does not run on the sender.
    pub down: Option<ServiceName>,
}

/// What decides which of two actives resets. Final once said: both sides judge the same two
/// contests, however late each hears of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contest {
    /// The epoch of the other active, against which this is said.
    pub rival: Epoch,
    /// The sender's newest commit.
    pub history: (Epoch, Lsn),
    /// Its newest commit when it began to act.
    pub base: (Epoch, Lsn),
    /// The policy that it was given.
    pub policy: ConflictPolicy,
    /// Seconds since its configuration was last changed, if it has seen that change.
    pub config_age_s: Option<u32>,
    /// VEMs that obey it.
    pub vems: u16,
}

/// Redundancy state as the peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Started, has not settled who leads.
    Initializing,
    /// Decides.
    Active,
    /// Was active, has stopped acting, and hands over.
    Yielded,
    /// Follows, not yet stable.
    Synchronizing,
    /// Follows, ready to take over.
    Standby,
    /// Ends its processes.
    Resetting,
    /// Is active under its epoch but was stopped for longer than the hold time: it does not act
    /// until it has learnt that nobody took over meanwhile. Alive, and no conflict.
    Paused,
}

/// The last word of a node whose processes have died, pre-sealed by the System Manager and held
/// by the guardian: single use, valid for one epoch and incarnation only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gasp {
    /// The epoch that ends with it.
    pub epoch: Epoch,
    /// The start that ends with it.
    pub incarnation: Incarnation,
}

/// What travels inside the AEAD envelope.
#[allow(
    clippy::large_enum_variant,
    reason = "a box would allocate in the heartbeat thread, and nearly all are heartbeats"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Datagram {
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// A dying gasp.
    Gasp(Gasp),
    /// The gasp was heard; stop repeating.
    GaspHeard(Gasp),
}
