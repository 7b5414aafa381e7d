//! Schedules that must come out right, as far as this core decides them. A is the primary.

use core::time::Duration;

use model::Epoch;

use super::pair::{A, B, Pair};
use crate::Command;

#[test]
fn schedule_8_a_host_that_stalls_with_both_nodes_changes_no_role() {
    let mut pair = Pair::stable(1);
    for _ in 0..100 {
        pair.pause(A, 400);
        pair.pause(B, 400);
        pair.run(1_000);
        assert_eq!(pair.actives(), [A]);
    }
    assert_eq!(pair.acts.len(), 1);
    assert!(pair.is_stable(B));
    assert!(pair.sides[A].mnemonics().contains(&"RESUMED"));
}

#[test]
fn schedule_1_the_survivor_of_a_conflict_takes_a_new_epoch() {
    // B active, A its stable standby; all links are cut; A takes over; the links heal.
    let mut pair = Pair::stable(1).with_vems();
    pair.command(A, Command::Switchover);
    pair.run_until("roles are swapped", 10_000, |pair| {
        pair.is_stable(A) && pair.mode_ha(B)
    });
    pair.vems[0].reaches = [true, false];
    pair.vems[1].reaches = [false, true];
    pair.run(200);
    pair.cut();
    pair.run_until("both act", 2_000, |pair| pair.actives().len() == 2);
    let highest = pair.acts.last().expect("acts").2;
    pair.run(3_000);
    pair.heal();
    pair.run_until("A resets", 1_000, |pair| {
        !pair.sides[A].resets.is_empty() && {
            pair.sides[A]
                .resets
                .last()
                .is_some_and(|reason| reason.contains("both supervisors"))
        }
    });
    pair.run_until("B decides again", 200, |pair| {
        pair.sides[B].acting() > Some(highest)
    });
    pair.vems[0].reaches = [true; 2];
    pair.vems[1].reaches = [true; 2];
    pair.run(100);
    let acting = pair.sides[B].acting().expect("B leads");
    assert!(
        pair.vems.iter().all(|vem| vem.obeys(acting)),
        "every VEM obeys the survivor"
    );
    assert!(pair.sides[B].mnemonics().contains(&"SPLIT_BRAIN"));
    pair.run_until("A follows", 10_000, |pair| pair.is_stable(A));
}

#[test]
fn schedule_2_connections_that_outlive_their_path_are_no_vem_reached() {
    let mut pair = Pair::stable(1).with_vems();
    pair.connections_outlive = true;
    pair.run(100);
    pair.cut();
    for vem in &mut pair.vems {
        vem.reaches[B] = false;
    }
    pair.run(5_000);
    assert!(pair.reason(B).contains("isolated"), "{}", pair.reason(B));
    assert_eq!(pair.actives(), [A]);
    assert_eq!(pair.acts.len(), 1);
    pair.vems[0].reaches[B] = true;
    pair.kill(A);
    pair.run_until("B leads once a VEM answers", 1_000, |pair| {
        pair.actives() == [B]
    });
}

#[test]
fn schedule_2_an_isolated_standby_does_not_take_over() {
    let mut pair = Pair::stable(1).with_vems();
    pair.run(100);
    pair.cut();
    for vem in &mut pair.vems {
        vem.reaches[B] = false;
    }
    pair.run(1_000);
    assert!(pair.reason(B).contains("isolated"), "{}", pair.reason(B));
    assert_eq!(pair.actives(), [A]);
    pair.heal();
    for vem in &mut pair.vems {
        vem.reaches[B] = true;
    }
    pair.run(3_000);
    assert_eq!(pair.acts.len(), 1);
    assert!(pair.sides[A].resets.is_empty() && pair.sides[B].resets.is_empty());
    assert!(pair.is_stable(B));
}

#[test]
fn schedule_3_a_node_that_was_taken_over_from_does_not_lead_with_old_configuration() {
    let mut pair = Pair::stable(1);
    assert!(pair.commit(A));
    pair.run(100);
    pair.kill(A);
    pair.run_until("B leads", 1_000, |pair| pair.actives() == [B]);
    pair.run(50);
    assert!(pair.commit(B));
    pair.run(50);
    pair.kill(B);
    pair.boot(A);
    pair.run(60_000);
    assert!(pair.actives().is_empty());
    assert!(
        pair.reason(A).contains("waiting for it"),
        "{}",
        pair.reason(A)
    );
    let command = pair.command(A, Command::ForceActive);
    pair.run(100);
    assert_eq!(pair.result(A, command), Some(Ok(String::new())));
    assert_eq!(pair.actives(), [A], "the operator's word is enough");
}

#[test]
fn schedule_4_the_newer_history_leads_when_both_boot_together() {
    let mut pair = Pair::stable(1);
    pair.kill(A);
    pair.run_until("B leads", 1_000, |pair| pair.actives() == [B]);
    pair.run(50);
    assert!(pair.commit(B));
    let history = pair.sides[B].history;
    pair.run(50);
    pair.kill(B);
    pair.boot(A);
    pair.boot(B);
    pair.run_until("B leads, A follows", 20_000, |pair| pair.is_stable(A));
    assert_eq!(pair.actives(), [B]);
    assert_eq!(
        pair.sides[A].history, history,
        "B's commit survives on both"
    );
}

#[test]
fn schedule_5_reservations_at_one_counter_never_collide() {
    // A deposed primary and its successor both reserve right after the same epoch.
    let mut pair = Pair::stable(1).with_vems();
    let rolled_back = pair.sides[B].durable.clone();
    pair.run(100);
    pair.kill(A);
    pair.run_until("B leads", 1_000, |pair| pair.actives() == [B]);
    pair.run(100);
    // B's machine is set back to before its takeover: its reservation is of a start that is gone.
    pair.kill(B);
    pair.sides[B].durable = rolled_back;
    pair.boot(B);
    pair.boot(A);
    pair.run_until("the pair is whole", 30_000, |pair| {
        pair.actives().len() == 1 && pair.is_stable(1 - pair.actives()[0])
    });
    let leader = pair.sides[pair.actives()[0]].acting().expect("leads");
    assert!(pair.vems.iter().all(|vem| vem.obeys(leader)));
    let mut epochs: Vec<Epoch> = pair.acts.iter().map(|act| act.2).collect();
    assert!(epochs.is_sorted(), "{epochs:?}");
    epochs.dedup();
    assert_eq!(epochs.len(), pair.acts.len());
}

#[test]
fn schedule_9_the_interval_changes_on_a_live_pair_without_a_role_change() {
    let mut pair = Pair::stable(1);
    pair.loss = 100;
    for (interval_ms, misses) in [(10_000, 3), (10, 3), (10_000, 3), (10, 3), (100, 3)] {
        let command = pair.command(
            A,
            Command::SetHeartbeat {
                interval_ms,
                misses,
            },
        );
        pair.run(60_000);
        assert_eq!(pair.result(A, command), Some(Ok(String::new())));
        assert_eq!(
            pair.sides[B].durable.interval_ms, interval_ms,
            "the standby follows"
        );
    }
    assert_eq!(pair.acts.len(), 1);
    assert!(pair.is_stable(B));
    let refused = pair.command(
        A,
        Command::SetHeartbeat {
            interval_ms: 5,
            misses: 3,
        },
    );
    assert!(matches!(pair.result(A, refused), Some(Err(_))));
}

#[test]
fn the_loser_of_a_conflict_stops_has_its_content_archived_and_then_resets() {
    for archive_time in [Some(2), Some(700), None] {
        let mut pair = Pair::stable(1).with_vems();
        pair.sides[A].archive_time = archive_time.map(Duration::from_millis);
        pair.vems[0].reaches = [true, false];
        pair.vems[1].reaches = [false, true];
        pair.run(100);
        pair.cut();
        pair.run_until("both act", 2_000, |pair| pair.actives().len() == 2);
        assert!(pair.commit(A) && pair.commit(B));
        let forked = pair.sides[A].history;
        pair.run(100);
        pair.heal();
        pair.run_until("A stops", 1_000, |pair| pair.actives() == [B]);
        let waited = pair.run_until("A resets", 6_000, |pair| !pair.sides[A].resets.is_empty());
        let limit = archive_time.map_or(crate::reset::ARCHIVE_DEADLINE, Duration::from_millis);
        assert!(
            waited + Duration::from_millis(10) >= limit,
            "{waited:?} is less than {limit:?}"
        );
        let archives = archive_time.map(|_| forked);
        assert_eq!(pair.sides[A].archives, Vec::from_iter(archives));
        assert_eq!(
            pair.sides[A].mnemonics().contains(&"ARCHIVE_LATE"),
            archive_time.is_none()
        );
        pair.run_until("A follows", 10_000, |pair| pair.is_stable(A));
    }
}

#[test]
fn schedule_6_a_commit_answered_local_is_not_overtaken_when_the_standby_hears_that_it_may_not() {
    let mut pair = Pair::stable(1);
    // What B sends does not arrive: A hears no acknowledgement.
    for link in 0..2 {
        pair.links[link][B] = false;
    }
    assert!(pair.commit(A));
    let question = pair.ask_alone(A);
    pair.run_until("A answers `local`", 1_000, |pair| {
        pair.sides[A].alone_granted == [question]
    });
    pair.run_until("B knows", 200, |pair| !pair.is_stable(B));
    let local = pair.sides[A].history;
    pair.kill(A);
    pair.run(60_000);
    assert!(pair.actives().is_empty(), "not at all");
    pair.heal();
    pair.boot(A);
    pair.run_until("A leads with its commit", 20_000, |pair| {
        pair.actives() == [A] && pair.is_stable(B)
    });
    assert_eq!(pair.sides[B].history, local);
}

#[test]
fn schedule_6_a_takeover_without_the_newest_commit_is_an_alarm_that_names_it_and_it_is_archived() {
    let mut pair = Pair::stable(1);
    assert!(pair.commit(A));
    pair.run(100);
    pair.sides[B].stalls = true;
    assert!(pair.commit(A));
    let lost = pair.sides[A].history;
    pair.run(110);
    pair.kill(A);
    pair.run_until("B leads", 400, |pair| pair.actives() == [B]);
    let alarm = pair.sides[B]
        .logs
        .iter()
        .find(|line| line.mnemonic == "COMMITS_MISSING")
        .expect("an alarm");
    assert_eq!(alarm.severity, 2);
    assert!(
        alarm.text.contains("without commits 2 to 2"),
        "{}",
        alarm.text
    );
    assert!(
        pair.reason(B).contains("without commits 2 to 2"),
        "{}",
        pair.reason(B)
    );
    pair.run(20);
    assert!(pair.commit(B));
    pair.sides[B].stalls = false;
    pair.boot(A);
    pair.run_until("A follows", 20_000, |pair| {
        pair.is_stable(A) && pair.mode_ha(B)
    });
    assert_eq!(pair.sides[A].archives, [lost], "never silently gone");
    assert!(pair.sides[A].mnemonics().contains(&"HISTORY_FORKED"));
    assert!(pair.reason(B).is_empty(), "{}", pair.reason(B));
}
