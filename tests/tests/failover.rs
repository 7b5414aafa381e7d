//! Faults under traffic: nothing established is lost, no new connection fails, the forbidden port
//! stays forbidden, and an unsaved change survives it all.
//!
//! How long each takes is the demo's to promise; here the windows only have to be clean.

use std::thread;
use std::time::Duration;

use system_tests::{Lab, bench, clock, site, wait};

/// From just before a fault until its effects are over: a SYN that was sent again shows after one
/// second.
const WINDOW: Duration = Duration::from_secs(3);

/// Longest life of the traffic; each test is over long before.
const TRAFFIC_SECONDS: u64 = 300;

fn start_traffic(lab: &Lab) {
    lab.start_traffic(TRAFFIC_SECONDS).expect("traffic starts");
    wait::until("a clean second of traffic", Duration::from_secs(20), || {
        let now_ns = clock::now_ns();
        let window = lab.traffic(now_ns.saturating_sub(1_000_000_000), now_ns)?;
        let clean = window.tcp_alive && window.connections > 0 && window.udp_lost == 0;
        Ok((clean && window.connections_failed == 0).then_some(()))
    })
    .expect("clean traffic");
}

/// Makes the fault and looks at the traffic from then on.
fn strike(lab: &Lab, what: &str, fault: impl FnOnce()) {
    let from_ns = clock::now_ns();
    fault();
    // The window is measured, not waited for.
    thread::sleep(WINDOW);
    let to_ns = clock::now_ns();
    let window = lab.settled_traffic(from_ns, to_ns).expect("a report");
    assert!(window.tcp_alive, "{what}: the stream is dead: {window:?}");
    assert_eq!(
        window.udp_lost + window.udp_reordered,
        0,
        "{what}: {window:?}"
    );
    assert_eq!(window.connections_failed, 0, "{what}: {window:?}");
    assert!(
        window.connections > 100,
        "{what}: hardly any new connection: {window:?}"
    );
    assert!(window.forbidden_attempts > 0, "{what}: {window:?}");
    assert_eq!(window.forbidden_reached, 0, "{what}: {window:?}");
    assert_eq!(window.witness_errors, 0, "{what}: {window:?}");
}

#[test]
fn planned_and_unplanned_failovers_lose_nothing() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    lab.must_shell(active, &["copy running-config startup-config"])
        .expect("saved");
    lab.configure(
        active,
        "zone unsaved@root\ncondition 1 net.ip-address eq 10.9.0.201",
    )
    .expect("a change");
    start_traffic(&lab);

    let active = lab.await_redundant().expect("redundant");
    strike(&lab, "switchover", || {
        lab.shell(active, &["system switchover"]).expect("a reply");
    });
    assert_eq!(
        lab.await_redundant().expect("redundant"),
        site::other(active)
    );

    let active = site::other(active);
    strike(&lab, "policy_engine killed", || {
        lab.fault(&["kill-service", active, "policy_engine"])
            .expect("killed");
    });
    assert_eq!(
        lab.await_redundant().expect("redundant"),
        site::other(active)
    );

    let active = site::other(active);
    strike(&lab, "a borrowed service killed", || {
        lab.fault(&["kill-service", active, "cfgmgr"])
            .expect("killed");
    });
    assert_eq!(
        lab.await_redundant().expect("redundant"),
        active,
        "it restarts, nobody fails over"
    );

    strike(&lab, "active paused", || {
        lab.fault(&["pause", active, "--for", "1s"])
            .expect("paused");
    });
    let active = lab.await_redundant().expect("redundant");

    strike(&lab, "node killed", || {
        lab.fault(&["kill-node", active]).expect("killed");
    });
    lab.fault(&["start-node", active]).expect("started");
    let survivor = lab.await_redundant().expect("the killed node is back");
    assert_eq!(survivor, site::other(active), "no preemption");

    let diff = lab
        .must_shell(survivor, &["show running-config diff"])
        .expect("a difference");
    assert!(
        diff.contains("unsaved@root"),
        "the unsaved change is still unsaved:\n{diff}"
    );
    lab.down().expect("down");
}

#[test]
fn established_and_new_flows_survive_the_host_agent() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    start_traffic(&lab);
    strike(&lab, "vemd worker killed", || {
        lab.fault(&["kill-vemd", site::CLIENT_HOST])
            .expect("killed");
    });
    assert_eq!(
        lab.await_redundant().expect("redundant"),
        active,
        "no role change"
    );
    lab.down().expect("down");
}
