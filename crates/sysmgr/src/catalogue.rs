//! What the System Manager knows of each service: one table.

use core::time::Duration;

use model::{ServiceKind, ServiceName};

/// How one service is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub service: ServiceName,
    /// Native ones fail the node over when they die, borrowed ones restart (chapter, "HA
    /// Policies").
    pub kind: ServiceKind,
    /// First started when these have shaken hands. Restarts do not wait: the others still run.
    pub after: &'static [ServiceName],
    /// Restarts within [`RESTART_WINDOW`] beyond which the node gives up; 0 for a native one.
    pub restarts_max: u8,
}

use ServiceKind::{Borrowed, Native};
use ServiceName::{Cfgmgr, Mts, PolicyEngine, Pss, VemMgr, Vshd};

/// All services, in the order of starting (and of being told to act).
pub const CATALOGUE: [Entry; 6] = [
    Entry {
        service: Mts,
        kind: Borrowed,
        after: &[],
        restarts_max: 5,
    },
    Entry {
        service: Pss,
        kind: Borrowed,
        after: &[Mts],
        restarts_max: 5,
    },
    Entry {
        service: Cfgmgr,
        kind: Borrowed,
        after: &[Pss],
        restarts_max: 5,
    },
    Entry {
        service: PolicyEngine,
        kind: Native,
        after: &[Pss],
        restarts_max: 0,
    },
    Entry {
        service: VemMgr,
        kind: Borrowed,
        after: &[Pss],
        restarts_max: 5,
    },
    Entry {
        service: Vshd,
        kind: Borrowed,
        after: &[Mts],
        restarts_max: 5,
    },
];

/// Window of [`Entry::restarts_max`]: five crashes a minute are a fault that restarting does not
/// mend, five a day are not.
pub const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// Pause before the second restart in a window, growing by as much with each further one; the
/// first restart is immediate.
pub const RESTART_DELAY_STEP: Duration = Duration::from_millis(200);
/// From spawn to handshake. A service reads its files and connects to the broker after it, so
/// this covers only process start, on a machine that is starting six at once.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// A service beats every this many milliseconds …
pub const HEARTBEAT_PERIOD_MS: u32 = 500;
/// … and is stuck when so many in a row are missing: 5 s, far above a busy machine's scheduling
/// delays and below an operator's patience. Faster detection of a stuck decision path is the
/// canary's work.
pub const HEARTBEAT_MISSES: u32 = 10;

/// Silence after which a service counts as stuck.
pub const HEARTBEAT_DEADLINE: Duration =
    Duration::from_millis(HEARTBEAT_PERIOD_MS as u64 * HEARTBEAT_MISSES as u64);

/// The entry of `service`.
#[must_use]
pub fn entry(service: ServiceName) -> &'static Entry {
    CATALOGUE
        .iter()
        .find(|entry| entry.service == service)
        .expect("the catalogue names every service, proven by a test")
}

#[cfg(test)]
mod tests {
    use model::ServiceName;

    use super::{CATALOGUE, entry};

    #[test]
    fn every_service_has_one_entry_behind_those_it_waits_for() {
        for service in ServiceName::ALL {
            assert_eq!(
                CATALOGUE
                    .iter()
                    .filter(|entry| entry.service == service)
                    .count(),
                1
            );
            assert_eq!(entry(service).service, service);
        }
        for (index, entry) in CATALOGUE.iter().enumerate() {
            for before in entry.after {
                let position = CATALOGUE.iter().position(|other| other.service == *before);
                assert!(position.is_some_and(|position| position < index));
            }
        }
    }
}
