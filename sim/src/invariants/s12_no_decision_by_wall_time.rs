//! S12: no decision reads wall time: the same seed with all wall clocks shifted by years gives the
//! same run.

use crate::world::Outcome;

/// Two runs of a seed, their wall clocks years apart.
///
/// # Errors
/// If they differ in anything.
pub fn runs_are_equal(one: &Outcome, other: &Outcome) -> Result<(), String> {
    if one == other {
        return Ok(());
    }
    Err(format!(
        "S12: with other wall clocks seed {} has {} events and trace {:x}, not {} and {:x}",
        one.seed, other.events, other.trace_hash, one.events, one.trace_hash
    ))
}
