//! Host agent ↔ `vem_mgr`: attachment, epoch claims, decisions, reports.
//!
//! A VEM keeps one TLS connection to each node of the pair, active and standby alike, and obeys
//! the one whose claim bears the highest epoch it has seen.

use model::{Epoch, FlowAttributes, FlowKey, Generation, ModuleNumber, NodeKey, Verdict};
use serde::{Deserialize, Serialize};

/// ALPN name of the connection: a VEM is the client, a node the server.
pub const PROTOCOL: &str = "twinwall-vem/1";

/// Most items of a batched message; bounds one frame to well below the frame limit.
pub const BATCH_MAX: usize = 256;

/// Most identities of a pair's nodes: two, each twice while it is changed.
pub const GATEWAY_KEYS_MAX: usize = 4;

/// Longest name of a port, in bytes, so that a full batch fits one message of the broker. Whoever
/// sends a longer one is cut off.
pub const PORT_MAX_BYTES: usize = 64;
/// Longest name of a security profile, in bytes: 32 and an organisation of 131.
pub const PROFILE_MAX_BYTES: usize = 164;

/// From a VEM to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromVem {
    /// First message of a connection.
    Hello {
        /// Name of the host, for display.
        host: String,
        /// What its fence holds.
        fenced: Fenced,
        /// Names and profiles of the protected ports.
        ports: Vec<Port>,
    },
    /// The claim was the highest seen, is durable, and is obeyed from now on.
    ClaimAccepted {
        /// The epoch claimed.
        epoch: Epoch,
    },
    /// The claim was refused.
    ClaimRefused {
        /// The epoch claimed.
        epoch: Epoch,
        /// What the VEM's fence holds.
        fenced: Fenced,
        /// True if the claim is a clone of an epoch already obeyed.
        clone: bool,
    },
    /// Asks for verdicts.
    Decide(Vec<DecisionRequest>),
    /// Tells of flows that began, ended or idled out.
    Report {
        /// At most [`BATCH_MAX`].
        flows: Vec<FlowReport>,
        /// Reports dropped since the last message because the queue was full.
        lost: u64,
    },
    /// Answers [`ToVem::Probe`].
    Alive {
        /// The probe's number.
        sequence: u64,
        /// What its fence holds.
        fenced: Fenced,
        /// Whether the active of the epoch obeyed has been heard within a hold time.
        active_heard: bool,
    },
    /// Asks a node whether it acts; a standby wants to know. Answered by [`ToVem::Acting`], or not
    /// at all.
    Inquire {
        /// Chosen by the VEM; echoed.
        question: u64,
    },
    /// Answers [`ToVem::Vote`].
    Ballot {
        /// The vote's number.
        vote: u64,
        /// Its candidate.
        candidate: Option<Epoch>,
        /// The answer.
        ballot: Ballot,
        /// What its fence holds now.
        fenced: Fenced,
    },
    /// By a claim of the other node, or a promise to it, the fence holds more: whoever acts under a
    /// lower epoch is refused from now on.
    Raised(Fenced),
    /// Answers [`ToVem::Gateways`]: these are pinned, durably, and nobody else.
    GatewaysPinned {
        /// Echoed.
        keys: Vec<NodeKey>,
    },
}

/// What a VEM's fence holds, durably: it obeys nothing below the higher of both.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Fenced {
    /// Highest epoch obeyed: somebody has acted under it.
    pub obeyed: Epoch,
    /// Highest epoch promised to a candidate: somebody may act under it.
    pub promised: Epoch,
}

impl Fenced {
    /// The lowest epoch that is obeyed.
    #[must_use]
    pub fn floor(self) -> Epoch {
        self.obeyed.max(self.promised)
    }

    /// The higher of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            obeyed: self.obeyed.max(other.obeyed),
            promised: self.promised.max(other.promised),
        }
    }
}

/// A VEM's answer to a standby that asks whether the active lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ballot {
    /// The active has answered it.
    Alive {
        /// It has no standby that may take over from it.
        alone: bool,
    },
    /// No active has. To a candidate it is a promise, durable before it leaves, to refuse every
    /// epoch below the candidate's.
    Silent,
    /// It cannot promise: its fence holds an epoch above the candidate's.
    Higher,
}

/// A protected port, as shown by `show module`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name in the host agent's configuration.
    pub name: String,
    /// Security profile bound to it.
    pub profile: String,
}

/// One undecided (or to be revalidated) flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRequest {
    /// Chosen by the VEM, unique within its run; echoed.
    pub request: u64,
    /// Name of the port.
    pub port: String,
    /// What the decision is made from.
    pub attributes: FlowAttributes,
    /// True if the flow already has a verdict of an older generation.
    pub revalidation: bool,
}

/// One verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The request's number.
    pub request: u64,
    /// What to do with the flow.
    pub verdict: Verdict,
    /// The policy it was decided under.
    pub generation: Generation,
}

/// Life of one flow, from the VEM that carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowReport {
    /// Name of the port.
    pub port: String,
    /// The flow as its first packet travelled.
    pub flow: FlowKey,
    /// What happened.
    pub event: FlowEvent,
    /// Packets and bytes, both directions together, until now.
    pub packets: u64,
    /// See `packets`.
    pub bytes: u64,
}

/// What a [`FlowReport`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowEvent {
    /// A verdict was installed.
    Installed,
    /// Both ends closed, or a reset was seen.
    Closed,
    /// No packet for the flow's idle time.
    Idle,
}

/// From a node to a VEM. Every message that asks for obedience bears the sender's epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToVem {
    /// Answers [`FromVem::Hello`].
    Welcome {
        /// The number this VEM is shown under.
        module: ModuleNumber,
    },
    /// The sender is active under this epoch.
    Claim {
        /// Its epoch.
        epoch: Epoch,
        /// Its current policy.
        generation: Generation,
    },
    /// The sender stops acting (switchover, yield); the epoch stays the highest seen.
    Release {
        /// Its epoch.
        epoch: Epoch,
    },
    /// Verdicts.
    Decided {
        /// The sender's epoch.
        epoch: Epoch,
        /// At most [`BATCH_MAX`].
        decisions: Vec<Decision>,
    },
    /// The policy changed: older verdicts are to be asked for again.
    Generation {
        /// The sender's epoch.
        epoch: Epoch,
        /// The new generation.
        generation: Generation,
    },
    /// Asks for a sign of life.
    Probe {
        /// Echoed.
        sequence: u64,
    },
    /// A standby asks whether the active lives. A newer vote of the same node replaces an older.
    Vote {
        /// Its number; echoed.
        vote: u64,
        /// The epoch it would take over under; `None` is a mere question, to which *silent*
        /// promises nothing.
        candidate: Option<Epoch>,
        /// How long the active may take to answer the VEM (milliseconds).
        within_ms: u32,
    },
    /// Answers [`FromVem::Inquire`]: the sender acts.
    Acting {
        /// The question's number.
        question: u64,
        /// Its epoch.
        epoch: Epoch,
        /// It may commit without a standby: whoever asks has no leave to take over, whatever it
        /// was told before it lost its links.
        alone: bool,
    },
    /// An operator restarts the host agent (`reload module`). Only the active that is obeyed may.
    Restart {
        /// The sender's epoch.
        epoch: Epoch,
    },
    /// The identities of the pair's nodes from now on: all that the VEM is to trust. Heeded from
    /// the node that is obeyed only.
    Gateways {
        /// The sender's epoch.
        epoch: Epoch,
        /// At most [`GATEWAY_KEYS_MAX`].
        keys: Vec<NodeKey>,
    },
}
