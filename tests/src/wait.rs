//! Waits for a state, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks. A look starts a process or two, so looking more often would be load.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` returns a value, and returns it.
///
/// # Errors
/// When `limit` passes first: names `what`, and the last error of `look`, if any.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let seen = look();
        if let Ok(Some(value)) = seen {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            match seen {
                Err(error) => {
                    return Err(error.context(format!("not within {limit:?}: {what}")));
                }
                Ok(_) => bail!("not within {limit:?}: {what}"),
            }
        }
        thread::sleep(PAUSE);
    }
}
