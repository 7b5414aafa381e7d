//! Starting and stopping the traffic's processes, and collecting their records.

use super::report::{Evidence, Figures, Window, figures};
use super::{ReportArguments, StartArguments, records, witness};
use crate::clock::{self, NS_PER_MS, NS_PER_S, now_ns};
use crate::manifest::{Manifest, TrafficRun};
use crate::namespace::Namespace;
use crate::paths::LabPaths;
use crate::process;
use crate::tool;
use crate::topology::{Topology, TrafficPlan};
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

/// How long servers may take to listen, and the stream to flow. The stream's
/// first packet may meet a failover.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two looks at them.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// How long after a window's end its last datagrams may arrive: the longest a
/// gateway pair's failover holds one, twice.
const SETTLE_NS: u64 = NS_PER_S;
/// Longest wait for a window's attempts to end: their own limit, and room.
const SETTLE_LIMIT: Duration = Duration::from_secs(7);
/// How long messages under way get to arrive when the traffic is stopped.
const DRAIN: Duration = Duration::from_millis(200);
/// The kernel's unit in `/proc/PID/stat` (USER_HZ, fixed on Linux), ns.
const CPU_TICK_NS: u64 = NS_PER_S / 100;

/// Starts everything, and waits until the stream flows.
///
/// # Errors
/// Says what did not start; everything started until then is ended again.
pub fn start(
    paths: &LabPaths,
    manifest: &mut Manifest,
    arguments: &StartArguments,
) -> anyhow::Result<TrafficRun> {
    let plan = manifest
        .topology
        .traffic
        .clone()
        .context("this lab's topology has no [traffic] section")?;
    if manifest.traffic.as_ref().is_some_and(super::is_running) {
        bail!("traffic is already running: `vsg-lab traffic stop` ends it");
    }
    if !arguments.no_witness {
        tool::require(&[("nginx", "nginx"), ("wrk", "wrk"), ("iperf3", "iperf3")])?;
    }
    clear(&paths.traffic())?;
    let until_ns = now_ns() + arguments.seconds * NS_PER_S;
    let mut launch = Launch {
        paths,
        topology: &manifest.topology,
        until_ns,
        children: BTreeMap::new(),
    };
    if let Err(error) = launch.all(&plan, arguments) {
        for child in launch.children.values() {
            end(child.id() as i32, Signal::KILL);
        }
        return Err(error).context(format!("logs in {}", paths.logs().display()));
    }
    let pids = launch
        .children
        .iter()
        .map(|(role, child)| (role.clone(), child.id() as i32));
    let run = TrafficRun {
        pids: pids.collect(),
        started_ns: now_ns(),
        until_ns,
        stopped_ns: None,
    };
    manifest.traffic = Some(run.clone());
    manifest.store(paths)?;
    Ok(run)
}

/// Removes what an earlier run left: its records, and the folders nginx made.
fn clear(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry.context("traffic folder")?;
        let path = entry.path();
        let removed = if entry.file_type().context("traffic folder")?.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Signals a traffic process and those it started: each is the leader of its
/// own process group.
fn end(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Gone already is as good as ended.
        let _ = kill_process_group(pid, signal);
    }
}

struct Launch<'a> {
    paths: &'a LabPaths,
    topology: &'a Topology,
    until_ns: u64,
    children: BTreeMap<String, Child>,
}

impl Launch<'_> {
    fn all(&mut self, plan: &TrafficPlan, arguments: &StartArguments) -> anyhow::Result<()> {
        self.servers(plan)?;
        if !arguments.no_witness {
            self.witness_servers(plan)?;
        }
        self.await_servers(plan, !arguments.no_witness)?;
        let mut words = vec![
            "measure".to_owned(),
            "--rate".into(),
            arguments.rate.to_string(),
        ];
        for (name, end) in plan
            .ends()
            .into_iter()
            .filter(|(name, _)| !matches!(*name, "http" | "bulk"))
        {
            words.extend([
                format!("--{name}"),
                self.address(&end.vm, end.port)?.to_string(),
            ]);
        }
        self.role("measure", &plan.client, words)?;
        self.await_stream()?;
        if !arguments.no_witness {
            let mut words = vec!["witness".to_owned()];
            for (name, end) in [("http", &plan.http), ("bulk", &plan.bulk)] {
                words.extend([
                    format!("--{name}"),
                    self.address(&end.vm, end.port)?.to_string(),
                ]);
            }
            self.role("witness", &plan.client, words)?;
        }
        Ok(())
    }

    fn address(&self, vm: &str, port: u16) -> anyhow::Result<SocketAddrV4> {
        let vm = self
            .topology
            .vm(vm)
            .with_context(|| format!("there is no VM '{vm}'"))?;
        Ok(SocketAddrV4::new(vm.address, port))
    }

    /// Starts this program again in a role, inside a VM.
    fn role(&mut self, role: &str, vm: &str, mut words: Vec<String>) -> anyhow::Result<()> {
        words.insert(0, "traffic-role".into());
        words.extend([
            "--folder".into(),
            self.paths.traffic().display().to_string(),
            "--until-ns".into(),
            self.until_ns.to_string(),
        ]);
        let own = std::env::current_exe().context("cannot find vsg-lab itself")?;
        self.launch(role, vm, &own, &words)
    }

    fn launch(
        &mut self,
        role: &str,
        vm: &str,
        program: &Path,
        words: &[String],
    ) -> anyhow::Result<()> {
        let namespace = Namespace::named(self.paths.namespace(vm));
        let output = self.paths.output_of(&format!("traffic-{role}"));
        let child = process::start(&namespace, program, words, &output)?;
        self.children.insert(role.to_owned(), child);
        Ok(())
    }

    /// One process for each VM that serves anything measured.
    fn servers(&mut self, plan: &TrafficPlan) -> anyhow::Result<()> {
        let mut by_vm: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, end) in plan
            .ends()
            .into_iter()
            .filter(|(name, _)| !matches!(*name, "http" | "bulk"))
        {
            let words = by_vm
                .entry(end.vm.clone())
                .or_insert_with(|| vec!["serve".into()]);
            words.extend([format!("--{name}"), end.port.to_string()]);
        }
        for (vm, words) in by_vm {
            self.role(&format!("serve-{vm}"), &vm, words)?;
        }
        Ok(())
    }

    fn witness_servers(&mut self, plan: &TrafficPlan) -> anyhow::Result<()> {
        let folder = self.paths.traffic();
        let config = folder.join("nginx.conf");
        let address = self.address(&plan.http.vm, plan.http.port)?;
        let logs = self.paths.logs();
        let text = format!(
            "daemon off;\nworker_processes 1;\npid {0}/nginx.pid;\n\
             error_log {1}/nginx.log;\nevents {{ worker_connections 64; }}\n\
             http {{ access_log off; keepalive_requests 1000000;\n\
             client_body_temp_path {0}/nginx-body; proxy_temp_path {0}/nginx-proxy;\n\
             fastcgi_temp_path {0}/nginx-fastcgi; uwsgi_temp_path {0}/nginx-uwsgi;\n\
             scgi_temp_path {0}/nginx-scgi;\n\
             server {{ listen {address}; location / {{ return 200 \"twinwall\\n\"; }} }} }}\n",
            folder.display(),
            logs.display()
        );
        std::fs::write(&config, text).context("cannot write nginx's configuration")?;
        let nginx = tool::in_path("nginx").context("nginx is not installed")?;
        let words = [
            "-e".to_owned(),
            logs.join("nginx.log").display().to_string(),
            "-c".into(),
            config.display().to_string(),
        ];
        self.launch("nginx", &plan.http.vm, &nginx, &words)?;
        let iperf = tool::in_path("iperf3").context("iperf3 is not installed")?;
        let words = ["-s".to_owned(), "-p".into(), plan.bulk.port.to_string()];
        self.launch("iperf3", &plan.bulk.vm, &iperf, &words)
    }

    /// Fails when one of the processes has ended.
    fn require_running(&mut self) -> anyhow::Result<()> {
        for (role, child) in &mut self.children {
            if let Some(status) = child.try_wait()? {
                let output = self.paths.output_of(&format!("traffic-{role}"));
                let text = std::fs::read_to_string(output).unwrap_or_default();
                bail!(
                    "{role} ended ({status}): {}",
                    text.lines().last().unwrap_or("no message")
                );
            }
        }
        Ok(())
    }

    fn await_servers(&mut self, plan: &TrafficPlan, with_witness: bool) -> anyhow::Result<()> {
        for (name, end) in plan.ends() {
            if !with_witness && matches!(name, "http" | "bulk") {
                continue;
            }
            let namespace = Namespace::named(self.paths.namespace(&end.vm));
            let ready = clock::poll_until(READY_LIMIT, READY_PAUSE, || {
                self.require_running()?;
                let listens = namespace.run(|| is_bound(end.port, name == "udp"))?;
                Ok(listens.then_some(()))
            })?;
            if ready.is_none() {
                bail!("nothing listens at {end} ({name})");
            }
        }
        Ok(())
    }

    fn await_stream(&mut self) -> anyhow::Result<()> {
        let log = self.paths.traffic().join(super::STREAM);
        let flows = clock::poll_until(READY_LIMIT, READY_PAUSE, || {
            self.require_running()?;
            Ok((!records::read(&log)?.records.is_empty()).then_some(()))
        })?;
        flows.context("the measured stream does not flow")
    }
}

/// True when a socket of this network namespace is bound to `port` and, for
/// TCP, listens.
fn is_bound(port: u16, is_udp: bool) -> anyhow::Result<bool> {
    let files: &[&str] = if is_udp {
        &["udp", "udp6"]
    } else {
        &["tcp", "tcp6"]
    };
    let wanted = format!(":{port:04X}");
    for file in files {
        let table =
            std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let found = table.lines().skip(1).any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let bound = fields.next().is_some_and(|local| local.ends_with(&wanted));
            // 0A is LISTEN.
            bound && (is_udp || fields.nth(1) == Some("0A"))
        });
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Stops the run: first the clients, then, when what was under way has
/// arrived, the servers. Gives when the records end, monotonic ns.
///
/// # Errors
/// When the manifest cannot be written.
pub fn stop(paths: &LabPaths, manifest: &mut Manifest) -> anyhow::Result<u64> {
    let Some(run) = &mut manifest.traffic else {
        bail!("no traffic was started")
    };
    let ended = *run
        .stopped_ns
        .get_or_insert_with(|| now_ns().min(run.until_ns));
    let is_client = |role: &str| matches!(role, "measure" | "witness");
    let mut pids = run.pids.clone();
    manifest.store(paths)?;
    // A process that ended by itself may have left its number to another.
    let namespaces: Vec<_> = manifest
        .topology
        .vms
        .iter()
        .map(|vm| Namespace::named(paths.namespace(&vm.name)))
        .collect();
    let own = process::members(&namespaces.iter().collect::<Vec<_>>())?;
    pids.retain(|_, pid| own.iter().any(|process| process.pid == *pid));
    // What breaks from here on is recorded after the end, and ignored.
    for (_, pid) in pids.iter().filter(|(role, _)| is_client(role)) {
        end(*pid, Signal::KILL);
    }
    std::thread::sleep(DRAIN);
    for pid in pids.values() {
        end(*pid, Signal::KILL);
    }
    Ok(ended)
}

/// A moment, as `--from` and `--to` name it.
fn moment(manifest: &Manifest, text: &str) -> anyhow::Result<u64> {
    if let Some(at_ns) = manifest.marks.get(text) {
        return Ok(*at_ns);
    }
    text.parse().map_err(|_| {
        let names: Vec<_> = manifest.marks.keys().map(String::as_str).collect();
        anyhow::anyhow!(
            "'{text}' is neither monotonic ns nor a mark ({})",
            names.join(", ")
        )
    })
}

/// The figures of a window, and the CPU use of each process since the start
/// (empty once they have ended).
///
/// Waits until the window's datagrams and connections have had their time.
///
/// # Errors
/// When there was no traffic, or the window lies outside of it.
pub fn report(
    paths: &LabPaths,
    manifest: &Manifest,
    arguments: &ReportArguments,
) -> anyhow::Result<(Figures, BTreeMap<String, f64>)> {
    let run = manifest
        .traffic
        .as_ref()
        .with_context(|| format!("no traffic was started in the lab '{}'", paths.name()))?;
    let end_ns = run.stopped_ns.unwrap_or(run.until_ns);
    let from_ns = match &arguments.from {
        Some(text) => moment(manifest, text)?,
        None => run.started_ns,
    };
    let to_ns = match &arguments.to {
        Some(text) => moment(manifest, text)?,
        None => now_ns(),
    }
    .min(end_ns);
    if from_ns >= to_ns {
        bail!(
            "the window is empty: it ends {} ms before it begins",
            (from_ns - to_ns) / NS_PER_MS
        );
    }
    let folder = paths.traffic();
    clock::sleep_until((to_ns + SETTLE_NS).min(end_ns));
    let settled = [super::CONNECTIONS, super::FORBIDDEN];
    clock::poll_until(SETTLE_LIMIT, READY_PAUSE, || {
        if now_ns() >= end_ns {
            return Ok(Some(()));
        }
        for name in settled {
            if records::read_settled(&folder.join(name))? < to_ns {
                return Ok(None);
            }
        }
        let heard = testified_until(run, &folder).is_none_or(|until_ns| until_ns >= to_ns);
        Ok(heard.then_some(()))
    })?;
    let mut evidence = collect(&folder, end_ns.min(now_ns()))?;
    if now_ns() < end_ns {
        evidence.testified_until_ns = testified_until(run, &folder);
    }
    Ok((figures(&evidence, Window { from_ns, to_ns }), cpu_use(run)))
}

/// How far the run's witnesses have testified; none when it has none.
fn testified_until(run: &TrafficRun, folder: &Path) -> Option<u64> {
    run.pids
        .contains_key("witness")
        .then(|| witness::testified_until(&witness::read_testimonies(folder)))
}

fn collect(folder: &Path, end_ns: u64) -> anyhow::Result<Evidence> {
    let read = |name: &str| records::read(&folder.join(name));
    Ok(Evidence {
        stream: read(super::STREAM)?,
        stream_sender: read(super::STREAM_SENDER)?,
        udp_sent: read(super::UDP_SENT)?,
        udp_received: read(super::UDP_RECEIVED)?,
        connections: read(super::CONNECTIONS)?,
        forbidden: read(super::FORBIDDEN)?,
        forbidden_accepted: read(super::FORBIDDEN_ACCEPTED)?,
        testimonies: witness::read_testimonies(folder),
        end_ns,
        testified_until_ns: None,
    })
}

/// CPU use of each process of the run, in percent of one core since its start.
fn cpu_use(run: &TrafficRun) -> BTreeMap<String, f64> {
    let elapsed = now_ns().saturating_sub(run.started_ns).max(1);
    let ticks = |pid: i32| -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat
            .get(stat.rfind(')')? + 2..)?
            .split_ascii_whitespace()
            .skip(11);
        // User, system, and both of the children that were waited for: wrk.
        (0..4).map(|_| fields.next()?.parse::<u64>().ok()).sum()
    };
    run.pids
        .iter()
        .filter_map(|(role, pid)| {
            let percent = (ticks(*pid)? * CPU_TICK_NS) as f64 * 100.0 / elapsed as f64;
            Some((role.clone(), (percent * 10.0).round() / 10.0))
        })
        .collect()
}
