//! Where a session stands.
//!
//! ```text
//!          configure                 zone X, rule X, …
//!   Exec ────────────▶ Config ───────────────────────▶ Zone, ObjectGroup, Rule,
//!    │ ▲  ◀──────────    │     ◀───────────────────────   Policy, SecurityProfile
//!    │ │      exit       │               exit               │
//!    │ └──────── end ────┴──────────────────────────────────┘
//!    ▼ exit: the session ends
//! ```
//! A statement of another mode also moves: from any sub-mode, `zone Y` enters zone Y.

use model::ObjectName;
use serde::{Deserialize, Serialize};

use crate::command::{Command, Object, ObjectKind, Statement};
use crate::parse::Invocation;

/// A mode of the shell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Commands.
    #[default]
    Exec,
    /// Global configuration.
    Config,
    /// Inside an object group.
    ObjectGroup(ObjectName),
    /// Inside a policy.
    Policy(ObjectName),
    /// Inside a rule.
    Rule(ObjectName),
    /// Inside a security profile.
    SecurityProfile(ObjectName),
    /// Inside a zone.
    Zone(ObjectName),
}

/// What the node of the session is just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Active: everything is allowed.
    Active,
    /// Anything else: only what does not change the pair's state.
    Standby,
}

impl Mode {
    /// What stands in brackets in the prompt; `None` in exec mode.
    #[must_use]
    pub const fn label(&self) -> Option<&'static str> {
        match self {
            Self::Exec => None,
            Self::Config => Some("config"),
            Self::ObjectGroup(_) => Some("config-object-group"),
            Self::Policy(_) => Some("config-policy"),
            Self::Rule(_) => Some("config-rule"),
            Self::SecurityProfile(_) => Some("config-security-profile"),
            Self::Zone(_) => Some("config-zone"),
        }
    }

    /// The kind and name of the object one is inside of.
    #[must_use]
    pub const fn object(&self) -> Option<(ObjectKind, &ObjectName)> {
        match self {
            Self::Exec | Self::Config => None,
            Self::ObjectGroup(name) => Some((ObjectKind::ObjectGroup, name)),
            Self::Policy(name) => Some((ObjectKind::Policy, name)),
            Self::Rule(name) => Some((ObjectKind::Rule, name)),
            Self::SecurityProfile(name) => Some((ObjectKind::SecurityProfile, name)),
            Self::Zone(name) => Some((ObjectKind::Zone, name)),
        }
    }

    /// The mode inside `object`.
    #[must_use]
    pub fn inside(object: &Object) -> Self {
        let name = object.name().clone();
        match object {
            Object::ObjectGroup { .. } => Self::ObjectGroup(name),
            Object::Policy(_) => Self::Policy(name),
            Object::Rule(_) => Self::Rule(name),
            Object::SecurityProfile(_) => Self::SecurityProfile(name),
            Object::Zone(_) => Self::Zone(name),
        }
    }

    /// One mode up; `None` above exec.
    #[must_use]
    pub const fn parent(&self) -> Option<Self> {
        match self {
            Self::Exec => None,
            Self::Config => Some(Self::Exec),
            Self::ObjectGroup(_)
            | Self::Policy(_)
            | Self::Rule(_)
            | Self::SecurityProfile(_)
            | Self::Zone(_) => Some(Self::Config),
        }
    }

    /// Where the session stands once `invocation` has succeeded; `None` when it is over.
    #[must_use]
    pub fn after(&self, invocation: &Invocation) -> Option<Self> {
        match &invocation.command {
            Command::Configure => Some(Self::Config),
            Command::End => Some(Self::Exec),
            Command::Exit => self.parent(),
            Command::Statement(Statement::Enter(object)) => Some(Self::inside(object)),
            Command::PairId(_) | Command::Statement(_) => Some(invocation.context.clone()),
            Command::AttachModule(_)
            | Command::ClearConflict(_)
            | Command::ClearTraffic
            | Command::CopyRunningToStartup
            | Command::Empty
            | Command::ForceActive
            | Command::Pairing(_)
            | Command::Reload
            | Command::SetBootWait(_)
            | Command::ReloadModule(_)
            | Command::SetConflictPolicy(_)
            | Command::SetHeartbeat(_)
            | Command::SetRole(_)
            | Command::Show(_)
            | Command::Switchover => Some(self.clone()),
        }
    }

    /// The prompt: `vsg# `, `vsg(config)# `, `vsg(standby)# `.
    #[must_use]
    pub fn prompt(&self, hostname: &str, standing: Standing) -> String {
        let standby = match standing {
            Standing::Active => "",
            Standing::Standby => "(standby)",
        };
        match self.label() {
            Some(label) => format!("{hostname}{standby}({label})# "),
            None => format!("{hostname}{standby}# "),
        }
    }
}
