//! Two real nodes on loopback: they pair, survive each other's faults, and leave nothing behind.
//!
//! Needs root: a node's System Manager gets a PID namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// For each step that must come about by itself, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// One node's files; its guardian ends with it.
struct Node {
    config: PathBuf,
    log: PathBuf,
    guardian: Option<Child>,
}

impl Node {
    fn verb(&self, verb: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vsgd"));
        command
            .arg(verb)
            .arg("--config")
            .arg(&self.config)
            .args(more);
        command.output().expect("vsgd runs")
    }

    fn init(&self, role: &str) -> String {
        let output = self.verb("init", &["--role", role, "--pair-id", "7"]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        assert_eq!(text.lines().count(), 1, "the fingerprint alone: {text}");
        text.trim().to_owned()
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vsgd"));
        command
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null());
        self.guardian = Some(command.spawn().expect("vsgd starts"));
    }

    /// Processes of this node: host PID and arguments after the program's name.
    fn processes(&self) -> Vec<(i32, Vec<String>)> {
        let config = self.config.display().to_string();
        let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        entries
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
                let arguments: Vec<_> = line.split('\0').skip(1).map(str::to_owned).collect();
                arguments.contains(&config).then_some((pid, arguments))
            })
            .collect()
    }

    fn pid_of(&self, part: &[&str]) -> i32 {
        let found = self.processes().into_iter().find(|(_, words)| {
            words
                .iter()
                .map(String::as_str)
                .take(part.len())
                .eq(part.iter().copied())
        });
        found.unwrap_or_else(|| panic!("no process {part:?}")).0
    }

    fn kill(&self, part: &[&str]) {
        signal(self.pid_of(part), Signal::KILL);
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How often the log says `text`.
    fn said(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// Waits until the log says `text` once more than `before`.
    fn wait_for(&self, text: &str, before: usize) {
        let what = format!("{text:?} in the log:\n{}", self.log());
        eventually(&what, || self.said(text) > before);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut guardian) = self.guardian.take() {
            // Its death ends every process of the node.
            let _ = guardian.kill();
            let _ = guardian.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("alive");
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "within {PATIENCE:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// A loopback network of this test's own: 127.x.y.0/24.
fn network() -> String {
    static TESTS: AtomicU8 = AtomicU8::new(0);
    let test = TESTS.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!(
        "127.{}.{}",
        64 + (process >> 6) % 128,
        (process % 64) * 4 + u32::from(test)
    )
}

fn node(folder: &Path, network: &str, own: u8) -> Node {
    let peer = 3 - own;
    let base = folder.join(format!("sup-{own}"));
    let (root, log) = (base.display(), base.join("log"));
    let text = format!(
        "name = \"sup-{own}\"\nstate_dir = \"{root}/state\"\nrun_dir = \"{root}/run\"\n\
         log_file = \"{root}/log\"\n\
         [[link]]\nname = \"control\"\nlocal = \"{network}.1{own}:7001\"\npeer = \"{network}.1{peer}:7001\"\n\
         [[link]]\nname = \"management\"\nlocal = \"{network}.2{own}:7001\"\npeer = \"{network}.2{peer}:7001\"\n\
         [service]\nlisten = \"{network}.3{own}:7003\"\n[bulk]\nport = 7002\n"
    );
    let config = folder.join(format!("sup-{own}.toml"));
    fs::create_dir(&base).expect("a folder");
    fs::write(&config, text).expect("a file");
    Node {
        config,
        log,
        guardian: None,
    }
}

/// Two nodes that know each other.
fn pair(folder: &Path) -> (Node, Node) {
    let network = network();
    let (one, two) = (node(folder, &network, 1), node(folder, &network, 2));
    let (first, second) = (one.init("primary"), two.init("secondary"));
    assert!(one.verb("pin", &["--peer", &second]).status.success());
    assert!(two.verb("pin", &["--peer", &first]).status.success());
    (one, two)
}

const STABLE: &str = "%MODULE-5-STANDBY_SUP_OK: Supervisor ";
const OVER: &str = "%SYSMGR-2-SWITCHOVER_OVER: Switchover completed.";

#[test]
fn two_nodes_pair_and_each_fault_of_the_active_moves_the_role_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut one, mut two) = pair(folder.path());
    two.start();
    one.start();
    one.wait_for(STABLE, 0);
    assert_eq!(two.said(OVER), 0);
    let states: Vec<_> = one.log().lines().map(str::to_owned).collect();
    assert!(
        states
            .iter()
            .any(|line| line.contains("Supervisor 1 is active")),
        "{states:?}"
    );

    // A native service dies: the other node acts, this one comes back as its standby.
    one.kill(&["service", "policy_engine"]);
    two.wait_for(OVER, 0);
    two.wait_for(STABLE, 0);

    // The System Manager dies, and every service with it; the guardian speaks for it.
    let services = two.processes().len();
    assert!(
        services >= 8,
        "guardian, System Manager and services: {services}"
    );
    two.kill(&["sysmgr"]);
    one.wait_for(OVER, 0);
    one.wait_for(STABLE, 1);

    // A borrowed service dies: it restarts and nothing moves.
    let before = one.pid_of(&["service", "cfgmgr"]);
    one.kill(&["service", "cfgmgr"]);
    eventually("cfgmgr restarts", || {
        one.processes()
            .iter()
            .any(|(pid, words)| *pid != before && words.iter().any(|word| word == "cfgmgr"))
    });
    assert_eq!((one.said(OVER), two.said(OVER)), (1, 1));

    // The guardian is asked to stop: nothing of the node is left, and the other acts.
    let mut guardian = one.guardian.take().expect("started");
    signal(guardian.id().cast_signed(), Signal::TERM);
    assert!(guardian.wait().expect("its end").success());
    assert_eq!(one.processes(), Vec::new());
    two.wait_for(OVER, 1);

    // The guardian is killed: everything dies with it.
    let mut guardian = two.guardian.take().expect("started");
    guardian.kill().expect("alive");
    guardian.wait().expect("its end");
    eventually("every process of the node is gone", || {
        two.processes().is_empty()
    });
}

#[test]
fn a_node_that_falls_silent_is_replaced_after_the_hold_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut one, mut two) = pair(folder.path());
    one.start();
    two.start();
    one.wait_for(STABLE, 0);
    // Stopped, nothing of it speaks: no closing packet, no gasp.
    let stopped: Vec<_> = one.processes().into_iter().map(|(pid, _)| pid).collect();
    stopped.iter().for_each(|pid| signal(*pid, Signal::STOP));
    two.wait_for(OVER, 0);
    stopped.iter().for_each(|pid| signal(*pid, Signal::CONT));
    // It wakes into a world that has moved on, and follows.
    two.wait_for(STABLE, 0);
    assert_eq!((one.said(OVER), two.said(OVER)), (0, 1));

    let mut guardian = two.guardian.take().expect("started");
    guardian.kill().expect("alive");
    guardian.wait().expect("its end");
    one.wait_for(OVER, 0);
    two.start();
    one.wait_for(STABLE, 1);
}

#[test]
fn a_node_alone_that_was_never_paired_leads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut one, _) = pair(folder.path());
    one.start();
    one.wait_for("Supervisor 1 is active", 0);
}

#[test]
fn verbs_refuse_what_makes_no_sense_in_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = node(folder.path(), &network(), 1);
    let refused = |output: &Output, code: i32, said: &str| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(said), "{text}");
        assert!(code != 2 || text.lines().count() == 1, "{text}");
    };
    refused(
        &node.verb("fingerprint", &[]),
        2,
        &format!("run `vsgd init --config {}`", node.config.display()),
    );
    refused(
        &node.verb("init", &["--role", "primary"]),
        1,
        "needs --pair-id",
    );
    let fingerprint = node.init("primary");
    let shown = node.verb("fingerprint", &[]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), fingerprint);
    refused(
        &node.verb("init", &["--role", "primary", "--pair-id", "7"]),
        1,
        "is there already",
    );
    assert_eq!(
        String::from_utf8_lossy(&node.verb("fingerprint", &[]).stdout).trim(),
        fingerprint
    );
    refused(
        &node.verb("pin", &["--peer", &fingerprint]),
        1,
        "own fingerprint",
    );
    refused(&node.verb("pin", &[]), 1, "nothing to pin");
    let again = node.verb("init", &["--role", "primary", "--pair-id", "7", "--force"]);
    assert_ne!(String::from_utf8_lossy(&again.stdout).trim(), fingerprint);
    let text = fs::read_to_string(&node.config).expect("the file");
    fs::write(&node.config, text.replace("[bulk]", "[bulks]")).expect("a file");
    refused(&node.verb("fingerprint", &[]), 2, "unknown field `bulks`");
}

#[test]
fn a_node_whose_addresses_are_not_here_says_so_and_exits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (one, two) = pair(folder.path());
    let text = fs::read_to_string(&one.config).expect("the file");
    let network = text
        .split("local = \"")
        .nth(1)
        .and_then(|rest| rest.rsplit_once(".11:"));
    let network = network
        .expect("an address")
        .0
        .split(".11:")
        .next()
        .expect("a network");
    fs::write(
        &one.config,
        text.replace(&format!("{network}.11"), "192.0.2.1"),
    )
    .expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vsgd"));
    let output = command
        .arg("--config")
        .arg(&one.config)
        .output()
        .expect("vsgd runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("HA link control: cannot bind 192.0.2.1:7001"),
        "{text}"
    );
    drop(two);
}
