//! What the logs of both nodes say, and what they must not say.

use model::PairId;
use wire::heartbeat::State;

use super::pair::{A, B, Pair};
use crate::{Command, Input, Output};

fn lines<'a>(pair: &'a Pair, node: usize, mnemonic: &str) -> Vec<&'a str> {
    let logs = pair.sides[node].logs.iter();
    logs.filter(|record| record.mnemonic == mnemonic)
        .map(|record| record.text.as_str())
        .collect()
}

fn pair_id(number: u16) -> PairId {
    PairId::try_from(number).expect("in range")
}

#[test]
fn both_consoles_say_that_two_gateways_are_present_and_which_becomes_active() {
    // The heartbeat that says so may come before the message that orders it: both ways must do.
    for loss in [0, 300] {
        let mut pair = Pair::stable(1);
        pair.loss = loss;
        pair.command(A, Command::Switchover);
        pair.run_until("B leads", 1_000, |pair| pair.actives() == [B]);
        for node in [A, B] {
            let logs = &pair.sides[node].logs;
            let line = logs
                .iter()
                .find(|record| record.mnemonic == "SWITCHOVER_INITIATED")
                .unwrap_or_else(|| panic!("node {node} says nothing: {logs:?}"));
            assert!(line.severity <= 2, "consoles show no more: {line:?}");
            assert!(
                line.text.contains("Two gateways are present")
                    && line.text.contains("sup-2 is becoming active"),
                "{line:?}"
            );
        }
        let mnemonics = pair.sides[B].mnemonics();
        let at = |wanted| mnemonics.iter().position(|line| *line == wanted);
        assert!(
            at("SWITCHOVER_INITIATED") < at("HASWITCHOVER_PRE_START"),
            "{mnemonics:?}"
        );
    }
}

#[test]
fn a_heartbeat_that_outruns_the_order_to_take_over_is_announced_all_the_same() {
    let pair = Pair::stable(1);
    let mut core = pair.core(B).clone();
    let mut content = pair.core(A).ctx.said.clone().expect("A speaks");
    content.state = State::Yielded;
    content.revision += 1;
    let input = Input::Heartbeat {
        link: model::LinkId(0),
        content,
        peer_hold_time: core.hold_time(),
        echo: pair.now,
    };
    core.handle(pair.now, input);
    let mut said = Vec::new();
    while let Some(output) = core.poll_output() {
        if let Output::Log(record) = output {
            said.push(record);
        }
    }
    let order: Vec<&str> = said.iter().map(|line| line.mnemonic.as_str()).collect();
    assert_eq!(
        order[..2],
        ["SWITCHOVER_INITIATED", "HASWITCHOVER_PRE_START"]
    );
    assert!(said[0].severity <= 2 && said[0].text.contains("sup-2 is becoming active"));
}

#[test]
fn a_dead_active_is_not_called_present() {
    let mut pair = Pair::stable(1);
    pair.kill(A);
    pair.run_until("B leads", 1_000, |pair| pair.actives() == [B]);
    assert!(lines(&pair, B, "SWITCHOVER_INITIATED").is_empty());
}

#[test]
fn links_that_come_up_one_after_the_other_are_not_degraded() {
    let mut pair = Pair::new(1);
    pair.links[1] = [false; 2];
    pair.boot(A);
    pair.boot(B);
    pair.run_until("a link is heard", 2_000, |pair| {
        pair.core(A).ctx.peer.incarnation().is_some()
    });
    pair.run(500);
    pair.heal();
    pair.run(3_000);
    for node in [A, B] {
        assert!(
            lines(&pair, node, "DEGRADED").is_empty(),
            "{}",
            pair.describe()
        );
        assert!(lines(&pair, node, "LINKS_UP").is_empty());
    }
    // A peer that starts again begins anew.
    pair.run_until("stable", 10_000, |pair| pair.is_stable(B));
    pair.kill(B);
    pair.run(5_000);
    pair.links[1] = [false; 2];
    pair.boot(B);
    pair.run_until("B is heard again", 2_000, |pair| {
        pair.mode_ha(A) || pair.says(B).is_some()
    });
    pair.run(300);
    pair.heal();
    pair.run(3_000);
    assert!(lines(&pair, A, "DEGRADED").is_empty());
}

#[test]
fn a_link_that_never_comes_up_is_degraded_and_a_lost_one_at_once() {
    let mut pair = Pair::new(1);
    pair.links[1] = [false; 2];
    pair.boot(A);
    pair.boot(B);
    pair.run(5_000);
    assert_eq!(lines(&pair, A, "DEGRADED").len(), 1);
    pair.heal();
    pair.run(1_000);
    assert_eq!(lines(&pair, A, "LINKS_UP").len(), 1);
    pair.links[0] = [false; 2];
    let hold_time = pair.core(A).hold_time();
    pair.run(hold_time.as_millis() as u64 + 150);
    assert_eq!(lines(&pair, A, "DEGRADED").len(), 2);
}

#[test]
fn a_standby_says_once_that_it_has_become_stable() {
    let mut pair = Pair::stable(1);
    pair.run(2_000);
    let said = lines(&pair, B, "STANDBY");
    let ready = "This supervisor is stable: ready to take over.";
    assert_eq!(said.last(), Some(&ready), "{said:?}");
    assert_eq!(said.iter().filter(|line| **line == ready).count(), 1);
    let severity = |record: &&wire::log::LogRecord| record.text == ready;
    let line = pair.sides[B].logs.iter().find(severity).expect("said");
    assert_eq!(line.severity, 5);
}

#[test]
fn another_pair_id_on_a_live_pair_is_told_to_the_operator_and_ends_redundancy_openly() {
    let mut pair = Pair::stable(1);
    let command = pair.command(A, Command::SetPairId(pair_id(77)));
    pair.run(500);
    let note = "The other supervisor has another pair ID: the pair is not redundant until both \
                are equal.";
    assert_eq!(pair.result(A, command), Some(Ok(note.to_owned())));
    let logs = &pair.sides[A].logs;
    assert!(
        logs.iter()
            .any(|record| record.severity == 4 && record.text == note),
        "{logs:?}"
    );
    let reason = "the other supervisor states pair ID 77, ours is 7";
    assert!(pair.reason(B).contains(reason), "{}", pair.reason(B));
    let said = lines(&pair, B, "NOT_PAIRED");
    assert!(said.len() == 1 && said[0].contains(reason), "{said:?}");
    assert_eq!(pair.says(B), Some(State::Synchronizing), "not `HA standby`");
    let status = pair.core(B).status(pair.now);
    assert_ne!(status.this.internal_state, "HA standby");
    // Nobody takes over, and a commit does not wait for a node that is not of the pair.
    assert!(!pair.redundant(A));
    let question = pair.ask_alone(A);
    pair.run(500);
    assert_eq!(pair.sides[A].alone_granted, [question]);
    assert_eq!(pair.actives(), [A]);
    let command = pair.command(B, Command::SetPairId(pair_id(77)));
    pair.run_until("redundant again", 5_000, |pair| {
        pair.is_stable(B) && pair.redundant(A)
    });
    assert_eq!(pair.result(B, command), Some(Ok(String::new())));
    assert_eq!(pair.acts.len(), 1);
}

#[test]
fn a_commit_does_not_hang_on_a_standby_that_left_the_pair() {
    let mut pair = Pair::stable(1);
    pair.command(B, Command::SetPairId(pair_id(77)));
    pair.run(300);
    let question = pair.ask_alone(A);
    pair.run(1_000);
    assert_eq!(pair.sides[A].alone_granted, [question]);
    pair.kill(A);
    pair.run(1_500);
    assert!(
        pair.actives().is_empty(),
        "a node of another pair does not take over"
    );
}

#[test]
fn a_switchover_under_way_is_not_cut_by_another_pair_id() {
    let mut pair = Pair::stable(1);
    pair.command(A, Command::Switchover);
    let command = pair.command(A, Command::SetPairId(pair_id(77)));
    let refusal = "Failed to set the pair ID (a switchover is in progress)";
    assert_eq!(pair.result(A, command), Some(Err(refusal.to_owned())));
    pair.run_until("B leads", 1_000, |pair| pair.actives() == [B]);
}

#[test]
fn a_conflict_names_who_resets_and_why() {
    let mut pair = Pair::stable(1).with_vems();
    pair.vems[0].reaches = [true, false];
    pair.vems[1].reaches = [false, true];
    pair.run(200);
    pair.cut();
    pair.run_until("both act", 2_000, |pair| pair.actives().len() == 2);
    pair.run(3_000);
    pair.heal();
    pair.run_until("A resets", 1_000, |pair| !pair.sides[A].resets.is_empty());
    pair.run(200);
    for node in [A, B] {
        let said = lines(&pair, node, "SPLIT_BRAIN");
        assert!(
            said.iter()
                .any(|line| line.contains("Both supervisors are active, under epochs")),
            "node {node}: {said:?}"
        );
    }
    let lost = lines(&pair, A, "SPLIT_BRAIN_LOST");
    let text = "sup-1 stops acting and will reset: by the policy primary-resets.";
    assert_eq!(lost, [text]);
    let won = lines(&pair, B, "SPLIT_BRAIN_WON");
    assert!(
        won[0].starts_with("sup-1 resets, this supervisor takes a new epoch"),
        "{won:?}"
    );
}
