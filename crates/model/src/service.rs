//! The services of a node.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Service access point: the address of a service inside a node's message broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sap(pub u16);

/// What the death of a service means (chapter, "HA Policies", note).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServiceKind {
    /// Its crash fails the node over at once.
    Native,
    /// It restarts.
    Borrowed,
}

/// Every service that the System Manager runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServiceName {
    /// Message and transaction service: the broker.
    Mts,
    /// Persistent storage service: checkpoints.
    Pss,
    /// Decides first packets.
    PolicyEngine,
    /// Speaks with the host agents.
    VemMgr,
    /// Holds the configuration.
    Cfgmgr,
    /// Serves operators' shells.
    Vshd,
}

impl ServiceName {
    /// All of them, in no particular order of start.
    pub const ALL: [Self; 6] = [
        Self::Mts,
        Self::Pss,
        Self::PolicyEngine,
        Self::VemMgr,
        Self::Cfgmgr,
        Self::Vshd,
    ];

    /// As it stands in `show processes` and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mts => "mts",
            Self::Pss => "pss",
            Self::PolicyEngine => "policy_engine",
            Self::VemMgr => "vem_mgr",
            Self::Cfgmgr => "cfgmgr",
            Self::Vshd => "vshd",
        }
    }

    /// The service's address in the broker.
    #[must_use]
    pub const fn sap(self) -> Sap {
        match self {
            Self::Mts => Sap(1),
            Self::Pss => Sap(2),
            Self::PolicyEngine => Sap(3),
            Self::VemMgr => Sap(4),
            Self::Cfgmgr => Sap(5),
            Self::Vshd => Sap(6),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No service has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no service is named `{0}`")]
pub struct UnknownService(pub String);

impl FromStr for ServiceName {
    type Err = UnknownService;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|service| service.as_str() == name)
            .ok_or_else(|| UnknownService(name.to_owned()))
    }
}
