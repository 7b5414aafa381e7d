//! Bringing a site up, taking it down, and starting its processes again.

use crate::clock::{self, NS_PER_MS, now_ns};
use crate::fault;
use crate::manifest::{LabLock, Manifest};
use crate::namespace::Namespace;
use crate::network;
use crate::paths::LabPaths;
use crate::process;
use crate::product;
use crate::tool;
use crate::topology::{SWITCH, Topology};
use anyhow::{Context, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// How long a pair may take from its start to `Active with HA standby`. A
/// debug build on a loaded machine needs a few seconds.
pub const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at the pair's state; a look costs a process.
const BOOT_PAUSE: Duration = Duration::from_millis(30);
/// What `up` was asked to do.
#[derive(Debug, Clone)]
pub struct UpPlan {
    /// The site.
    pub topology: Topology,
    /// Nodes that are not started.
    pub off: BTreeSet<String>,
    /// Where `vsgd`, `vemd` and `vsh` are.
    pub bin_dir: PathBuf,
    /// Start nodes and hosts, not only the network.
    pub has_processes: bool,
    /// Wait until the pair is redundant.
    pub waits: bool,
}

/// What `up` achieved.
#[derive(Debug, Clone, Serialize)]
pub struct UpReport {
    /// The lab's name.
    pub lab: String,
    /// From the start of the nodes to `Active with HA standby`, ms.
    pub boot_ms: Option<u64>,
    /// The node that leads.
    pub active: Option<String>,
    /// Where the logs are.
    pub logs: PathBuf,
}

/// Builds the site, or leaves nothing but the logs.
///
/// # Errors
/// What went wrong, and the folder with the logs.
pub fn up(paths: &LabPaths, plan: UpPlan) -> anyhow::Result<UpReport> {
    require_root()?;
    tool::require(&[("ip", "iproute2"), ("nft", "nftables")])?;
    if plan.has_processes {
        require_product(&plan.bin_dir)?;
    }
    let _lock = LabLock::take(paths)?;
    if paths.manifest().exists() {
        bail!(
            "the lab '{0}' is already up: `vsg-lab --lab {0} down` removes it",
            paths.name()
        );
    }
    sweep(paths, false)?;
    // The logs of an earlier failure have been read by now.
    fs::remove_dir_all(paths.root()).or_else(ignore_missing)?;
    match build(paths, &plan) {
        Ok(report) => Ok(report),
        Err(error) => {
            let logs = paths.logs();
            if let Err(left) = sweep(paths, true) {
                return Err(error.context(format!(
                    "the lab did not come up (and was not removed whole: {left:#}); logs in {}",
                    logs.display()
                )));
            }
            Err(error.context(format!(
                "the lab did not come up (logs: {})",
                logs.display()
            )))
        }
    }
}

fn build(paths: &LabPaths, plan: &UpPlan) -> anyhow::Result<UpReport> {
    let topology = &plan.topology;
    for folder in [paths.logs(), paths.root().join("etc"), paths.traffic()] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut manifest = Manifest {
        topology: topology.clone(),
        bin_dir: plan.bin_dir.clone(),
        has_processes: plan.has_processes,
        guardians: BTreeMap::new(),
        faults: fault::Faults {
            killed: plan.off.clone(),
            ..fault::Faults::default()
        },
        traffic: None,
        marks: BTreeMap::new(),
        boot_ms: None,
    };
    manifest.store(paths)?;
    mount_tmpfs(&paths.traffic())?;
    network::build(paths, topology)?;
    fault::prepare_switch(&switch(paths))?;
    fault::apply(&switch(paths), &manifest.faults.blocked(topology))?;
    let mut report = UpReport {
        lab: paths.name().to_string(),
        boot_ms: None,
        active: None,
        logs: paths.logs(),
    };
    if !plan.has_processes {
        return Ok(report);
    }
    configure(paths, topology)?;
    product::pair(paths, topology, &plan.bin_dir)?;
    let started_ns = now_ns();
    let mut children = Vec::new();
    let started = topology.nodes.iter();
    for node in started.filter(|node| !plan.off.contains(&node.name)) {
        let child = start_daemon(paths, &plan.bin_dir, "vsgd", &node.name)?;
        manifest
            .guardians
            .insert(node.name.clone(), child.id() as i32);
        children.push((node.name.clone(), child));
    }
    for host in &topology.hosts {
        let child = start_daemon(paths, &plan.bin_dir, "vemd", &host.name)?;
        manifest
            .guardians
            .insert(host.name.clone(), child.id() as i32);
        children.push((host.name.clone(), child));
    }
    manifest.store(paths)?;
    if plan.waits {
        let active = await_pair(paths, plan, &mut children)?;
        let boot_ms = (now_ns() - started_ns) / NS_PER_MS;
        manifest.boot_ms = Some(boot_ms);
        manifest.store(paths)?;
        report.boot_ms = Some(boot_ms);
        report.active = Some(active);
    }
    Ok(report)
}

/// The switch's namespace.
#[must_use]
pub fn switch(paths: &LabPaths) -> Namespace {
    Namespace::named(paths.namespace(SWITCH))
}

/// Fails unless this process may make namespaces.
///
/// # Errors
/// One clear line when it is not root.
pub fn require_root() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab needs root (it makes network namespaces and loads BPF programs)");
    }
    Ok(())
}

fn require_product(bin_dir: &Path) -> anyhow::Result<()> {
    for program in ["vsgd", "vemd", "vsh"] {
        if !bin_dir.join(program).is_file() {
            bail!(
                "there is no '{program}' in {} (see --bin-dir)",
                bin_dir.display()
            );
        }
    }
    if !Path::new("/dev/net/tun").exists() {
        bail!("this machine has no /dev/net/tun, which vemd needs");
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("\tbpf")) {
        bail!("this kernel has no BPF (no 'bpf' in /proc/filesystems), which vemd needs");
    }
    Ok(())
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

fn mount_tmpfs(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    mount(
        "twinwall-lab",
        folder,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=755",
    )
    .with_context(|| format!("cannot mount a tmpfs at {}", folder.display()))
}

/// Writes each node's and host's configuration file and makes its folders.
fn configure(paths: &LabPaths, topology: &Topology) -> anyhow::Result<()> {
    for member in topology
        .nodes
        .iter()
        .map(|one| &one.name)
        .chain(topology.hosts.iter().map(|one| &one.name))
    {
        let state = paths.state_of(member);
        fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
        mount_tmpfs(&paths.run_of(member))?;
    }
    product::write_configurations(paths, topology)
}

fn start_daemon(
    paths: &LabPaths,
    bin_dir: &Path,
    program: &str,
    member: &str,
) -> anyhow::Result<Child> {
    process::start(
        &Namespace::named(paths.namespace(member)),
        &bin_dir.join(program),
        &[
            "--config".into(),
            paths.config_of(member).display().to_string(),
        ],
        &paths.output_of(member),
    )
}

/// Waits until one node says that it leads a redundant pair (or, in a site of
/// one node, that it leads); gives its name.
fn await_pair(
    paths: &LabPaths,
    plan: &UpPlan,
    children: &mut [(String, Child)],
) -> anyhow::Result<String> {
    let (topology, bin_dir) = (&plan.topology, &plan.bin_dir);
    let started = topology.nodes.iter();
    let started: Vec<_> = started
        .filter(|node| !plan.off.contains(&node.name))
        .collect();
    let wanted = if started.len() == 2 {
        "Active with HA standby"
    } else {
        "Active with no standby"
    };
    let mut last = BTreeMap::new();
    let found = clock::poll_until(BOOT_LIMIT, BOOT_PAUSE, || {
        for (member, child) in children.iter_mut() {
            if let Some(status) = child.try_wait()? {
                bail!("the process of {member} ended at once ({status})");
            }
        }
        for node in &started {
            let state = match internal_state(paths, bin_dir, &node.name) {
                Ok(state) => state,
                Err(error) => format!("{error:#}"),
            };
            if state == wanted {
                return Ok(Some(node.name.clone()));
            }
            last.insert(node.name.clone(), state);
        }
        Ok(None)
    })?;
    found.with_context(|| {
        let seen: Vec<_> = last
            .iter()
            .map(|(node, state)| format!("{node}: {state}"))
            .collect();
        format!(
            "no node said '{wanted}' within {} s ({})",
            BOOT_LIMIT.as_secs(),
            seen.join("; ")
        )
    })
}

/// The "Internal state" of a node's own supervisor, as its shell shows it.
///
/// # Errors
/// When the shell cannot be asked.
pub fn internal_state(paths: &LabPaths, bin_dir: &Path, node: &str) -> anyhow::Result<String> {
    let mut command = Command::new(bin_dir.join("vsh"));
    command.arg("--socket").arg(paths.console_of(node));
    command.args(["-c", "show system redundancy status"]);
    let finished = tool::finish(&mut command, "", Duration::from_secs(3))?;
    if !finished.status.success() {
        bail!("{}", finished.complaint());
    }
    // The first of the two blocks is about the node that answers.
    let state = finished
        .stdout
        .lines()
        .find_map(|line| line.trim().strip_prefix("Internal state:"))
        .context("the status names no internal state")?;
    Ok(state.trim().to_owned())
}

/// Starts a node's processes again after kill-node, as a machine that boots:
/// its volatile folder is empty, its durable one as it was.
///
/// # Errors
/// When it already runs, or does not start.
pub fn start_node(paths: &LabPaths, manifest: &mut Manifest, node: &str) -> anyhow::Result<()> {
    let namespace = Namespace::named(paths.namespace(node));
    if !process::members(&[&namespace])?.is_empty() {
        bail!("the node '{node}' is already running");
    }
    let run = paths.run_of(node);
    unmount_below(&run)?;
    mount_tmpfs(&run)?;
    let child = start_daemon(paths, &manifest.bin_dir, "vsgd", node)?;
    manifest
        .guardians
        .insert(node.to_owned(), child.id() as i32);
    Ok(())
}

/// Gives a node an empty disk: what a new machine in its place has.
///
/// # Errors
/// When the node still runs.
pub fn empty_disk(paths: &LabPaths, node: &str) -> anyhow::Result<()> {
    let namespace = Namespace::named(paths.namespace(node));
    if !process::members(&[&namespace])?.is_empty() {
        bail!("the node '{node}' is running: `vsg-lab fault kill-node {node}` ends it");
    }
    let state = paths.state_of(node);
    fs::remove_dir_all(&state)
        .or_else(ignore_missing)
        .and_then(|()| fs::create_dir_all(&state))
        .with_context(|| format!("cannot empty {}", state.display()))
}

/// Starts a host agent again after its guardian was killed too.
///
/// # Errors
/// When it already runs, or does not start.
pub fn start_vemd(paths: &LabPaths, manifest: &mut Manifest, host: &str) -> anyhow::Result<()> {
    let namespace = Namespace::named(paths.namespace(host));
    if process::members(&[&namespace])?
        .iter()
        .any(|one| one.runs("vemd"))
    {
        bail!("the vemd of '{host}' is already running");
    }
    let child = start_daemon(paths, &manifest.bin_dir, "vemd", host)?;
    manifest
        .guardians
        .insert(host.to_owned(), child.id() as i32);
    Ok(())
}

/// Removes everything of the lab, whatever state it is in; false when there
/// was nothing.
///
/// # Errors
/// What could not be removed.
pub fn down(paths: &LabPaths) -> anyhow::Result<bool> {
    require_root()?;
    let lock = LabLock::take(paths)?;
    let was_there = paths.root().exists() || !own_namespaces(paths)?.is_empty();
    sweep(paths, false)?;
    fs::remove_dir_all(paths.root())
        .or_else(ignore_missing)
        .with_context(|| format!("cannot remove {}", paths.root().display()))?;
    lock.remove(paths);
    // The last lab takes the folder along; others' folders keep it.
    let _ = fs::remove_dir(crate::paths::LABS_ROOT);
    Ok(was_there)
}

/// The namespaces that exist under this lab's name: found by their names, so
/// that they are found without a manifest too.
fn own_namespaces(paths: &LabPaths) -> anyhow::Result<Vec<Namespace>> {
    let prefix = paths.namespace("");
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Ok(found);
    };
    for entry in entries {
        let name = entry.context("/run/netns")?.file_name();
        if let Some(name) = name.to_str()
            && name
                .strip_prefix(&prefix)
                .is_some_and(crate::topology::is_member_name)
        {
            found.push(Namespace::named(name));
        }
    }
    Ok(found)
}

/// Ends processes, removes namespaces and mounts; keeps only the logs when
/// asked. Goes on after a problem and reports all at the end.
fn sweep(paths: &LabPaths, keeps_logs: bool) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    let namespaces = own_namespaces(paths)?;
    let all: Vec<_> = namespaces.iter().collect();
    if let Err(error) = process::end_all(&all) {
        problems.push(format!("{error:#}"));
    }
    for namespace in &namespaces {
        let mut command = Command::new("ip");
        if let Err(error) = tool::run(command.args(["netns", "del", namespace.name()]), "") {
            problems.push(format!("{error:#}"));
        }
    }
    if let Err(error) = unmount_below(paths.root()) {
        problems.push(format!("{error:#}"));
    }
    if keeps_logs && problems.is_empty() {
        for part in ["etc", "state", "run", "traffic"] {
            fs::remove_dir_all(paths.root().join(part)).or_else(ignore_missing)?;
        }
        fs::remove_file(paths.manifest()).or_else(ignore_missing)?;
    }
    if problems.is_empty() {
        Ok(())
    } else {
        bail!("{}", problems.join("; "))
    }
}

/// Unmounts everything at or below `folder`, the last mounted first.
fn unmount_below(folder: &Path) -> anyhow::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("mountinfo")?;
    let mounts: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(folder))
        .collect();
    for point in mounts.iter().rev() {
        // Detached lazily: a process that is just dying may still hold it.
        unmount(point, UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}
