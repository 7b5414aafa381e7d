//! Parts of a real active that are alive and do nothing: the other node acts within a named time.
//!
//! Needs root: PID namespaces, and a file system that can be frozen.

#[allow(
    dead_code,
    reason = "each test that shares these files uses a part of them"
)]
mod nodes;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nodes::{Node, eventually, network};
use rustix::process::{Pid, Signal, kill_process};
use wire::Channel;
use wire::console::FromShell;

const STABLE: &str = "%MODULE-5-STANDBY_SUP_OK: Supervisor ";
const OVER: &str = "%SYSMGR-2-SWITCHOVER_OVER: Switchover completed.";
/// `redundancy` calls a decision path stuck after this long without a canary (`CANARY_SILENCE`).
const CANARY_SILENCE: Duration = Duration::from_secs(3);
/// `redundancy` calls a write overdue after this long (`WRITE_OVERDUE`).
const WRITE_OVERDUE: Duration = Duration::from_secs(5);
/// What taking over may add on a busy machine, with room.
const SLACK: Duration = Duration::from_secs(5);

fn pair(nodes: [&Node; 2]) {
    let roles = ["primary", "secondary"];
    let keys = [0, 1].map(|index: usize| nodes[index].init(roles[index], &["--pair-id", "7"]));
    for (index, node) in nodes.into_iter().enumerate() {
        let output = node.verb("pin", &["--peer", &keys[1 - index]]);
        assert!(output.status.success(), "{output:?}");
    }
}

fn sibling_pair(folder: &Path) -> [Node; 2] {
    let network = network();
    let nodes = [
        Node::new(folder, &network, 1),
        Node::new(folder, &network, 2),
    ];
    pair([&nodes[0], &nodes[1]]);
    nodes
}

fn pid_of(node: &Node, service: &str) -> Pid {
    let config = node.config.display().to_string();
    let wanted = ["service", service, "--config", &config];
    let mut entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let pid = entries.find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        line.split('\0').skip(1).take(4).eq(wanted).then_some(pid)
    });
    Pid::from_raw(pid.unwrap_or_else(|| panic!("{service} does not run"))).expect("a process")
}

fn canaries(node: &Node) -> u64 {
    let shown = node.shows("redundancy heartbeat");
    shown["heartbeat"]["canaries"].as_u64().expect("a count")
}

/// Does `fault` to the active; returns when the other one acts, and how long that took.
fn takes_over(standby: &Node, fault: impl FnOnce()) -> Duration {
    let before = standby.said(OVER);
    let began = Instant::now();
    fault();
    standby.wait_for(OVER, before);
    began.elapsed()
}

#[test]
fn a_stopped_decision_path_moves_the_role_and_an_idle_one_does_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [mut one, mut two] = sibling_pair(folder.path());
    one.start();
    two.start();
    one.wait_for(STABLE, 0);
    // Idle for longer than the bound: no host agent is there, and nothing is to be decided.
    let first = canaries(&one);
    let idle = Instant::now();
    eventually("canaries go on", || {
        idle.elapsed() > CANARY_SILENCE + Duration::from_secs(1)
    });
    assert!(canaries(&one) > first + 20, "canaries of an idle node");
    assert_eq!(two.said(OVER), 0);

    let (mut active, mut standby) = (&one, &two);
    for service in ["policy_engine", "vem_mgr"] {
        let stuck = pid_of(active, service);
        let synchronized = standby.said(STABLE);
        let took = takes_over(standby, || {
            kill_process(stuck, Signal::STOP).expect("alive");
        });
        assert!(
            (CANARY_SILENCE - Duration::from_millis(500)..CANARY_SILENCE + SLACK).contains(&took),
            "{service}: {took:?}\n{}",
            active.log()
        );
        active.wait_for("the decision path is stuck", 0);
        // It came back as the standby of the other, which now is the one to get stuck.
        standby.wait_for(STABLE, synchronized);
        (active, standby) = (standby, active);
    }
}

/// A file system of its own that can be frozen.
struct Disk {
    mount: PathBuf,
    frozen: std::cell::Cell<bool>,
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {output:?}");
}

impl Disk {
    fn new(folder: &Path, mount: &Path) -> Self {
        let image = folder.join("disk.img");
        let path = image.display().to_string();
        let file = fs::File::create(&image).expect("a file");
        file.set_len(32 * 1024 * 1024).expect("room");
        run(&["mkfs.ext4", "-q", &path]);
        fs::create_dir_all(mount).expect("a folder");
        run(&["mount", "-o", "loop", &path, &mount.display().to_string()]);
        Self {
            mount: mount.to_owned(),
            frozen: false.into(),
        }
    }

    fn freeze(&self) {
        run(&["fsfreeze", "--freeze", &self.mount.display().to_string()]);
        self.frozen.set(true);
    }

    fn thaw(&self) {
        if self.frozen.replace(false) {
            run(&["fsfreeze", "--unfreeze", &self.mount.display().to_string()]);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        // Lazily: a process of the node may be ending.
        run(&["umount", "--lazy", &self.mount.display().to_string()]);
    }
}

/// Enters a line at the console at `socket`, and waits for nothing.
fn enter(socket: &Path, line: &str) {
    let message = FromShell::Line(line.to_owned());
    let frame = wire::encode(Channel::Console, &message);
    if let Ok(mut stream) = UnixStream::connect(socket)
        && stream.write_all(&frame).is_ok()
    {
        // The end of the session would end the command.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn an_active_whose_disk_stalls_beats_on_and_yields_when_a_write_is_overdue() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let network = network();
    let one = Node::new(folder.path(), &network, 1);
    let two = Node::new(folder.path(), &network, 2);
    let disk = Disk::new(folder.path(), &one.base.join("state"));
    // The nodes end before their disk goes.
    let [mut one, mut two] = [one, two];
    pair([&one, &two]);
    one.start();
    two.start();
    one.wait_for(STABLE, 0);
    let took = takes_over(&two, || {
        disk.freeze();
        // A setting that the node file keeps; it is never answered.
        let config = one.base.join("run/console.sock");
        std::thread::spawn(move || enter(&config, "system redundancy heartbeat vm-safe"));
    });
    assert!(
        (WRITE_OVERDUE - Duration::from_millis(500)..WRITE_OVERDUE + SLACK).contains(&took),
        "{took:?}\n{}",
        one.log()
    );
    assert_eq!(
        one.said("the node file cannot be written"),
        1,
        "{}",
        one.log()
    );
    let shown = two.shows("redundancy heartbeat");
    let lost = |link: &serde_json::Value| link["lost"].as_u64().expect("a count");
    let links = shown["heartbeat"]["links"].as_array().expect("links");
    assert!(links.iter().map(lost).sum::<u64>() < 20, "{shown}");
    disk.thaw();
    two.wait_for(STABLE, 0);
}

#[test]
fn the_watchdog_is_petted_and_a_stuck_system_manager_is_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let network = network();
    let mut node = Node::new(folder.path(), &network, 1);
    let device = folder.path().join("watchdog");
    fs::write(&device, "").expect("a file");
    let text = fs::read_to_string(&node.config).expect("its configuration");
    let text = format!("{text}\n[watchdog]\ndevice = \"{}\"\n", device.display());
    fs::write(&node.config, text).expect("written");
    node.init("primary", &["--pair-id", "7"]);
    node.start();
    let petted = || fs::read_to_string(&device).expect("readable").len();
    node.wait_for("Supervisor 1 is active", 0);
    let shown = node.shows("redundancy heartbeat");
    assert_eq!(shown["heartbeat"]["watchdog"], device.display().to_string());
    let first = petted();
    eventually("it is petted", || petted() > first + 1);

    let config = node.config.display().to_string();
    let mut entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let manager = entries.find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let mut words = line.split('\0').skip(1);
        (words.next() == Some("sysmgr") && words.any(|word| word == config)).then_some(pid)
    });
    let manager = Pid::from_raw(manager.expect("it runs")).expect("a process");
    kill_process(manager, Signal::STOP).expect("alive");
    node.wait_for(
        "This supervisor was reset: the System Manager was stuck.",
        0,
    );
    node.terminate();
    let written = fs::read_to_string(&device).expect("readable");
    assert!(written.ends_with(".V"), "it is released: {written}");

    // A device that is not there is told, and no reason not to run.
    fs::remove_file(&device).expect("removed");
    node.start();
    node.wait_for("WATCHDOG_UNAVAILABLE: The watchdog cannot be used:", 0);
    node.wait_for("Supervisor 1 is active", 1);
}
