//! `show system redundancy status`: the original's layout, with the colon in column 21.

use std::fmt;

use model::{ConflictPolicy, Role, Slot};
use serde::{Deserialize, Serialize};

use super::heading;

/// `HA` while the pair is redundant, `None` while it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedundancyMode {
    /// A standby is, or is to be, kept in step.
    HA,
    /// No standby is kept in step.
    None,
}

/// `Redundancy state`: where a supervisor stands in the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedundancyState {
    /// Leads.
    Active,
    /// In contact, running its diagnostics.
    AtBios,
    /// Down after three attempts.
    Failed,
    /// Getting its configuration.
    Initializing,
    /// Not there.
    NotPresent,
    /// Deliberately down.
    Offline,
    /// Ready to take over.
    Standby,
    /// None of these.
    Unknown,
}

/// `Supervisor state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorState {
    /// Leads.
    Active,
    /// Ready to take over.
    HaStandby,
    /// Down.
    Offline,
    /// None of these.
    Unknown,
}

/// `Internal state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InternalState {
    /// Leads; the standby has failed.
    ActiveWithFailedStandby,
    /// Leads; the standby can take over.
    ActiveWithHaStandby,
    /// Leads; a switchover is impossible.
    ActiveWithNoStandby,
    /// Follows, in step.
    HaStandby,
    /// Between the roles.
    HaSwitchoverInProgress,
    /// Getting state from the active.
    HaSynchronizationInProgress,
    /// Down.
    Offline,
    /// In passing.
    Other,
    /// Going down.
    ShuttingDown,
    /// Failed as a standby.
    StandbyFailed,
}

/// One supervisor's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervisor {
    /// See [`RedundancyState`].
    pub redundancy_state: RedundancyState,
    /// See [`SupervisorState`].
    pub supervisor_state: SupervisorState,
    /// See [`InternalState`].
    pub internal_state: InternalState,
}

/// The other supervisor: only its first line is shown while it is not present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtherSupervisor {
    /// Nothing is heard of it.
    NotPresent,
    /// It is there.
    Present(Supervisor),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedundancyStatus {
    /// The configured role.
    pub role_administrative: Role,
    /// The role in force; differs while a change waits for a reload.
    pub role_operational: Role,
    /// Always `HA`, even for a standalone node.
    pub mode_administrative: RedundancyMode,
    /// `HA` only while the standby is in step.
    pub mode_operational: RedundancyMode,
    /// The slot of this supervisor; the other has the other.
    pub this_slot: Slot,
    /// This supervisor.
    pub this: Supervisor,
    /// The other one.
    pub other: OtherSupervisor,
    /// Who resets if both supervisors were active.
    pub conflict_policy: ConflictPolicy,
    /// How long this node waits for the other one when it boots alone (seconds); `None` is for ever.
    pub boot_wait_s: Option<u32>,
    /// Why something is not as it should be (isolated, found but not paired, waiting at boot):
    /// one line each, after the layout of the original.
    pub notices: Vec<String>,
}

impl RedundancyStatus {
    /// The layout of `show system redundancy status`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.layout("");
        for notice in &self.notices {
            text += &format!("\nNotice: {notice}\n");
        }
        text
    }

    /// The layout; `gap` stands after the other supervisor's redundancy state (the original's
    /// `show redundancy status` has an empty line there).
    pub(super) fn layout(&self, gap: &str) -> String {
        let mut text = heading("Redundancy role");
        text += &line("administrative", &self.role_administrative);
        text += &line("operational", &self.role_operational);
        text += "\n";
        text += &heading("Redundancy mode");
        text += &line("administrative", &self.mode_administrative);
        text += &line("operational", &self.mode_operational);
        text += "\n";
        text += &heading(&format!("This supervisor ({})", self.this_slot));
        text += &line("Redundancy state", &self.this.redundancy_state);
        text += &self.this.rest();
        text += "\n";
        text += &heading(&format!("Other supervisor ({})", self.this_slot.other()));
        match &self.other {
            OtherSupervisor::NotPresent => {
                text += &line("Redundancy state", &RedundancyState::NotPresent);
            }
            OtherSupervisor::Present(other) => {
                text += &line("Redundancy state", &other.redundancy_state);
                text += gap;
                text += &other.rest();
            }
        }
        text
    }
}

impl Supervisor {
    fn rest(&self) -> String {
        line("Supervisor state", &self.supervisor_state)
            + &line("Internal state", &self.internal_state)
    }
}

fn line(label: &str, value: &dyn fmt::Display) -> String {
    format!("{label:>20}:   {value}\n")
}

impl fmt::Display for RedundancyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HA => "HA",
            Self::None => "None",
        })
    }
}

impl fmt::Display for RedundancyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "Active",
            Self::AtBios => "At BIOS",
            Self::Failed => "Failed",
            Self::Initializing => "Initializing",
            Self::NotPresent => "Not present",
            Self::Offline => "Offline",
            Self::Standby => "Standby",
            Self::Unknown => "Unknown",
        })
    }
}

impl fmt::Display for SupervisorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "Active",
            Self::HaStandby => "HA standby",
            Self::Offline => "Offline",
            Self::Unknown => "Unknown",
        })
    }
}

impl fmt::Display for InternalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ActiveWithFailedStandby => "Active with failed standby",
            Self::ActiveWithHaStandby => "Active with HA standby",
            Self::ActiveWithNoStandby => "Active with no standby",
            Self::HaStandby => "HA standby",
            Self::HaSwitchoverInProgress => "HA switchover in progress",
            Self::HaSynchronizationInProgress => "HA synchronization in progress",
            Self::Offline => "Offline",
            Self::Other => "Other",
            Self::ShuttingDown => "Shutting down",
            Self::StandbyFailed => "Standby (failed)",
        })
    }
}
