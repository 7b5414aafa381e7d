//! S1: at most one start of one node ever acts in an epoch.

use std::collections::BTreeMap;

use model::Epoch;

/// Who acted in which epoch.
#[derive(Debug, Default)]
pub struct OneActivePerEpoch {
    owners: BTreeMap<Epoch, (usize, u64)>,
}

impl OneActivePerEpoch {
    /// A node begins to act.
    ///
    /// # Errors
    /// If another start of a node has acted in that epoch.
    pub fn acts(&mut self, node: usize, boot: u64, epoch: Epoch) -> Result<(), String> {
        let owner = *self.owners.entry(epoch).or_insert((node, boot));
        if owner == (node, boot) {
            return Ok(());
        }
        Err(format!(
            "S1: node {node} start {boot} acts in epoch {epoch}, in which node {} start {} acted",
            owner.0, owner.1
        ))
    }
}
