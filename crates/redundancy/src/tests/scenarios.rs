//! The rules, one by one, on a pair.

use core::time::Duration;

use model::{Epoch, Role};
use wire::heartbeat::State;
use wire::supervision::VemReport;

use super::pair::{A, B, Pair};
use crate::{Command, Input, ServicesHealth};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn two_nodes_boot_the_primary_leads_and_the_secondary_becomes_stable() {
    let pair = Pair::stable(1);
    let status = pair.core(A).status(pair.now);
    assert_eq!(status.this.internal_state, "Active with HA standby");
    assert!(status.mode_ha && status.reason.is_empty(), "{status:?}");
    assert_eq!(
        status.other.expect("present").supervisor_state,
        "HA standby"
    );
    let status = pair.core(B).status(pair.now);
    assert_eq!(status.this.internal_state, "HA standby");
    assert_eq!(
        status.other.expect("present").internal_state,
        "Active with HA standby"
    );
    assert!(pair.redundant(A));
    assert!(!pair.sides[A].durable.alone && pair.sides[A].durable.paired);
    assert!(pair.sides[A].mnemonics().contains(&"STANDBY_SUP_OK"));
    assert_eq!(pair.acts.len(), 1);
}

#[test]
fn a_node_that_meets_an_active_follows_even_if_it_is_primary() {
    let mut pair = Pair::new(1);
    pair.boot(B);
    pair.run_until("a secondary that was never paired leads", 20_000, |pair| {
        pair.actives() == [B]
    });
    pair.boot(A);
    pair.run_until("the primary follows", 5_000, |pair| pair.is_stable(A));
    assert_eq!(pair.actives(), [B]);
}

#[test]
fn a_silent_active_is_taken_over_from_after_the_hold_time_and_not_before() {
    for interval in [10, 100, 1000] {
        let mut pair = Pair::new(1);
        pair.set_timing(interval, 3);
        pair.boot(A);
        pair.boot(B);
        pair.run_until("stable", 30_000, |pair| pair.is_stable(B));
        pair.run(u64::from(interval) * 2);
        pair.kill(A);
        let took = pair.run_until("B leads", 30_000, |pair| pair.actives() == [B]);
        let interval = u64::from(interval);
        assert!(took <= ms(interval * 3 + 2), "took {took:?}");
        assert!(took >= ms(interval * 2), "took {took:?}");
        pair.run(5);
        let lines = pair.sides[B].mnemonics();
        let order = [
            "HASWITCHOVER_PRE_START",
            "HASWITCHOVER_START",
            "SWITCHOVER_OVER",
        ];
        let at: Option<Vec<usize>> = order
            .iter()
            .map(|line| lines.iter().position(|other| other == line))
            .collect();
        assert!(at.is_some_and(|at| at.is_sorted()), "{lines:?}");
        pair.run_until("the old peer is removed", 1000, |pair| {
            pair.sides[B].mnemonics().contains(&"MOD_REMOVE")
        });
    }
}

#[test]
fn a_takeover_waits_for_no_disk() {
    let mut pair = Pair::stable(1);
    pair.sides[B].write_time = Duration::from_secs(3600);
    pair.kill(A);
    pair.run_until("B leads although its disk hangs", 302, |pair| {
        pair.actives() == [B]
    });
}

#[test]
fn an_active_whose_service_fails_yields_at_once() {
    let mut pair = Pair::stable(1);
    pair.fail_service(A);
    let took = pair.run_until("B leads", 100, |pair| pair.actives() == [B]);
    assert!(took <= ms(3), "took {took:?}");
    assert_eq!(pair.sides[A].acting(), None);
    pair.run_until("A returns as stable standby", 10_000, |pair| {
        pair.is_stable(A)
    });
    assert_eq!(pair.actives(), [B]);
    assert_eq!(pair.sides[A].resets.len(), 1);
    assert!(pair.sides[A].durable.reset_reasons[0].contains("a service failed"));
}

#[test]
fn a_failing_service_without_a_stable_standby_resets_the_node_which_leads_again() {
    let mut pair = Pair::new(1);
    pair.boot(A);
    pair.run_until("A leads alone", 10_000, |pair| pair.actives() == [A]);
    pair.run(10);
    pair.fail_service(A);
    assert_eq!(pair.sides[A].acting(), None);
    pair.run_until("A leads again", 10_000, |pair| pair.acts.len() == 2);
    let (first, second) = (pair.acts[0].2, pair.acts[1].2);
    assert!(second > first);
}

#[test]
fn a_switchover_hands_over_and_the_old_active_returns_as_standby() {
    let mut pair = Pair::stable(1);
    let command = pair.command(A, Command::Switchover);
    let took = pair.run_until("B leads", 200, |pair| pair.actives() == [B]);
    assert!(took <= ms(30), "took {took:?}");
    assert_eq!(pair.result(A, command), Some(Ok(String::new())));
    assert!(pair.sides[A].mnemonics().contains(&"SWITCHOVER_INITIATED"));
    assert!(pair.sides[B].mnemonics().contains(&"SWITCHOVER_INITIATED"));
    let second = pair.command(B, Command::Switchover);
    let refusal = "Failed to switchover (standby not ready to takeover in vdc 1)";
    assert_eq!(pair.result(B, second), Some(Err(refusal.to_owned())), "S8");
    pair.run_until("A is stable", 10_000, |pair| {
        pair.is_stable(A) && pair.mode_ha(B)
    });
    assert!(pair.sides[A].durable.reset_reasons[0].contains("switchover"));
    let third = pair.command(B, Command::Switchover);
    pair.run_until("A leads", 200, |pair| pair.actives() == [A]);
    assert_eq!(pair.result(B, third), Some(Ok(String::new())));
}

#[test]
fn a_switchover_that_nobody_takes_up_is_taken_back_under_a_new_epoch() {
    let mut pair = Pair::stable(1);
    let epoch = pair.sides[A].acting().expect("active");
    pair.pause(B, 1_500);
    pair.command(A, Command::Switchover);
    pair.run_until("A acts again", 3_000, |pair| {
        pair.sides[A].acting().is_some()
    });
    assert!(pair.sides[A].acting() > Some(epoch));
    pair.run_until("one active, one stable standby", 20_000, |pair| {
        pair.actives().len() == 1 && pair.is_stable(1 - pair.actives()[0])
    });
}

#[test]
fn a_standby_that_is_not_ready_makes_a_switchover_refused_with_the_chapters_words() {
    let mut pair = Pair::new(1);
    pair.boot(A);
    pair.run_until("A leads", 10_000, |pair| pair.actives() == [A]);
    let command = pair.command(A, Command::Switchover);
    let refusal = "Failed to switchover (standby not ready to takeover in vdc 1)";
    assert_eq!(pair.result(A, command), Some(Err(refusal.to_owned())));
}

#[test]
fn one_link_down_is_degraded_and_never_a_role_change() {
    let mut pair = Pair::stable(1);
    for link in 0..2 {
        pair.links[link] = [false; 2];
        pair.run(5_000);
        assert!(pair.is_stable(B));
        assert!(pair.sides[A].mnemonics().contains(&"DEGRADED"));
        pair.heal();
        pair.run(2_000);
    }
    assert_eq!(pair.acts.len(), 1);
    assert!(pair.sides[A].mnemonics().contains(&"LINKS_UP"));
}

#[test]
fn an_unstable_standby_restarts_the_pair_instead_of_taking_over() {
    let mut pair = Pair::stable(1);
    pair.set_health(B, ServicesHealth::Starting);
    pair.run(500);
    assert_eq!(pair.says(B), Some(State::Synchronizing));
    assert!(
        pair.reason(B).contains("ready services"),
        "{}",
        pair.reason(B)
    );
    pair.kill(A);
    pair.run_until("B resets", 3_000, |pair| !pair.sides[B].resets.is_empty());
    pair.run(20_000);
    assert!(pair.actives().is_empty(), "S7");
    assert!(
        pair.reason(B).contains("force-active"),
        "{}",
        pair.reason(B)
    );
    assert_eq!(
        pair.sides[B].resets.len(),
        1,
        "it waits instead of resetting again and again"
    );
    pair.boot(A);
    pair.run_until("the pair comes back", 20_000, |pair| {
        pair.actives().len() == 1 && pair.is_stable(1 - pair.actives()[0])
    });
}

#[test]
fn the_pair_is_not_restarted_for_ever() {
    let mut pair = Pair::stable(1);
    for _ in 0..6 {
        pair.set_health(B, ServicesHealth::Starting);
        pair.run(300);
        pair.cut();
        pair.run(6_000);
        pair.heal();
        pair.run_until("A leads", 30_000, |pair| pair.actives() == [A]);
        pair.run(3_000);
    }
    let restarts = pair.sides[B]
        .resets
        .iter()
        .filter(|reason| reason.contains("restart of the pair"));
    assert_eq!(restarts.count(), crate::standby::PAIR_RESTARTS_MAX);
}

#[test]
fn a_pause_stops_the_active_until_it_has_asked_and_it_follows_if_it_was_taken_over_from() {
    let mut pair = Pair::stable(1).with_vems();
    pair.run(100);
    pair.pause(A, 1_000);
    pair.run_until("B takes over", 400, |pair| pair.sides[B].acting().is_some());
    pair.run(1_000);
    assert_eq!(pair.actives(), [B]);
    assert_eq!(pair.acts.len(), 2, "a paused node is no conflict");
    pair.run_until("A follows", 10_000, |pair| pair.is_stable(A));
    assert_eq!(pair.actives(), [B]);
}

#[test]
fn an_isolated_standby_takes_over_when_a_vem_is_back_and_the_active_is_not() {
    let mut pair = Pair::stable(1).with_vems();
    pair.run(100);
    for vem in &mut pair.vems {
        vem.reaches[B] = false;
    }
    pair.kill(A);
    pair.run(5_000);
    assert!(pair.actives().is_empty());
    pair.vems[0].reaches[B] = true;
    // A question at once, the active's hold time, a vote of one interval, and the way of each.
    pair.run_until("B leads", 100 + 300 + 100 + 10, |pair| {
        pair.actives() == [B]
    });
}

#[test]
fn a_commit_goes_ahead_alone_only_when_the_grant_is_void_and_the_mark_durable() {
    let mut pair = Pair::stable(1);
    pair.kill(B);
    let question = pair.ask_alone(A);
    assert!(pair.sides[A].alone_granted.is_empty());
    pair.run(200);
    assert!(
        pair.sides[A].alone_granted.is_empty(),
        "the standby may still take over"
    );
    pair.run_until("leave is given", 500, |pair| {
        pair.sides[A].alone_granted == [question]
    });
    assert!(pair.sides[A].durable.alone && !pair.redundant(A));
    let second = pair.ask_alone(A);
    assert_eq!(
        pair.sides[A].alone_granted,
        [question, second],
        "once alone, no waiting"
    );
    pair.commit(A);
    pair.run(100);
    pair.kill(A);
    pair.boot(A);
    pair.run_until("the alone one leads again", 5_000, |pair| {
        pair.actives() == [A]
    });
}

#[test]
fn a_connected_standby_acknowledges_before_a_commit_goes_ahead_without_it() {
    let mut pair = Pair::stable(1);
    pair.ask_alone(A);
    pair.run_until("leave is given", 50, |pair| {
        pair.sides[A].alone_granted.len() == 1
    });
    assert!(!pair.is_stable(B));
    pair.kill(A);
    pair.run_until("B does not lead but restarts the pair", 3_000, |pair| {
        !pair.sides[B].resets.is_empty()
    });
    assert!(pair.actives().is_empty());
}

#[test]
fn after_it_went_ahead_alone_the_standby_is_granted_again() {
    let mut pair = Pair::stable(1);
    pair.ask_alone(A);
    pair.run_until("leave is given", 50, |pair| {
        pair.sides[A].alone_granted.len() == 1
    });
    pair.run_until("stable again", 2_000, |pair| {
        pair.is_stable(B) && pair.redundant(A)
    });
    assert!(!pair.sides[A].durable.alone);
}

#[test]
fn a_standalone_node_leads_at_once_and_ignores_a_peer() {
    let mut pair = Pair::new(1);
    pair.sides[A].durable.role = Role::Standalone;
    pair.boot(A);
    pair.boot(B);
    pair.run_until("A leads", 100, |pair| pair.actives() == [A]);
    pair.run(1_000);
    assert_eq!(pair.says(A), None, "a standalone node says nothing");
    assert!(pair.core(A).status(pair.now).other.is_none());
    let command = pair.command(A, Command::SetRole(Role::Primary));
    pair.run(10);
    assert_eq!(pair.result(A, command), Some(Ok(String::new())));
    assert_eq!(pair.core(A).role(), Role::Primary, "at once");
    pair.run_until("B follows", 20_000, |pair| pair.is_stable(B));
    assert_eq!(pair.actives(), [A]);
    let command = pair.command(A, Command::SetRole(Role::Secondary));
    pair.run(10);
    let Some(Ok(note)) = pair.result(A, command) else {
        panic!("refused")
    };
    let (pending, clash) = note.split_once('\n').expect("two lines");
    assert_eq!(pending, "Setting will be activated on next reload.");
    assert!(
        clash.starts_with("Warning: the other supervisor has the role secondary too."),
        "{clash}"
    );
    let status = pair.core(A).status(pair.now);
    assert_eq!(status.administrative_role, Role::Secondary);
    assert_eq!(status.operational_role, Role::Primary);
}

#[test]
fn nodes_of_other_pairs_or_of_the_same_role_do_not_pair() {
    let mut pair = Pair::new(1);
    pair.sides[B].durable.pair = model::PairId::try_from(8).ok();
    pair.boot(A);
    pair.boot(B);
    pair.run(30_000);
    assert!(pair.actives().is_empty());
    assert!(
        pair.reason(A).contains("states pair ID 8, ours is 7"),
        "{}",
        pair.reason(A)
    );
    let mut pair = Pair::new(1);
    pair.sides[B].durable.role = Role::Primary;
    pair.boot(A);
    pair.boot(B);
    pair.run(30_000);
    assert!(
        pair.reason(B)
            .contains("both supervisors have the role primary")
    );
}

#[test]
fn reload_of_the_active_is_a_switchover_and_an_active_without_standby_comes_back() {
    let mut pair = Pair::stable(1);
    pair.command(A, Command::Reload);
    pair.run_until("B leads", 50, |pair| pair.actives() == [B]);
    pair.run_until("A is stable", 10_000, |pair| {
        pair.is_stable(A) && pair.mode_ha(B)
    });
    let reason = &pair.sides[A].durable.reset_reasons;
    assert_eq!(
        reason.last().map(String::as_str),
        Some("Reset Requested by CLI command reload")
    );
}

#[test]
fn the_active_reloads_its_standby_and_only_that() {
    let mut pair = Pair::stable(1);
    let before = pair.actives();
    pair.command(B, Command::ReloadStandby);
    pair.run(1_000);
    assert!(pair.is_stable(B), "a standby reloads nobody");
    pair.command(A, Command::ReloadStandby);
    pair.run_until("B resets", 2_000, |pair| !pair.is_stable(B));
    pair.run_until("B is stable again", 20_000, |pair| pair.is_stable(B));
    assert_eq!(pair.actives(), before);
    assert_eq!(
        pair.sides[B]
            .durable
            .reset_reasons
            .last()
            .map(String::as_str),
        Some("Reset Requested by CLI command reload module")
    );
    assert_eq!(pair.sides[A].durable.reset_reasons.last(), None);
}

#[test]
fn one_way_loss_towards_the_standby_ends_with_one_active() {
    let mut pair = Pair::stable(1);
    pair.run(100);
    for link in 0..2 {
        pair.links[link][A] = false;
    }
    pair.run_until("B takes over, A stops when it hears so", 2_000, |pair| {
        pair.actives() == [B]
    });
    pair.heal();
    pair.run_until("A follows", 20_000, |pair| pair.is_stable(A));
    assert_eq!(pair.actives(), [B]);
}

#[test]
fn a_hanging_node_file_makes_the_active_yield() {
    let mut pair = Pair::stable(1);
    pair.sides[A].write_time = Duration::from_secs(3600);
    pair.command(
        A,
        Command::SetPairId(model::PairId::try_from(7).expect("in range")),
    );
    pair.run_until("B leads", 6_000, |pair| pair.actives() == [B]);
}

#[test]
fn a_stuck_decision_path_makes_the_active_yield_and_an_idle_one_does_not() {
    use crate::Input;
    let mut pair = Pair::stable(1);
    pair.run(10_000);
    assert_eq!(
        pair.actives(),
        [A],
        "no canary ever is no proof of anything"
    );
    for finished in 1..50 {
        let now = pair.now;
        let core = pair.sides[A].core.as_mut().expect("runs");
        core.handle(now, Input::Canary { finished });
        pair.run(100);
    }
    assert_eq!(pair.actives(), [A]);
    pair.run_until("B leads", 4_000, |pair| pair.actives() == [B]);
}

#[test]
fn an_active_that_is_well_is_not_reset_by_a_standby_that_cannot_hear_it() {
    let mut pair = Pair::stable(1);
    pair.set_health(B, ServicesHealth::Starting);
    pair.run(300);
    let now = pair.now;
    let epoch = pair.sides[A].acting().expect("active");
    let order = wire::control::ControlMessage::Reset {
        reason: "test".to_owned(),
        epoch,
    };
    let core = pair.sides[A].core.as_mut().expect("runs");
    core.handle(now, Input::Control(order));
    pair.run(1_000);
    assert_eq!(pair.sides[A].acting(), Some(epoch));
}

#[test]
fn a_host_agent_that_tells_an_impossible_epoch_is_not_believed() {
    let mut pair = Pair::stable(1);
    let impossible = Epoch {
        counter: u64::MAX,
        ..Epoch::default()
    };
    let report = VemReport {
        registered: 1,
        connected: 1,
        highest_epoch: impossible,
        promised_epoch: impossible,
        ..VemReport::default()
    };
    for side in [A, B] {
        pair.tell(side, Input::Vems(report));
    }
    pair.run(2_000);
    assert_eq!(pair.actives(), [A]);
    assert!(pair.is_stable(B));
    pair.kill(A);
    pair.run_until("B leads under the next epoch", 2_000, |pair| {
        pair.actives() == [B]
    });
}
