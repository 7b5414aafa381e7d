//! Cut links: who leads, who must not, what is shown, and how it heals. The table is in
//! `docs/partial-failures.md`.

use std::thread;
use std::time::Duration;

use system_tests::lab::{ALONE, FOLLOWS, REDUNDANT};
use system_tests::soak::load::Load;
use system_tests::soak::{await_obeyed, await_one_active};
use system_tests::{Lab, bench, site};

/// Far longer than the hold time of 300 ms: whoever wanted to take over has done so.
const LONG_AFTER_THE_HOLD_TIME: Duration = Duration::from_millis(2000);
/// New connections a second.
const RATE: u64 = 100;
const HEARTBEAT: &str = "show redundancy heartbeat";
const STATUS: &str = "show system redundancy status";
/// The links between the nodes.
const LINKS: [&str; 2] = ["ha0", "ha1"];

fn cut(lab: &Lab, words: &[&str]) {
    lab.fault(&[&["cut"], words].concat()).expect("cut");
}

fn heal(lab: &Lab, words: &[&str]) {
    lab.fault(&[&["heal"], words].concat()).expect("healed");
}

/// That nothing happens can only be seen by giving it the time to happen.
fn nothing_happens(lab: &Lab, active: &str, epoch: &str, what: &str) {
    thread::sleep(LONG_AFTER_THE_HOLD_TIME);
    assert_eq!(lab.active().expect("one active"), active, "{what}");
    same_epoch(lab, epoch, what);
}

fn same_epoch(lab: &Lab, epoch: &str, what: &str) {
    assert_eq!(await_obeyed(lab).expect("obeyed"), epoch, "{what}");
}

/// All established flows lived, nothing was lost, nothing forbidden passed.
fn the_traffic_met_nothing(load: &Load<'_>) {
    let window = load.so_far().expect("a report");
    let broken = window.udp_lost + window.udp_reordered + window.connections_failed;
    assert!(window.tcp_alive && broken == 0, "{window:#?}");
    assert!(
        window.forbidden_attempts > 0 && window.forbidden_reached == 0,
        "{window:#?}"
    );
}

/// Whether `node` shows that it hears nothing on `link`.
fn is_silent(lab: &Lab, node: &str, link: &str) -> bool {
    let text = lab.must_shell(node, &[HEARTBEAT]).expect("heartbeats");
    let line = text.lines().find(|line| line.starts_with(link));
    let line = line.unwrap_or_else(|| panic!("no {link} in:\n{text}"));
    line.contains("silent")
}

#[test]
fn one_cut_link_changes_no_role_whichever_way() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let standby = site::other(active);
    let load = Load::start(&lab, RATE).expect("traffic");
    let epoch = await_obeyed(&lab).expect("obeyed");
    for link in LINKS {
        for (way, deaf) in [
            (&[][..], &site::NODES[..]),
            (&["--from", active][..], &[standby][..]),
            (&["--to", active][..], &[active][..]),
        ] {
            let words = [&[link], way].concat();
            cut(&lab, &words);
            let what = format!("cut {words:?}");
            nothing_happens(&lab, active, &epoch, &what);
            for node in site::NODES {
                let expected = deaf.contains(&node);
                assert_eq!(is_silent(&lab, node, link), expected, "{what}: {node}");
            }
            let state = lab.internal_state(active).expect("a state");
            assert_eq!(state.as_deref(), Some(REDUNDANT), "{what}");
            heal(&lab, &words);
            assert_eq!(lab.await_redundant().expect("redundant"), active, "{what}");
        }
    }
    same_epoch(&lab, &epoch, "no failover, not even for a moment");
    the_traffic_met_nothing(&load);
    lab.down().expect("down");
}

#[test]
fn a_flapping_link_changes_no_role() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let epoch = await_obeyed(&lab).expect("obeyed");
    // From half the hold time to twice.
    for half_ms in [150, 300, 600] {
        for _ in 0..3 {
            for change in ["cut", "heal"] {
                lab.fault(&[change, "ha0"]).expect("flap");
                thread::sleep(Duration::from_millis(half_ms));
            }
        }
    }
    assert_eq!(lab.await_redundant().expect("redundant"), active);
    same_epoch(&lab, &epoch, "after flapping");
    lab.down().expect("down");
}

/// The hosts that hear the active forbid the takeover: a majority of votes says that it lives.
#[test]
fn without_any_link_the_hosts_votes_keep_the_active() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let standby = site::other(active);
    let load = Load::start(&lab, RATE).expect("traffic");
    let epoch = await_obeyed(&lab).expect("obeyed");
    for way in [&[][..], &["--from", active][..]] {
        for link in LINKS {
            cut(&lab, &[&[link], way].concat());
        }
        let what = format!("all links are cut {way:?}");
        nothing_happens(&lab, active, &epoch, &what);
        let text = lab
            .await_text(standby, STATUS, "VEMs hear it")
            .expect("it says why it does not take over");
        assert!(!text.contains("Internal state:   Active with"), "{text}");
        // It goes on, and says that only it has what is committed now; a standby that it hears and
        // cannot tell is told by the hosts.
        let said = lab.configure(active, "zone alone@root").expect("a commit");
        assert!(said.contains("this node only (local)"), "{said}");
        for link in LINKS {
            heal(&lab, &[&[link], way].concat());
        }
        assert_eq!(lab.await_redundant().expect("redundant"), active, "{what}");
        lab.configure(active, "no zone alone@root").expect("tidy");
    }
    // The other way round the standby hears the active, and only the active is deaf.
    for link in LINKS {
        cut(&lab, &[link, "--to", active]);
    }
    nothing_happens(&lab, active, &epoch, "the active hears nothing");
    lab.await_state(active, ALONE).expect("it says so");
    for link in LINKS {
        heal(&lab, &[link, "--to", active]);
    }
    assert_eq!(lab.await_redundant().expect("redundant"), active);
    same_epoch(&lab, &epoch, "no failover, not even for a moment");
    the_traffic_met_nothing(&load);
    lab.down().expect("down");
}

#[test]
fn a_standby_that_is_unplugged_from_everything_is_isolated() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let standby = site::other(active);
    let all = format!("all:{standby}");
    let load = Load::start(&lab, RATE).expect("traffic");
    let epoch = await_obeyed(&lab).expect("obeyed");
    for _ in 0..2 {
        cut(&lab, &[&all]);
        lab.await_text(standby, STATUS, "solated")
            .expect("it says that it is isolated");
        thread::sleep(LONG_AFTER_THE_HOLD_TIME);
        assert_eq!(lab.active().expect("one active"), active);
        lab.await_state(active, ALONE).expect("it says so");
        heal(&lab, &[&all]);
        assert_eq!(lab.await_redundant().expect("redundant"), active);
    }
    same_epoch(&lab, &epoch, "no failover, not even for a moment");
    the_traffic_met_nothing(&load);
    lab.down().expect("down");
}

/// The hosts that hear only the standby are silent about the active: it takes over, and the old
/// active gives way when it is back.
#[test]
fn an_active_that_is_unplugged_from_everything_is_replaced() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let standby = site::other(active);
    let all = format!("all:{active}");
    let load = Load::start(&lab, RATE).expect("traffic");
    cut(&lab, &[&all]);
    lab.await_state(standby, ALONE).expect("it takes over");
    let healed = lab.fault(&["heal", &all]).expect("healed");
    let took_ms = await_one_active(&lab, healed.done_ns, Duration::from_secs(5)).expect("one");
    eprintln!("one active {took_ms:.0} ms after contact");
    assert_eq!(lab.await_redundant().expect("redundant"), standby);
    await_obeyed(&lab).expect("all hosts obey it");
    the_traffic_met_nothing(&load);
    lab.down().expect("down");
}

/// Both nodes stopped at once: whichever goes on first must not conclude that the other is dead.
#[test]
fn both_nodes_stopped_at_once_change_no_role() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let load = Load::start(&lab, RATE).expect("traffic");
    let epoch = await_obeyed(&lab).expect("obeyed");
    for span in ["400ms", "400ms", "2s"] {
        thread::scope(|scope| {
            for node in site::NODES {
                let lab = &lab;
                scope.spawn(move || lab.fault(&["pause", node, "--for", span]).expect("paused"));
            }
        });
        assert_eq!(lab.await_redundant().expect("redundant"), active, "{span}");
    }
    same_epoch(&lab, &epoch, "no failover, not even for a moment");
    let window = load.so_far().expect("a report");
    assert!(window.tcp_alive && window.udp_lost == 0, "{window:#?}");
    assert_eq!(window.connections_failed, 0, "{window:#?}");
    assert_eq!(window.forbidden_reached, 0, "{window:#?}");
    lab.down().expect("down");
}

/// The standby is up to date when it says so, also after hours without it: what was committed
/// meanwhile is there when it takes over.
#[test]
fn a_standby_that_comes_back_catches_up_by_itself() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let standby = site::other(active);
    let all = format!("all:{standby}");
    cut(&lab, &[&all]);
    lab.await_state(active, ALONE).expect("it leads alone");
    lab.configure(active, "zone meanwhile@root")
        .expect("a commit");
    heal(&lab, &[&all]);
    assert_eq!(lab.await_redundant().expect("redundant"), active);
    lab.fault(&["kill-sysmgr", active]).expect("killed");
    lab.await_state(standby, REDUNDANT).expect("it takes over");
    lab.await_state(active, FOLLOWS).expect("the other follows");
    let running = lab
        .must_shell(standby, &["show running-config"])
        .expect("the configuration");
    assert!(running.contains("meanwhile@root"), "{running}");
    lab.down().expect("down");
}
