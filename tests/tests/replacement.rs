//! "Replacing the Standby Cisco VSG in an HA Pair" and "Replacing the Active Cisco VSG in an HA
//! Pair", step by step, the new node with an empty disk and so with another identity: it must be
//! paired, and the old one forgotten.

use std::time::Duration;

use system_tests::lab::{ALONE, REDUNDANT};
use system_tests::soak::await_obeyed;
use system_tests::soak::load::Load;
use system_tests::{Lab, agent, bench, site, wait};

/// New connections a second.
const RATE: u64 = 100;
const STATUS: &str = "show system redundancy status";
/// The pair ID of the default topology.
const PAIR_ID: &str = "10";

/// The address of a node on the first HA link of the default topology.
fn address(node: &str) -> &'static str {
    if node == site::NODES[0] {
        "10.1.0.1"
    } else {
        "10.1.0.2"
    }
}

fn fingerprint(lab: &Lab, node: &str) -> String {
    let output = lab
        .verb(&["vsgd", node, "--", "fingerprint"])
        .expect("vsgd");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// An empty disk, an installation with the same pair ID, and another identity than before.
fn install(lab: &Lab, node: &str, role: &str) {
    let old = fingerprint(lab, node);
    lab.fault(&["replace-node", node]).expect("an empty disk");
    let words = [
        "vsgd",
        node,
        "--",
        "init",
        "--role",
        role,
        "--pair-id",
        PAIR_ID,
    ];
    let output = lab.verb(&words).expect("vsgd");
    assert!(output.status.success(), "{output:?}");
    assert_ne!(fingerprint(lab, node), old, "a new machine");
}

/// The pairing step: the survivor prints a code, the new node is told it.
fn pair(lab: &Lab, survivor: &str, new: &str) {
    let said = lab
        .must_shell(survivor, &["redundancy pair"])
        .expect("a code");
    let code = said
        .lines()
        .find_map(|line| line.split_once("Code: ")?.1.split_whitespace().next())
        .unwrap_or_else(|| panic!("no code in {said:?}"));
    let join = format!("redundancy join {} {code}", address(survivor));
    wait::until("the new node joins", Duration::from_secs(20), || {
        lab.must_shell(new, &[&join]).map(Some)
    })
    .expect("paired");
}

/// Waits until the hosts have noticed that a node is gone, which takes them about three seconds:
/// installing another one takes longer.
fn missed_by_the_hosts(lab: &Lab) {
    wait::until("every host misses it", Duration::from_secs(10), || {
        for host in site::HOSTS {
            let status = agent::Status::peek(lab, host)?;
            if status.gateways.iter().all(|gateway| gateway.connected) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .expect("its hosts miss it");
}

/// The unpinning of the node that is gone.
fn unpair(lab: &Lab, survivor: &str) {
    lab.must_shell(survivor, &["redundancy unpair", "y"])
        .expect("the old node is forgotten");
    lab.await_state(survivor, ALONE).expect("it leads alone");
}

fn the_traffic_met_nothing(load: &Load<'_>) {
    let window = load.so_far().expect("a report");
    let broken = window.udp_lost + window.udp_reordered + window.connections_failed;
    assert!(window.tcp_alive && broken == 0, "{window:#?}");
    assert!(
        window.forbidden_attempts > 0 && window.forbidden_reached == 0,
        "{window:#?}"
    );
}

/// What was committed before and meanwhile is on the new node too: it leads, and has it.
fn the_new_node_has_it_all(lab: &Lab, new: &str, zones: &[&str]) {
    let active = lab.await_redundant().expect("redundant");
    assert_eq!(active, site::other(new));
    await_obeyed(lab).expect("every host is connected to both");
    lab.shell(active, &["system switchover"]).expect("a reply");
    lab.await_state(new, REDUNDANT).expect("the new node leads");
    let running = lab
        .must_shell(new, &["show running-config"])
        .expect("the configuration");
    for zone in zones {
        assert!(running.contains(zone), "no {zone} in:\n{running}");
    }
}

#[test]
fn a_standby_is_replaced_by_a_new_machine() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let old = site::other(active);
    lab.configure(active, "zone before@root").expect("a zone");
    let load = Load::start(&lab, RATE).expect("traffic");
    let epoch = await_obeyed(&lab).expect("obeyed");

    // Step 1: power off the standby.
    lab.fault(&["kill-node", old]).expect("off");
    lab.await_state(active, ALONE).expect("it leads alone");
    lab.configure(active, "zone meanwhile@root")
        .expect("a zone");
    missed_by_the_hosts(&lab);
    // Step 2: install the new one as a standby, with the same ID. It is found, not trusted.
    install(&lab, old, "secondary");
    lab.fault(&["start-node", old]).expect("on");
    let print = fingerprint(&lab, old);
    lab.await_text(active, "show redundancy identity", &print)
        .expect("found, not paired");
    assert_eq!(
        lab.internal_state(active).expect("a state").as_deref(),
        Some(ALONE),
        "nobody else has become its standby"
    );
    unpair(&lab, active);
    pair(&lab, active, old);
    assert_eq!(lab.await_redundant().expect("redundant"), active);
    assert_eq!(
        await_obeyed(&lab).expect("every host is connected to both"),
        epoch,
        "it led all the time"
    );
    the_new_node_has_it_all(&lab, old, &["before@root", "meanwhile@root"]);
    the_traffic_met_nothing(&load);
    lab.down().expect("down");
}

#[test]
fn an_active_is_replaced_by_a_new_machine() {
    if !bench::may_run() {
        return;
    }
    let (lab, old) = bench::pair_with_policy();
    let survivor = site::other(old);
    lab.configure(old, "zone before@root").expect("a zone");
    let load = Load::start(&lab, RATE).expect("traffic");

    // Step 1: power off the active; the secondary becomes active.
    lab.fault(&["kill-node", old]).expect("off");
    lab.await_state(survivor, ALONE).expect("it takes over");
    lab.configure(survivor, "zone meanwhile@root")
        .expect("a zone");
    missed_by_the_hosts(&lab);
    // Step 2: isolate the new primary. Step 3: install it, with the same ID. It leads for itself.
    let all = format!("all:{old}");
    lab.fault(&["cut", &all]).expect("isolated");
    install(&lab, old, "primary");
    lab.fault(&["start-node", old]).expect("on");
    lab.await_text(old, STATUS, ALONE).expect("it leads nobody");
    lab.configure(old, "hostname new").expect("a name");
    lab.fault(&["kill-node", old]).expect("off");
    // Step 4: permit communication. Step 5: power it up.
    lab.fault(&["heal", &all]).expect("reconnected");
    lab.fault(&["start-node", old]).expect("on");
    unpair(&lab, survivor);
    pair(&lab, survivor, old);
    assert_eq!(
        lab.await_redundant().expect("redundant"),
        survivor,
        "the existing one stays active"
    );
    the_new_node_has_it_all(&lab, old, &["before@root", "meanwhile@root"]);
    the_traffic_met_nothing(&load);
    lab.down().expect("down");
}
