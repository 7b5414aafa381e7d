//! Services among themselves: bodies of broker messages, one enum for each receiving SAP.

use model::{Direction, Epoch, FlowKey, Generation, ModuleNumber, Verdict};
use serde::{Deserialize, Serialize};

/// To `policy_engine`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToPolicyEngine {
    /// From `vem_mgr`: decide. A request; answered by [`FromPolicyEngine::Decided`].
    Decide {
        /// Module that asks.
        module: ModuleNumber,
        /// At most [`crate::vem::BATCH_MAX`].
        requests: Vec<crate::vem::DecisionRequest>,
    },
    /// From `vem_mgr`: lives of flows. A notification.
    Report {
        /// Module that reports.
        module: ModuleNumber,
        /// At most [`crate::vem::BATCH_MAX`].
        flows: Vec<crate::vem::FlowReport>,
    },
    /// From `vshd`: `show policy-engine stats`.
    Stats,
    /// From `vshd`: `show service-path connection`.
    Connections,
    /// From `vem_mgr`: a canary through the decision path.
    Canary {
        /// Echoed.
        sequence: u64,
    },
}

/// Answers of `policy_engine`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromPolicyEngine {
    /// Verdicts, under this epoch; empty when the node is not active.
    Decided {
        /// The epoch they were decided under.
        epoch: Epoch,
        /// One for each request.
        decisions: Vec<crate::vem::Decision>,
    },
    /// `show policy-engine stats`.
    Stats {
        /// In the order of their names.
        policies: Vec<PolicyLookups>,
        /// Lookup events that were not logged, because there were too many.
        log_suppressed: u64,
    },
    /// `show service-path connection`: the first [`CONNECTIONS_SHOWN_MAX`].
    Connections {
        /// In the order of their keys.
        connections: Vec<Connection>,
        /// How many there are.
        total: u64,
        /// How many there can be.
        capacity: u64,
    },
    /// Answers [`ToPolicyEngine::Canary`].
    Canary {
        /// Echoed.
        sequence: u64,
    },
    /// To `vem_mgr`, a notification: the policy in force has this number.
    Generation(Generation),
}

/// Most connections in one answer: some 100 bytes each, so that it fits one message.
pub const CONNECTIONS_SHOWN_MAX: usize = 1000;

/// How often one policy was asked, and what its rules decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLookups {
    /// `policy@org`.
    pub policy: String,
    /// Decisions asked of it.
    pub lookups: u64,
    /// Its rules in order, then the decisions that none made.
    pub rules: Vec<RuleHits>,
}

/// How often one rule decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHits {
    /// `rule@org`, or `NOT_APPLICABLE`.
    pub rule: String,
    /// Decisions it made.
    pub hits: u64,
    /// `Permit`, `Drop`, `Log, Permit` …
    pub actions: String,
}

/// One live connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Module that carries it.
    pub module: ModuleNumber,
    /// Port it was decided for.
    pub port: String,
    /// Direction of its first packet.
    pub direction: Direction,
    /// The flow.
    pub flow: FlowKey,
    /// Its verdict.
    pub verdict: Verdict,
    /// The rule that decided it, empty if none matched.
    pub rule: String,
    /// Policy that decided it.
    pub generation: Generation,
    /// Seconds since it was decided, or since this node heard of it.
    pub age_s: u64,
}

/// To `vem_mgr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToVemMgr {
    /// From `vshd`: the VEM rows of `show module`.
    Modules,
    /// From `policy_engine`.
    PolicyEngine(FromPolicyEngine),
    /// From `vshd`: `reload module`. Answered by [`FromVemMgr::Restarting`] or
    /// [`FromVemMgr::Refused`].
    Restart {
        /// Which VEM.
        module: ModuleNumber,
    },
    /// From `vshd`: `vem remove`. Answered by [`FromVemMgr::Removed`], once the VEM is neither
    /// trusted nor registered, or [`FromVemMgr::Refused`].
    Remove {
        /// Which VEM.
        module: ModuleNumber,
    },
}

/// Answers of `vem_mgr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromVemMgr {
    /// One row per registered VEM.
    Modules(Vec<Module>),
    /// The VEM was told to restart its agent.
    Restarting,
    /// Refused, in words.
    Refused(String),
    /// The VEM was removed.
    Removed,
}

/// One VEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its number.
    pub module: ModuleNumber,
    /// Host name.
    pub host: String,
    /// Ports.
    pub ports: u16,
    /// `ok`, or why not.
    pub status: String,
    /// Address it connects from, empty while away.
    pub address: String,
    /// Identity.
    pub fingerprint: String,
}

/// To `cfgmgr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToCfgmgr {
    /// Lines of one configuration session, from global configuration mode; all or nothing.
    Apply {
        /// In the original's grammar.
        lines: Vec<String>,
        /// Who, for the log.
        user: String,
    },
    /// The running configuration as text.
    Running,
    /// The startup configuration as text.
    Startup,
    /// `copy running-config startup-config`.
    Save,
}

/// Answers of `cfgmgr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromCfgmgr {
    /// Committed, and how far.
    Committed {
        /// Level reached.
        reached: crate::checkpoint::Acknowledgement,
    },
    /// Nothing changed.
    Refused {
        /// Index of the offending line.
        line: u32,
        /// Byte of the caret in it.
        column: u32,
        /// What is wrong, in the original's style, without the caret line.
        message: String,
    },
    /// A configuration.
    Text(String),
}

/// `vshd` to the other node's `vshd`: a session of one node, carried on the other
/// (`attach module`). Notifications; the sender asks to be told if one cannot be delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToVshd {
    /// Begin a session.
    Attach {
        /// Chosen by the attaching side.
        session: u64,
        /// Who, for the log.
        user: String,
    },
    /// From the operator.
    Shell {
        /// Which session.
        session: u64,
        /// What was entered.
        message: crate::console::FromShell,
    },
    /// To the operator; [`crate::console::ToShell::Bye`] ends the session.
    Output {
        /// Which session.
        session: u64,
        /// What is to be shown.
        message: crate::console::ToShell,
    },
    /// The operator is gone.
    Detach {
        /// Which session.
        session: u64,
    },
}
