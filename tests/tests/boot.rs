//! Who may lead after a start: never one with an old configuration, unless the operator says so.

use std::thread;
use std::time::Duration;

use system_tests::lab::{ALONE, FOLLOWS, REDUNDANT};
use system_tests::soak::await_obeyed;
use system_tests::{Lab, agent, bench, site, wait};

const STATUS: &str = "show system redundancy status";

/// A dies, B takes over and commits, B dies.
fn b_led_and_committed(lab: &Lab, a: &str) {
    let b = site::other(a);
    lab.fault(&["kill-node", a]).expect("A is off");
    lab.await_state(b, ALONE).expect("B takes over");
    let said = lab.configure(b, "zone newer@root").expect("a commit");
    assert!(said.contains("this node only (local)"), "{said}");
    lab.fault(&["kill-node", b]).expect("B is off");
}

fn running(lab: &Lab, node: &str) -> String {
    lab.must_shell(node, &["show running-config"])
        .expect("the configuration")
}

/// Waits until every host has, or has not, a connection to `node`.
fn await_hosts(lab: &Lab, node: &str, connected: bool) {
    let index = usize::from(node == site::NODES[1]);
    wait::until("every host says so", Duration::from_secs(10), || {
        for host in site::HOSTS {
            let status = agent::Status::peek(lab, host)?;
            if status.gateways[index].connected != connected {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .unwrap_or_else(|error| panic!("connected to {node}: {connected}: {error:#}"));
}

/// Schedule 3.
#[test]
fn a_node_that_boots_alone_does_not_lead_with_an_old_configuration() {
    if !bench::may_run() {
        return;
    }
    let (lab, a) = bench::pair_with_policy();
    let b = site::other(a);
    b_led_and_committed(&lab, a);
    lab.fault(&["start-node", a]).expect("A boots alone");
    lab.await_text(a, STATUS, "may have led since this one did")
        .expect("it says why it waits");
    // That it does not lead can only be seen by giving it the time to: it would look for a second.
    thread::sleep(Duration::from_secs(3));
    assert!(!lab.leads(a).expect("a status"), "A leads");
    lab.fault(&["start-node", b]).expect("B is back");
    assert_eq!(lab.await_redundant().expect("redundant"), b);
    await_obeyed(&lab).expect("all hosts obey B");
    lab.shell(b, &["system switchover"]).expect("a reply");
    lab.await_state(a, REDUNDANT).expect("A leads, up to date");
    assert!(running(&lab, a).contains("newer@root"));
    lab.down().expect("down");
}

/// Schedule 4.
#[test]
fn of_two_that_boot_together_the_newer_configuration_survives() {
    if !bench::may_run() {
        return;
    }
    let (lab, a) = bench::pair_with_policy();
    b_led_and_committed(&lab, a);
    thread::scope(|scope| {
        for node in site::NODES {
            let lab = &lab;
            scope.spawn(move || lab.fault(&["start-node", node]).expect("it boots"));
        }
    });
    let active = lab.await_redundant().expect("redundant");
    assert!(running(&lab, active).contains("newer@root"), "{active}");
    await_obeyed(&lab).expect("all hosts obey it");
    lab.shell(active, &["system switchover"]).expect("a reply");
    let other = site::other(active);
    lab.await_state(other, REDUNDANT).expect("the other leads");
    assert!(running(&lab, other).contains("newer@root"), "{other}");
    lab.down().expect("down");
}

/// Power comes back to both at once: between equals the primary leads, whoever led before.
#[test]
fn between_equals_the_primary_leads() {
    if !bench::may_run() {
        return;
    }
    let (lab, _) = bench::pair_with_policy();
    lab.shell("sup-1", &["system switchover"]).expect("a reply");
    assert_eq!(lab.await_redundant().expect("redundant"), "sup-2");
    lab.configure("sup-2", "zone of-both@root")
        .expect("a commit");
    thread::scope(|scope| {
        for node in site::NODES {
            let lab = &lab;
            scope.spawn(move || lab.fault(&["kill-node", node]).expect("off"));
        }
    });
    thread::scope(|scope| {
        for node in site::NODES {
            let lab = &lab;
            scope.spawn(move || lab.fault(&["start-node", node]).expect("on"));
        }
    });
    let active = lab.await_redundant().expect("redundant");
    assert!(running(&lab, active).contains("of-both@root"), "{active}");
    await_obeyed(&lab).expect("all hosts obey it");
    lab.down().expect("down");
}

/// The operator's word overrides; what the other node had alone is archived when it is back.
#[test]
fn a_node_that_is_forced_active_leads_and_the_other_follows() {
    if !bench::may_run() {
        return;
    }
    let (lab, a) = bench::pair_with_policy();
    let b = site::other(a);
    b_led_and_committed(&lab, a);
    // It takes an epoch above all that it can learn: the hosts, once they have found it again, tell
    // what B has led under.
    await_hosts(&lab, a, false);
    lab.fault(&["start-node", a]).expect("A boots alone");
    await_hosts(&lab, a, true);
    lab.await_text(a, STATUS, "may have led since this one did")
        .expect("it waits");
    lab.must_shell(a, &["system redundancy force-active"])
        .expect("the operator decides");
    lab.await_state(a, ALONE).expect("A leads");
    lab.configure(a, "zone forced@root").expect("a commit");
    lab.fault(&["start-node", b]).expect("B is back");
    assert_eq!(lab.await_redundant().expect("redundant"), a);
    lab.await_state(b, FOLLOWS).expect("B follows");
    await_obeyed(&lab).expect("all hosts obey A");
    let configuration = running(&lab, a);
    assert!(
        configuration.contains("forced@root") && !configuration.contains("newer@root"),
        "{configuration}"
    );
    wait::until("B's commit is archived", Duration::from_secs(10), || {
        for number in lab.conflicts(a)? {
            let show = format!("show redundancy conflicts {number}");
            if lab.must_shell(a, &[&show])?.contains("newer@root") {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
    .expect("never silently gone");
    lab.down().expect("down");
}
