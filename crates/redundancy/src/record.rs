//! What a node remembers of itself: the content of the node file.

use model::{ConflictPolicy, Epoch, NodeKey, PairId, Role, Time};
use serde::{Deserialize, Serialize};
pub use wire::control::VemPin;

/// Reset reasons kept (behaviour §6 shows the last four; issue: ten).
pub const RESET_REASONS_MAX: usize = 10;

/// Identities beside those that are pinned. The core keeps them and does not look at them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identities {
    /// What this node's epochs are ordered by, if it is not the fingerprint of its identity: the
    /// identity was rotated.
    pub node: Option<NodeKey>,
    /// The same of the peer.
    pub peer_node: Option<NodeKey>,
    /// Pinned beside the peer's identity while the peer changes it.
    pub peer_next: Option<NodeKey>,
    /// When the peer was pinned, in seconds since 1970, for display; 0 is unknown.
    pub peer_since_unix_s: u64,
}

/// The node's own durable state; never replicated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Configured role.
    pub role: Role,
    /// Pair ID.
    pub pair: Option<PairId>,
    /// The peer's pinned identity.
    pub peer: Option<NodeKey>,
    /// Identities of host agents: pinned, or removed.
    pub vems: Vec<VemPin>,
    /// What else must be remembered of identities.
    pub identities: Identities,
    /// Heartbeat interval in milliseconds; 0 is the default profile.
    pub interval_ms: u32,
    /// Beats that may be missed; 0 is the default profile.
    pub misses: u8,
    /// Highest epoch seen from anybody.
    pub highest_epoch: Epoch,
    /// The last epoch under which this node acted.
    pub led_epoch: Epoch,
    /// The highest epoch this node has reserved or used, so that none is used twice.
    pub reserved_epoch: Epoch,
    /// This node committed without a standby since they last were synchronised, or is free to
    /// lead by itself.
    pub alone: bool,
    /// It has been part of a pair: booting by itself it must ask before it leads.
    pub paired: bool,
    /// A clone of this node was seen: it leads by itself only when an operator has said so.
    pub cloned: bool,
    /// How long a node that boots by itself, and may not lead, waits for the other one before it
    /// leads nevertheless (seconds); `None` is for ever.
    pub boot_wait_s: Option<u32>,
    /// Newest last, at most [`RESET_REASONS_MAX`].
    pub reset_reasons: Vec<String>,
    /// When this node restarted the pair as an unstable standby, by the machine's clock.
    pub pair_restarts: Vec<Time>,
    /// Who resets if both nodes were active.
    pub conflict_policy: ConflictPolicy,
}
