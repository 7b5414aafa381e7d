//! Hours of faults under traffic, with the invariants of the whole checked from outside.
//!
//! | module | holds |
//! |---|---|
//! | [`random`] | scenario: random faults, one after the other |
//! | [`pauses`] | scenario: the active stopped for a while, again and again |
//! | [`saturated`] | scenario: no core is idle, and nobody may fail over |
//! | [`stalls`] | scenario: both nodes stopped at once, and nobody may fail over |
//! | [`fault`] | what is broken, how it is mended, what may come of it |
//! | [`watch`] | looks on all the time |
//! | [`ledger`] | what was committed, and must still be there |
//! | [`load`] | the traffic, in segments that can be looked at again and again |
//! | [`distribution`] | many measurements as a few figures |
//!
//! `cargo xtask soak` runs them for hours, the system tests for seconds.

pub mod distribution;
pub mod fault;
pub mod ledger;
pub mod load;
pub mod pauses;
pub mod random;
pub mod saturated;
pub mod stalls;
pub mod watch;

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::lab::Lab;
use crate::{agent, clock, site, wait};

/// How late a look may come on a busy machine: it is two processes. Added to every bound that is
/// checked by looking.
pub const LOOK_LATE_MS: u64 = 150;

/// Longest wait for both nodes to use a changed heartbeat: a confirmation each way at the slower
/// of the two intervals.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(15);

/// Longest wait for every host agent to obey the one that leads: a TLS handshake after a boot.
const OBEY_LIMIT: Duration = Duration::from_secs(10);

/// A heartbeat profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// 3 × 10 ms.
    Fast,
    /// 3 × 100 ms.
    Default,
    /// 3 × 1000 ms.
    VmSafe,
}

impl Profile {
    /// The word that `system redundancy heartbeat` takes.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Default => "default",
            Self::VmSafe => "vm-safe",
        }
    }

    /// The time of silence that counts as death.
    #[must_use]
    pub const fn hold_ms(self) -> u64 {
        match self {
            Self::Fast => 30,
            Self::Default => 300,
            Self::VmSafe => 3000,
        }
    }
}

/// What did not hold, and what to run to see it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What was done.
    pub during: String,
    /// What was seen.
    pub what: String,
    /// The command that does it again.
    pub replay: String,
}

/// Sees to it that both nodes of a redundant pair use `profile`; the slower of the two counts until
/// both have it, so the hold time on each tells.
///
/// # Errors
/// When they do not within a bound.
pub fn set_profile(lab: &Lab, profile: Profile) -> Result<()> {
    lab.await_redundant()?;
    let holds = format!("Hold time:   {} ms", profile.hold_ms());
    let uses_it = |node: &str| -> Result<bool> {
        let reply = lab.shell(node, &["show redundancy heartbeat"])?;
        Ok(reply.text.contains(&holds))
    };
    let both_use_it = || -> Result<Option<()>> {
        let both = uses_it(site::NODES[0])? && uses_it(site::NODES[1])?;
        Ok(both.then_some(()))
    };
    if both_use_it()?.is_some() {
        return Ok(());
    }
    for node in site::NODES {
        let command = format!("system redundancy heartbeat {}", profile.word());
        lab.must_shell(node, &[&command])?;
    }
    wait::until(
        &format!("both nodes say '{holds}'"),
        HEARTBEAT_LIMIT,
        both_use_it,
    )
}

/// Waits until exactly one node says that it leads; gives how long after `since_ns` that was, in
/// milliseconds.
///
/// # Errors
/// When that is not so within `limit`.
pub fn await_one_active(lab: &Lab, since_ns: u64, limit: Duration) -> Result<f64> {
    let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    loop {
        let asked_ns = clock::now_ns();
        // No pause between two looks: how long it takes is measured.
        match lab.active() {
            Ok(_) => return Ok(ms_between(since_ns, asked_ns)),
            Err(error) if asked_ns.saturating_sub(since_ns) > limit_ns => {
                return Err(error.context(format!("not within {limit:?}: one active")));
            }
            Err(_) => {}
        }
    }
}

/// Waits until every host agent is connected to both nodes, and all obey the same epoch.
///
/// # Errors
/// When that is not so within a bound.
pub fn await_obeyed(lab: &Lab) -> Result<String> {
    wait::until(
        "all host agents, connected to both nodes, obey one epoch",
        OBEY_LIMIT,
        || {
            let mut epochs = Vec::new();
            for host in site::HOSTS {
                let status = agent::Status::peek(lab, host)?;
                if !status.gateways.iter().all(|gateway| gateway.connected) {
                    return Ok(None);
                }
                epochs.push(status.obeyed_epoch);
            }
            let first = epochs.first().cloned().flatten();
            Ok(first.filter(|first| epochs.iter().all(|epoch| epoch.as_ref() == Some(first))))
        },
    )
}

/// From one moment to another, in milliseconds; 0 when it is the other way round.
#[must_use]
pub fn ms_between(from_ns: u64, to_ns: u64) -> f64 {
    // Hours of nanoseconds are far below the 53 bits that a double holds.
    to_ns.saturating_sub(from_ns) as f64 / 1_000_000.0
}
