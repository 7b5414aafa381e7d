//! The chapter's procedures about roles, step by step: who leads, and what both sides show.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use system_tests::lab::{FOLLOWS, REDUNDANT};
use system_tests::{Lab, bench, site, wait};

const STATUS: &str = "show system redundancy status";
/// What a role change says that waits for a reload.
const PENDING: &str = "Setting will be activated on next reload.";
/// The chapter's refusal of a switchover.
const NOT_READY: &str = "Failed to switchover (standby not ready to takeover in vdc 1)";

fn joining(words: &[&str]) -> Lab {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/joining.toml");
    let plan = bench::plan(Some(PathBuf::from(file)));
    Lab::start(plan, words).expect("the lab comes up")
}

fn status(lab: &Lab, node: &str) -> String {
    lab.must_shell(node, &[STATUS]).expect("a status")
}

fn shows(lab: &Lab, node: &str, expected: &str) {
    lab.await_text(node, STATUS, expected).expect("the status");
}

/// "Changing the Standalone Cisco VSG to a Primary Cisco VSG", then "Pairing a Second Cisco VSG
/// with an Active Cisco VSG": the second one was standalone itself, so it changes while it is
/// isolated, is powered off, and reconnected.
#[test]
fn a_standalone_gateway_becomes_a_pair() {
    if !bench::may_run() {
        return;
    }
    let lab = joining(&["--off", "sup-2"]);
    shows(
        &lab,
        "sup-1",
        &site::leads_alone("standalone", "standalone", 1, "None"),
    );
    lab.configure("sup-1", "zone kept@root").expect("a zone");

    let said = lab
        .must_shell("sup-1", &["system redundancy role primary"])
        .expect("the role changes");
    assert_eq!(said.trim(), "", "at once, and without a word");
    assert!(
        status(&lab, "sup-1").contains(&site::leads_alone("primary", "primary", 1, "None")),
        "{}",
        status(&lab, "sup-1")
    );
    let reply = lab.shell("sup-1", &["system switchover"]).expect("a reply");
    assert!(
        !reply.succeeded && reply.text.contains(NOT_READY),
        "{}",
        reply.text
    );

    lab.fault(&["cut", "all:sup-2"]).expect("isolated");
    lab.fault(&["start-node", "sup-2"]).expect("started");
    shows(
        &lab,
        "sup-2",
        &site::leads_alone("standalone", "standalone", 1, "None"),
    );
    let said = lab
        .must_shell("sup-2", &["system redundancy role secondary"])
        .expect("the role changes");
    assert_eq!(said.trim(), PENDING);
    shows(
        &lab,
        "sup-2",
        &site::leads_alone("secondary", "standalone", 1, "None"),
    );
    lab.fault(&["kill-node", "sup-2"]).expect("off");
    lab.fault(&["heal", "all:sup-2"]).expect("reconnected");
    lab.fault(&["start-node", "sup-2"]).expect("on");

    assert_eq!(lab.await_redundant().expect("redundant"), "sup-1");
    for (node, this, other) in [("sup-1", REDUNDANT, FOLLOWS), ("sup-2", FOLLOWS, REDUNDANT)] {
        let text = status(&lab, node);
        let [before, after] = [text.find(this), text.rfind(other)];
        assert!(before < after, "{node}:\n{text}");
        assert!(text.contains("operational:   HA"), "{node}:\n{text}");
    }
    lab.shell("sup-1", &["system switchover"]).expect("a reply");
    lab.await_state("sup-2", REDUNDANT).expect("it takes over");
    let running = lab
        .must_shell("sup-2", &["show running-config"])
        .expect("the configuration");
    assert!(running.contains("kept@root"), "{running}");
    lab.down().expect("down");
}

/// A standalone node does not interact with others: not even with one of its pair ID, whose
/// identity it has pinned, and whose frames are genuine.
#[test]
fn a_standalone_node_ignores_valid_frames_of_a_peer() {
    if !bench::may_run() {
        return;
    }
    let lab = joining(&["--off", "sup-2"]);
    shows(
        &lab,
        "sup-1",
        &site::leads_alone("standalone", "standalone", 1, "None"),
    );
    let words = [
        "vsgd",
        "sup-2",
        "--",
        "init",
        "--force",
        "--role",
        "secondary",
    ];
    let print = |node: &str| {
        let output = lab
            .verb(&["vsgd", node, "--", "fingerprint"])
            .expect("vsgd");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let init = lab.verb(&[&words[..], &["--pair-id", "30"]].concat());
    assert!(init.expect("vsgd").status.success());
    let first = print("sup-1");
    let pin = lab.verb(&["vsgd", "sup-2", "--", "pin", "--peer", &first]);
    assert!(pin.expect("vsgd").status.success());
    // And the standalone one trusts it, so that nothing but its role keeps it from listening.
    let second = print("sup-2");
    lab.fault(&["kill-node", "sup-1"]).expect("off");
    let pin = lab.verb(&["vsgd", "sup-1", "--", "pin", "--peer", &second]);
    assert!(pin.expect("vsgd").status.success());
    lab.fault(&["start-node", "sup-1"]).expect("on");
    shows(
        &lab,
        "sup-1",
        &site::leads_alone("standalone", "standalone", 1, "None"),
    );
    let epoch = |lab: &Lab| {
        let log = lab.must_shell("sup-1", &["show logging"]).expect("a log");
        log.matches("ROLE_CHANGE").count()
    };
    let changes = epoch(&lab);

    lab.fault(&["start-node", "sup-2"]).expect("on");
    lab.await_text(
        "sup-2",
        "show logging",
        "negotiating with the other supervisor",
    )
    .expect("it is connected, and gets no answer");
    // That nothing happens can only be seen by giving it the time to happen: many hold times.
    thread::sleep(Duration::from_secs(2));
    let state = lab.internal_state("sup-2").expect("a state");
    assert_eq!(state.as_deref(), Some("Other"), "it waits");
    assert!(
        status(&lab, "sup-1").contains(&site::leads_alone("standalone", "standalone", 1, "None")),
        "{}",
        status(&lab, "sup-1")
    );
    assert_eq!(epoch(&lab), changes, "and acts as it did");
    lab.down().expect("down");
}

/// "To activate a change from a primary to a secondary Cisco VSG, you must reload".
#[test]
fn a_primary_becomes_a_secondary_at_its_reload() {
    if !bench::may_run() {
        return;
    }
    let lab = Lab::start(bench::plan(None), &["--off", "sup-2"]).expect("up");
    shows(
        &lab,
        "sup-1",
        &site::leads_alone("primary", "primary", 1, "None"),
    );
    let said = lab
        .must_shell("sup-1", &["system redundancy role secondary"])
        .expect("the role changes");
    assert_eq!(said.trim(), PENDING);
    shows(
        &lab,
        "sup-1",
        &site::leads_alone("secondary", "primary", 1, "None"),
    );
    // Back, and nothing is pending.
    let said = lab
        .must_shell("sup-1", &["system redundancy role primary"])
        .expect("the role changes");
    assert_eq!(said.trim(), "");
    shows(
        &lab,
        "sup-1",
        &site::leads_alone("primary", "primary", 1, "None"),
    );

    lab.must_shell("sup-1", &["system redundancy role secondary"])
        .expect("the role changes");
    lab.shell("sup-1", &["reload", "y"]).expect("a reply");
    let text = lab
        .await_text("sup-1", STATUS, "operational:   secondary")
        .expect("it is secondary");
    assert!(text.contains("This supervisor (sup-2)"), "{text}");
    lab.down().expect("down");
}

#[test]
fn an_active_that_loses_its_standby_shows_it_and_refuses_a_switchover() {
    if !bench::may_run() {
        return;
    }
    let lab = bench::pair();
    lab.fault(&["kill-node", "sup-2"]).expect("off");
    shows(
        &lab,
        "sup-1",
        &site::leads_alone("primary", "primary", 1, "None"),
    );
    let reply = lab.shell("sup-1", &["system switchover"]).expect("a reply");
    assert!(
        !reply.succeeded && reply.text.contains(NOT_READY),
        "{}",
        reply.text
    );
    lab.fault(&["start-node", "sup-2"]).expect("on");
    lab.await_redundant().expect("it synchronises by itself");
    lab.down().expect("down");
}

#[test]
fn a_switchover_is_told_on_both_nodes() {
    if !bench::may_run() {
        return;
    }
    let lab = bench::pair();
    lab.await_redundant().expect("redundant");
    lab.shell("sup-1", &["system switchover"]).expect("a reply");
    assert_eq!(lab.await_redundant().expect("redundant"), "sup-2");
    let log = lab
        .await_text("sup-2", "show logging", "%PLATFORM-2-MOD_REMOVE")
        .expect("the last of the four lines");
    let expected = [
        "%SYSMGR-2-HASWITCHOVER_PRE_START: This supervisor is becoming active (pre-start phase).",
        "%SYSMGR-2-HASWITCHOVER_START: This supervisor is becoming active.",
        "%SYSMGR-2-SWITCHOVER_OVER: Switchover completed.",
        "%PLATFORM-2-MOD_REMOVE: Module 1 removed (Serial number )",
    ];
    let places: Vec<Option<usize>> = expected.iter().map(|line| log.find(line)).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{places:?} in:\n{log}"
    );
    assert!(log.contains("%$ VDC-1 %$"), "{log}");
    let told = "sup-2 is becoming active";
    assert!(log.contains(told), "{log}");
    // The old active has started afresh; what it said before is in its log file.
    let old = std::fs::read_to_string(lab.report().logs.join("sup-1.log")).expect("its log");
    assert!(
        old.contains("Two gateways are present") && old.contains(told),
        "{old}"
    );
    lab.down().expect("down");
}

/// Every profile and both ends of the range, there and back: the epoch stays.
#[test]
fn heartbeat_intervals_change_on_a_live_pair_without_a_failover() {
    if !bench::may_run() {
        return;
    }
    let lab = bench::pair();
    let active = lab.await_redundant().expect("redundant");
    let epoch = system_tests::soak::await_obeyed(&lab).expect("obeyed");
    let steps = [
        ("fast", 30),
        ("vm-safe", 3000),
        ("interval 10 misses 3", 30),
        ("interval 2000 misses 2", 4000),
        ("default", 300),
    ];
    for (words, hold_ms) in steps {
        for node in site::NODES {
            lab.must_shell(node, &[&format!("system redundancy heartbeat {words}")])
                .expect("a new interval");
        }
        for node in site::NODES {
            let text = format!("Hold time:   {hold_ms} ms");
            lab.await_text(node, "show redundancy heartbeat", &text)
                .expect("the new hold time");
        }
        assert_eq!(lab.await_redundant().expect("redundant"), active, "{words}");
    }
    assert_eq!(
        system_tests::soak::await_obeyed(&lab).expect("obeyed"),
        epoch,
        "nobody took over, not even for a moment"
    );
    wait::until("no standby was lost", Duration::from_secs(1), || {
        let log = lab.must_shell(active, &["show logging"])?;
        Ok((log.matches("STANDBY_SUP_OK").count() == 1).then_some(()))
    })
    .expect("one standby, stable all the time");
    lab.down().expect("down");
}
