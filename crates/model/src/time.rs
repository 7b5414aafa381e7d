//! Monotonic time.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the node's monotonic clock (it counts suspend), in nanoseconds.
///
/// 64 bits of nanoseconds last 584 years, so it does not wrap the way a 32-bit millisecond
/// counter does after 24.9 or 49.7 days.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// `milliseconds` after the clock's zero.
    #[must_use]
    pub const fn from_ms(milliseconds: u64) -> Self {
        Self(milliseconds * 1_000_000)
    }

    /// Time passed since `earlier`; zero if `earlier` is in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The later of two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Ord::max(self, other)
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:06}",
            self.0 / 1_000_000_000,
            self.0 / 1_000 % 1_000_000
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_wrap_after_49_days() {
        let wrap = Time::from_ms(1 << 32);
        let later = wrap + Duration::from_millis(5);
        assert_eq!(
            later.since(Time::from_ms((1 << 32) - 5)),
            Duration::from_millis(10)
        );
        assert_eq!(later.since(Time(0)), Duration::from_millis((1 << 32) + 5));
    }
}
