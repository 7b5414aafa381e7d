//! The system's randomness.

use ring::rand::{SecureRandom, SystemRandom};

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system's random number generator does not answer")]
pub struct NoEntropy;

/// A number that nobody can guess and that no two starts share.
///
/// # Errors
/// [`NoEntropy`].
pub fn draw() -> Result<u64, NoEntropy> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NoEntropy)?;
    Ok(u64::from_le_bytes(bytes))
}

/// So many bytes that nobody can guess.
///
/// # Errors
/// [`NoEntropy`].
pub fn draw_bytes<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NoEntropy)?;
    Ok(bytes)
}
