//! S4: with healthy links and both nodes up for a while, at most one acts.

/// How long is a while: two hold times of the slowest profile and the restart of a node, in
/// nanoseconds.
const A_WHILE_NS: u64 = 15_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub struct OneActiveWhenHealthy {
    healthy_since: Option<u64>,
}

impl OneActiveWhenHealthy {
    /// The world at this moment.
    ///
    /// # Errors
    /// If two nodes act although all has been well for a while.
    pub fn step(&mut self, now: u64, healthy: bool, actives: usize) -> Result<(), String> {
        if !healthy {
            self.healthy_since = None;
            return Ok(());
        }
        let since = *self.healthy_since.get_or_insert(now);
        if actives > 1 && now - since > A_WHILE_NS {
            return Err("S4: both nodes act, and all has been well for a while".to_owned());
        }
        Ok(())
    }
}
