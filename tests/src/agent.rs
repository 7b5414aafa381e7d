//! What a host agent says of itself.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::clock;
use crate::lab::Lab;

/// The part of `vemd show status --json` that is read here.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// The epoch whose verdicts it takes, as text; `None` while it obeys nobody.
    pub obeyed_epoch: Option<String>,
    /// The highest epoch it has seen.
    pub highest_epoch: String,
    last_claim_accepted_ns: Option<u64>,
    first_decision_after_claim_ns: Option<u64>,
    /// What has happened since the worker started.
    pub counters: Counters,
}

/// Counters of a worker.
#[derive(Debug, Clone, Deserialize)]
pub struct Counters {
    /// Verdicts of gateways: permit.
    pub permitted: u64,
    /// Verdicts of gateways: drop or reset.
    pub denied: u64,
    /// Flows permitted by the fail mode.
    pub failed_open: u64,
    /// Flows dropped by the fail mode.
    pub failed_closed: u64,
    /// Claims refused.
    pub claims_refused: u64,
    /// Answers ignored: late, duplicate, or not of the gateway that is obeyed.
    pub answers_ignored: u64,
}

impl Status {
    /// Asks the agent of `host`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn of(lab: &Lab, host: &str) -> Result<Self> {
        serde_json::from_value(lab.agent(host, "status")?).context("the agent's status")
    }

    /// When it accepted the newest claim, in nanoseconds of [`clock::now_ns`].
    #[must_use]
    pub fn claim_accepted_ns(&self) -> Option<u64> {
        self.last_claim_accepted_ns.map(clock::from_boot_clock)
    }

    /// When the first verdict under that claim arrived, on the same clock.
    #[must_use]
    pub fn first_decision_ns(&self) -> Option<u64> {
        self.first_decision_after_claim_ns
            .map(clock::from_boot_clock)
    }
}
