//! S7: only a stable standby takes over; one that lacks something never goes on to act.
//!
//! A standby may become stable and take over in one turn, if what it lacked came after its active
//! had ended: a write that became durable, a service that became ready. One event brings one part,
//! so a standby that lacked two before the turn cannot have been stable in it.

use wire::heartbeat::State;
use wire::supervision::RedundancyStatus;

/// How many parts of being stable a standby says that it lacks.
#[must_use]
pub fn lacking(status: &RedundancyStatus) -> usize {
    let Some((_, parts)) = status.reason.split_once("lacks ") else {
        return 0;
    };
    let part = |words: &&str| !words.starts_with("and ");
    parts.split(", ").filter(part).count()
}

/// A node begins to act; this is what it last said of itself, if it has said anything, how many
/// parts it said that it lacked before, and a replicated change that it really lacks.
///
/// # Errors
/// If it followed and cannot have been stable.
pub fn acts(said: Option<State>, lacked: usize, missing: Option<u32>) -> Result<(), String> {
    if let (Some(State::Synchronizing | State::Standby), Some(change)) = (said, missing) {
        return Err(format!(
            "S7: a standby without the replicated change z{change} has taken over"
        ));
    }
    match said {
        Some(State::Synchronizing) if lacked > 1 => Err(format!(
            "S7: a standby that lacked {lacked} parts of being stable has taken over"
        )),
        Some(
            State::Initializing
            | State::Synchronizing
            | State::Active
            | State::Paused
            | State::Yielded
            | State::Standby
            | State::Resetting,
        )
        | None => Ok(()),
    }
}
