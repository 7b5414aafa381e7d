//! What an operator can ask for.

use core::fmt;
use core::net::Ipv4Addr;

use model::{
    Action, Attribute, Condition, ConflictPolicy, MatchCriteria, ModuleNumber, ObjectName, PairId,
    Role,
};
use serde::{Deserialize, Serialize};

/// One complete command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// `attach module N`: a session on the other supervisor's console.
    AttachModule(ModuleNumber),
    /// `clear redundancy traffic`.
    ClearTraffic,
    /// `clear redundancy conflicts N`.
    ClearConflict(u32),
    /// `configure [terminal]`.
    Configure,
    /// `copy running-config startup-config`.
    CopyRunningToStartup,
    /// A blank line or a comment (`!`).
    Empty,
    /// `end`: back to exec mode.
    End,
    /// `exit`: one mode up; in exec mode the session ends.
    Exit,
    /// `system redundancy force-active`: lead although this node may not have the newest state.
    ForceActive,
    /// `redundancy …`, `vem …`: whom this node trusts.
    Pairing(PairingCommand),
    /// `ha-pair id N`: the node's own, never replicated.
    PairId(PairId),
    /// `reload`: asks first, then restarts this node.
    Reload,
    /// `system redundancy boot-wait …`: seconds, `None` is for ever.
    SetBootWait(Option<u32>),
    /// `reload module N`: asks first, then restarts the standby or a host's agent.
    ReloadModule(ModuleNumber),
    /// `system redundancy split-brain …`.
    SetConflictPolicy(ConflictPolicy),
    /// `system redundancy heartbeat …`.
    SetHeartbeat(HeartbeatSetting),
    /// `system redundancy role …`.
    SetRole(Role),
    /// `show …`.
    Show(Show),
    /// A line of configuration, in the mode that [`crate::Invocation::context`] names.
    Statement(Statement),
    /// `system switchover`.
    Switchover,
}

/// What changes whom a node trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PairingCommand {
    /// `redundancy pair`: a one-time code for the other node.
    Pair,
    /// `redundancy join A.B.C.D CODE`.
    Join {
        /// An address of the other node on an HA link, and its port if it is not the usual one.
        address: (Ipv4Addr, Option<u16>),
        /// What it printed.
        code: TypedCode,
    },
    /// `redundancy identity rotate [force]`.
    RotateIdentity {
        /// Even if host agents are away.
        force: bool,
    },
    /// `redundancy unpair`: asks first.
    Unpair,
    /// `vem enroll`: a one-time code for a host agent.
    EnrollVem,
    /// `vem remove N`: asks first.
    RemoveVem(ModuleNumber),
}

/// A one-time code as it was typed; shown nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypedCode(pub String);

impl fmt::Debug for TypedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypedCode(…)")
    }
}

/// The heartbeat profile asked for (design: fast 3 × 10 ms, default 3 × 100 ms, vm-safe
/// 3 × 1000 ms, or explicit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeartbeatSetting {
    /// 3 × 100 ms.
    Default,
    /// An interval and a number of misses of one's own.
    Explicit {
        /// Milliseconds between heartbeats, 10 to 10,000.
        interval_ms: u32,
        /// Misses until the peer counts as silent, 2 to 20.
        misses: u8,
    },
    /// 3 × 10 ms.
    Fast,
    /// 3 × 1000 ms.
    VmSafe,
}

impl HeartbeatSetting {
    /// Milliseconds between heartbeats.
    #[must_use]
    pub const fn interval_ms(self) -> u32 {
        match self {
            Self::Default => 100,
            Self::Explicit { interval_ms, .. } => interval_ms,
            Self::Fast => 10,
            Self::VmSafe => 1000,
        }
    }

    /// Misses until the peer counts as silent.
    #[must_use]
    pub const fn misses(self) -> u8 {
        match self {
            Self::Explicit { misses, .. } => misses,
            Self::Default | Self::Fast | Self::VmSafe => 3,
        }
    }
}

/// What `show` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Show {
    /// `show logging [last N]`.
    Logging {
        /// How many of the newest lines; `None` is as many as the daemon keeps at hand.
        last: Option<u32>,
    },
    /// `show module`.
    Module,
    /// `show policy-engine stats`.
    PolicyEngineStats,
    /// `show processes`.
    Processes,
    /// `show redundancy conflicts N`: the archived running configuration.
    RedundancyConflict(u32),
    /// `show redundancy conflicts N diff`: the archived one against the running one.
    RedundancyConflictDiff(u32),
    /// `show redundancy conflicts`.
    RedundancyConflicts,
    /// `show redundancy heartbeat`.
    RedundancyHeartbeat,
    /// `show redundancy identity`.
    RedundancyIdentity,
    /// `show redundancy status`: the same and the uptimes.
    RedundancyStatus,
    /// `show redundancy traffic`.
    RedundancyTraffic,
    /// `show running-config`.
    RunningConfig,
    /// `show running-config diff`: startup against running.
    RunningConfigDiff,
    /// `show service-path connection`.
    ServicePathConnection,
    /// `show startup-config`.
    StartupConfig,
    /// `show system redundancy status`.
    SystemRedundancyStatus,
    /// `show system uptime`.
    SystemUptime,
    /// `show version`.
    Version,
}

/// What kind of object a configuration line enters or removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectKind {
    /// `object-group`.
    ObjectGroup,
    /// `policy`.
    Policy,
    /// `rule`.
    Rule,
    /// `security-profile`.
    SecurityProfile,
    /// `zone`.
    Zone,
}

impl ObjectKind {
    /// The grammar's keyword.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::ObjectGroup => "object-group",
            Self::Policy => "policy",
            Self::Rule => "rule",
            Self::SecurityProfile => "security-profile",
            Self::Zone => "zone",
        }
    }
}

/// An object of the configuration that is entered (made, if it does not exist).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Object {
    /// A group of values of one attribute.
    ObjectGroup {
        /// Its name.
        name: ObjectName,
        /// The attribute, without side, that its expressions test.
        attribute: Attribute,
    },
    /// An ordered list of rules.
    Policy(ObjectName),
    /// Conditions and actions.
    Rule(ObjectName),
    /// A policy's binding to ports.
    SecurityProfile(ObjectName),
    /// A set of addresses.
    Zone(ObjectName),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::ObjectGroup { .. } => ObjectKind::ObjectGroup,
            Self::Policy(_) => ObjectKind::Policy,
            Self::Rule(_) => ObjectKind::Rule,
            Self::SecurityProfile(_) => ObjectKind::SecurityProfile,
            Self::Zone(_) => ObjectKind::Zone,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &ObjectName {
        match self {
            Self::ObjectGroup { name, .. }
            | Self::Policy(name)
            | Self::Rule(name)
            | Self::SecurityProfile(name)
            | Self::Zone(name) => name,
        }
    }
}

/// One line of configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statement {
    /// In a zone or a rule.
    Conditions(ConditionsLine),
    /// `zone NAME` and its like: makes the object if need be and enters its mode.
    Enter(Object),
    /// In an object group.
    Group(GroupLine),
    /// `hostname NAME`.
    Hostname(String),
    /// `no hostname`: back to the default.
    NoHostname,
    /// In a policy.
    Policy(PolicyLine),
    /// In a security profile.
    Profile(ProfileLine),
    /// `no zone NAME` and its like.
    Remove {
        /// The kind.
        kind: ObjectKind,
        /// The name.
        name: ObjectName,
    },
    /// In a rule.
    Rule(RuleLine),
}

/// A line about the conditions of a zone or a rule. They are evaluated in the order of their
/// numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionsLine {
    /// `cond-match-criteria: …`.
    Criteria(MatchCriteria),
    /// `no condition N`.
    Remove(u16),
    /// `condition N …`.
    Set {
        /// Its number.
        number: u16,
        /// What must hold.
        condition: Condition,
    },
}

/// A line of an object group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupLine {
    /// `no match N`.
    Remove(u16),
    /// `match N …`.
    Set {
        /// Its number.
        number: u16,
        /// The expression.
        expression: Condition,
    },
}

/// A line of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyLine {
    /// `no rule NAME`: takes the rule out of the policy.
    Remove(ObjectName),
    /// `rule NAME order N`.
    Set {
        /// The rule.
        rule: ObjectName,
        /// Its rank; lower is asked first.
        order: u16,
    },
}

/// A line of a security profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProfileLine {
    /// `no policy [NAME]`.
    Remove,
    /// `policy NAME`.
    Set(ObjectName),
}

/// A line of a rule that is about its actions. The first that decides, by number, is the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleLine {
    /// `no action N`.
    Remove(u16),
    /// `action N …`.
    Set {
        /// Its number.
        number: u16,
        /// What it does.
        action: Action,
    },
}
