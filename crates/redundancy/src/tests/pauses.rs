//! After a pause: stop, ask the peer and the VEMs, go on. (`scenarios` and `schedules` have more.)

use core::time::Duration;

use model::Role;

use super::pair::{A, B, Pair};
use crate::Command;

/// A leads without a standby; both VEMs reach both nodes.
fn alone() -> Pair {
    let mut pair = Pair::stable(1).with_vems();
    pair.run(100);
    pair.kill(B);
    pair.ask_alone(A);
    pair.run_until("A is alone", 1_000, |pair| {
        !pair.sides[A].alone_granted.is_empty()
    });
    pair
}

#[test]
fn an_active_without_a_standby_asks_the_vems_and_goes_on_when_they_have_answered() {
    let mut pair = alone();
    let epoch = pair.sides[A].acting();
    pair.pause(A, 1_000);
    pair.run_until("A stops", 1_100, |pair| pair.actives().is_empty());
    let took = pair.run_until("A goes on", 50, |pair| pair.sides[A].acting() == epoch);
    assert!(took <= Duration::from_millis(5), "{took:?}");
    assert!(pair.sides[A].mnemonics().contains(&"RESUMED"));
}

#[test]
fn vems_that_do_not_answer_are_waited_for_a_hold_time() {
    let mut pair = alone();
    pair.connections_outlive = true;
    for vem in &mut pair.vems {
        vem.reaches[A] = false;
    }
    pair.pause(A, 1_000);
    pair.run_until("A stops", 1_100, |pair| pair.actives().is_empty());
    let took = pair.run_until("A goes on", 500, |pair| pair.actives() == [A]);
    assert!(took >= Duration::from_millis(299), "{took:?}");
}

#[test]
fn a_node_that_was_forced_to_lead_meanwhile_is_known_to_the_vems() {
    let mut pair = alone();
    let before = pair.sides[A].acting().expect("A acts");
    pair.cut();
    pair.pause(A, 5_000);
    pair.boot(B);
    pair.run(1_000);
    pair.command(B, Command::ForceActive);
    pair.run_until("B leads", 1_000, |pair| pair.sides[B].acting().is_some());
    pair.run_until("A wakes and stops", 5_000, |pair| pair.actives() == [B]);
    let mut acted = false;
    for _ in 0..200 {
        pair.run(1);
        acted |= pair.sides[A].acting() == Some(before);
    }
    assert!(!acted, "A acts no more under its old epoch");
    pair.heal();
    pair.run_until("A follows", 20_000, |pair| pair.is_stable(A));
    assert_eq!(pair.actives(), [B]);
}

#[test]
fn a_standalone_node_has_nobody_to_ask() {
    let mut pair = Pair::new(1);
    pair.sides[A].durable.role = Role::Standalone;
    pair.boot(A);
    pair.run_until("A leads", 1_000, |pair| pair.actives() == [A]);
    pair.pause(A, 2_000);
    for _ in 0..3_000 {
        pair.run(1);
        assert_eq!(pair.actives(), [A]);
    }
}

#[test]
fn a_pause_no_longer_than_the_hold_time_stops_nobody() {
    let mut pair = Pair::stable(1).with_vems();
    pair.run(100);
    for _ in 0..20 {
        pair.pause(A, 200);
        for _ in 0..400 {
            pair.run(1);
            assert_eq!(pair.actives(), [A]);
        }
    }
    assert!(pair.is_stable(B));
}
