//! One service's life.

use core::fmt;

use model::Time;

/// Where a service stands.
///
/// ```text
///                    dependencies shook hands
///  WaitSpawnCondition ───────────────► Spawning ──Spawned──► Started ──Handshake──► Handshaked
///        ▲                               ▲  │SpawnFailed        │deadline               │deadline
///        │ (only before the first start) │  │                   ▼                       ▼
///        │                               │  │                Killing ◄───────────── Killing
///        │                    delay over │  ▼                   │ Exited                │ Exited
///        └────                      Restarting ◄────────────────┴── borrowed ───────────┘
///                                                   native, or limit exceeded ──► HapFailed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never started: a service it needs has not shaken hands.
    WaitSpawnCondition,
    /// Asked for.
    Spawning,
    /// Runs, has not said who it is.
    Started {
        /// Host PID.
        pid: u32,
        /// Handshake is due.
        deadline: Time,
    },
    /// Runs.
    Handshaked {
        /// Host PID.
        pid: u32,
        /// Turns of its work loop when it last beat.
        turns: u64,
        /// When that count last grew.
        alive: Time,
        /// Newest posture in force, if any.
        applied: Option<u64>,
    },
    /// Being killed because it hung.
    Killing {
        /// Host PID.
        pid: u32,
    },
    /// Crashed; will be started again then.
    Restarting {
        /// When.
        at: Time,
    },
    /// Not started again: the node must give up its role.
    HapFailed,
}

impl State {
    /// Host PID, while there is a process.
    #[must_use]
    pub const fn pid(self) -> Option<u32> {
        match self {
            Self::Started { pid, .. } | Self::Handshaked { pid, .. } | Self::Killing { pid } => {
                Some(pid)
            }
            Self::WaitSpawnCondition
            | Self::Spawning
            | Self::Restarting { .. }
            | Self::HapFailed => None,
        }
    }

    /// It runs and has said who it is.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Handshaked { .. })
    }

    /// When something is due without an event.
    #[must_use]
    pub(crate) fn deadline(self) -> Option<Time> {
        match self {
            Self::Started { deadline, .. } => Some(deadline),
            Self::Handshaked { alive, .. } => Some(alive + crate::catalogue::HEARTBEAT_DEADLINE),
            Self::Restarting { at } => Some(at),
            Self::WaitSpawnCondition | Self::Spawning | Self::Killing { .. } | Self::HapFailed => {
                None
            }
        }
    }

    /// `show processes`: S sleeping or running, NR not (yet) started, ER should run but does not.
    #[must_use]
    pub const fn letters(self) -> &'static str {
        match self {
            Self::WaitSpawnCondition => "NR",
            Self::Started { .. } | Self::Handshaked { .. } | Self::Killing { .. } => "S",
            Self::Spawning | Self::Restarting { .. } | Self::HapFailed => "ER",
        }
    }
}

impl fmt::Display for State {
    /// The original's word (`show system internal sysmgr service`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WaitSpawnCondition => "SRV_STATE_WAIT_SPAWN_CONDITION",
            Self::Spawning | Self::Restarting { .. } => "SRV_STATE_SPAWNING",
            Self::Started { .. } => "SRV_STATE_STARTED",
            Self::Handshaked { .. } => "SRV_STATE_HANDSHAKED",
            Self::Killing { .. } => "SRV_STATE_TERMINATING",
            Self::HapFailed => "SRV_STATE_HAP_FAILED [unstable]",
        })
    }
}
