//! The figures of many runs.

use serde::Serialize;

use crate::world::Outcome;

/// What `--json` writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Runs made.
    pub seeds: u64,
    /// Runs in which an invariant failed.
    pub failed: u64,
    /// Virtual time of all runs.
    pub simulated_hours: f64,
    /// Times that a node began to act.
    pub role_changes: u64,
    /// Faults injected.
    pub faults: u64,
    /// Of them, cuts of paths.
    pub partitions: u64,
    /// Configuration changes acknowledged as replicated, all of them found at the end.
    pub replicated_changes: u64,
    /// Flows decided by a gateway.
    pub flows_decided: u64,
    /// Real time that it took.
    pub seconds: f64,
    /// Seeds that failed, with the invariant; at most [`FAILURES_MAX`].
    pub failures: Vec<Failure>,
}

/// Failures kept in a report; more are only counted.
pub const FAILURES_MAX: usize = 50;

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The invariant, and when.
    pub what: String,
}

impl Report {
    /// Adds one run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.simulated_hours += outcome.simulated_s / 3600.0;
        self.role_changes += outcome.role_changes;
        self.faults += outcome.faults;
        self.partitions += outcome.partitions;
        self.replicated_changes += outcome.replicated;
        self.flows_decided += outcome.decided;
        if let Some(what) = &outcome.failure {
            self.failed += 1;
            if self.failures.len() < FAILURES_MAX {
                self.failures.push(Failure {
                    seed: outcome.seed,
                    what: what.clone(),
                });
            }
        }
    }

    /// Adds the runs of another report.
    pub fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.failed += other.failed;
        self.simulated_hours += other.simulated_hours;
        self.role_changes += other.role_changes;
        self.faults += other.faults;
        self.partitions += other.partitions;
        self.replicated_changes += other.replicated_changes;
        self.flows_decided += other.flows_decided;
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.seed);
        self.failures.truncate(FAILURES_MAX);
    }
}
