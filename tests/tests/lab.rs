//! The lab itself: its errors, two labs side by side, and what is left when it is gone.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use system_tests::leftovers::Inventory;
use system_tests::{Lab, bench, site, wait};

/// A verb that must fail: one line on standard error, a non-zero exit code.
fn must_fail(lab: &Lab, words: &[&str], expected: &str) {
    let output = lab.verb(words).expect("vsg-lab runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{words:?} succeeded");
    assert_eq!(text.trim().lines().count(), 1, "{words:?}: {text}");
    assert!(text.contains(expected), "{words:?}: {text}");
}

#[test]
fn mistakes_get_one_clear_line() {
    if !bench::may_run() {
        return;
    }
    let lab = bench::pair();
    must_fail(&lab, &["vsh", "sup-3", "-c", "show module"], "sup-3");
    must_fail(&lab, &["fault", "kill-node", "sup-9"], "sup-9");
    must_fail(
        &lab,
        &["fault", "kill-service", "sup-1", "florist"],
        "florist",
    );
    must_fail(&lab, &["fault", "cut", "ha7"], "ha7");
    must_fail(&lab, &["exec", "mars", "--", "true"], "mars");
    must_fail(&lab, &["up"], "already up");
    lab.down().expect("down");
}

#[test]
fn two_labs_run_side_by_side_and_leave_nothing() {
    if !bench::may_run() {
        return;
    }
    let (one, two) = (bench::pair(), bench::pair());
    one.fault(&["kill-node", "sup-1"]).expect("killed");
    assert_eq!(
        two.await_redundant().expect("redundant"),
        "sup-1",
        "the other lab goes on"
    );
    for lab in [one, two] {
        let name = lab.name().to_owned();
        assert!(
            !Inventory::of_lab(&name).namespaces.is_empty(),
            "the inventory sees a lab"
        );
        assert!(
            !Inventory::of_lab(&name).processes.is_empty(),
            "the inventory sees a lab"
        );
        lab.down().expect("down");
        let left = Inventory::of_lab(&name);
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

#[test]
fn a_killed_owner_leaves_nothing() {
    if !bench::may_run() {
        return;
    }
    let plan = bench::plan(None);
    let name = plan.name.clone();
    let guard = system_tests::guard::Guard::post(&plan.binaries.join("vsg-lab"), &name);
    let guard = guard.expect("a guard");
    let built = Command::new(plan.binaries.join("vsg-lab"))
        .args(["--lab", &name, "up", "--no-wait"])
        .output()
        .expect("vsg-lab runs");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    // Its pipe closes as it would if this process were killed.
    drop(guard);
    wait::until("nothing is left", Duration::from_secs(20), || {
        Ok(Inventory::of_lab(&name).is_empty().then_some(()))
    })
    .expect("the guard takes the lab down");
}

/// All traffic of the topology's plan ends at one VM.
const STANDALONE_POLICY: &str = "\
rule served@root
  condition 1 dst.net.port neq 9999
  action 10 permit
policy site@root
  rule served@root order 10
security-profile client@root
  policy site@root
security-profile web@root
  policy site@root
";

#[test]
fn a_standalone_gateway_decides_alone() {
    if !bench::may_run() {
        return;
    }
    let topology = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/topologies/standalone.toml"
    ));
    let lab = Lab::up_without_waiting(bench::plan(Some(topology))).expect("up");
    wait::until("sup-1 leads alone", Duration::from_secs(30), || {
        let state = lab.internal_state(site::NODES[0])?;
        Ok((state.as_deref() == Some("Active with no standby")).then_some(()))
    })
    .expect("active");
    let status = lab
        .must_shell("sup-1", &["show system redundancy status"])
        .expect("status");
    for line in [
        "administrative:   standalone",
        "operational:   None",
        "Not present",
    ] {
        assert!(status.contains(line), "no {line:?} in:\n{status}");
    }
    lab.configure("sup-1", STANDALONE_POLICY)
        .expect("the sample policy");
    lab.start_traffic(60).expect("traffic");
    let script = "exec 3<>/dev/tcp/10.9.0.11/80";
    wait::until("the client reaches web:80", Duration::from_secs(20), || {
        let words = ["exec", "client", "--", "timeout", "2", "bash", "-c", script];
        Ok(lab.verb(&words)?.status.success().then_some(()))
    })
    .expect("a permitted connection");
    let refused = lab.shell("sup-1", &["system switchover"]).expect("a reply");
    assert!(
        refused.text.contains("Failed to switchover"),
        "{}",
        refused.text
    );
    lab.down().expect("down");
}
