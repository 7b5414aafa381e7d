//! L4: at most two role changes after the last fault: one that ends a conflict or a gap, and one
//! if that meets a restart which the last fault had caused.

/// Role changes after the last fault.
const FEW: u64 = 2;

/// See the module; `changes` is the number of times a gateway began to act since the last fault.
///
/// # Errors
/// If there were more.
pub fn holds(changes: u64) -> Result<(), String> {
    if changes <= FEW {
        return Ok(());
    }
    Err(format!("L4: {changes} role changes after the last fault"))
}
