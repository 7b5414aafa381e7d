//! The command line: verbs, and what each prints.

mod faults;

use crate::clock::NS_PER_MS;
use crate::manifest::Manifest;
use crate::namespace::Namespace;
use crate::paths::{LabName, LabPaths};
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
    /// Run `vsgd ARGS` beside a node (`vsgd sup-2 -- fingerprint`).
    Vsgd {
        /// The node.
        node: String,
        /// What vsgd is given; the node's `--config` is added.
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
        verb: faults::FaultVerb,
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
    /// Build this node too, but leave it switched off; start-node starts it.
    #[arg(long, value_name = "NODE")]
    pub off: Vec<String>,
    /// Only the network: start no node and no host agent.
    #[arg(long)]
    pub no_processes: bool,
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
        Verb::Vemd { host, arguments } => {
            require_host(&Manifest::load(&paths)?, &host)?;
            return run_daemon(&paths, "vemd", &host, &arguments);
        }
        Verb::Vsgd { node, arguments } => {
            require_node(&Manifest::load(&paths)?, &node)?;
            return run_daemon(&paths, "vsgd", &node, &arguments);
        }
        Verb::Exec { vm, command } => return run_exec(&paths, &vm, &command),
        Verb::Traffic { verb } => traffic::run(&paths, verb, json)?,
        Verb::Fault { verb } => {
            site::require_root()?;
            let report = faults::run(&paths, verb)?;
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
    for node in &up.off {
        if topology.node(node).is_none() {
            bail!("there is no node '{node}' in the topology");
        }
    }
    let plan = UpPlan {
        topology,
        off: up.off.into_iter().collect(),
        bin_dir,
        has_processes: !up.no_processes,
        waits: !up.no_wait && !up.no_processes,
    };
    let led = if plan.topology.nodes.len() > plan.off.len() + 1 {
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

/// Runs a verb of a member's own daemon in the member's network, with its configuration.
fn run_daemon(
    paths: &LabPaths,
    program: &str,
    member: &str,
    arguments: &[String],
) -> anyhow::Result<ExitCode> {
    site::require_root()?;
    let manifest = Manifest::load(paths)?;
    Namespace::named(paths.namespace(member)).enter()?;
    let mut command = Command::new(manifest.bin_dir.join(program));
    command.args(arguments);
    if !arguments.iter().any(|one| one == "--config") {
        command.arg("--config").arg(paths.config_of(member));
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
