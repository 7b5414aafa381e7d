//! What `show status` and `show stats` are told, over the control socket.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use vem::{Counters, GatewayView, SlotId};

use super::Worker;

/// Questions that wait for the worker's turn; more wait in the socket.
const QUESTIONS_MAX: usize = 8;
/// Latencies remembered.
const SAMPLES_MAX: usize = 1024;

/// The worker's own account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) host: String,
    pub(crate) worker_pid: u32,
    pub(crate) uptime_ms: u64,
    pub(crate) real_time: bool,
    pub(crate) highest_epoch: String,
    pub(crate) obeyed_epoch: Option<String>,
    pub(crate) policy_generation: Option<u64>,
    /// Nanoseconds of the clock that counts suspension (`CLOCK_BOOTTIME`).
    pub(crate) last_claim_accepted_ns: Option<u64>,
    /// The first verdict under that claim, on the same clock.
    pub(crate) first_decision_after_claim_ns: Option<u64>,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) waiting_flows: usize,
    pub(crate) held_packets: u32,
    /// From the reading of a first packet to its release, over the last of them.
    pub(crate) released_after_us: Option<Percentiles>,
    pub(crate) unwritable: u64,
    pub(crate) counters: Counters,
}

/// A gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Gateway {
    pub(crate) address: String,
    #[serde(flatten)]
    pub(crate) view: GatewayView,
}

/// Of a set of latencies, µs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
    pub(crate) samples: usize,
}

/// How long packets were held.
#[derive(Default)]
pub(super) struct Latencies {
    since: BTreeMap<SlotId, Instant>,
    samples_us: Vec<u64>,
    next: usize,
}

impl Latencies {
    pub(super) fn held(&mut self, slot: SlotId) {
        self.since.insert(slot, Instant::now());
    }

    pub(super) fn forget(&mut self, slot: SlotId) {
        self.since.remove(&slot);
    }

    pub(super) fn written(&mut self, slot: SlotId) {
        let Some(since) = self.since.remove(&slot) else {
            return;
        };
        let sample = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        if self.samples_us.len() < SAMPLES_MAX {
            self.samples_us.push(sample);
        } else {
            self.samples_us[self.next] = sample;
            self.next = (self.next + 1) % SAMPLES_MAX;
        }
    }

    fn percentiles(&self) -> Option<Percentiles> {
        let mut sorted = self.samples_us.clone();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len() - 1));
        let max = *sorted.last()?;
        Some(Percentiles {
            p50: *at(50)?,
            p99: *at(99)?,
            max,
            samples: sorted.len(),
        })
    }
}

impl Worker {
    pub(super) fn status(&self) -> Status {
        let addresses = self
            .settings
            .gateways
            .iter()
            .map(|gateway| gateway.address.to_string());
        let gateways = addresses.zip(self.core.gateways());
        let (waiting_flows, held_packets) = self.core.waiting();
        let obeyed = self.core.obeyed();
        let takeover = self.core.takeover();
        Status {
            host: self.settings.host.clone(),
            worker_pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            real_time: self.real_time,
            highest_epoch: self.core.highest_epoch().to_string(),
            obeyed_epoch: obeyed.map(|(_, epoch, _)| epoch.to_string()),
            policy_generation: obeyed.map(|(_, _, generation)| generation.0),
            last_claim_accepted_ns: takeover.claim_accepted.map(|at| at.0),
            first_decision_after_claim_ns: takeover.first_decision.map(|at| at.0),
            gateways: gateways
                .map(|(address, view)| Gateway { address, view })
                .collect(),
            waiting_flows,
            held_packets,
            released_after_us: self.held_since.percentiles(),
            unwritable: self.unwritable,
            counters: self.core.counters().clone(),
        }
    }
}

/// Listens on the control socket: whoever connects is told the status, as JSON.
pub(super) fn listen(path: &Path) -> Result<mpsc::Receiver<oneshot::Sender<Status>>> {
    let shown = || format!("{}", path.display());
    if path.exists() {
        fs::remove_file(path).with_context(shown)?;
    }
    let listener = UnixListener::bind(path).with_context(shown)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).with_context(shown)?;
    let (questions, to_worker) = mpsc::channel(QUESTIONS_MAX);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, status) = oneshot::channel();
            if questions.send(answer).await.is_err() {
                return;
            }
            let Ok(status) = status.await else { return };
            // One write, below the socket's buffer: a client that does not read blocks nobody.
            if let Ok(json) = serde_json::to_vec(&status) {
                let _ = stream.write_all(&json).await;
            }
        }
    });
    Ok(to_worker)
}
