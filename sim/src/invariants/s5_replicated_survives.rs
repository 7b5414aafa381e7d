//! S5, as far as it can be seen without archives: a configuration change that was acknowledged as
//! `replicated` is in the configuration of whoever leads once all faults have ended.

use std::collections::BTreeSet;

/// Changes by their number; change `n` creates the zone `z<n>`.
#[derive(Debug, Default)]
pub struct ReplicatedSurvives {
    replicated: BTreeSet<u32>,
}

impl ReplicatedSurvives {
    /// A change was acknowledged as durable on both nodes.
    pub fn acknowledged(&mut self, change: u32) {
        self.replicated.insert(change);
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
        let there: BTreeSet<&str> = running
            .lines()
            .filter_map(|line| line.strip_prefix("zone "))
            .collect();
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
