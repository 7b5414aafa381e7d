//! The machine's monotonic clock, the one that the lab stamps with.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine started, suspension left out.
#[must_use]
pub fn now_ns() -> u64 {
    read_ns(ClockId::Monotonic)
}

/// The moment on [`now_ns`]'s clock that the product's clock, which counts suspension, calls
/// `boot_ns`. Right for moments since the machine last slept.
#[must_use]
pub fn from_boot_clock(boot_ns: u64) -> u64 {
    let slept_ns = read_ns(ClockId::Boottime).saturating_sub(now_ns());
    // The two readings are not taken at once; a machine that never slept must get back what it
    // gave, and a suspension shorter than this is not one.
    if slept_ns < 1_000_000 {
        boot_ns
    } else {
        boot_ns.saturating_sub(slept_ns)
    }
}

fn read_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanoseconds
}
