//! The machine's monotonic clock, the one that the lab and the host agents stamp with.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine started.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanoseconds
}
