//! A sync that stalls, diverges, or whose service is dead: out of `HA standby` within a hold time,
//! said on both sides, and mended by itself.

use core::time::Duration;

use model::{Role, ServiceName};

use super::pair::{A, B, Pair};
use crate::{Command, Input, ServicesHealth};

/// A hold time (3 × 100 ms), and the beat that told of the fault.
const WITHIN_MS: u64 = 300 + 150;

fn internal(pair: &Pair, node: usize) -> String {
    pair.core(node).status(pair.now).this.internal_state
}

fn last_line<'a>(pair: &'a Pair, node: usize, mnemonic: &str) -> &'a str {
    let mut lines = pair.sides[node].logs.iter().rev();
    let line = lines.find(|record| record.mnemonic == mnemonic);
    line.map_or("", |record| &record.text)
}

#[test]
fn a_standby_whose_configuration_differs_is_out_of_step_within_a_hold_time_and_pulls_a_whole_copy()
{
    let mut pair = Pair::stable(1);
    pair.commit(A);
    pair.run(200);
    pair.sides[B].corrupt = true;
    pair.run_until("B is no standby any more", WITHIN_MS, |pair| {
        !pair.is_stable(B) && !pair.mode_ha(A) && !pair.mode_ha(B)
    });
    assert_eq!(internal(&pair, A), "HA synchronization in progress");
    assert_eq!(internal(&pair, B), "HA synchronization in progress");
    let line = last_line(&pair, A, "STANDBY_NOT_READY");
    assert!(line.contains("configuration differs at commit 1"), "{line}");
    assert!(last_line(&pair, B, "SYNC_FAILED").contains("configuration differs at commit 1"));
    assert_eq!(pair.sides[B].resyncs, [true], "a whole copy");
    pair.run_until("it is mended", 2_000, |pair| {
        pair.is_stable(B) && pair.mode_ha(A) && pair.mode_ha(B)
    });
    assert_eq!(pair.acts.len(), 1);
}

#[test]
fn a_standby_that_stays_different_cannot_take_over() {
    let mut pair = Pair::stable(1);
    pair.commit(A);
    pair.run(200);
    pair.sides[B].corrupt = true;
    pair.run(400);
    pair.sides[B].corrupt = true;
    pair.kill(A);
    pair.run_until("B restarts the pair", 4_000, |pair| {
        !pair.sides[B].resets.is_empty()
    });
    assert!(pair.actives().is_empty());
}

#[test]
fn a_standby_that_stalls_is_out_of_step_within_a_hold_time_and_asks_again() {
    let mut pair = Pair::stable(1);
    pair.sides[B].stalls = true;
    pair.commit(A);
    pair.commit(A);
    pair.run_until("B is no standby any more", WITHIN_MS, |pair| {
        !pair.is_stable(B) && !pair.mode_ha(A) && !pair.mode_ha(B)
    });
    assert!(
        last_line(&pair, A, "GRANT_WITHDRAWN").contains("2 commits behind"),
        "{}",
        last_line(&pair, A, "GRANT_WITHDRAWN")
    );
    pair.run(50);
    for node in [A, B] {
        let reason = pair.reason(node);
        assert!(reason.contains("2 commits behind"), "{node}: {reason}");
    }
    pair.run_until("it asks again", 3_000, |pair| {
        pair.sides[B].resyncs == [false]
    });
    pair.run_until("it is mended", 2_000, |pair| {
        pair.is_stable(B) && pair.mode_ha(A) && pair.mode_ha(B)
    });
    assert_eq!(pair.acts.len(), 1);
}

#[test]
fn a_stream_of_commits_is_no_stall() {
    let mut pair = Pair::stable(1);
    for _ in 0..2_000 {
        pair.commit(A);
        pair.run(1);
        assert!(pair.is_stable(B));
    }
    assert!(pair.sides[B].resyncs.is_empty());
}

#[test]
fn a_lag_that_only_just_began_when_the_active_died_does_not_forbid_the_takeover() {
    let mut pair = Pair::stable(1);
    pair.sides[B].stalls = true;
    pair.commit(A);
    pair.run(150);
    pair.kill(A);
    pair.run_until("B leads", 400, |pair| pair.actives() == [B]);
    let alarm = last_line(&pair, B, "COMMITS_MISSING");
    assert!(
        alarm.contains("without commits 1 to 1 of the former active"),
        "{alarm}"
    );
}

#[test]
fn a_dead_service_of_the_standby_takes_it_out_at_once_and_is_named_on_both_sides() {
    let mut pair = Pair::stable(1);
    pair.tell(B, Input::Services(ServicesHealth::Starting));
    pair.tell(B, Input::Down(Some(ServiceName::Pss)));
    pair.run_until("B is no standby any more", 50, |pair| {
        !pair.is_stable(B) && !pair.mode_ha(A) && !pair.mode_ha(B)
    });
    pair.run_until("the grant is withdrawn", WITHIN_MS, |pair| {
        last_line(pair, A, "GRANT_WITHDRAWN").contains("service pss does not run on sup-2")
    });
    for node in [A, B] {
        let reason = pair.reason(node);
        assert!(
            reason.contains("pss does not run on sup-2"),
            "{node}: {reason}"
        );
    }
    pair.tell(B, Input::Down(None));
    pair.tell(B, Input::Services(ServicesHealth::Ready));
    pair.run_until("it is whole again", 2_000, |pair| {
        pair.is_stable(B) && pair.mode_ha(A) && pair.mode_ha(B)
    });
}

#[test]
fn a_dead_service_of_the_active_is_shown_on_both_sides_but_the_standby_may_take_over() {
    let mut pair = Pair::stable(1);
    pair.tell(A, Input::Down(Some(ServiceName::Cfgmgr)));
    pair.run_until("the pair is not redundant", WITHIN_MS, |pair| {
        !pair.mode_ha(A) && !pair.mode_ha(B)
    });
    for node in [A, B] {
        let reason = pair.reason(node);
        assert!(
            reason.contains("cfgmgr does not run on sup-1"),
            "{node}: {reason}"
        );
        assert_eq!(internal(&pair, node), "HA synchronization in progress");
    }
    pair.kill(A);
    pair.run_until("B leads", 400, |pair| pair.actives() == [B]);
}

#[test]
fn no_switchover_to_a_standby_that_is_out_of_step() {
    let mut pair = Pair::stable(1);
    pair.sides[B].stalls = true;
    pair.commit(A);
    pair.run(WITHIN_MS);
    let command = pair.command(A, Command::Switchover);
    assert!(matches!(pair.result(A, command), Some(Err(_))));
}

#[test]
fn the_floor_holds_at_the_fast_profile_and_the_hold_time_at_slower_ones() {
    for (interval, limit) in [(10, 300), (100, 300), (1000, 3000)] {
        let mut pair = Pair::new(1);
        pair.set_timing(interval, 3);
        pair.boot(A);
        pair.boot(B);
        pair.run_until("stable", 30_000, |pair| {
            pair.is_stable(B) && pair.mode_ha(A)
        });
        pair.run(u64::from(interval) * 2);
        pair.sides[B].stalls = true;
        pair.commit(A);
        let took = pair.run_until(
            "B is out of step",
            limit + u64::from(interval) * 2,
            |pair| !pair.is_stable(B),
        );
        let floor = Duration::from_millis(limit - u64::from(interval));
        assert!(took >= floor, "{interval}: {took:?}");
    }
}

#[test]
fn roles_are_what_the_standby_is_named_by() {
    // The slot in the words is the role's, not the order in which nodes were started.
    let mut pair = Pair::new(1);
    pair.sides[A].durable.role = Role::Secondary;
    pair.sides[B].durable.role = Role::Primary;
    pair.boot(A);
    pair.boot(B);
    pair.run_until("stable", 30_000, |pair| {
        pair.is_stable(A) && pair.mode_ha(B)
    });
    pair.tell(A, Input::Services(ServicesHealth::Starting));
    pair.tell(A, Input::Down(Some(ServiceName::Mts)));
    pair.run(50);
    assert!(
        pair.reason(B).contains("mts does not run on sup-2"),
        "{}",
        pair.reason(B)
    );
}
