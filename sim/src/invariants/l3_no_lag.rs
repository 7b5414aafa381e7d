//! L3: the standby has whatever the active had a moment ago, flows included.

use model::Lsn;

use crate::world::World;

/// Looks from time to time.
#[derive(Debug, Default)]
pub struct NoLag {
    /// The active's position at the last look.
    had: Option<(usize, Lsn)>,
}

impl NoLag {
    /// The gateway that acts, at this look.
    ///
    /// # Errors
    /// If the standby lacks what the active had at the last look.
    pub fn holds(&mut self, world: &World, active: usize) -> Result<(), String> {
        let position = |index: usize| {
            let store = world.machines[index].node.as_ref()?.store()?;
            Some(store.history().1)
        };
        let (Some(ours), Some(theirs)) = (position(active), position(1 - active)) else {
            return Err("L3: a store does not run".to_owned());
        };
        let had = self.had.replace((active, ours));
        match had {
            Some((then, had)) if then == active && theirs < had => Err(format!(
                "L3: the standby is at commit {}, the active was at {} before",
                theirs.0, had.0
            )),
            Some(_) | None => Ok(()),
        }
    }
}
