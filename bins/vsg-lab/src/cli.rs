//! The command line: verbs, and what each prints.

use crate::clock::{NS_PER_MS, now_ns, sleep_until};
use crate::fault::{self, Cut, FaultReport};
use crate::manifest::{LabLock, Manifest};
use crate::namespace::Namespace;
use crate::paths::{LabName, LabPaths};
use crate::process;
use crate::site::{self, UpPlan};
use crate::status;
use crate::topology::Topology;
use crate::traffic::{self, TrafficVerb};
use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Longest `pause --for`, in milliseconds: an hour.
const PAUSE_MAX_MS: u64 = 3_600_000;

/// Builds, breaks, measures and removes a whole Twinwall site on one machine.
#[derive(Debug, Parser)]
#[command(name = "vsg-lab", version)]
pub struct Arguments {
    /// Name of the lab; labs with different names run side by side.
    #[arg(long, global = true, default_value = "lab")]
    pub lab: LabName,
    /// Folder of vsgd, vemd and vsh [default: the folder of vsg-lab].
    #[arg(long, global = true)]
    pub bin_dir: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs of the lab.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build the site and wait until its pair is redundant.
    Up(UpArguments),
    /// Show nodes, hosts, VMs, cuts and traffic.
    Status,
    /// Open a node's shell, or run commands in it.
    Vsh {
        /// The node.
        node: String,
        /// A command; may be given several times, all in one session.
        #[arg(short = 'c', long = "command")]
        commands: Vec<String>,
    },
    /// Run `vemd ARGS` beside the agent of a host (`vemd host-1 -- show flows`).
    Vemd {
        /// The host.
        host: String,
        /// What vemd is given; the host's `--config` is added.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run a program inside a VM (or a node, a host, the switch).
    Exec {
        /// The VM.
        vm: String,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Measured traffic between the VMs.
    Traffic {
        /// What to do with it.
        #[command(subcommand)]
        verb: TrafficVerb,
    },
    /// Break something, or mend it.
    Fault {
        /// The fault.
        #[command(subcommand)]
        verb: FaultVerb,
    },
    /// Remove the lab, whatever state it is in.
    Down,
    /// A traffic process; `traffic start` runs these inside the VMs.
    #[command(hide = true)]
    TrafficRole {
        /// The role.
        #[command(subcommand)]
        role: traffic::Role,
    },
}

/// What `up` takes.
#[derive(Debug, Args)]
pub struct UpArguments {
    /// The site's description [default: two nodes, two hosts, four VMs].
    #[arg(long)]
    pub topology: Option<PathBuf>,
    /// Do not wait for the pair.
    #[arg(long)]
    pub no_wait: bool,
    /// Only the network: start no node and no host agent.
    #[arg(long)]
    pub no_processes: bool,
}

/// The faults.
#[derive(Debug, Subcommand)]
pub enum FaultVerb {
    /// SIGKILL one service of a node.
    KillService {
        /// The node.
        node: String,
        /// The service.
        service: String,
    },
    /// Drop all frames of a node in the switch, then SIGKILL its processes.
    KillNode {
        /// The node.
        node: String,
    },
    /// Start a killed node again.
    StartNode {
        /// The node.
        node: String,
    },
    /// SIGKILL a host agent's worker.
    KillVemd {
        /// The host.
        host: String,
        /// Its guardian too.
        #[arg(long)]
        guardian: bool,
    },
    /// Start a host agent whose guardian was killed.
    StartVemd {
        /// The host.
        host: String,
    },
    /// Drop frames: LINK (ha0, ha1, svc, data), LINK:MEMBER, all:MEMBER, all.
    Cut(CutArguments),
    /// Undo a cut, in the same words.
    Heal(CutArguments),
    /// SIGSTOP every process of a node or host.
    Pause {
        /// The node or host.
        member: String,
        /// Resume after this long: `1s`, `250ms`.
        #[arg(long = "for", value_parser = parse_span_ms)]
        span_ms: Option<u64>,
    },
    /// SIGCONT every process of a node or host.
    Resume {
        /// The node or host.
        member: String,
    },
}

/// Which frames.
#[derive(Debug, Args)]
pub struct CutArguments {
    /// The link or cable.
    pub link: String,
    /// Only what this member sends into the link.
    #[arg(long, conflicts_with = "to")]
    pub from: Option<String>,
    /// Only what is sent to this member by the link.
    #[arg(long)]
    pub to: Option<String>,
}

/// Reads `1s`, `250ms` or a bare number of milliseconds.
fn parse_span_ms(text: &str) -> Result<u64, String> {
    let (digits, scale) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1000),
        (None, None) => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(scale))
        .filter(|ms| *ms <= PAUSE_MAX_MS)
        .ok_or_else(|| format!("'{text}' is no span: 250ms or 1s, at most an hour"))
}

/// Carries out what the command line says.
///
/// # Errors
/// One line that says what is wrong; the exit code is then 1.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let paths = LabPaths::new(arguments.lab.clone());
    let json = arguments.json;
    match arguments.verb {
        Verb::Up(up) => run_up(&paths, up, arguments.bin_dir, json)?,
        Verb::Status => {
            let status = status::collect(&paths, &Manifest::load(&paths)?)?;
            say(json, &status, &status::render(&status))?;
        }
        Verb::Vsh { node, commands } => return run_vsh(&paths, &node, &commands),
        Verb::Vemd { host, arguments } => return run_vemd(&paths, &host, &arguments),
        Verb::Exec { vm, command } => return run_exec(&paths, &vm, &command),
        Verb::Traffic { verb } => traffic::run(&paths, verb, json)?,
        Verb::Fault { verb } => {
            site::require_root()?;
            let report = run_fault(&paths, verb)?;
            let text = format!(
                "{} {}: done in {:.1} ms, {} processes",
                report.fault,
                report.target,
                (report.done_ns - report.at_ns) as f64 / NS_PER_MS as f64,
                report.processes,
            );
            say(json, &report, &text)?;
        }
        Verb::Down => {
            let was_there = site::down(&paths)?;
            let text = if was_there {
                "removed"
            } else {
                "there was nothing to remove"
            };
            say(json, &serde_json::json!({ "removed": was_there }), text)?;
        }
        Verb::TrafficRole { role } => traffic::run_role(role)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an answer as JSON or as text. A reader that has left (`| head`) has
/// seen what it wanted: no error.
pub(crate) fn say(json: bool, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = if json {
        let text = serde_json::to_string(value).context("answer to JSON")?;
        writeln!(out, "{text}")
    } else {
        writeln!(out, "{}", text.trim_end())
    };
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print the answer"),
    }
}

fn run_up(
    paths: &LabPaths,
    up: UpArguments,
    bin_dir: Option<PathBuf>,
    json: bool,
) -> anyhow::Result<()> {
    let topology = Topology::load(up.topology.as_deref())?;
    let bin_dir = match bin_dir {
        Some(folder) => std::path::absolute(&folder)?,
        None => {
            let own = std::env::current_exe().context("cannot find vsg-lab's own folder")?;
            own.parent().context("vsg-lab has no folder")?.to_owned()
        }
    };
    let plan = UpPlan {
        topology,
        bin_dir,
        has_processes: !up.no_processes,
        waits: !up.no_wait && !up.no_processes,
    };
    let led = if plan.topology.nodes.len() > 1 {
        "leads, redundant after"
    } else {
        "leads after"
    };
    let report = site::up(paths, plan)?;
    let text = match (&report.active, report.boot_ms) {
        (Some(active), Some(boot_ms)) => format!(
            "lab {} is up: {active} {led} {boot_ms} ms (logs: {})",
            report.lab,
            report.logs.display()
        ),
        _ => format!("lab {} is up (logs: {})", report.lab, report.logs.display()),
    };
    say(json, &report, &text)
}

/// Replaces this process by the program: its exit code is ours.
fn become_program(mut command: Command) -> anyhow::Result<ExitCode> {
    let error = command.exec();
    let program = command.get_program().to_string_lossy().into_owned();
    Err(error).with_context(|| format!("cannot run '{program}'"))
}

fn require_node(manifest: &Manifest, name: &str) -> anyhow::Result<()> {
    if manifest.topology.node(name).is_none() {
        let names: Vec<_> = manifest
            .topology
            .nodes
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        bail!("there is no node '{name}' (nodes: {})", names.join(", "));
    }
    Ok(())
}

fn require_host(manifest: &Manifest, name: &str) -> anyhow::Result<()> {
    if manifest.topology.host(name).is_none() {
        let names: Vec<_> = manifest
            .topology
            .hosts
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        bail!("there is no host '{name}' (hosts: {})", names.join(", "));
    }
    Ok(())
}

fn run_vsh(paths: &LabPaths, node: &str, commands: &[String]) -> anyhow::Result<ExitCode> {
    let manifest = Manifest::load(paths)?;
    require_node(&manifest, node)?;
    let mut command = Command::new(manifest.bin_dir.join("vsh"));
    command.arg("--socket").arg(paths.console_of(node));
    for one in commands {
        command.arg("-c").arg(one);
    }
    become_program(command)
}

fn run_vemd(paths: &LabPaths, host: &str, arguments: &[String]) -> anyhow::Result<ExitCode> {
    site::require_root()?;
    let manifest = Manifest::load(paths)?;
    require_host(&manifest, host)?;
    Namespace::named(paths.namespace(host)).enter()?;
    let mut command = Command::new(manifest.bin_dir.join("vemd"));
    command.args(arguments);
    if !arguments.iter().any(|one| one == "--config") {
        command.arg("--config").arg(paths.config_of(host));
    }
    become_program(command)
}

fn run_exec(paths: &LabPaths, member: &str, line: &[String]) -> anyhow::Result<ExitCode> {
    site::require_root()?;
    let manifest = Manifest::load(paths)?;
    let mut names: Vec<_> = manifest.topology.member_names().collect();
    names.push(crate::topology::SWITCH);
    if !names.contains(&member) {
        bail!(
            "there is no '{member}' in this lab (there are: {})",
            names.join(", ")
        );
    }
    Namespace::named(paths.namespace(member)).enter()?;
    let Some((program, rest)) = line.split_first() else {
        bail!("nothing to run")
    };
    let mut command = Command::new(program);
    command.args(rest);
    become_program(command)
}

fn run_fault(paths: &LabPaths, verb: FaultVerb) -> anyhow::Result<FaultReport> {
    let lock = LabLock::of_existing(paths)?;
    let mut manifest = Manifest::load(paths)?;
    let namespace = |member: &str| Namespace::named(paths.namespace(member));
    match verb {
        FaultVerb::KillService { node, service } => {
            require_node(&manifest, &node)?;
            fault::kill_service(&namespace(&node), &service)
        }
        FaultVerb::KillVemd { host, guardian } => {
            require_host(&manifest, &host)?;
            fault::kill_vemd(&namespace(&host), guardian)
        }
        FaultVerb::KillNode { node } => {
            require_node(&manifest, &node)?;
            kill_node(paths, &mut manifest, &node)
        }
        FaultVerb::StartNode { node } => {
            require_node(&manifest, &node)?;
            start_node(paths, &mut manifest, &node)
        }
        FaultVerb::StartVemd { host } => {
            require_host(&manifest, &host)?;
            let at_ns = now_ns();
            site::start_vemd(paths, &mut manifest, &host)?;
            manifest.store(paths)?;
            Ok(done("start-vemd", host, at_ns, 1))
        }
        FaultVerb::Cut(cut) => change_cut(paths, &mut manifest, &cut, "cut", fault::Faults::cut),
        FaultVerb::Heal(cut) => change_cut(paths, &mut manifest, &cut, "heal", fault::Faults::heal),
        FaultVerb::Pause { member, span_ms } => {
            require_daemon(&manifest, &member)?;
            pause(paths, lock, manifest, &member, span_ms)
        }
        FaultVerb::Resume { member } => {
            require_daemon(&manifest, &member)?;
            let at_ns = now_ns();
            let processes = process::resume_all(&namespace(&member))?;
            manifest.faults.paused.remove(&member);
            manifest.store(paths)?;
            Ok(done("resume", member, at_ns, processes))
        }
    }
}

fn done(fault: &'static str, target: String, at_ns: u64, processes: usize) -> FaultReport {
    FaultReport {
        fault,
        target,
        at_ns,
        done_ns: now_ns(),
        processes,
    }
}

fn require_daemon(manifest: &Manifest, member: &str) -> anyhow::Result<()> {
    if manifest.topology.host(member).is_some() {
        return Ok(());
    }
    require_node(manifest, member).with_context(|| format!("'{member}' is no node and no host"))
}

fn kill_node(paths: &LabPaths, manifest: &mut Manifest, node: &str) -> anyhow::Result<FaultReport> {
    let namespace = Namespace::named(paths.namespace(node));
    manifest.faults.killed.insert(node.to_owned());
    manifest.faults.paused.remove(node);
    // Recorded before it is done: a report of the lab never shows a dead node
    // as running.
    manifest.store(paths)?;
    let blocked = manifest.faults.blocked(&manifest.topology);
    let at_ns = now_ns();
    fault::apply(&site::switch(paths), &blocked)?;
    let processes = process::kill_all(&[&namespace])?;
    Ok(done("kill-node", node.to_owned(), at_ns, processes))
}

fn start_node(
    paths: &LabPaths,
    manifest: &mut Manifest,
    node: &str,
) -> anyhow::Result<FaultReport> {
    if !manifest.has_processes {
        bail!("this lab is only a network: it was built with --no-processes");
    }
    let at_ns = now_ns();
    manifest.faults.killed.remove(node);
    fault::apply(
        &site::switch(paths),
        &manifest.faults.blocked(&manifest.topology),
    )?;
    site::start_node(paths, manifest, node)?;
    manifest.store(paths)?;
    Ok(done("start-node", node.to_owned(), at_ns, 1))
}

fn change_cut(
    paths: &LabPaths,
    manifest: &mut Manifest,
    arguments: &CutArguments,
    name: &'static str,
    change: fn(&mut fault::Faults, &[crate::network::SwitchPort], Cut),
) -> anyhow::Result<FaultReport> {
    let (link, cut) = match (&arguments.from, &arguments.to) {
        (None, None) => (arguments.link.clone(), Cut::BOTH),
        (Some(member), _) => (
            format!("{}:{member}", arguments.link),
            Cut {
                from_member: true,
                to_member: false,
            },
        ),
        (None, Some(member)) => (
            format!("{}:{member}", arguments.link),
            Cut {
                from_member: false,
                to_member: true,
            },
        ),
    };
    let ports = fault::ports_of(&manifest.topology, &link)?;
    change(&mut manifest.faults, &ports, cut);
    let at_ns = now_ns();
    fault::apply(
        &site::switch(paths),
        &manifest.faults.blocked(&manifest.topology),
    )?;
    manifest.store(paths)?;
    Ok(done(name, link, at_ns, 0))
}

fn pause(
    paths: &LabPaths,
    lock: LabLock,
    mut manifest: Manifest,
    member: &str,
    span_ms: Option<u64>,
) -> anyhow::Result<FaultReport> {
    let namespace = Namespace::named(paths.namespace(member));
    manifest.faults.paused.insert(member.to_owned());
    manifest.store(paths)?;
    let at_ns = now_ns();
    let processes = process::pause_all(&namespace)?;
    let Some(span_ms) = span_ms else {
        return Ok(done("pause", member.to_owned(), at_ns, processes));
    };
    // Others may work on the lab meanwhile.
    drop(lock);
    sleep_until(at_ns + span_ms * NS_PER_MS);
    process::resume_all(&namespace)?;
    let report = done("pause", member.to_owned(), at_ns, processes);
    let _lock = LabLock::take(paths)?;
    let mut manifest = Manifest::load(paths)?;
    manifest.faults.paused.remove(member);
    manifest.store(paths)?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn spans_have_units() {
        assert_eq!(parse_span_ms("1s"), Ok(1000));
        assert_eq!(parse_span_ms("250ms"), Ok(250));
        assert_eq!(parse_span_ms("30"), Ok(30));
        assert!(parse_span_ms("1h").is_err());
        assert!(parse_span_ms("99999999999999999999s").is_err());
        assert!(parse_span_ms("3601s").is_err());
    }
}
