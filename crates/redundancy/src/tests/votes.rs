//! Votes of the VEMs, on a pair: who may take over, how soon, and what becomes of a promise that
//! nobody uses.

use core::time::Duration;

use model::{Epoch, Incarnation, Role};

use super::pair::{A, B, Pair};
use crate::{Command, ServicesHealth};

/// Node to VEM to active, and back; and a turn of each.
const ROUND_TRIP_MS: u64 = 8;

fn with_vems(count: usize) -> Pair {
    let mut pair = Pair::stable(1);
    pair.add_vems(count);
    pair.run(100);
    pair
}

fn is_whole(pair: &Pair) -> bool {
    let actives = pair.actives();
    actives.len() == 1 && pair.is_stable(1 - actives[0]) && pair.mode_ha(actives[0])
}

/// The pair heals by itself, and every VEM obeys whoever leads.
#[track_caller]
fn settles(pair: &mut Pair) {
    pair.run_until("the pair is whole", 20_000, is_whole);
    pair.run(500);
    let acting = pair.sides[pair.actives()[0]].acting().expect("leads");
    assert!(
        pair.vems.iter().all(|vem| vem.obeys(acting)),
        "no VEM is orphaned"
    );
}

#[test]
fn a_takeover_takes_a_hold_time_and_two_round_trips() {
    for interval in [10, 100, 1000] {
        let mut pair = Pair::new(1);
        pair.set_timing(interval, 3);
        pair.boot(A);
        pair.boot(B);
        pair.run_until("stable", 30_000, |pair| pair.is_stable(B));
        pair.add_vems(3);
        pair.run(100);
        pair.kill(A);
        let took = pair.run_until("B leads", 30_000, |pair| pair.actives() == [B]);
        let interval = u64::from(interval);
        // The VEMs have asked the active in the last interval of the hold time.
        let bound = Duration::from_millis(interval * 3 + 2 * ROUND_TRIP_MS);
        assert!(took <= bound, "took {took:?} at {interval} ms");
        settles_alone(&mut pair, B);
    }
}

#[track_caller]
fn settles_alone(pair: &mut Pair, node: usize) {
    pair.run(100);
    let acting = pair.sides[node].acting().expect("leads");
    assert!(pair.vems.iter().all(|vem| vem.obeys(acting)));
}

#[test]
fn a_death_that_the_active_tells_needs_no_vote() {
    let mut pair = with_vems(2);
    pair.fail_service(A);
    let took = pair.run_until("B leads", 100, |pair| pair.actives() == [B]);
    assert!(took <= Duration::from_millis(3), "took {took:?}");
    settles(&mut pair);
}

#[test]
fn a_majority_that_hears_the_active_forbids_the_takeover_and_is_asked_again() {
    for hears in 0..=3 {
        let mut pair = with_vems(3);
        for vem in pair.vems.iter_mut().skip(hears) {
            vem.reaches[A] = false;
        }
        pair.cut();
        pair.run(2_000);
        let forbidden = hears * 2 > 3;
        assert_eq!(pair.sides[B].acting().is_none(), forbidden, "{hears} of 3");
        if !forbidden {
            continue;
        }
        assert!(
            pair.reason(B)
                .contains(&format!("{hears} of 3 VEMs hear it")),
            "{}",
            pair.reason(B)
        );
        assert_eq!(pair.acts.len(), 1, "A goes on under its epoch");
        assert!(pair.sides[A].resets.is_empty() && pair.sides[B].resets.is_empty());
        pair.kill(A);
        // A question, and then the vote itself.
        let bound = 300 + 2 * (100 + ROUND_TRIP_MS);
        pair.run_until("B leads", bound, |pair| pair.actives() == [B]);
    }
}

#[test]
fn a_tie_leaves_it_to_the_chapters_rule() {
    let mut pair = with_vems(2);
    pair.vems[0].reaches[A] = false;
    pair.cut();
    pair.run_until("B leads", 1_000, |pair| pair.sides[B].acting().is_some());
}

#[test]
fn a_vem_whose_connection_is_dead_delays_no_takeover_that_the_others_allow() {
    let mut pair = with_vems(3);
    pair.connections_outlive = true;
    pair.vems[0].reaches[B] = false;
    pair.run(50);
    pair.kill(A);
    let took = pair.run_until("B leads", 1_000, |pair| pair.actives() == [B]);
    assert!(
        took <= Duration::from_millis(400 + ROUND_TRIP_MS),
        "took {took:?}"
    );
}

#[test]
fn a_promise_that_is_not_used_costs_the_active_a_new_epoch_and_no_role_change() {
    for heard in [true, false] {
        let mut pair = with_vems(3);
        let first = pair.sides[A].acting().expect("leads");
        // A vote of which the standby has not heard the answers.
        if !heard {
            pair.cut();
            pair.run(1_000);
        }
        let said = pair.core(B).ctx.said.as_ref().expect("it speaks");
        pair.vems[0].fenced.promised = said.reserved.expect("a stable standby has one");
        pair.run_until("A stops", 10, |pair| pair.sides[A].acting().is_none());
        assert!(pair.sides[A].mnemonics().contains(&"PROMISED"));
        let took = pair.run_until("A acts again", 1_000, |pair| {
            pair.sides[A].acting() > Some(first)
        });
        // Where the standby is heard, it answers to the next beat with its next; where not, the
        // VEMs know that it has claimed none of them.
        let bound = if heard { 210 } else { 60 };
        assert!(took <= Duration::from_millis(bound), "took {took:?}");
        pair.run(2);
        let acting = pair.sides[A].acting().expect("acts");
        assert!(pair.vems.iter().all(|vem| vem.obeys(acting)));
        pair.heal();
        settles(&mut pair);
        assert_eq!(pair.actives(), [A]);
        assert!(pair.sides[A].resets.is_empty() && pair.sides[B].resets.is_empty());
        assert_eq!(pair.acts.len(), 2);
    }
}

#[test]
fn a_candidate_that_dies_after_the_promise_orphans_no_vem() {
    let mut pair = with_vems(1);
    let first = pair.sides[A].acting().expect("leads");
    pair.vems[0].reaches[A] = false;
    pair.cut();
    pair.run_until("it is promised", 1_000, |pair| {
        pair.vems[0].fenced.promised > first
    });
    pair.kill(B);
    pair.vems[0].reaches[A] = true;
    pair.run_until("A leads it again", 1_000, |pair| {
        pair.sides[A]
            .acting()
            .is_some_and(|acting| pair.vems[0].obeys(acting))
    });
    assert!(pair.sides[A].resets.is_empty());
    pair.heal();
    pair.boot(B);
    settles(&mut pair);
}

#[test]
fn an_active_that_was_taken_over_from_learns_it_from_a_vem_alone() {
    let mut pair = with_vems(1);
    pair.vems[0].reaches[A] = false;
    pair.cut();
    pair.run_until("B leads", 1_000, |pair| pair.sides[B].acting().is_some());
    pair.vems[0].reaches[A] = true;
    pair.run_until("A stops", 5, |pair| pair.actives() == [B]);
    pair.run_until("and resets", 10_000, |pair| {
        !pair.sides[A].resets.is_empty()
    });
    pair.run(2_000);
    assert_eq!(pair.actives(), [B]);
}

#[test]
fn a_cut_that_lasts_costs_a_living_active_one_epoch_however_a_vem_flaps() {
    let mut pair = with_vems(3);
    pair.cut();
    for _ in 0..40 {
        pair.vems[0].reaches[A] ^= true;
        pair.run(250);
    }
    assert_eq!(pair.actives(), [A]);
    assert!(pair.acts.len() <= 2, "{:?}", pair.acts);
    pair.vems[0].reaches[A] = true;
    pair.heal();
    settles(&mut pair);
    assert_eq!(pair.actives(), [A]);
}

#[test]
fn an_unstable_standby_does_not_restart_a_pair_whose_active_the_vems_hear() {
    let mut pair = with_vems(2);
    pair.set_health(B, ServicesHealth::Starting);
    pair.run(300);
    pair.cut();
    pair.run(10_000);
    assert!(
        pair.sides[B].resets.is_empty(),
        "{:?}",
        pair.sides[B].resets
    );
    assert!(
        pair.reason(B).contains("2 of 2 VEMs hear it"),
        "{}",
        pair.reason(B)
    );
    assert!(
        pair.vems
            .iter()
            .all(|vem| vem.fenced.promised == Epoch::default()),
        "who cannot take over asks for no promise"
    );
    pair.kill(A);
    pair.run_until("B restarts the pair", 1_000, |pair| {
        !pair.sides[B].resets.is_empty()
    });
}

#[test]
fn a_standby_cut_off_from_everything_neither_leads_nor_resets_and_comes_back() {
    let mut pair = with_vems(2);
    pair.cut();
    for vem in &mut pair.vems {
        vem.reaches[B] = false;
    }
    // Longer than what it needs to lose its stability.
    pair.sides[B].bulk_done = false;
    pair.run(60_000);
    assert_eq!(pair.actives(), [A]);
    assert!(
        pair.sides[B].resets.is_empty(),
        "{:?}",
        pair.sides[B].resets
    );
    assert!(pair.reason(B).contains("isolated"), "{}", pair.reason(B));
    for vem in &mut pair.vems {
        vem.reaches[B] = true;
    }
    pair.heal();
    settles(&mut pair);
    assert_eq!(pair.acts.len(), 1, "no role change");
}

#[test]
fn a_node_that_boots_alone_waits_if_the_vems_have_promised_to_another() {
    let mut pair = with_vems(1);
    let first = pair.sides[A].acting().expect("leads");
    pair.vems[0].reaches[A] = false;
    pair.cut();
    pair.run_until("it is promised", 1_000, |pair| {
        pair.vems[0].fenced.promised > first
    });
    pair.kill(A);
    pair.kill(B);
    pair.sides[A].durable.alone = false;
    pair.vems[0].fenced.obeyed = first;
    pair.vems[0].reaches[A] = true;
    pair.boot(A);
    pair.run(30_000);
    assert!(pair.actives().is_empty(), "B may have led");
    pair.command(A, Command::ForceActive);
    pair.run(100);
    let acting = pair.sides[A].acting().expect("forced");
    assert!(pair.vems[0].obeys(acting), "above what was promised");
}

#[test]
fn a_node_that_boots_alone_leads_if_every_vem_last_obeyed_it_and_promised_nothing() {
    let mut pair = with_vems(2);
    pair.kill(A);
    pair.kill(B);
    pair.boot(A);
    pair.run_until("A leads", 5_000, |pair| pair.actives() == [A]);
}

#[test]
fn the_wait_of_a_node_that_boots_alone_ends_when_the_operator_has_set_so() {
    let mut pair = Pair::stable(1);
    let command = pair.command(B, Command::SetBootWait(Some(20)));
    pair.run(100);
    assert_eq!(pair.result(B, command), Some(Ok(String::new())));
    pair.kill(A);
    pair.kill(B);
    pair.boot(B);
    pair.run(15_000);
    assert!(pair.actives().is_empty());
    assert!(
        pair.reason(B).contains("leads nevertheless after 20 s"),
        "{}",
        pair.reason(B)
    );
    pair.run_until("B leads", 10_000, |pair| pair.actives() == [B]);
}

#[test]
fn a_clone_stops_and_waits_with_the_reason_and_the_original_goes_on() {
    for (role, newer) in [
        (Role::Primary, true),
        (Role::Primary, false),
        (Role::Standalone, true),
        (Role::Standalone, false),
    ] {
        clone_stops(role, newer);
    }
}

/// `newer`: the other start's epoch is the higher one of the two.
fn clone_stops(role: Role, newer: bool) {
    let mut pair = Pair::new(1);
    pair.sides[A].durable.role = role;
    pair.boot(A);
    pair.run_until("A leads", 10_000, |pair| pair.actives() == [A]);
    let epoch = pair.sides[A].acting().expect("leads");
    // The VEM obeys another start of the same identity, at the same counter.
    pair.add_vems(1);
    pair.vems[0].fenced.obeyed = Epoch {
        incarnation: Incarnation(if newer { 77 } else { 0 }),
        ..epoch
    };
    pair.run_until("it stops", 200, |pair| pair.actives().is_empty());
    assert!(pair.sides[A].mnemonics().contains(&"CLONE"));
    pair.run(60_000);
    assert!(
        pair.actives().is_empty(),
        "two of one identity do not fight"
    );
    assert!(pair.reason(A).contains("clone"), "{}", pair.reason(A));
    assert_eq!(pair.sides[A].resets.len(), 1, "{:?}", pair.sides[A].resets);
    let command = pair.command(A, Command::ForceActive);
    pair.run(100);
    assert_eq!(pair.result(A, command), Some(Ok(String::new())));
    assert_eq!(pair.actives(), [A]);
    assert!(!pair.sides[A].durable.cloned);
    assert!(
        pair.sides[A].durable.reset_reasons[0].contains("clone"),
        "{:?}",
        pair.sides[A].durable.reset_reasons
    );
}

#[test]
fn a_standby_learns_from_a_vem_that_the_active_goes_on_without_it() {
    let mut pair = with_vems(2);
    pair.cut();
    pair.run_until("the takeover is forbidden", 1_000, |pair| {
        pair.reason(B).contains("hear it")
    });
    assert!(pair.is_stable(B), "nothing was committed without it");
    pair.ask_alone(A);
    pair.run_until("leave is given", 500, |pair| {
        !pair.sides[A].alone_granted.is_empty()
    });
    pair.commit(A);
    pair.run_until("B knows", 300 + 100, |pair| !pair.is_stable(B));
    pair.kill(A);
    pair.run(20_000);
    assert!(
        pair.actives().is_empty(),
        "what it lacks is nobody's to give up but an operator's"
    );
    pair.heal();
    pair.boot(A);
    settles(&mut pair);
    assert_eq!(pair.actives(), [A], "the newer history leads");
}

#[test]
fn a_commit_goes_ahead_although_the_standby_is_heard_but_deaf() {
    let mut pair = with_vems(2);
    for link in &mut pair.links {
        link[A] = false;
    }
    pair.run(1_000);
    assert_eq!(pair.actives(), [A]);
    pair.ask_alone(A);
    // The standby's next question, the vote, and the word that it has no grant any more.
    let took = pair.run_until("leave is given", 2_000, |pair| {
        !pair.sides[A].alone_granted.is_empty()
    });
    assert!(took <= Duration::from_millis(900), "took {took:?}");
    assert!(!pair.is_stable(B));
    pair.commit(A);
    pair.run(1_000);
    pair.heal();
    settles(&mut pair);
    assert_eq!(pair.acts.len(), 1, "no role change");
    assert_eq!(pair.sides[A].history, pair.sides[B].history);
}
