//! Monotonic time for everything that decides, wall time for what is only displayed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Time;
use rustix::time::{ClockId, clock_gettime};

/// Now, on the clock that goes on while the machine is suspended (`CLOCK_BOOTTIME`): a node that
/// was suspended must see the gap.
#[must_use]
pub fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    Time(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// The wall clock, for display: seconds since 1970.
#[must_use]
pub fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Time from now until `deadline`, zero if it has passed.
#[must_use]
pub fn until(deadline: Time) -> Duration {
    deadline.since(now())
}

/// Completes at `deadline` (with the timer's resolution of 1 ms), never if there is none.
///
/// The timer below stands still during suspend; whoever waits must read [`now`] afterwards.
pub async fn sleep_until(deadline: Option<Time>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(until(deadline)).await,
        None => std::future::pending().await,
    }
}

/// A point of wall time, in UTC, as log lines and banners show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime {
    /// Year.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl WallTime {
    /// The wall clock's time. For display only: it may jump.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::from_unix(since.as_secs())
    }

    /// From seconds since 1970-01-01, by the proleptic Gregorian calendar.
    #[must_use]
    pub fn from_unix(seconds: u64) -> Self {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        // Days are counted from 1 March of year 0, so that a leap day ends its year.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u8,
            day: (of_year - (153 * shifted_month + 2) / 5 + 1) as u8,
            hour: (rest / 3_600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    /// `Nov`.
    #[must_use]
    pub fn month_name(&self) -> &'static str {
        const NAMES: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        NAMES
            .get(usize::from(self.month).wrapping_sub(1))
            .copied()
            .unwrap_or("???")
    }
}

/// `2026 Nov 24 20:31:05`, as the original's log lines begin.
impl std::fmt::Display for WallTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            year,
            day,
            hour,
            minute,
            second,
            ..
        } = self;
        let month = self.month_name();
        write!(
            f,
            "{year} {month} {day:2} {hour:02}:{minute:02}:{second:02}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{WallTime, now};

    #[test]
    fn time_does_not_go_back() {
        let first = now();
        assert!(first.0 > 0 && now() >= first);
    }

    #[test]
    fn seconds_become_dates() {
        let text = |seconds| WallTime::from_unix(seconds).to_string();
        assert_eq!(text(0), "1970 Jan  1 00:00:00");
        assert_eq!(text(951_782_399), "2000 Feb 28 23:59:59");
        assert_eq!(text(951_782_400), "2000 Feb 29 00:00:00");
        assert_eq!(text(951_868_800), "2000 Mar  1 00:00:00");
        assert_eq!(text(1_795_552_265), "2026 Nov 24 20:31:05");
        assert_eq!(text(4_107_542_399), "2100 Feb 28 23:59:59");
        assert_eq!(text(4_107_542_400), "2100 Mar  1 00:00:00");
    }
}
