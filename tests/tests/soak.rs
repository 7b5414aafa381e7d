//! The scenarios of `cargo xtask soak`, for seconds instead of hours.

use std::time::Duration;

use system_tests::bench;
use system_tests::soak::{Profile, Violation, pauses, random, saturated};

/// New connections a second: enough to meet every failover, and little load.
const RATE: u64 = 200;

fn nothing_broke(violations: &[Violation]) {
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn random_faults_break_nothing() {
    if !bench::may_run() {
        return;
    }
    let (lab, _) = bench::pair_with_policy();
    let options = random::Options {
        duration: Duration::from_secs(60),
        seed: 1,
        first_round: 0,
        rounds: 12,
        rate: RATE,
        profile: Some(Profile::Default),
    };
    let report = random::run(&lab, &options, &|line| eprintln!("{line}"), &|_| {}).expect("a soak");
    nothing_broke(&report.violations);
    assert!(report.failovers > 2, "{report:#?}");
    assert!(
        report.looks > 500 && report.commits.replicated > 0,
        "{report:#?}"
    );
    lab.down().expect("down");
}

#[test]
fn a_stopped_active_breaks_nothing_at_either_profile() {
    if !bench::may_run() {
        return;
    }
    let (lab, _) = bench::pair_with_policy();
    let options = pauses::Options {
        profiles: vec![Profile::Default, Profile::Fast],
        pauses_ms: vec![1000],
        repetitions: 1,
        rate: RATE,
    };
    let report = pauses::run(&lab, &options, &|line| eprintln!("{line}")).expect("pauses");
    nothing_broke(&report.violations);
    assert!(
        report.pauses.len() == 2 && report.pauses.iter().all(|pause| pause.failed_over),
        "{report:#?}"
    );
    lab.down().expect("down");
}

#[test]
fn nobody_fails_over_while_no_core_is_idle() {
    if !bench::may_run() {
        return;
    }
    let (lab, _) = bench::pair_with_policy();
    let options = saturated::Options {
        duration: Duration::from_secs(10),
        rate: RATE,
    };
    let report = saturated::run(&lab, &options, &|line| eprintln!("{line}")).expect("saturated");
    nothing_broke(&report.violations);
    for outcome in &report.stretches {
        assert_eq!(
            outcome.pauses > 0,
            outcome.stretch.pause_ms > 0,
            "{outcome:?}"
        );
        assert!(outcome.looks > 2, "{outcome:?}");
    }
    lab.down().expect("down");
}
