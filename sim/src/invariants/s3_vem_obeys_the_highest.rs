//! S3: a VEM applies nothing of an epoch below the highest it has seen, and never mixes two.

use vem::Vem;

/// A verdict is applied that was decided in an epoch with this counter (0: by the fail mode).
///
/// # Errors
/// If it is not the highest epoch's.
pub fn verdict_applied(agent: &Vem, epoch_counter: u64) -> Result<(), String> {
    let highest = agent.highest_epoch();
    if epoch_counter == 0 || epoch_counter == highest.counter {
        return Ok(());
    }
    Err(format!(
        "S3: a verdict of epoch {epoch_counter} is applied after {highest} was seen"
    ))
}
