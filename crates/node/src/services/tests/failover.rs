//! What becomes of sessions and of changes under way when the lead moves: docs/failover-sessions.md.

use core::time::Duration;

use wire::console::ToShell;
use wire::supervision::Activity;

use super::pair::epoch;
use super::{led, running, seen, shell};

const LOCAL: &str = "(local)";
const UNKNOWN: &str = "% It is not known whether the change was made";

/// The active dies after any number of messages of a commit, and what it sent last arrives or not:
/// whoever was told that the change is on both nodes finds it on the new active.
#[test]
fn at_no_point_does_a_death_make_replicated_a_lie() {
    let (mut answered, mut made_unanswered, mut lost) = (0, 0, 0);
    for sent_arrives in [false, true] {
        for messages in 0.. {
            let mut pair = led();
            pair.open_shell(0);
            shell(&mut pair, 0, "configure");
            pair.type_line(0, "hostname changed");
            let finished = pair.run_some(messages);
            let told = seen(pair.take_shell(0));
            pair.die(0, sent_arrives);
            pair.posture(1, Activity::Active(epoch(2)), false);
            pair.advance(Duration::from_millis(100));
            let made = running(&mut pair, 1).contains("hostname changed");
            let (text, failed, prompt) = told;
            if prompt.is_empty() {
                if made {
                    made_unanswered += 1;
                } else {
                    lost += 1;
                }
            } else {
                assert!(!failed && !text.contains(LOCAL), "{text}");
                assert!(
                    made,
                    "told replicated after {messages} messages, and it is not there"
                );
                answered += 1;
            }
            if finished {
                break;
            }
        }
    }
    assert!(
        answered > 0 && made_unanswered > 0 && lost > 0,
        "all three ends occur: {answered}, {made_unanswered}, {lost}"
    );
}

#[test]
fn a_change_under_way_when_the_lead_is_lost_is_said_to_be_unknown() {
    let mut pair = led();
    pair.open_shell(0);
    shell(&mut pair, 0, "configure");
    // The standby does not answer, and the pair does not know yet.
    pair.cut();
    pair.type_line(0, "hostname changed");
    pair.run();
    pair.advance(Duration::from_millis(100));
    assert_eq!(pair.take_shell(0), [], "it waits for the standby");
    pair.posture(0, Activity::Standby, false);
    let (text, failed, prompt) = seen(pair.shell_answer(0));
    assert!(failed && text.contains(UNKNOWN), "{text}");
    assert!(text.contains("this supervisor is standby now"), "{text}");
    assert!(prompt.contains("(standby)# "), "{prompt}");
}

#[test]
fn whoever_configures_when_the_lead_is_lost_is_told_and_has_the_right_prompt() {
    let mut pair = led();
    pair.open_shell(0);
    shell(&mut pair, 0, "configure");
    assert_eq!(shell(&mut pair, 0, "zone web").2, "vsg(config-zone)# ");
    pair.posture(0, Activity::Standby, false);
    let told = pair.take_shell(0);
    assert!(
        matches!(&told[..], [ToShell::Console(text), ToShell::NewPrompt(prompt)]
            if text.starts_with("Configuration mode has ended") && prompt == "vsg(standby)# "),
        "{told:?}"
    );
    let (text, failed, _) = shell(&mut pair, 0, "configure");
    assert!(failed && text.contains("% Invalid command"), "{text}");
}

#[test]
fn prompts_of_both_nodes_follow_a_takeover_and_a_new_name() {
    let mut pair = led();
    for node in [0, 1] {
        pair.open_shell(node);
    }
    pair.posture(0, Activity::Standby, false);
    pair.posture(1, Activity::Active(epoch(2)), false);
    let prompt = |prompt: &str| vec![ToShell::NewPrompt(prompt.to_owned())];
    assert_eq!(pair.take_shell(0), prompt("vsg(standby)# "));
    assert_eq!(pair.take_shell(1), prompt("vsg# "));
    pair.settle();
    shell(&mut pair, 1, "configure");
    shell(&mut pair, 1, "hostname gate");
    pair.advance(Duration::from_secs(2));
    assert_eq!(pair.take_shell(0), prompt("gate(standby)# "));
}

#[test]
fn the_systems_uptime_survives_a_takeover_and_the_actives_does_not() {
    let mut pair = led();
    for node in [0, 1] {
        pair.wall_clock(node, 1_526_698_341);
    }
    pair.advance(Duration::from_secs(60));
    pair.die(0, true);
    // The survivor starts anew as far as its own shell is concerned.
    pair.restart(1, model::ServiceName::Vshd);
    pair.wall_clock(1, 1_526_698_401);
    pair.posture(1, Activity::Active(epoch(2)), false);
    pair.open_shell(1);
    pair.advance(Duration::from_secs(5));
    let (text, ..) = shell(&mut pair, 1, "show system uptime");
    let line = |label: &str, value: &str| {
        let line = text.lines().find(|line| line.starts_with(label));
        assert!(
            line.is_some_and(|line| line.ends_with(value)),
            "{label} {value}: {text}"
        );
    };
    line("System start time:", "Sat May 19 02:52:21 2018");
    line("System uptime:", "1 minutes, 5 seconds");
    line("Active supervisor uptime:", "0 minutes, 5 seconds");
}
