//! What passes and what does not.

use system_tests::{Lab, bench, site};

/// Seconds that a connect may take.
const CONNECT_SECONDS: &str = "3";

/// Whether the client VM can connect to this address and port.
fn connects(lab: &Lab, address: &str, port: u16) -> bool {
    let script = format!("exec 3<>/dev/tcp/{address}/{port}");
    let words = [
        "exec",
        site::CLIENT,
        "--",
        "timeout",
        CONNECT_SECONDS,
        "bash",
        "-c",
        script.as_str(),
    ];
    lab.verb(&words).expect("vsg-lab runs").status.success()
}

#[test]
fn only_what_the_policy_permits_passes() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    // The traffic brings the servers with it: nginx at web:80, a listener at web:9999.
    lab.start_traffic(120).expect("traffic");
    assert!(connects(&lab, "10.9.0.11", 80), "a permitted port");
    assert!(
        !connects(&lab, "10.9.0.11", 9999),
        "a port that no rule permits"
    );
    dropped_attempts_are_logged(&lab, active);

    lab.configure(active, "security-profile web@root\nno policy")
        .expect("a change");
    assert!(
        !connects(&lab, "10.9.0.11", 80),
        "without a policy everything is dropped"
    );
    lab.configure(active, "security-profile web@root\npolicy site@root")
        .expect("a change");
    assert!(connects(&lab, "10.9.0.11", 80), "and with it not");

    lab.configure(active, "policy site@root\nno rule client-to-web@root")
        .expect("a change");
    assert!(
        !connects(&lab, "10.9.0.11", 80),
        "a rule that was taken away"
    );
    lab.configure(active, "policy site@root\nrule client-to-web@root order 10")
        .expect("a change");
    assert!(connects(&lab, "10.9.0.11", 80), "and given back");
    statistics_count(&lab, active);
    lab.down().expect("down");
}

fn dropped_attempts_are_logged(lab: &Lab, active: &str) {
    let log = lab.must_shell(active, &["show logging"]).expect("the log");
    let line = log
        .lines()
        .find(|line| line.contains("%POLICY_ENGINE-6-POLICY_LOOKUP_EVENT") && line.contains("9999"))
        .unwrap_or_else(|| panic!("no lookup event for port 9999 in:\n{log}"));
    for word in [
        "rule=the-rest@root",
        "action=Drop",
        "dst.net.ip-address=10.9.0.11",
    ] {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
}

fn statistics_count(lab: &Lab, active: &str) {
    let text = lab
        .must_shell(active, &["show policy-engine stats"])
        .expect("statistics");
    let hits = text
        .lines()
        .find(|line| line.contains("the-rest@root"))
        .and_then(|line| {
            line.split(':')
                .nth(1)?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        });
    assert!(
        hits.is_some_and(|hits| hits > 0),
        "no hit of the-rest@root in:\n{text}"
    );
}
