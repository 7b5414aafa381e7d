//! A machine's monotonic clock: it starts anywhere and may run fast or slow.

use model::Time;

/// The rate of a clock that runs as the world does, in millionths.
pub const TRUE_RATE: u64 = 1_000_000;

/// Shows what the world's time is, shifted and stretched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The world's time when the rate last changed.
    since: u64,
    /// What it showed then.
    showed: u64,
    /// Nanoseconds shown for a million of the world's.
    rate: u64,
}

impl Clock {
    /// A clock that shows `offset_ns` when the world begins.
    #[must_use]
    pub const fn new(offset_ns: u64) -> Self {
        Self {
            since: 0,
            showed: offset_ns,
            rate: TRUE_RATE,
        }
    }

    /// What it shows.
    #[must_use]
    pub fn read(&self, now: u64) -> Time {
        let passed = u128::from(now - self.since) * u128::from(self.rate);
        Time(self.showed + (passed / u128::from(TRUE_RATE)) as u64)
    }

    /// When it will show `time`, by the world's time; at once if it has.
    #[must_use]
    pub fn world_time(&self, time: Time) -> u64 {
        let ahead = u128::from(time.0.saturating_sub(self.showed)) * u128::from(TRUE_RATE);
        let ahead = ahead.div_ceil(u128::from(self.rate));
        self.since
            .saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX))
    }

    /// From now on it runs at this rate, in millionths.
    pub fn set_rate(&mut self, now: u64, rate: u64) {
        self.showed = self.read(now).0;
        self.since = now;
        self.rate = rate.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_met_too_early_whatever_the_rate() {
        for rate in [500_000, 999_983, 1_000_000, 1_000_017, 2_000_000] {
            let mut clock = Clock::new((1 << 31) * 1_000_000 - 5);
            clock.set_rate(1_000, rate);
            for ahead in [0, 1, 7, 999_999, 10_000_000_007] {
                let deadline = Time(clock.read(5_000).0 + ahead);
                let at = clock.world_time(deadline);
                assert!(clock.read(at) >= deadline);
                assert!(at == 1_000 || clock.read(at - 1) < deadline);
            }
        }
    }
}
