//! The lab as its users drive it: the real binary, real namespaces, real
//! frames. Needs root; without it the tests fail in CI and are skipped, with a
//! message, elsewhere.

use serde_json::Value;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use vsg_lab::namespace::Namespace;

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing must happen, where the point is that it does not. A frame
/// that passes takes microseconds.
const SILENCE: Duration = Duration::from_millis(300);

fn may_run() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "these tests need root");
    eprintln!("skipped: needs root");
    false
}

/// One lab, removed when dropped.
struct Lab {
    name: String,
    bin_dir: tempfile::TempDir,
}

impl Lab {
    fn new(name: &str) -> Self {
        // The process number keeps two runs of this test apart.
        let name = format!("t{name}{}", std::process::id());
        let bin_dir = tempfile::tempdir().expect("a folder");
        Self { name, bin_dir }
    }

    fn call(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vsg-lab"))
            .args(["--lab", &self.name, "--json", "--bin-dir"])
            .arg(self.bin_dir.path())
            .args(arguments)
            .output()
            .expect("vsg-lab runs")
    }

    /// Calls it; it must succeed, and answers JSON.
    fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.call(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Calls it; it must fail, and says so in one line.
    fn refuse(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(!output.status.success(), "{arguments:?} must fail");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(complaint.trim_end().lines().count(), 1, "{complaint}");
        complaint
    }

    fn namespace(&self, member: &str) -> Namespace {
        Namespace::named(format!("tw-{}-{member}", self.name))
    }

    fn root(&self) -> String {
        format!("/run/twinwall-lab/{}", self.name)
    }

    /// What is left of the lab on the machine.
    fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("tw-{}-", self.name)) {
                found.push(name);
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&self.root()))
                .map(str::to_owned),
        );
        for process in vsg_lab::namespace::all_processes().expect("/proc").values() {
            let line = process.arguments.join(" ");
            if line.contains(&format!("{}/", self.root())) {
                found.push(line);
            }
        }
        if Path::new(&self.root()).exists() {
            found.push(self.root());
        }
        found
    }

    fn install(&self, program: &str, script: &str) {
        let path = self.bin_dir.path().join(program);
        std::fs::write(&path, script).expect("a script");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("mode");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let output = self.call(&["down"]);
        if !output.status.success() {
            eprintln!("down: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

fn await_true(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn socket_in(namespace: &Namespace, address: &str) -> UdpSocket {
    let socket = namespace
        .run(|| Ok(UdpSocket::bind(address)?))
        .expect("a socket in the namespace");
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
    socket
}

/// True when a datagram from `a` gets to `b`.
fn passes(a: &UdpSocket, b: &UdpSocket) -> bool {
    a.send_to(b"frame", b.local_addr().expect("an address"))
        .expect("sent");
    let mut buffer = [0; 16];
    match b.recv_from(&mut buffer) {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut
            ));
            false
        }
    }
}

fn carrier_is_up(lab: &Lab, member: &str, interface: &str) -> bool {
    let output = Command::new("ip")
        .args([
            "-n",
            lab.namespace(member).name(),
            "-o",
            "link",
            "show",
            interface,
        ])
        .output()
        .expect("ip");
    String::from_utf8_lossy(&output.stdout).contains("LOWER_UP")
}

#[test]
fn a_cut_drops_frames_with_the_carrier_up() {
    if !may_run() {
        return;
    }
    let lab = Lab::new("cut");
    lab.ask(&["up", "--no-processes"]);
    let one = socket_in(&lab.namespace("sup-1"), "10.1.0.1:7100");
    let two = socket_in(&lab.namespace("sup-2"), "10.1.0.2:7100");
    let other = socket_in(&lab.namespace("sup-1"), "10.2.0.1:7100");
    let other_two = socket_in(&lab.namespace("sup-2"), "10.2.0.2:7100");
    assert!(
        passes(&one, &two) && passes(&two, &one),
        "an unbroken link carries"
    );

    lab.ask(&["fault", "cut", "ha0"]);
    assert!(
        !passes(&one, &two) && !passes(&two, &one),
        "a cut link carries nothing"
    );
    assert!(passes(&other, &other_two), "the other link is untouched");
    assert!(carrier_is_up(&lab, "sup-1", "ha0") && carrier_is_up(&lab, "sup-2", "ha0"));

    lab.ask(&["fault", "heal", "ha0"]);
    assert!(
        passes(&one, &two) && passes(&two, &one),
        "a healed link carries again"
    );

    lab.ask(&["fault", "cut", "--from", "sup-1", "ha0"]);
    assert!(!passes(&one, &two), "what sup-1 sends is lost");
    assert!(passes(&two, &one), "what it is sent is not");
    lab.ask(&["fault", "heal", "all"]);

    lab.ask(&["fault", "kill-node", "sup-1"]);
    assert!(
        !passes(&one, &two) && !passes(&other_two, &other),
        "a dead node is silent"
    );
    assert!(carrier_is_up(&lab, "sup-1", "ha0") && carrier_is_up(&lab, "sup-1", "svc0"));
    assert_eq!(lab.ask(&["status"])["members"][0]["state"], "killed");
}

#[test]
fn two_labs_run_side_by_side_and_leave_nothing() {
    if !may_run() {
        return;
    }
    let (one, two) = (Lab::new("one"), Lab::new("two"));
    one.ask(&["up", "--no-processes"]);
    two.ask(&["up", "--no-processes"]);
    assert!(one.refuse(&["up", "--no-processes"]).contains("already up"));
    // The same addresses in both, and no frame between them.
    let sender = socket_in(&one.namespace("sup-1"), "10.1.0.1:7100");
    let right = socket_in(&one.namespace("sup-2"), "10.1.0.2:7100");
    let wrong = socket_in(&two.namespace("sup-2"), "10.1.0.2:7100");
    assert!(passes(&sender, &right));
    let mut buffer = [0; 16];
    assert!(wrong.recv_from(&mut buffer).is_err());
    drop((sender, right, wrong));

    one.ask(&["down"]);
    assert_eq!(one.traces(), Vec::<String>::new());
    let output = two.call(&["exec", "web", "--", "sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7), "the other lab still works");
    two.ask(&["down"]);
    assert_eq!(two.traces(), Vec::<String>::new());
    assert_eq!(two.ask(&["down"])["removed"], false);
}

/// Stand-ins for the product: they take its verbs and keep a record of them,
/// run services as processes of their own, and forward nothing.
fn install_stand_ins(lab: &Lab) {
    let verbs = r#"#!/bin/sh
case "$1" in
init) echo "fingerprint: SHA256:$(basename "$3" .toml)" ;;
pin) echo "$4 $5" >> "$3.pins" ;;
service|worker) while :; do sleep 1; done ;;
*) "$0" CHILD mts & "$0" CHILD policy_engine & wait ;;
esac
"#;
    lab.install("vsgd", &verbs.replace("CHILD", "service"));
    lab.install("vemd", &verbs.replace("CHILD", "worker"));
    lab.install(
        "vsh",
        "#!/bin/sh\ncase \"$2\" in */sup-1/*) echo '      Internal state:   Active with HA \
         standby' ;; *) echo '      Internal state:   HA standby' ;; esac\n",
    );
}

fn processes_of(lab: &Lab, member: &str) -> Vec<(i64, String)> {
    let status = lab.ask(&["status"]);
    let members = status["members"].as_array().expect("members");
    let one = members
        .iter()
        .find(|one| one["name"] == member)
        .expect("the member");
    let list = one["processes"].as_array().expect("processes");
    list.iter()
        .map(|pair| {
            let line = pair[1].as_str().expect("a command line").to_owned();
            (pair[0].as_i64().expect("a number"), line)
        })
        .filter(|(_, line)| !line.starts_with("sleep"))
        .collect()
}

fn state_of(pid: i64) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next())
        .unwrap_or('?')
}

#[test]
fn nodes_are_paired_started_broken_and_mended() {
    if !may_run() {
        return;
    }
    let lab = Lab::new("run");
    install_stand_ins(&lab);
    let report = lab.ask(&["up"]);
    assert_eq!(report["active"], "sup-1");
    assert!(report["boot_ms"].is_u64());
    let pins = std::fs::read_to_string(format!("{}/etc/sup-1.toml.pins", lab.root()));
    let pins = pins.expect("the pins");
    assert_eq!(
        pins,
        "--peer SHA256:sup-2\n--vem SHA256:host-1\n--vem SHA256:host-2\n"
    );
    assert_eq!(processes_of(&lab, "sup-1").len(), 3);

    // One service.
    assert_eq!(
        lab.ask(&["fault", "kill-service", "sup-1", "mts"])["processes"],
        1
    );
    await_true("the end of the service", || {
        processes_of(&lab, "sup-1").len() == 2
    });
    assert!(
        lab.refuse(&["fault", "kill-service", "sup-1", "nosuch"])
            .contains("policy_engine")
    );

    // A pause reaches every process, and ends by itself.
    lab.ask(&["fault", "pause", "sup-2"]);
    let paused = processes_of(&lab, "sup-2");
    assert!(
        paused.iter().all(|(pid, _)| state_of(*pid) == 'T'),
        "{paused:?}"
    );
    lab.ask(&["fault", "resume", "sup-2"]);
    await_true("going on", || {
        paused.iter().all(|(pid, _)| state_of(*pid) != 'T')
    });
    let report = lab.ask(&["fault", "pause", "sup-2", "--for", "100ms"]);
    let span = report["done_ns"].as_u64().zip(report["at_ns"].as_u64());
    let span = span.map_or(0, |(done, at)| done - at);
    assert!((100_000_000..2_000_000_000).contains(&span), "{span}");
    await_true("going on", || {
        paused.iter().all(|(pid, _)| state_of(*pid) != 'T')
    });

    break_an_agent(&lab);
    break_a_node(&lab);
    lab.ask(&["down"]);
    assert_eq!(lab.traces(), Vec::<String>::new());
}

/// The worker of a host agent, then all of it.
fn break_an_agent(lab: &Lab) {
    assert_eq!(lab.ask(&["fault", "kill-vemd", "host-1"])["processes"], 2);
    assert_eq!(processes_of(lab, "host-2").len(), 3);
    lab.ask(&["fault", "kill-vemd", "host-2", "--guardian"]);
    await_true("the end of vemd", || processes_of(lab, "host-2").is_empty());
    lab.ask(&["fault", "start-vemd", "host-2"]);
    await_true("vemd", || processes_of(lab, "host-2").len() == 3);
}

/// A whole node: its volatile folder is lost, its durable one is not.
fn break_a_node(lab: &Lab) {
    let (run, state) = (
        format!("{}/run/sup-1/x", lab.root()),
        format!("{}/state/sup-1/x", lab.root()),
    );
    std::fs::write(&run, "").expect("a volatile file");
    std::fs::write(&state, "").expect("a durable file");
    lab.ask(&["fault", "kill-node", "sup-1"]);
    assert!(processes_of(lab, "sup-1").is_empty());
    lab.ask(&["fault", "start-node", "sup-1"]);
    await_true("the node", || processes_of(lab, "sup-1").len() == 3);
    assert!(!Path::new(&run).exists() && Path::new(&state).exists());
    assert!(
        lab.refuse(&["fault", "start-node", "sup-1"])
            .contains("already running")
    );
}

#[test]
fn an_up_that_fails_cleans_up_and_keeps_the_logs() {
    if !may_run() {
        return;
    }
    let lab = Lab::new("bad");
    assert!(lab.refuse(&["up"]).contains("'vsgd'"));
    install_stand_ins(&lab);
    let script = "#!/bin/sh\ncase \"$1\" in init) echo SHA256:x ;; pin) ;; \
                  *) echo why >&2; exit 3 ;; esac\n";
    lab.install("vsgd", script);
    let complaint = lab.refuse(&["up"]);
    assert!(
        complaint.contains(&format!("{}/log", lab.root())),
        "{complaint}"
    );
    assert!(complaint.contains("sup-1 ended at once"), "{complaint}");
    assert_eq!(lab.traces(), [lab.root()], "only the logs are left");
    let kept = std::fs::read_to_string(format!("{}/log/sup-1.out", lab.root()));
    assert_eq!(kept.expect("the log"), "why\n");
    lab.ask(&["down"]);
    assert_eq!(lab.traces(), Vec::<String>::new());
}

#[test]
fn wrong_words_get_one_clear_line() {
    if !may_run() {
        return;
    }
    let lab = Lab::new("words");
    assert!(
        lab.refuse(&["fault", "cut", "ha0"])
            .contains("there is no lab")
    );
    let lock = format!("/run/twinwall-lab/.{}.lock", lab.name);
    assert!(!Path::new(&lock).exists(), "a refused verb leaves nothing");
    assert!(lab.refuse(&["status"]).contains("there is no lab"));
    assert!(
        lab.refuse(&["traffic", "report"])
            .contains("there is no lab")
    );
    let missing = lab.refuse(&["up", "--topology", "/no/such.toml"]);
    assert!(missing.contains("/no/such.toml"), "{missing}");
    assert_eq!(missing.matches("os error 2").count(), 1, "{missing}");
    lab.ask(&["up", "--no-processes"]);
    assert!(
        lab.refuse(&["vsh", "sup-3", "-c", "show module"])
            .contains("'sup-3'")
    );
    assert!(
        lab.refuse(&["fault", "kill-node", "sup-3"])
            .contains("sup-1, sup-2")
    );
    assert!(lab.refuse(&["fault", "cut", "ha7"]).contains("'ha7'"));
    assert!(lab.refuse(&["fault", "pause", "web"]).contains("'web'"));
    assert!(
        lab.refuse(&["exec", "mail", "--", "true"])
            .contains("'mail'")
    );
    assert!(lab.refuse(&["traffic", "stop"]).contains("no traffic"));
    assert!(lab.refuse(&["traffic", "report"]).contains("no traffic"));
    assert!(
        lab.refuse(&["traffic", "mark", "x"])
            .contains("no traffic is running")
    );
}

#[test]
fn traffic_over_the_plain_network_is_clean_and_its_faults_are_seen() {
    if !may_run() {
        return;
    }
    let lab = Lab::new("flow");
    lab.ask(&["up", "--no-processes"]);
    lab.ask(&["traffic", "start", "--seconds", "60"]);
    assert!(
        lab.refuse(&["traffic", "start"])
            .contains("already running")
    );
    lab.ask(&["traffic", "mark", "quiet"]);
    std::thread::sleep(Duration::from_secs(3));
    lab.ask(&["traffic", "mark", "fault"]);
    lab.ask(&["fault", "cut", "data"]);
    std::thread::sleep(Duration::from_millis(400));
    lab.ask(&["fault", "heal", "data"]);
    std::thread::sleep(Duration::from_secs(2));
    lab.ask(&["traffic", "mark", "end"]);

    let quiet = lab.ask(&["traffic", "report", "--from", "quiet", "--to", "fault"]);
    for zero in [
        "udp_lost",
        "udp_reordered",
        "connections_failed",
        "syn_retransmitted",
    ] {
        assert_eq!(quiet[zero], 0, "{zero}: {quiet}");
    }
    assert_eq!(quiet["tcp_alive"], true);
    assert_eq!(quiet["complete"], true, "{quiet}");
    assert_eq!(quiet["witness_errors"], 0, "{quiet}");
    let rate = quiet["connections_per_s"].as_f64().expect("a rate");
    assert!((495.0..=505.0).contains(&rate), "{quiet}");
    // No policy stands in the way: a leak at the forbidden port is seen.
    let (tried, reached) = (&quiet["forbidden_attempts"], &quiet["forbidden_reached"]);
    assert!(tried == reached && tried.as_u64() > Some(100), "{quiet}");

    // A cut of 400 ms: stalled, lost, and sent again.
    let fault = lab.ask(&["traffic", "report", "--from", "fault", "--to", "end"]);
    assert!(
        fault["tcp_longest_stall_ms"].as_f64() > Some(350.0),
        "{fault}"
    );
    assert!(fault["udp_lost"].as_u64() > Some(300), "{fault}");
    assert!(fault["syn_retransmitted"].as_u64() > Some(100), "{fault}");
    assert_eq!(
        fault["connections_failed"], 0,
        "sent again, and answered: {fault}"
    );
    assert_eq!(fault["tcp_alive"], true, "{fault}");

    lab.ask(&["traffic", "stop"]);
    let again = lab.ask(&["traffic", "report", "--from", "quiet", "--to", "fault"]);
    for same in [
        "udp_sent",
        "connections",
        "tcp_messages",
        "forbidden_attempts",
    ] {
        assert_eq!(again[same], quiet[same], "{same} after the stop");
    }
    start_again(&lab);
    lab.ask(&["down"]);
    assert_eq!(lab.traces(), Vec::<String>::new());
}

/// A second run begins without anything of the first.
fn start_again(lab: &Lab) {
    let complaint = lab.refuse(&["traffic", "mark", "late"]);
    assert!(complaint.contains("no traffic is running"), "{complaint}");
    lab.ask(&["traffic", "start", "--seconds", "30"]);
    lab.ask(&["traffic", "mark", "again"]);
    std::thread::sleep(Duration::from_secs(1));
    lab.ask(&["traffic", "mark", "later"]);
    let report = lab.ask(&["traffic", "report", "--from", "again", "--to", "later"]);
    assert_eq!(report["complete"], true, "{report}");
    let sent = report["udp_sent"].as_u64().expect("a number");
    assert!((900..=1500).contains(&sent), "{report}");
    lab.ask(&["traffic", "stop"]);
}
