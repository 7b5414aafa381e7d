//! S7: only a stable standby takes over; one that still synchronises never goes on to act.

use wire::heartbeat::State;

/// A node begins to act; this is what it last said of itself, if it has said anything.
///
/// # Errors
/// If it followed and was not stable.
pub fn acts(said: Option<State>) -> Result<(), String> {
    match said {
        Some(State::Synchronizing) => {
            Err("S7: a standby that was not stable has taken over".to_owned())
        }
        Some(
            State::Initializing
            | State::Active
            | State::Paused
            | State::Yielded
            | State::Standby
            | State::Resetting,
        )
        | None => Ok(()),
    }
}
