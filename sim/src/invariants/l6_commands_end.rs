//! L6: every command ends, done or refused with a reason, within a bound.

use crate::world::S;

/// Longest that a session of a few commands may take once no fault is left: a commit waits for
/// the standby, a switchover for the queues to drain.
const BOUND_NS: u64 = 30 * S;

/// A session has been open since then, if one is.
///
/// # Errors
/// If that is too long.
pub fn holds(now: u64, open_since: Option<u64>) -> Result<(), String> {
    match open_since {
        Some(since) if now - since > BOUND_NS => Err(format!(
            "L6: a command has not ended for {} s",
            (now - since) / S
        )),
        Some(_) | None => Ok(()),
    }
}
