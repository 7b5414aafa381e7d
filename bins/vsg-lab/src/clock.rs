//! The machine's monotonic clock, in nanoseconds.
//!
//! Every namespace of the lab shares one kernel, so time stamps taken by
//! different processes can be compared without synchronisation.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::Duration;

/// Nanoseconds in one second.
pub const NS_PER_S: u64 = 1_000_000_000;
/// Nanoseconds in one millisecond.
pub const NS_PER_MS: u64 = 1_000_000;

fn nanoseconds(time: Timespec) -> u64 {
    // Neither clock is ever before its epoch, so both fields are non-negative.
    (time.tv_sec as u64).saturating_mul(NS_PER_S) + time.tv_nsec as u64
}

/// The monotonic time now, ns.
#[must_use]
pub fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// The wall time now, ns since 1970. Only for converting kernel time stamps.
#[must_use]
pub fn wall_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

/// A count of nanoseconds as the kernel's `timespec`.
#[must_use]
pub fn timespec(ns: u64) -> Timespec {
    Timespec {
        tv_sec: (ns / NS_PER_S) as i64,
        tv_nsec: (ns % NS_PER_S) as _,
    }
}

/// Sleeps until the monotonic time `at_ns`; returns at once if it is past.
pub fn sleep_until(at_ns: u64) {
    while now_ns() < at_ns {
        // A signal may end the sleep early: the loop goes on until the time.
        let _ = rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &timespec(at_ns));
    }
}

/// Asks `ready` every `pause` until it gives a value or `limit` has passed.
///
/// The lab observes processes of others from outside, where no event can be
/// waited for; this is the one place where it polls.
///
/// # Errors
/// Whatever `ready` reports; `Ok(None)` means the limit passed.
pub fn poll_until<T>(
    limit: Duration,
    pause: Duration,
    mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let deadline = now_ns() + limit.as_nanos() as u64;
    loop {
        if let Some(value) = ready()? {
            return Ok(Some(value));
        }
        if now_ns() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(pause);
    }
}
