//! The worst and the median of a step's repetitions, and the JSON of the whole demo.

use serde::Serialize;

use super::measure::Sample;
use super::promise;
use super::step::Step;

/// The whole demo. The field names are the documented schema of `--json`.
#[derive(Serialize)]
pub(crate) struct Demo {
    /// From the start of the nodes until the pair was redundant.
    pub(crate) boot_ms: u64,
    /// In the story's order.
    pub(crate) steps: Vec<StepFigures>,
    /// The unsaved change is there and still unsaved.
    pub(crate) unsaved_change_kept: bool,
    /// Every promise of every repetition.
    pub(crate) promises_held: bool,
    /// What did not hold; not part of the schema.
    #[serde(skip)]
    pub(crate) broken: Vec<String>,
}

/// One step: the worst of its repetitions in every figure.
#[derive(Serialize)]
pub(crate) struct StepFigures {
    pub(crate) step: Step,
    pub(crate) reps: usize,
    pub(crate) control_stall_ms: f64,
    pub(crate) established_stall_ms: f64,
    pub(crate) established_alive: bool,
    pub(crate) udp_lost: u64,
    pub(crate) udp_reordered: u64,
    pub(crate) connections: u64,
    pub(crate) connections_per_s: f64,
    pub(crate) decided_by_gateway: u64,
    pub(crate) connections_failed: u64,
    pub(crate) syn_retransmitted: u64,
    pub(crate) slowest_connect_ms: f64,
    /// None where the active stays.
    pub(crate) takeover_ms: Option<f64>,
    pub(crate) forbidden_attempts: u64,
    pub(crate) forbidden_reached: u64,
    pub(crate) witness_errors: u64,
    /// For the table.
    #[serde(skip)]
    pub(crate) medians: Medians,
    /// For the table: whether all its promises held.
    #[serde(skip)]
    pub(crate) held: bool,
}

/// The middle repetition of what the table shows twice.
pub(crate) struct Medians {
    pub(crate) established_stall_ms: f64,
    pub(crate) slowest_connect_ms: f64,
    pub(crate) takeover_ms: Option<f64>,
}

impl StepFigures {
    /// Sums up the repetitions of `step`; there is at least one.
    pub(crate) fn of(step: Step, samples: &[Sample]) -> Self {
        let most = |figure: fn(&Sample) -> u64| samples.iter().map(figure).max().unwrap_or(0);
        let least = |figure: fn(&Sample) -> u64| samples.iter().map(figure).min().unwrap_or(0);
        let worst = |figure: fn(&Sample) -> f64| samples.iter().map(figure).fold(0.0, f64::max);
        let takeovers: Vec<f64> = samples
            .iter()
            .filter_map(|sample| sample.takeover_ms)
            .collect();
        Self {
            step,
            reps: samples.len(),
            control_stall_ms: rounded(worst(Sample::control_stall_ms)),
            established_stall_ms: rounded(worst(Sample::stall_ms)),
            established_alive: samples.iter().all(|sample| sample.fault.tcp_alive),
            udp_lost: most(|sample| sample.fault.udp_lost),
            udp_reordered: most(|sample| sample.fault.udp_reordered),
            connections: least(|sample| sample.fault.connections),
            connections_per_s: rounded(
                samples
                    .iter()
                    .map(|s| s.fault.connections_per_s)
                    .fold(f64::INFINITY, f64::min),
            ),
            decided_by_gateway: least(|sample| sample.decided_by_gateway),
            connections_failed: most(|sample| sample.fault.connections_failed),
            syn_retransmitted: most(|sample| sample.fault.syn_retransmitted),
            slowest_connect_ms: rounded(worst(|sample| sample.fault.connect_slowest_ms)),
            takeover_ms: takeovers.iter().copied().reduce(f64::max).map(rounded),
            forbidden_attempts: least(|sample| sample.fault.forbidden_attempts),
            forbidden_reached: most(|sample| sample.fault.forbidden_reached),
            witness_errors: most(|sample| sample.fault.witness_errors),
            medians: Medians {
                established_stall_ms: median(samples.iter().map(Sample::stall_ms).collect())
                    .unwrap_or(0.0),
                slowest_connect_ms: median(
                    samples
                        .iter()
                        .map(|sample| sample.fault.connect_slowest_ms)
                        .collect(),
                )
                .unwrap_or(0.0),
                takeover_ms: median(takeovers),
            },
            held: samples
                .iter()
                .all(|sample| promise::broken(step, sample).is_empty()),
        }
    }
}

/// The middle value, rounded as the worst is, so that it never reads higher; the higher of two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().map(rounded)
}

/// To a hundredth: what follows is noise of the measuring, not of the measured.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(vec![1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
