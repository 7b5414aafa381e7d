//! Schedule 10: a crash between any two steps of yield, gasp, takeover, epoch write, archive,
//! reset. Each scenario is played again and again, and each time the machine of one node dies one
//! effect later, until it ends without; what the disk held then is what the node starts from.
//!
//! The machinery checks S1, S2, V2 and the core's invariants on the way.

use model::Role;

use super::pair::{A, B, Pair};
use crate::Command;

/// Effects after which no scenario is still under way.
const EFFECTS_MAX: u64 = 400;

/// Plays `scenario` on what `prepare` gives, with `victim` dying after each number of effects in
/// turn. Returns how many crashes there were.
fn crash_everywhere(
    name: &str,
    victim: usize,
    prepare: impl Fn() -> Pair,
    scenario: impl Fn(&mut Pair),
) -> u64 {
    for effects in 0..EFFECTS_MAX {
        let mut pair = prepare();
        pair.crash = Some((victim, effects));
        scenario(&mut pair);
        let crashed = pair.crash.take().is_none();
        pair.heal();
        for vem in &mut pair.vems {
            vem.reaches = [true; 2];
        }
        for node in [A, B] {
            if pair.sides[node].core.is_none() && !pair.boots(node) {
                pair.boot(node);
            }
        }
        pair.run_until(
            &format!("{name}: whole after a crash of {victim} after {effects} effects"),
            60_000,
            Pair::is_whole,
        );
        pair.run(500);
        assert!(pair.is_whole(), "{name} {effects}: {}", pair.describe());
        assert_eq!(pair.gone(), [], "S5: {name}, {effects} effects");
        let acting = pair.sides[pair.actives()[0]].acting().expect("acts");
        assert!(
            pair.vems.iter().all(|vem| vem.obeys(acting)),
            "{name} {effects}"
        );
        if !crashed {
            return effects;
        }
    }
    panic!("{name} does not end");
}

fn stable() -> Pair {
    let mut pair = Pair::stable(1).with_vems();
    pair.commit(A);
    pair.run(150);
    pair
}

/// Both act, each with a VEM and a commit of its own.
fn split() -> Pair {
    let mut pair = stable();
    pair.vems[0].reaches = [true, false];
    pair.vems[1].reaches = [false, true];
    pair.run(100);
    pair.cut();
    pair.run_until("both act", 2_000, |pair| pair.actives().len() == 2);
    pair.run(1_500);
    pair.commit(A);
    pair.commit(B);
    pair.run(50);
    pair
}

#[test]
fn yielding_and_gasping() {
    let fails = |pair: &mut Pair| {
        pair.fail_service(A);
        pair.run(700);
    };
    assert!(crash_everywhere("A yields", A, stable, fails) > 5);
    assert!(crash_everywhere("A yields to B", B, stable, fails) > 5);
}

#[test]
fn taking_over_from_a_silent_active() {
    let dies = |pair: &mut Pair| {
        pair.kill(A);
        pair.run(1_000);
        pair.commit(B);
        pair.run(100);
    };
    assert!(crash_everywhere("B takes over", B, stable, dies) > 5);
}

#[test]
fn switching_over() {
    let switches = |pair: &mut Pair| {
        pair.command(A, Command::Switchover);
        pair.run(700);
    };
    assert!(crash_everywhere("A hands over", A, stable, switches) > 5);
    assert!(crash_everywhere("B is handed over to", B, stable, switches) > 5);
}

#[test]
fn writing_the_first_epoch() {
    let boots = |pair: &mut Pair| {
        pair.boot(A);
        pair.boot(B);
        pair.run(1_000);
    };
    let fresh = || Pair::new(1).with_vems();
    assert!(crash_everywhere("A boots", A, fresh, boots) > 5);
    assert!(crash_everywhere("B boots", B, fresh, boots) > 5);
}

#[test]
fn losing_a_conflict_archiving_and_resetting() {
    let heals = |pair: &mut Pair| {
        pair.heal();
        pair.run(1_000);
    };
    assert!(crash_everywhere("A loses", A, split, heals) > 5);
    assert!(crash_everywhere("B survives", B, split, heals) > 5);
}

#[test]
fn being_told_of_a_higher_epoch_by_a_vem() {
    let meets = |pair: &mut Pair| {
        pair.vems[1].reaches = [true; 2];
        pair.run(700);
    };
    assert!(crash_everywhere("A is superseded", A, split, meets) > 5);
}

#[test]
fn being_granted_and_going_alone() {
    let alone = |pair: &mut Pair| {
        pair.ask_alone(A);
        pair.run(50);
        pair.commit(A);
        pair.run(700);
    };
    assert!(crash_everywhere("A goes alone", A, stable, alone) > 2);
    assert!(crash_everywhere("B loses its grant", B, stable, alone) > 2);
}

#[test]
fn joining_an_active() {
    let joins = |pair: &mut Pair| {
        pair.kill(B);
        pair.run(500);
        pair.boot(B);
        pair.run(1_000);
    };
    assert!(crash_everywhere("A takes B in", A, stable, joins) > 5);
    assert!(crash_everywhere("B joins", B, stable, joins) > 5);
}

#[test]
fn changing_a_role() {
    let changes = |pair: &mut Pair| {
        pair.command(A, Command::SetRole(Role::Secondary));
        pair.command(B, Command::SetRole(Role::Primary));
        pair.run(100);
        pair.command(B, Command::Reload);
        pair.run(200);
        pair.command(A, Command::Reload);
        pair.run(1_500);
        // One that crashed before the change was durable is told again.
        for (node, role) in [(A, Role::Secondary), (B, Role::Primary)] {
            if pair.sides[node].durable.role != role || pair.role(node) != Some(role) {
                pair.run(1_000);
                pair.command(node, Command::SetRole(role));
                pair.run(100);
                pair.command(node, Command::Reload);
                pair.run(1_500);
            }
        }
    };
    crash_everywhere("A changes its role", A, stable, changes);
}
