//! Roles and places in a site.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The configured role of a node (chapter, "Cisco VSG Roles"). Standalone is the default.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Role {
    /// Ignores every other node.
    #[default]
    Standalone,
    /// Takes precedence when two equal nodes boot; resets if both are active.
    Primary,
    /// The second node of a pair.
    Secondary,
}

impl Role {
    /// The slot that the role implies.
    #[must_use]
    pub const fn slot(self) -> Slot {
        match self {
            Self::Standalone | Self::Primary => Slot::Sup1,
            Self::Secondary => Slot::Sup2,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standalone => "standalone",
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        })
    }
}

/// Who resets when both nodes of a pair have been active and both hold commits that the other
/// lacks. Without such commits on either side the question does not arise.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum ConflictPolicy {
    /// The primary (chapter, "Split brain").
    #[default]
    PrimaryResets,
    /// The one whose configuration was changed longer ago.
    NewestConfig,
    /// The one that fewer VEMs obey.
    MostVems,
}

impl fmt::Display for ConflictPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PrimaryResets => "primary-resets",
            Self::NewestConfig => "newest-config",
            Self::MostVems => "most-vems",
        })
    }
}

/// One of the two places of a pair; also its module number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// Module 1: standalone or primary.
    Sup1,
    /// Module 2: secondary.
    Sup2,
}

impl Slot {
    /// The other slot of the pair.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Sup1 => Self::Sup2,
            Self::Sup2 => Self::Sup1,
        }
    }

    /// The module number an operator types.
    #[must_use]
    pub const fn module(self) -> ModuleNumber {
        match self {
            Self::Sup1 => ModuleNumber(1),
            Self::Sup2 => ModuleNumber(2),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sup-{}", self.module().0)
    }
}

/// Module number: 1 and 2 are the pair, 3 and up are VEMs in the order of their attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModuleNumber(pub u16);

/// A configured HA link, by its position in the node's configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkId(pub u8);

/// The number that two nodes must share to pair (`ha-pair id`), 1 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct PairId(u16);

/// A pair ID outside 1 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pair ID {0} is outside 1 to 4095")]
pub struct InvalidPairId(pub u16);

impl PairId {
    /// The highest pair ID (the original's domain ID range).
    pub const MAX: u16 = 4095;

    /// The number itself.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for PairId {
    type Error = InvalidPairId;

    fn try_from(number: u16) -> Result<Self, InvalidPairId> {
        (1..=Self::MAX)
            .contains(&number)
            .then_some(Self(number))
            .ok_or(InvalidPairId(number))
    }
}

impl From<PairId> for u16 {
    fn from(id: PairId) -> Self {
        id.0
    }
}
