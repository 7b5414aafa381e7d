//! S5: a configuration change that is acknowledged as `replicated` survives the loss of any one
//! node; one acknowledged as `local` survives every crash of that node. Once all faults have ended,
//! each is in the configuration of the active or in the archive of a conflict.
//!
//! Excused is only what was held by nothing but a disk that was replaced or set back.

use std::collections::BTreeSet;

/// Changes by their number; change `n` creates the zone `z<n>`.
#[derive(Debug, Default)]
pub struct CommitsSurvive {
    replicated: BTreeSet<u32>,
    local: BTreeSet<u32>,
    /// A disk was replaced or set back: its node may have led with what it had, so that even what
    /// was on both may have become one side of a conflict.
    forked: bool,
    /// When a disk was last replaced or set back.
    lost_at: Option<u64>,
}

impl CommitsSurvive {
    /// A change that was begun then is acknowledged as durable on both nodes; these are the
    /// configurations that would be found on the active, and on the peer or its clone, if power
    /// failed now.
    ///
    /// # Errors
    /// If it is not in both.
    pub fn replicated(
        &mut self,
        change: u32,
        begun: u64,
        active: &str,
        peers: &[String],
    ) -> Result<(), String> {
        // The peer may have lost it again before the answer came.
        if self.lost_at.is_some_and(|at| at >= begun) {
            return self.local(change, active);
        }
        self.replicated.insert(change);
        let on_active = has(active, change);
        if on_active && peers.iter().any(|running| has(running, change)) {
            return Ok(());
        }
        let whose = if on_active { "peer" } else { "active" };
        Err(format!(
            "S5: z{change} is acknowledged as replicated and not durable on the {whose}"
        ))
    }

    /// A change is acknowledged as durable on the active only.
    ///
    /// # Errors
    /// If a loss of power now would lose it.
    pub fn local(&mut self, change: u32, durable: &str) -> Result<(), String> {
        self.local.insert(change);
        if has(durable, change) {
            Ok(())
        } else {
            Err(format!(
                "S5: z{change} is acknowledged as local and not durable"
            ))
        }
    }

    /// A machine is cloned, or told to lead without the newest state: what is on both nodes may
    /// become one side of a conflict.
    pub fn may_fork(&mut self) {
        self.forked = true;
    }

    /// A disk is replaced or set back; these configurations and archives are on the other one.
    pub fn lost_disk(&mut self, now: u64, other: &[String]) {
        self.lost_at = Some(now);
        let there: BTreeSet<&str> = other.iter().flat_map(|text| zones(text)).collect();
        let kept = |change: &u32| there.contains(zone(*change).as_str());
        self.replicated.retain(kept);
        self.local.retain(kept);
        self.forked = true;
    }

    /// The replicated change that a standby with this configuration lacks, if it must have all:
    /// no stable standby lacks one.
    #[must_use]
    pub fn lacking(&self, running: &str) -> Option<u32> {
        let there = zones(running);
        let lacks = |change: &&u32| !there.contains(zone(**change).as_str());
        self.replicated
            .iter()
            .find(lacks)
            .copied()
            .filter(|_| !self.forked)
    }

    /// How many were replicated.
    #[must_use]
    pub fn len(&self) -> usize {
        self.replicated.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replicated.is_empty()
    }

    /// The configuration of the active at the end, and those in the archives of conflicts.
    ///
    /// # Errors
    /// If an acknowledged change is in none of them, or a replicated one is only in an archive
    /// although no disk was replaced or set back.
    pub fn check(&self, running: &str, archives: &[String]) -> Result<(), String> {
        let there = zones(running);
        let archived: BTreeSet<&str> = archives.iter().flat_map(|text| zones(text)).collect();
        let gone = |change: &&u32, archives_count: bool| {
            let zone = zone(**change);
            let found = there.contains(zone.as_str());
            !(found || archives_count && archived.contains(zone.as_str()))
        };
        if let Some(change) = self.replicated.iter().find(|c| gone(c, self.forked)) {
            let was = "was acknowledged as replicated and is gone";
            return Err(format!("S5: zone z{change} {was}"));
        }
        if let Some(change) = self.local.iter().find(|c| gone(c, true)) {
            let was = "was acknowledged as local and is neither active nor archived";
            return Err(format!("S5: zone z{change} {was}"));
        }
        Ok(())
    }
}

fn zone(change: u32) -> String {
    format!("z{change}@root")
}

fn has(running: &str, change: u32) -> bool {
    zones(running).contains(zone(change).as_str())
}

fn zones(running: &str) -> BTreeSet<&str> {
    running
        .lines()
        .filter_map(|line| line.strip_prefix("zone "))
        .collect()
}
