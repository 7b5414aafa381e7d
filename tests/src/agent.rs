//! What a host agent says of itself.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

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
    /// The nodes that it knows.
    pub gateways: Vec<Gateway>,
    last_claim_accepted_ns: Option<u64>,
    first_decision_after_claim_ns: Option<u64>,
    /// What has happened since the worker started.
    pub counters: Counters,
}

/// A node, as an agent sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Gateway {
    /// Whether there is a connection to it.
    pub connected: bool,
    /// Whether its verdicts are taken.
    pub obeyed: bool,
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

    /// The same from the agent's socket, for who asks many times a second: `vemd show` reads it
    /// too, but is a process each time.
    ///
    /// # Errors
    /// When it does not answer within a second.
    pub fn peek(lab: &Lab, host: &str) -> Result<Self> {
        const LIMIT: Duration = Duration::from_secs(1);
        let path = lab.run_folder(host).join("vemd.sock");
        let mut socket =
            UnixStream::connect(&path).with_context(|| format!("{}", path.display()))?;
        socket
            .set_read_timeout(Some(LIMIT))
            .context("a time limit")?;
        let mut text = Vec::new();
        socket
            .read_to_end(&mut text)
            .context("the agent's status")?;
        serde_json::from_slice(&text).context("the agent's status")
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
