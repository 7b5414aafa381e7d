//! Nodes and hosts that do not reach each other, while the nodes do: nobody fails over, and
//! established flows live.

use std::thread;
use std::time::Duration;

use system_tests::lab::REDUNDANT;
use system_tests::soak::await_obeyed;
use system_tests::soak::load::Load;
use system_tests::{Lab, bench, clock, site, wait};

/// Longer than a host agent takes to notice a silent gateway (3 s), and the hold time.
const NOTICED: Duration = Duration::from_secs(4);
/// New connections a second.
const RATE: u64 = 100;

/// Waits until `node` has logged that the module of `host` is offline.
fn await_offline(lab: &Lab, node: &str, host: &str) {
    let log = lab.must_shell(node, &["show logging"]).expect("a log");
    let online = format!("Host {host} is module ");
    let (_, rest) = log.split_once(&online).expect("the host was online");
    let (number, _) = rest.split_once(',').expect("a module number");
    lab.await_text(node, "show logging", &format!("Module {number} is offline"))
        .unwrap_or_else(|error| panic!("{node} does not miss {host}: {error:#}"));
}

/// A clean second, no older than the call.
fn await_clean(lab: &Lab) {
    let from_ns = clock::now_ns();
    wait::until("a clean second of traffic", Duration::from_secs(20), || {
        let now_ns = clock::now_ns();
        let window = lab.traffic(from_ns.max(now_ns.saturating_sub(1_000_000_000)), now_ns)?;
        let clean = window.connections > 0 && window.connections_failed == 0;
        Ok(clean.then_some(()))
    })
    .expect("clean traffic");
}

/// One host, or all of them, lose the standby: nothing is to be seen of it but in `show`.
#[test]
fn a_standby_without_hosts_stays_standby() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let standby = site::other(active);
    let load = Load::start(&lab, RATE).expect("traffic");
    let epoch = await_obeyed(&lab).expect("obeyed");
    let one = format!("svc:{standby}+{}", site::CLIENT_HOST);
    let all = format!("svc:{standby}");
    for cable in [&one, &all] {
        lab.fault(&["cut", cable]).expect("cut");
        thread::sleep(NOTICED);
        assert_eq!(lab.active().expect("one active"), active, "{cable}");
        let state = lab.internal_state(active).expect("a state");
        assert_eq!(state.as_deref(), Some(REDUNDANT), "{cable}");
        lab.fault(&["heal", cable]).expect("healed");
        assert_eq!(await_obeyed(&lab).expect("obeyed"), epoch, "{cable}");
    }
    let window = load.so_far().expect("a report");
    let broken = window.udp_lost + window.udp_reordered + window.connections_failed;
    assert!(window.tcp_alive && broken == 0, "{window:#?}");
    lab.down().expect("down");
}

/// One host loses the active: its new flows wait, and meet their fail mode if it lasts; the other
/// host notices nothing.
#[test]
fn one_host_without_the_active_costs_no_role() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let load = Load::start(&lab, RATE).expect("traffic");
    let epoch = await_obeyed(&lab).expect("obeyed");
    let cable = format!("svc:{active}+{}", site::SERVER_HOST);
    lab.fault(&["cut", &cable]).expect("cut");
    await_offline(&lab, active, site::SERVER_HOST);
    assert_eq!(lab.active().expect("one active"), active);
    lab.fault(&["heal", &cable]).expect("healed");
    assert_eq!(await_obeyed(&lab).expect("obeyed"), epoch);
    await_clean(&lab);
    let window = load.so_far().expect("a report");
    assert!(window.tcp_alive && window.udp_lost == 0, "{window:#?}");
    assert_eq!(window.forbidden_reached, 0, "{window:#?}");
    lab.down().expect("down");
}

/// The active reaches no host, its standby reaches all: the heartbeats are fine, so nobody takes
/// over by itself; the operator's switchover is the answer.
#[test]
fn an_active_without_hosts_leads_until_the_operator_decides() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let standby = site::other(active);
    let load = Load::start(&lab, RATE).expect("traffic");
    let cable = format!("svc:{active}");
    lab.fault(&["cut", &cable]).expect("cut");
    for host in site::HOSTS {
        await_offline(&lab, active, host);
    }
    assert_eq!(lab.active().expect("one active"), active);
    lab.shell(active, &["system switchover"]).expect("a reply");
    lab.await_state(standby, REDUNDANT).expect("it takes over");
    await_clean(&lab);
    lab.fault(&["heal", &cable]).expect("healed");
    assert_eq!(lab.await_redundant().expect("redundant"), standby);
    await_obeyed(&lab).expect("all hosts, connected to both nodes");
    let window = load.so_far().expect("a report");
    assert!(window.tcp_alive && window.udp_lost == 0, "{window:#?}");
    assert_eq!(window.forbidden_reached, 0, "{window:#?}");
    lab.down().expect("down");
}

/// No host reaches any node: what is established lives, nothing forbidden passes, and all is well
/// when the network is back.
#[test]
fn hosts_without_any_node_keep_what_is_established() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let load = Load::start(&lab, RATE).expect("traffic");
    let epoch = await_obeyed(&lab).expect("obeyed");
    lab.fault(&["cut", "svc"]).expect("cut");
    thread::sleep(NOTICED);
    assert_eq!(lab.active().expect("one active"), active);
    lab.fault(&["heal", "svc"]).expect("healed");
    assert_eq!(await_obeyed(&lab).expect("obeyed"), epoch);
    await_clean(&lab);
    assert_eq!(lab.await_redundant().expect("redundant"), active);
    let window = load.so_far().expect("a report");
    assert!(window.tcp_alive && window.udp_lost == 0, "{window:#?}");
    assert_eq!(window.forbidden_reached, 0, "{window:#?}");
    lab.down().expect("down");
}
