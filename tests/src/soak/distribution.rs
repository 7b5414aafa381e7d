//! Many measurements as a few figures.

use serde::Serialize;

/// The nearest-rank percentiles of a set of values; all zero when there were none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// How many values there were.
    pub count: usize,
    /// Half of the values are at most this.
    pub p50: f64,
    /// 95 of a hundred.
    pub p95: f64,
    /// 99 of a hundred.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Distribution {
    /// Sums up `values`.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100);
            let value = rank.checked_sub(1).and_then(|index| values.get(index));
            // To a hundredth: what follows is noise of the measuring.
            value.map_or(0.0, |value| (value * 100.0).round() / 100.0)
        };
        Self {
            count: values.len(),
            p50: at(50),
            p95: at(95),
            p99: at(99),
            max: at(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let spread = Distribution::of((1..=200).rev().map(f64::from).collect());
        let expected = Distribution {
            count: 200,
            p50: 100.0,
            p95: 190.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(spread, expected);
        assert_eq!(Distribution::of(Vec::new()), Distribution::default());
    }
}
