//! What an operator sees of a pair that has just booted, and what it says to bad input.

use system_tests::lab::{FOLLOWS, REDUNDANT};
use system_tests::{Lab, bench, site};

#[test]
fn a_pair_boots_and_shows_it() {
    if !bench::may_run() {
        return;
    }
    let lab = bench::pair();
    assert_eq!(
        lab.await_redundant().expect("redundant"),
        "sup-1",
        "the primary leads"
    );
    assert_eq!(
        lab.internal_state("sup-1").expect("state").as_deref(),
        Some(REDUNDANT)
    );
    assert_eq!(
        lab.internal_state("sup-2").expect("state").as_deref(),
        Some(FOLLOWS)
    );
    status_has_the_original_layout(&lab);
    modules_are_listed(&lab);
    the_standby_takes_no_configuration(&lab);
    bad_input_changes_nothing(&lab);
    lab.down().expect("down");
}

fn status_has_the_original_layout(lab: &Lab) {
    let text = lab
        .must_shell("sup-1", &["show system redundancy status"])
        .expect("status");
    let expected = "\
Redundancy role
---------------
      administrative:   primary
         operational:   primary

Redundancy mode
---------------
      administrative:   HA
         operational:   HA

This supervisor (sup-1)
-----------------------
    Redundancy state:   Active
    Supervisor state:   Active
      Internal state:   Active with HA standby

Other supervisor (sup-2)
------------------------
    Redundancy state:   Standby
    Supervisor state:   HA standby
      Internal state:   HA standby
";
    assert!(text.contains(expected), "{text}");
}

fn modules_are_listed(lab: &Lab) {
    let text = lab.must_shell("sup-1", &["show module"]).expect("modules");
    for word in ["active *", "ha-standby", "host-1", "host-2"] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}

fn the_standby_takes_no_configuration(lab: &Lab) {
    let reply = lab
        .shell("sup-2", &["configure", "hostname other"])
        .expect("a reply");
    assert!(!reply.succeeded, "{}", reply.text);
    let running = lab
        .must_shell("sup-1", &["show running-config"])
        .expect("configuration");
    assert!(!running.contains("hostname other"), "{running}");
}

/// Each in the original's style, with the caret under the word that is wrong.
fn bad_input_changes_nothing(lab: &Lab) {
    let show = &["show running-config", "show system redundancy status"];
    let before = lab.must_shell("sup-1", show).expect("configuration");
    let cases: [(&[&str], &str); 5] = [
        (&["shaw module"], "% Invalid command at '^' marker."),
        (&["system redundancy role tertiary"], "at '^' marker."),
        (&["configure", "ha-pair id 4096"], "at '^' marker."),
        (&["configure", "ha-pair id 0"], "at '^' marker."),
        (
            &[
                "configure",
                "rule r@root",
                "condition 1 src.zone.name eq nowhere@root",
            ],
            "nowhere@root",
        ),
    ];
    for (commands, expected) in cases {
        let reply = lab.shell("sup-1", commands).expect("a reply");
        assert!(
            !reply.succeeded,
            "{commands:?} was accepted: {}",
            reply.text
        );
        assert!(
            reply.text.contains(expected),
            "{commands:?}: {}",
            reply.text
        );
        assert!(
            reply.text.contains('^') || expected.contains('@'),
            "{}",
            reply.text
        );
    }
    // The rule was made before its condition was refused; that line stood on its own.
    lab.must_shell("sup-1", &["configure", "no rule r@root"])
        .ok();
    let after = lab.must_shell("sup-1", show).expect("configuration");
    assert_eq!(without_times(&before), without_times(&after));
}

/// The header of a configuration names the time of asking.
fn without_times(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with("!Time"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_node_reloads_and_comes_back_as_standby() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let before = lab
        .must_shell(active, &["show running-config"])
        .expect("configuration");
    lab.shell(active, &["reload", "y"]).expect("a reply");
    let survivor = lab.await_redundant().expect("redundant again");
    assert_eq!(
        survivor,
        site::other(active),
        "no preemption: the survivor goes on leading"
    );
    let after = lab
        .must_shell(survivor, &["show running-config"])
        .expect("configuration");
    assert_eq!(without_times(&before), without_times(&after));
    lab.down().expect("down");
}
