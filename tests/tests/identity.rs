//! Keys that are changed, and hosts that are removed and enrolled, on a site that works.

use std::time::Duration;

use system_tests::soak::await_obeyed;
use system_tests::soak::load::Load;
use system_tests::{Lab, agent, bench, clock, site, wait};

/// New connections a second.
const RATE: u64 = 100;
/// The service address of each node of the default topology.
const SERVICE: [&str; 2] = ["10.3.0.1", "10.3.0.2"];
/// A host dials its nodes every half second at the latest.
const CONNECTS_WITHIN: Duration = Duration::from_secs(20);

fn fingerprint(lab: &Lab, node: &str) -> String {
    let output = lab
        .verb(&["vsgd", node, "--", "fingerprint"])
        .expect("vsgd");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Both nodes change their keys, the active first. Nobody who was there loses anything: the same
/// epoch is obeyed throughout, and all are connected to both nodes by their new identities.
#[test]
fn both_nodes_change_their_keys_under_traffic() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let epoch = await_obeyed(&lab).expect("obeyed");
    let load = Load::start(&lab, RATE).expect("traffic");
    for node in [active, site::other(active)] {
        let old = fingerprint(&lab, node);
        let said = lab
            .must_shell(node, &["redundancy identity rotate"])
            .expect("a new key");
        let new = fingerprint(&lab, node);
        assert_ne!(old, new);
        assert!(said.contains(&new), "{said}");
        lab.await_text(site::other(node), "show redundancy identity", &new)
            .expect("the other one knows it");
        assert_eq!(await_obeyed(&lab).expect("obeyed"), epoch);
    }
    assert_eq!(lab.await_redundant().expect("redundant"), active);
    let window = load.so_far().expect("a report");
    let broken = window.udp_lost + window.udp_reordered + window.connections_failed;
    assert!(window.tcp_alive && broken == 0, "{window:#?}");
    assert_eq!(window.forbidden_reached, 0, "{window:#?}");
    // They are known by these keys after a restart too, and a failover works under them.
    lab.fault(&["kill-node", active]).expect("off");
    let survivor = site::other(active);
    wait::until("the standby leads", Duration::from_secs(10), || {
        Ok(lab.leads(survivor)?.then_some(()))
    })
    .expect("it takes over");
    lab.fault(&["start-node", active]).expect("on");
    assert_eq!(lab.await_redundant().expect("redundant"), survivor);
    await_obeyed(&lab).expect("every host is connected to both");
    lab.down().expect("down");
}

/// A host that was removed is let in nowhere; enrolled again, it is as before.
#[test]
fn a_host_is_removed_and_enrolled_again() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let host = site::HOSTS[0];
    let modules = lab.must_shell(active, &["show module"]).expect("modules");
    let connected = |wanted: usize| {
        wait::until("the host's connections", CONNECTS_WITHIN, || {
            let status = agent::Status::peek(&lab, host)?;
            let now = status.gateways.iter().filter(|gateway| gateway.connected);
            Ok((now.count() == wanted).then_some(()))
        })
        .expect("they come and go");
    };
    connected(2);
    let number = modules
        .lines()
        .filter(|line| line.contains(host))
        .find_map(|line| line.split_whitespace().next()?.parse::<u16>().ok())
        .unwrap_or_else(|| panic!("no {host} in {modules}"));
    lab.must_shell(active, &[&format!("vem remove {number}"), "y"])
        .expect("removed");
    connected(0);
    let left = lab.must_shell(active, &["show module"]).expect("modules");
    assert!(!left.contains(host), "{left}");
    let said = lab.must_shell(active, &["vem enroll"]).expect("a code");
    let code = said
        .lines()
        .find_map(|line| line.split_once("Code: ")?.1.split_whitespace().next())
        .unwrap_or_else(|| panic!("no code in {said:?}"));
    let address = SERVICE[usize::from(active == site::NODES[1])];
    let output = lab
        .verb(&["vemd", host, "--", "enroll", "--node", address, code])
        .expect("vemd");
    assert!(output.status.success(), "{output:?}");
    // The agent that runs notices by itself.
    connected(2);
    await_obeyed(&lab).expect("obeyed");
    Load::start(&lab, RATE).expect("traffic");
    let from = clock::now_ns();
    let window = lab
        .settled_traffic(from, from + 1_000_000_000)
        .expect("a second of traffic");
    assert_eq!(window.connections_failed, 0, "{window:#?}");
    lab.down().expect("down");
}
