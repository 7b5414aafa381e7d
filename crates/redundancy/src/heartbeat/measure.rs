//! What is measured of each beat, over a sliding window, in fixed memory.
//!
//! Invariant: recording allocates nothing and takes a constant number of steps.

/// Values of one half of the window: what is shown covers the last 500 to 1000.
const HALF_WINDOW: u16 = 500;
/// A bucket spans an eighth of a power of two, so a percentile is exact to an eighth.
const STEPS_PER_OCTAVE: usize = 8;
/// 8 µs exactly, then 24 octaves: up to 134 s, beyond any interval.
const BUCKETS: usize = STEPS_PER_OCTAVE * 25;

/// One half of the window.
#[derive(Clone, Debug)]
struct Half {
    counts: [u16; BUCKETS],
    values: u16,
    sum_us: u64,
    max_us: u64,
}

impl Default for Half {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            values: 0,
            sum_us: 0,
            max_us: 0,
        }
    }
}

/// The newest values of one quantity, in microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Measure {
    newest: Half,
    before: Half,
}

fn bucket(value_us: u64) -> usize {
    let steps = STEPS_PER_OCTAVE as u64;
    if value_us < steps {
        return value_us as usize;
    }
    let octave = value_us.ilog2() - steps.ilog2();
    let step = (value_us >> octave) as usize - STEPS_PER_OCTAVE;
    ((octave as usize + 1) * STEPS_PER_OCTAVE + step).min(BUCKETS - 1)
}

/// The largest value of a bucket.
const fn upper_us(bucket: usize) -> u64 {
    if bucket < STEPS_PER_OCTAVE {
        return bucket as u64;
    }
    let octave = bucket / STEPS_PER_OCTAVE - 1;
    let step = bucket % STEPS_PER_OCTAVE + STEPS_PER_OCTAVE;
    ((step as u64 + 1) << octave) - 1
}

impl Measure {
    pub(super) fn record(&mut self, value_us: u64) {
        let half = &mut self.newest;
        half.counts[bucket(value_us)] += 1;
        half.values += 1;
        half.sum_us = half.sum_us.saturating_add(value_us);
        half.max_us = half.max_us.max(value_us);
        if half.values == HALF_WINDOW {
            self.before = core::mem::take(&mut self.newest);
        }
    }

    fn values(&self) -> u64 {
        u64::from(self.newest.values) + u64::from(self.before.values)
    }

    /// 0 before the first value.
    pub(super) fn mean_us(&self) -> u64 {
        let sum = self.newest.sum_us.saturating_add(self.before.sum_us);
        sum.checked_div(self.values()).unwrap_or(0)
    }

    pub(super) fn max_us(&self) -> u64 {
        self.newest.max_us.max(self.before.max_us)
    }

    /// What 99 of 100 values do not exceed; 0 before the first.
    pub(super) fn p99_us(&self) -> u64 {
        let above = self.values() / 100;
        let mut left = self.values() - above;
        let halves = self.newest.counts.iter().zip(&self.before.counts);
        for (index, (newest, before)) in halves.enumerate() {
            let here = u64::from(*newest) + u64::from(*before);
            if here >= left {
                return upper_us(index).min(self.max_us());
            }
            left -= here;
        }
        self.max_us()
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, HALF_WINDOW, Measure, bucket, upper_us};

    #[test]
    fn buckets_are_in_order_and_exact_to_an_eighth() {
        let mut last = 0;
        for value in 0..100_000_u64 {
            let found = bucket(value);
            assert!(found == last || found == last + 1, "{value}");
            last = found;
            let upper = upper_us(found);
            assert!(
                value <= upper && upper - value <= value / 8,
                "{value} {upper}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn old_values_are_forgotten_and_a_rare_one_is_only_the_largest() {
        let mut measure = Measure::default();
        assert_eq!(
            (measure.mean_us(), measure.p99_us(), measure.max_us()),
            (0, 0, 0)
        );
        measure.record(1_000_000);
        for _ in 0..200 {
            measure.record(100);
        }
        assert_eq!(measure.max_us(), 1_000_000);
        assert!((100..=112).contains(&measure.p99_us()));
        for _ in 0..2 * HALF_WINDOW {
            measure.record(100);
        }
        assert_eq!((measure.mean_us(), measure.max_us()), (100, 100));
    }
}
