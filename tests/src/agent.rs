//! What a host agent says of itself.

use anyhow::Result;
use serde::Deserialize;

use crate::lab::Lab;

/// The part of `vemd show status --json` that is read here.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// The epoch whose verdicts it takes, as text; `None` while nobody has claimed it.
    pub obeyed_epoch: Option<String>,
    /// When it accepted the newest claim, in nanoseconds of the monotonic clock.
    pub last_claim_accepted_ns: Option<u64>,
    /// When the first verdict under that claim arrived.
    pub first_decision_after_claim_ns: Option<u64>,
}

/// The part of `vemd show stats --json` that is read here.
#[derive(Debug, Clone, Deserialize)]
pub struct Stats {
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
}

/// Asks the agent of `host`.
///
/// # Errors
/// When it does not answer.
pub fn status(lab: &Lab, host: &str) -> Result<Status> {
    Ok(serde_json::from_value(lab.agent(host, "status")?)?)
}

/// Asks the agent of `host`.
///
/// # Errors
/// When it does not answer.
pub fn stats(lab: &Lab, host: &str) -> Result<Stats> {
    Ok(serde_json::from_value(lab.agent(host, "stats")?)?)
}
