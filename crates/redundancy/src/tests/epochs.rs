//! Schedules 5 and 7: epochs that cross, come back or belong to a clone, and two actives of which
//! each has VEMs of its own. Every VEM obeys one, no epoch is used twice (that is checked at each
//! takeover), and contact by any one path leaves one active within a hold time.

use model::{Epoch, Incarnation};

use super::pair::{A, B, Pair};
use crate::Command;

const EACH_ITS_OWN: [[bool; 2]; 2] = [[true, false], [false, true]];

#[track_caller]
fn settles(pair: &mut Pair) {
    pair.run_until("the pair is whole", 30_000, |pair| {
        let actives = pair.actives();
        actives.len() == 1 && pair.is_stable(1 - actives[0]) && pair.mode_ha(actives[0])
    });
    pair.run(500);
    let acting = pair.sides[pair.actives()[0]].acting().expect("leads");
    assert!(pair.vems.iter().all(|vem| vem.obeys(acting)));
    let highest = pair.acts.iter().map(|act| act.2).max();
    assert_eq!(Some(acting), highest, "the survivor's is above every one");
}

fn reach(pair: &mut Pair, reaches: [[bool; 2]; 2]) {
    for (vem, reaches) in pair.vems.iter_mut().zip(reaches) {
        vem.reaches = reaches;
    }
}

#[test]
fn schedule_5_takeovers_that_cross_at_one_counter_are_told_apart() {
    let mut pair = Pair::stable(1).with_vems();
    pair.run(100);
    reach(&mut pair, EACH_ITS_OWN);
    pair.cut();
    // A's machine restarts in the very moment, and an operator makes it lead again.
    pair.kill(A);
    pair.boot(A);
    pair.run(150);
    pair.command(A, Command::ForceActive);
    pair.run_until("both act", 2_000, |pair| pair.actives().len() == 2);
    let acting = [A, B].map(|node| pair.sides[node].acting().expect("acts"));
    assert_eq!(acting[A].counter, acting[B].counter, "they cross");
    assert_ne!(acting[A], acting[B]);
    for (node, vem) in pair.vems.iter().enumerate() {
        assert!(vem.obeys(acting[node]), "each side's VEM obeys its own");
    }
    reach(&mut pair, [[true; 2]; 2]);
    pair.run(5);
    let higher = acting[A].max(acting[B]);
    assert!(
        pair.vems.iter().all(|vem| vem.fenced.obeyed >= higher),
        "no VEM goes back"
    );
    pair.heal();
    settles(&mut pair);
}

#[test]
fn schedule_5_a_reservation_of_a_disk_that_was_set_back_is_not_used() {
    let mut pair = Pair::stable(1).with_vems();
    pair.run(100);
    let old = pair.sides[B].durable.clone();
    pair.kill(A);
    pair.run_until("B leads", 1_000, |pair| pair.actives() == [B]);
    let led = pair.sides[B].acting().expect("leads");
    assert_eq!(old.reserved_epoch, led, "what it had reserved");
    pair.run(100);
    pair.kill(B);
    pair.sides[B].durable = old;
    pair.boot(B);
    pair.run(1_000);
    pair.command(B, Command::ForceActive);
    pair.run(100);
    let again = pair.sides[B].acting().expect("forced");
    assert!(again > led, "{again} after {led}");
    assert!(pair.vems.iter().all(|vem| vem.obeys(again)));
    pair.boot(A);
    settles(&mut pair);
}

#[test]
fn schedule_5_a_node_whose_disk_was_set_back_does_not_lead_by_itself() {
    let mut pair = Pair::new(1);
    pair.boot(A);
    pair.run_until("A leads alone", 10_000, |pair| pair.actives() == [A]);
    pair.add_vems(2);
    pair.run(500);
    pair.sides[A].durable.paired = true;
    let old = pair.sides[A].durable.clone();
    assert!(old.alone);
    for _ in 0..2 {
        pair.kill(A);
        pair.boot(A);
        pair.run_until("A leads again", 10_000, |pair| pair.actives() == [A]);
        pair.run(100);
    }
    pair.kill(A);
    pair.sides[A].durable = old;
    pair.boot(A);
    pair.run(60_000);
    assert!(pair.actives().is_empty());
    assert!(
        pair.reason(A).contains("its disk was set back"),
        "{}",
        pair.reason(A)
    );
    let command = pair.command(A, Command::ForceActive);
    pair.run(100);
    assert_eq!(pair.result(A, command), Some(Ok(String::new())));
    let acting = pair.sides[A].acting().expect("forced");
    assert!(pair.vems.iter().all(|vem| vem.obeys(acting)));
}

#[test]
fn schedule_5_a_clone_of_the_active_is_refused_and_the_pair_goes_on() {
    let mut pair = Pair::stable(1).with_vems();
    pair.run(100);
    let epoch = pair.sides[A].acting().expect("leads");
    // A clone of A's machine has claimed under A's own epoch of another start; one VEM, that it
    // reached first, obeys it.
    pair.vems[0].fenced.obeyed = Epoch {
        incarnation: Incarnation(epoch.incarnation.0 + 40),
        ..epoch
    };
    pair.run_until("A stops", 5, |pair| pair.actives() != [A]);
    assert!(pair.sides[A].mnemonics().contains(&"CLONE"));
    settles(&mut pair);
    assert_eq!(pair.actives(), [B], "the standby is not affected");
}

#[test]
fn schedule_7_contact_by_any_one_path_leaves_one_active_within_a_hold_time() {
    for interval in [10, 100] {
        for path in 0..4 {
            let mut pair = Pair::new(1);
            pair.set_timing(interval, 3);
            pair.boot(A);
            pair.boot(B);
            pair.run_until("stable", 30_000, |pair| pair.is_stable(B));
            pair.add_vems(2);
            pair.run(100);
            reach(&mut pair, EACH_ITS_OWN);
            pair.cut();
            pair.run_until("both act", 2_000, |pair| pair.actives().len() == 2);
            pair.run(1_000);
            for (node, vem) in pair.vems.iter().enumerate() {
                let acting = pair.sides[node].acting().expect("acts");
                assert!(vem.obeys(acting), "none mixes epochs");
            }
            match path {
                0 | 1 => pair.links[path] = [true; 2],
                _ => pair.vems[path - 2].reaches = [true; 2],
            }
            let hold_time = u64::from(interval) * 3;
            pair.run_until("one acts", hold_time, |pair| pair.actives().len() == 1);
            pair.run(hold_time);
            assert_eq!(pair.actives().len(), 1, "{interval} ms, path {path}");
            reach(&mut pair, [[true; 2]; 2]);
            pair.heal();
            settles(&mut pair);
        }
    }
}
