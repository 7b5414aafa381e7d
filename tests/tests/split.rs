//! Both nodes lead, each the hosts that reach only it: fenced by the hosts, found on any path,
//! resolved within a hold time, and nothing that was committed is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use system_tests::lab::{ALONE, Fault};
use system_tests::soak::fault::split;
use system_tests::soak::load::Load;
use system_tests::soak::watch::Epoch;
use system_tests::soak::{LOOK_LATE_MS, await_obeyed, await_one_active};
use system_tests::{Lab, agent, bench, site, wait};

/// The default profile's.
const HOLD_MS: u64 = 300;
/// New connections a second.
const RATE: u64 = 100;
/// How often a host agent may try to connect again to a node that it lost.
const RECONNECT_MS: u64 = 1000;

/// Splits the pair, so that `active` keeps the first host, and waits until both nodes lead.
fn split_brain(lab: &Lab, active: &str) {
    for words in split(active) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        lab.fault(&[&["cut"], &words[..]].concat()).expect("cut");
    }
    let standby = site::other(active);
    // One vote says that the active lives, one says nothing: the chapter's rule decides.
    lab.await_state(standby, ALONE).expect("it takes over");
    lab.await_state(active, ALONE)
        .expect("and so does the other");
    wait::until("each node has its host", Duration::from_secs(10), || {
        let mut epochs = BTreeSet::new();
        for host in site::HOSTS {
            epochs.extend(agent::Status::peek(lab, host)?.obeyed_epoch);
        }
        Ok((epochs.len() == 2).then_some(()))
    })
    .expect("two epochs, a host under each");
}

fn heal(lab: &Lab, cable: &str) -> Fault {
    lab.fault(&["heal", cable]).expect("healed")
}

fn heal_all(lab: &Lab, active: &str) {
    for words in split(active) {
        heal(lab, &words[0]);
    }
}

/// Schedule 7: contact by any one path ends it.
#[test]
fn contact_by_any_one_path_leaves_one_active() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let load = Load::start(&lab, RATE).expect("traffic");
    let mut active = active;
    let paths = [
        ("ha0", 0),
        ("ha1", 0),
        // The host tells: it must find the node again first.
        ("svc:STANDBY+host-1", RECONNECT_MS),
        ("svc:ACTIVE+host-2", RECONNECT_MS),
    ];
    for (path, finding_ms) in paths {
        split_brain(&lab, active);
        let highest = site::HOSTS
            .iter()
            .filter_map(|host| agent::Status::peek(&lab, host).ok()?.obeyed_epoch)
            .map(|epoch| Epoch::read(&epoch))
            .max();
        let cable = path
            .replace("STANDBY", site::other(active))
            .replace("ACTIVE", active);
        let contact = heal(&lab, &cable);
        let took_ms = await_one_active(&lab, contact.done_ns, Duration::from_secs(10));
        let took_ms = took_ms.unwrap_or_else(|error| panic!("{cable}: {error:#}"));
        eprintln!("{cable}: one active {took_ms:.0} ms after contact");
        let bound_ms = HOLD_MS + LOOK_LATE_MS + finding_ms;
        assert!(took_ms <= bound_ms as f64, "{cable}: {took_ms:.0} ms");
        heal_all(&lab, active);
        let survivor = lab.await_redundant().expect("redundant");
        let epoch = Some(Epoch::read(&await_obeyed(&lab).expect("obeyed")));
        if finding_ms == 0 {
            assert!(epoch > highest, "{cable}: the survivor has a new epoch");
        } else {
            // The lower one gave way by itself; the higher one need not know.
            assert!(epoch >= highest, "{cable}: no host goes back");
        }
        active = survivor;
    }
    let window = load.so_far().expect("a report");
    let lost = window.udp_lost + window.udp_reordered + window.forbidden_reached;
    assert!(window.tcp_alive && lost == 0, "{window:#?}");
    lab.down().expect("down");
}

/// Both commit: the primary resets (the chapter's rule), the survivor takes a new epoch, and what
/// the loser had alone is archived, listed and shown as a difference.
#[test]
fn a_forked_configuration_is_archived_and_shown() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    assert_eq!(active, site::NODES[0], "the primary leads first");
    split_brain(&lab, active);
    for (node, zone) in [("sup-1", "left@root"), ("sup-2", "right@root")] {
        let said = lab
            .configure(node, &format!("zone {zone}"))
            .expect("a commit");
        assert!(said.contains("this node only (local)"), "{node}: {said}");
    }
    heal_all(&lab, active);
    assert_eq!(
        lab.await_redundant().expect("redundant"),
        "sup-2",
        "the primary resets"
    );
    await_obeyed(&lab).expect("all hosts obey the survivor");
    let running = lab
        .must_shell("sup-2", &["show running-config"])
        .expect("the configuration");
    assert!(
        running.contains("right@root") && !running.contains("left@root"),
        "{running}"
    );
    let listed = lab
        .await_text("sup-2", "show redundancy conflicts", "Conflict 1")
        .expect("the archive reaches the active");
    assert!(listed.contains("sup-1"), "{listed}");
    let number = lab.conflicts("sup-2").expect("a list")[0];
    let archived = lab
        .must_shell("sup-2", &[&format!("show redundancy conflicts {number}")])
        .expect("the archived configuration");
    assert!(
        archived.contains("left@root") && !archived.contains("right@root"),
        "{archived}"
    );
    let diff = lab
        .must_shell(
            "sup-2",
            &[&format!("show redundancy conflicts {number} diff")],
        )
        .expect("the difference");
    assert!(
        diff.contains("left@root") && diff.contains("right@root"),
        "{diff}"
    );
    lab.down().expect("down");
}

/// Only one side committed: its history contains the other's, so nothing is lost, whoever it is.
#[test]
fn a_history_that_contains_the_others_survives() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    split_brain(&lab, active);
    let said = lab.configure("sup-1", "zone left@root").expect("a commit");
    assert!(said.contains("this node only (local)"), "{said}");
    heal_all(&lab, active);
    let survivor = lab.await_redundant().expect("redundant");
    let running = lab
        .must_shell(survivor, &["show running-config"])
        .expect("the configuration");
    assert!(
        running.contains("left@root"),
        "{survivor} leads:\n{running}"
    );
    await_obeyed(&lab).expect("obeyed");
    lab.down().expect("down");
}

/// `newest-config` and `most-vems`, as the operator chose.
#[test]
fn the_operators_policy_decides_who_resets() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    lab.must_shell(active, &["system redundancy split-brain newest-config"])
        .expect("a policy");
    split_brain(&lab, active);
    lab.configure("sup-2", "zone older@root").expect("a commit");
    // The ages of the two commits are compared in seconds.
    std::thread::sleep(Duration::from_millis(1500));
    lab.configure("sup-1", "zone newer@root").expect("a commit");
    heal_all(&lab, active);
    assert_eq!(
        lab.await_redundant().expect("redundant"),
        "sup-1",
        "its configuration is the newer one"
    );
    let running = lab
        .must_shell("sup-1", &["show running-config"])
        .expect("the configuration");
    assert!(running.contains("newer@root"), "{running}");
    lab.down().expect("down");
}
