//! S5, as far as it can be seen without archives: a configuration change that is acknowledged as
//! `replicated` is durable on both nodes, and in the configuration of whoever leads once all faults have ended.

use std::collections::BTreeSet;

/// Changes by their number; change `n` creates the zone `z<n>`.
#[derive(Debug, Default)]
pub struct ReplicatedSurvives {
    replicated: BTreeSet<u32>,
}

impl ReplicatedSurvives {
    /// A change is acknowledged as durable on both nodes; these are the configurations that would
    /// be found on them if power failed now.
    ///
    /// # Errors
    /// If it is not in both.
    pub fn acknowledged(&mut self, change: u32, durable: [&str; 2]) -> Result<(), String> {
        self.replicated.insert(change);
        for (node, running) in durable.iter().enumerate() {
            if !zones(running).contains(format!("z{change}@root").as_str()) {
                return Err(format!(
                    "S5: z{change} is acknowledged as replicated and not durable on node {node}"
                ));
            }
        }
        Ok(())
    }

    /// How many there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.replicated.len()
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replicated.is_empty()
    }

    /// The configuration of the active at the end.
    ///
    /// # Errors
    /// If an acknowledged change is not in it.
    pub fn check(&self, running: &str) -> Result<(), String> {
        let there = zones(running);
        for change in &self.replicated {
            let zone = format!("z{change}@root");
            if !there.contains(zone.as_str()) {
                return Err(format!(
                    "S5: zone {zone} was acknowledged as replicated and is gone"
                ));
            }
        }
        Ok(())
    }
}

fn zones(running: &str) -> BTreeSet<&str> {
    running
        .lines()
        .filter_map(|line| line.strip_prefix("zone "))
        .collect()
}
