//! A site of one host and two VMs, from network namespaces, with a vemd that guards both ports.
//!
//! ```text
//!   [vm a 10.77.0.1] --vp-a--+        +--vp-b-- [vm b 10.77.0.2]
//!                            +-- br0 -+
//!                             host: vemd, gateways on 127.0.0.1
//! ```

pub mod gateway;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tempfile::TempDir;

use self::gateway::Gateway;

pub const VM_A: &str = "10.77.0.1";
pub const VM_B: &str = "10.77.0.2";
const MAC_A: &str = "02:54:77:00:00:0a";
const MAC_B: &str = "02:54:77:00:00:0b";
const EVENT_WITHIN: Duration = Duration::from_secs(10);

/// Timings are measured: one site at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static SITES: AtomicU32 = AtomicU32::new(0);

/// The site; everything of it is gone when it is dropped.
pub struct Site {
    pub gateways: Vec<Gateway>,
    name: String,
    folder: TempDir,
    vemd: Option<Child>,
    _turn: MutexGuard<'static, ()>,
}

/// False if this machine cannot run such a test; in CI it must.
pub fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(root || !ci, "CI must run these tests as root");
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split_whitespace())
        .status()
        .expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// Runs `work` in a thread of a namespace.
pub fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let path = format!("/run/netns/{namespace}");
    std::thread::spawn(move || {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).expect("a namespace");
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&fd),
            Some(LinkNameSpaceType::Network),
        )
        .expect("root may enter it");
        work()
    })
}

/// Waits for `condition`, which must come true soon.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + EVENT_WITHIN;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "not within {EVENT_WITHIN:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Site {
    /// Builds the site with so many gateways, none of which has claimed yet, and starts vemd.
    pub fn new(gateways: usize) -> Self {
        Self::with(gateways, "", "close")
    }

    /// As [`Self::new`], with more lines at the top of vemd's configuration, and the ports' fail
    /// mode.
    pub fn with(gateways: usize, settings: &str, fail_mode: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let number = SITES.fetch_add(1, Ordering::Relaxed);
        let name = format!("twv{}-{number}", std::process::id());
        let folder = TempDir::new().expect("a folder");
        let mut site = Self {
            gateways: Vec::new(),
            name,
            folder,
            vemd: None,
            _turn: turn,
        };
        site.build();
        let mut sections = String::new();
        for number in 0..gateways {
            let gateway = Gateway::start(&site.host(), site.folder.path(), number);
            sections += &format!("[[gateway]]\naddress = \"{}\"\n", gateway.address);
            site.gateways.push(gateway);
        }
        site.configure(settings, &sections, fail_mode);
        site.start();
        site
    }

    fn build(&self) {
        let (host, a, b) = (self.host(), self.vm("a"), self.vm("b"));
        for namespace in [&host, &a, &b] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        ip(&format!("-n {host} link add br0 type bridge"));
        ip(&format!("-n {host} link set br0 up"));
        for (vm, address, mac) in [("a", VM_A, MAC_A), ("b", VM_B, MAC_B)] {
            let namespace = self.vm(vm);
            ip(&format!(
                "-n {host} link add vp-{vm} type veth peer name eth0 address {mac} netns {namespace}"
            ));
            ip(&format!("-n {host} link set vp-{vm} master br0 up"));
            ip(&format!("-n {namespace} addr add {address}/24 dev eth0"));
            ip(&format!("-n {namespace} link set eth0 up"));
        }
    }

    fn configure(&self, settings: &str, gateways: &str, fail_mode: &str) {
        let folder = self.folder.path().display();
        let port = |vm: &str, mac: &str| {
            format!(
                "[[port]]\nname = \"{vm}\"\ninterface = \"vp-{vm}\"\nmac = \"{mac}\"\nprofile = \"{vm}@root\"\nfail_mode = \"{fail_mode}\"\n"
            )
        };
        let text = format!(
            "host = \"h\"\nstate_dir = \"{folder}/state\"\nrun_dir = \"{folder}/run\"\n{settings}\n{gateways}{}{}",
            port("a", MAC_A),
            port("b", MAC_B),
        );
        std::fs::write(self.config(), text).expect("a configuration");
        let fingerprint = self.vemd(&["init"]);
        for gateway in &self.gateways {
            self.vemd(&["pin", "--gateway", &gateway.fingerprint]);
            gateway.trust(fingerprint.trim().parse().expect("a fingerprint"));
        }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("vemd.toml")
    }

    pub fn host(&self) -> String {
        format!("{}-h", self.name)
    }

    pub fn vm(&self, vm: &str) -> String {
        format!("{}-{vm}", self.name)
    }

    /// Starts vemd.
    pub fn start(&mut self) {
        let config = self.config();
        let start = move || {
            let mut vemd = Command::new(env!("CARGO_BIN_EXE_vemd"));
            vemd.arg("--config").arg(config).stdin(Stdio::null());
            vemd.spawn().expect("vemd starts")
        };
        self.vemd = Some(inside(&self.host(), start).join().expect("vemd starts"));
        let socket = self.folder.path().join("run/vemd.sock");
        until("vemd answers", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    /// Kills the guardian as a crash would; the kernel kills the worker.
    pub fn kill_guardian(&mut self) {
        let worker = self.worker_pid();
        let mut guardian = self.vemd.take().expect("it runs");
        guardian.kill().expect("our child");
        guardian.wait().expect("our child");
        let alive = |pid: i32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        until("the worker follows its guardian", || !alive(worker));
    }

    /// Stops vemd cleanly.
    pub fn stop(&mut self) {
        let Some(mut vemd) = self.vemd.take() else {
            return;
        };
        let pid = rustix::process::Pid::from_child(&vemd);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let deadline = Instant::now() + EVENT_WITHIN;
        while vemd.try_wait().expect("our child").is_none() {
            if Instant::now() > deadline {
                vemd.kill().expect("our child");
                panic!("vemd does not stop");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Restarts vemd with the default for a clean stop.
    pub fn detach_on_stop(&mut self) {
        self.stop();
        let text = std::fs::read_to_string(self.config()).expect("a configuration");
        let text = text.replace("on_stop = \"keep\"", "");
        std::fs::write(self.config(), text).expect("a configuration");
        self.start();
    }

    /// Runs a verb of vemd; returns what it prints.
    pub fn vemd(&self, arguments: &[&str]) -> String {
        let mut vemd = Command::new(env!("CARGO_BIN_EXE_vemd"));
        vemd.args(arguments).arg("--config").arg(self.config());
        let output = inside(&self.host(), move || vemd.output().expect("vemd starts"));
        let output = output.join().expect("vemd starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "vemd {arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn show(&self, topic: &str) -> Value {
        serde_json::from_str(&self.vemd(&["show", topic, "--json"])).expect("JSON")
    }

    /// A counter of a port.
    pub fn count(&self, port: &str, counter: &str) -> u64 {
        let stats = self.show("stats");
        let ports = stats["ports"].as_array().expect("ports");
        let port = ports
            .iter()
            .find(|entry| entry["port"] == port)
            .expect("the port");
        port[counter]
            .as_u64()
            .unwrap_or_else(|| panic!("no counter {counter}"))
    }

    /// The mark of packets that come back from a tap.
    pub fn reinject_mark(&self) -> u32 {
        let pin = self.folder.path().join("run/bpf/v1/map/settings");
        let dump = Command::new("bpftool")
            .args(["-j", "map", "dump", "pinned"])
            .arg(pin)
            .output();
        let dump: Value =
            serde_json::from_slice(&dump.expect("bpftool").stdout).expect("JSON of bpftool");
        dump[0]["formatted"]["value"]["reinject_mark"]
            .as_u64()
            .expect("a mark") as u32
    }

    pub fn worker_pid(&self) -> i32 {
        self.show("status")["worker_pid"].as_i64().expect("a pid") as i32
    }

    /// Kills the worker as a crash would.
    pub fn kill_worker(&self, pid: i32) {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    }

    pub fn obeys(&self, gateway: usize) -> bool {
        self.show("status")["gateways"][gateway]["obeyed"] == true
    }

    /// What is left of it in this machine.
    pub fn leftovers(&self) -> Vec<String> {
        let run = self.folder.path().join("run").display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let links = Command::new("ip")
            .args(["-n", &self.host(), "-o", "link"])
            .output()
            .expect("iproute2");
        let links = String::from_utf8(links.stdout).expect("text");
        let taps = links
            .lines()
            .filter(|line| line.contains(": vt"))
            .map(str::to_owned);
        mounts
            .lines()
            .filter(|line| line.contains(&run))
            .map(str::to_owned)
            .chain(taps)
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut vemd) = self.vemd.take() {
            let pid = rustix::process::Pid::from_child(&vemd);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(4);
            while vemd.try_wait().is_ok_and(|status| status.is_none()) {
                if Instant::now() > deadline {
                    let _ = vemd.kill();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let bpf = self.folder.path().join("run/bpf");
        let _ = rustix::mount::unmount(bpf, rustix::mount::UnmountFlags::DETACH);
        for namespace in [self.vm("a"), self.vm("b"), self.host()] {
            let _ = Command::new("ip")
                .args(["netns", "del", &namespace])
                .status();
        }
    }
}

/// The address of a port of vm b.
pub fn at_b(port: u16) -> SocketAddr {
    format!("{VM_B}:{port}").parse().expect("an address")
}
