//! Short runs: that they are what their seed makes them, and that the invariants are looked at.

use sim::invariants::{
    s1_one_active_per_epoch::OneActivePerEpoch, s4_one_active_when_healthy::OneActiveWhenHealthy,
    s5_replicated_survives::ReplicatedSurvives, s7_only_stable_takes_over,
    s8_no_switchover_without_standby,
};
use sim::world::{Options, run};
use wire::heartbeat::State;

const SHORT: Options = Options {
    chaos_s: 60,
    hosts: 2,
    pause_ms: 12_000,
    readable: false,
};

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 4] {
        let first = run(seed, SHORT);
        assert_eq!(first, run(seed, SHORT));
        assert!(first.events > 1000);
    }
    assert_ne!(run(5, SHORT).trace_hash, run(6, SHORT).trace_hash);
}

#[test]
fn a_few_seeds_keep_every_invariant_and_do_something() {
    let outcomes: Vec<_> = (1..=6).map(|seed| run(seed, SHORT)).collect();
    for outcome in &outcomes {
        assert_eq!(outcome.failure, None, "seed {}", outcome.seed);
    }
    assert!(
        outcomes
            .iter()
            .map(|outcome| outcome.role_changes)
            .sum::<u64>()
            > 6
    );
    assert!(
        outcomes
            .iter()
            .map(|outcome| outcome.replicated)
            .sum::<u64>()
            > 0
    );
    assert!(outcomes.iter().map(|outcome| outcome.decided).sum::<u64>() > 100);
}

#[test]
fn each_invariant_can_fail() {
    let epoch = |counter| model::Epoch {
        counter,
        ..model::Epoch::default()
    };
    let mut s1 = OneActivePerEpoch::default();
    assert!(s1.acts(0, 1, epoch(1)).is_ok() && s1.acts(0, 1, epoch(1)).is_ok());
    assert!(s1.acts(1, 1, epoch(1)).is_err() && s1.acts(0, 2, epoch(1)).is_err());

    let mut s4 = OneActiveWhenHealthy::default();
    let second = 1_000_000_000;
    assert!(s4.step(0, true, 2).is_ok() && s4.step(14 * second, true, 2).is_ok());
    assert!(s4.step(16 * second, true, 2).is_err());
    assert!(s4.step(16 * second, false, 2).is_ok() && s4.step(17 * second, true, 2).is_ok());

    let mut s5 = ReplicatedSurvives::default();
    let there = "zone z4@root\n";
    assert!(s5.acknowledged(4, [there, there]).is_ok());
    assert!(s5.acknowledged(4, [there, ""]).is_err());
    assert!(s5.check("zone z4@root\n").is_ok() && s5.check("zone z40@root\n").is_err());

    assert!(s7_only_stable_takes_over::acts(Some(State::Synchronizing), 2).is_err());
    assert!(s7_only_stable_takes_over::acts(Some(State::Synchronizing), 1).is_ok());
    assert!(s8_no_switchover_without_standby::quiesces(9 * second, None).is_err());
    assert!(s8_no_switchover_without_standby::quiesces(9 * second, Some(8 * second)).is_ok());
}
