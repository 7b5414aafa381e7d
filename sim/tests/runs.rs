//! Short runs: that they are what their seed makes them, and that the invariants are looked at.

use model::{Epoch, Lsn, Verdict};
use sim::coverage::{Coverage, Shown, TRANSITIONS};
use sim::faults::FaultClass;
use sim::invariants::s13_established_flows_need_no_gateway::{self as s13, Act};
use sim::invariants::{
    l4_few_role_changes, l6_commands_end, s1_one_active_per_epoch::OneActivePerEpoch,
    s4_one_active_when_healthy::OneActiveWhenHealthy, s5_commits_survive::CommitsSurvive,
    s6_flows_survive::FlowsSurvive, s7_only_stable_takes_over, s8_no_switchover_without_standby,
    s11_strangers_change_nothing::StrangersChangeNothing, s12_no_decision_by_wall_time,
};
use sim::world::{Options, run};
use vem::{EntryState, FailMode};
use wire::heartbeat::State;

const SHORT: Options = Options {
    chaos_s: 60,
    hosts: 2,
    pause_ms: 4_000,
    readable: false,
    wall_offset_s: 0,
};

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 4] {
        let first = run(seed, SHORT);
        assert_eq!(first, run(seed, SHORT));
        let years_later = Options {
            wall_offset_s: 315_360_000,
            ..SHORT
        };
        let later = run(seed, years_later);
        assert_eq!(
            s12_no_decision_by_wall_time::runs_are_equal(&first, &later),
            Ok(())
        );
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
    let epoch = |counter| Epoch {
        counter,
        ..Epoch::default()
    };
    let mut s1 = OneActivePerEpoch::default();
    assert!(s1.acts(0, 1, epoch(1)).is_ok() && s1.acts(0, 1, epoch(1)).is_ok());
    assert!(s1.acts(1, 1, epoch(1)).is_err() && s1.acts(0, 2, epoch(1)).is_err());

    let mut s4 = OneActiveWhenHealthy::default();
    let second = 1_000_000_000;
    assert!(s4.step(0, true, 2).is_ok() && s4.step(14 * second, true, 2).is_ok());
    assert!(s4.step(16 * second, true, 2).is_err());
    assert!(s4.step(16 * second, false, 2).is_ok() && s4.step(17 * second, true, 2).is_ok());

    let mut s5 = CommitsSurvive::default();
    let there = "zone z4@root\n";
    let archive = [there.to_owned()];
    assert!(s5.replicated(4, 7, there, &archive).is_ok());
    assert!(s5.replicated(4, 7, there, &[]).is_err());
    assert!(s5.check(there, &[]).is_ok() && s5.check("zone z40@root\n", &[]).is_err());
    // While no disk was lost, an archive is not enough for what was replicated.
    assert!(s5.check("", &archive).is_err());
    assert!(s5.local(5, "zone z5@root\n").is_ok() && s5.local(6, "").is_err());
    assert!(s5.check(there, &[]).is_err());
    let mut s5 = CommitsSurvive::default();
    assert!(s5.local(4, there).is_ok() && s5.check("", &archive).is_ok());
    assert!(s5.check("", &[]).is_err());
    s5.lost_disk(9, &[]);
    assert!(s5.check("", &[]).is_ok());

    let mut s6 = FlowsSurvive::default();
    let keys = |keys: &[u8]| keys.iter().map(|key| vec![*key]).collect();
    s6.looks(epoch(1), Lsn(1), keys(&[1, 2]));
    s6.looks(epoch(1), Lsn(2), keys(&[2, 3]));
    assert!(s6.takes_over(epoch(1), Lsn(2), &keys(&[2, 3])).is_ok());
    assert!(s6.takes_over(epoch(1), Lsn(1), &keys(&[1, 2])).is_ok());
    assert!(s6.takes_over(epoch(1), Lsn(2), &keys(&[2])).is_err());
    assert!(s6.takes_over(epoch(1), Lsn(2), &keys(&[1, 2, 3])).is_err());

    let mut s11 = StrangersChangeNothing::default();
    assert!(s11.accepts(0, 1, Some(1)).is_ok() && s11.accepts(1, 1, Some(1)).is_ok());
    assert!(s11.accepts(0, 1, Some(1)).is_err() && s11.accepts(0, 1, None).is_err());

    let (permitted, pending) = (EntryState::Permitted, EntryState::Pending);
    let denies = Act::Decides(Verdict::Drop, 0);
    assert!(s13::acts(true, permitted, FailMode::Close, Act::Forgets).is_ok());
    assert!(s13::acts(false, permitted, FailMode::Close, Act::Forgets).is_err());
    assert!(s13::acts(false, pending, FailMode::Close, denies).is_ok());
    assert!(s13::acts(false, pending, FailMode::Open, denies).is_err());

    assert!(l4_few_role_changes::holds(2).is_ok() && l4_few_role_changes::holds(3).is_err());
    assert!(l6_commands_end::holds(40 * second, Some(20 * second)).is_ok());
    assert!(l6_commands_end::holds(60 * second, Some(20 * second)).is_err());
    assert!(s7_only_stable_takes_over::acts(Some(State::Synchronizing), 2, None).is_err());
    assert!(s7_only_stable_takes_over::acts(Some(State::Synchronizing), 1, None).is_ok());
    assert!(s7_only_stable_takes_over::acts(Some(State::Standby), 0, Some(4)).is_err());
    assert!(s7_only_stable_takes_over::acts(Some(State::Initializing), 0, Some(4)).is_ok());
    assert!(s8_no_switchover_without_standby::quiesces(9 * second, None).is_err());
    assert!(s8_no_switchover_without_standby::quiesces(9 * second, Some(8 * second)).is_ok());
}

#[test]
fn only_listed_changes_of_state_are_met_and_only_by_faults_of_late() {
    let mut coverage = Coverage::default();
    let (from, to) = TRANSITIONS[0];
    coverage.injected(0, FaultClass::Flap, 0);
    assert!(coverage.changed(2_000_000_000, 1, from, to).is_ok());
    assert!(coverage.changed(4_000_000_000, 0, from, to).is_ok());
    assert_eq!(coverage.met, [(1, 0, FaultClass::Flap as u8)].into());
    let standby = Shown::Says(State::Standby);
    assert!(coverage.changed(0, 0, Shown::Off, standby).is_err());
}
