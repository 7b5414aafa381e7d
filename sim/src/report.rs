//! The figures of many runs.

use core::fmt;
use std::collections::BTreeSet;

use serde::Serialize;

use crate::coverage;
use crate::faults::FaultClass;
use crate::world::Outcome;

/// What many runs did.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Configuration changes acknowledged as replicated.
    pub replicated_changes: u64,
    /// Flows decided by a gateway.
    pub flows_decided: u64,
    /// Real time that it took.
    pub seconds: f64,
    /// Of each run: faults, and role changes after the first.
    density: Vec<(u64, u64)>,
    met: BTreeSet<(u8, u8, u8)>,
}

/// What `--json` writes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
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
    /// Real time that it took.
    pub seconds: f64,
    /// Share of the pairs of a change of state and a class of faults that have met.
    pub transition_fault_coverage: f64,
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
        self.failed += u64::from(outcome.failure.is_some());
        let changes = outcome.role_changes.saturating_sub(1);
        self.density.push((outcome.faults, changes));
        self.met.extend(&outcome.met);
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
        self.density.extend(other.density);
        self.met.extend(other.met);
    }

    /// The median run's faults, and its role changes, the first (at boot) not counted.
    #[must_use]
    pub fn medians(&self) -> (u64, u64) {
        let median = |pick: &dyn Fn(&(u64, u64)) -> u64| {
            let mut values: Vec<u64> = self.density.iter().map(pick).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        (median(&|run| run.0), median(&|run| run.1))
    }

    /// Each change of state of each gateway, with how many classes of faults it has met, and
    /// those that it has not.
    #[must_use]
    pub fn unmet(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for slot in 0..2_u8 {
            for (index, (from, to)) in coverage::TRANSITIONS.iter().enumerate() {
                let is_met =
                    |class: &&FaultClass| self.met.contains(&(slot, index as u8, **class as u8));
                let unmet: Vec<_> = FaultClass::ALL.iter().filter(|c| !is_met(c)).collect();
                let met = FaultClass::ALL.len() - unmet.len();
                lines.push(format!(
                    "node {slot} {from:?} -> {to:?}: met {met}, not {unmet:?}"
                ));
            }
        }
        lines
    }

    /// What `--json` writes.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            seeds: self.seeds,
            failed: self.failed,
            simulated_hours: self.simulated_hours,
            role_changes: self.role_changes,
            faults: self.faults,
            partitions: self.partitions,
            seconds: self.seconds,
            transition_fault_coverage: self.met.len() as f64 / coverage::universe() as f64,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (faults, changes) = self.medians();
        write!(
            f,
            "{} seeds, {} failed, {:.1} simulated hours, {} role changes (median {changes}), {} \
             faults (median {faults}; {} partitions), {} replicated changes, {} flows decided, \
             {:.1} % of transitions × fault classes, {:.1} s",
            self.seeds,
            self.failed,
            self.simulated_hours,
            self.role_changes,
            self.faults,
            self.partitions,
            self.replicated_changes,
            self.flows_decided,
            self.figures().transition_fault_coverage * 100.0,
            self.seconds
        )
    }
}
