//! `vsg-lab fault`: its verbs, and how each is carried out.

use crate::clock::{NS_PER_MS, now_ns, sleep_until};
use crate::fault::{self, Cut, FaultReport};
use crate::manifest::{LabLock, Manifest};
use crate::namespace::Namespace;
use crate::paths::LabPaths;
use crate::process;
use crate::site;
use crate::sys;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use rustix::process::Signal;

use super::{require_host, require_node};

/// Longest `pause --for`, in milliseconds: an hour.
const PAUSE_MAX_MS: u64 = 3_600_000;

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
    /// SIGKILL a node's System Manager; its guardian starts the node afresh.
    KillSysmgr {
        /// The node.
        node: String,
    },
    /// SIGKILL a node's guardian, and with it, by the kernel, the node; start-node brings it back.
    KillGuardian {
        /// The node.
        node: String,
    },
    /// Give a killed node an empty disk: its identity, its pins and its state are gone.
    ReplaceNode {
        /// The node.
        node: String,
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
    /// Drop frames: LINK (ha0, ha1, svc, data), LINK:MEMBER, all:MEMBER, all, LINK:MEMBER+MEMBER.
    Cut(CutArguments),
    /// Undo a cut, in the same words.
    Heal(CutArguments),
    /// SIGSTOP every process of a node or host, or one service of a node.
    Pause {
        /// The node or host.
        member: String,
        /// Only this service of the node (or its `sysmgr`).
        #[arg(long)]
        service: Option<String>,
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

/// Makes or mends a fault.
///
/// # Errors
/// When there is no such member, or the fault cannot be made.
pub(super) fn run(paths: &LabPaths, verb: FaultVerb) -> anyhow::Result<FaultReport> {
    let lock = LabLock::of_existing(paths)?;
    let mut manifest = Manifest::load(paths)?;
    let namespace = |member: &str| Namespace::named(paths.namespace(member));
    match verb {
        FaultVerb::KillService { node, service } => {
            require_node(&manifest, &node)?;
            fault::kill_service(&namespace(&node), &service)
        }
        FaultVerb::KillSysmgr { node } => {
            require_node(&manifest, &node)?;
            fault::kill_sysmgr(&namespace(&node))
        }
        FaultVerb::KillGuardian { node } => {
            require_node(&manifest, &node)?;
            kill_guardian(paths, &mut manifest, &node)
        }
        FaultVerb::ReplaceNode { node } => {
            require_node(&manifest, &node)?;
            let at_ns = now_ns();
            site::empty_disk(paths, &node)?;
            Ok(done("replace-node", node, at_ns, 0))
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
        FaultVerb::Cut(cut) => change_cut(paths, &mut manifest, &cut, Change::Cut),
        FaultVerb::Heal(cut) => change_cut(paths, &mut manifest, &cut, Change::Heal),
        FaultVerb::Pause {
            member,
            service: Some(service),
            span_ms,
        } => {
            require_node(&manifest, &member)?;
            // Nothing of the manifest changes, and others may work on the lab meanwhile.
            drop(lock);
            pause_service(&namespace(&member), &service, span_ms)
        }
        FaultVerb::Pause {
            member,
            service: None,
            span_ms,
        } => {
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

/// What is done to a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Cut,
    Heal,
}

fn change_cut(
    paths: &LabPaths,
    manifest: &mut Manifest,
    arguments: &CutArguments,
    change: Change,
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
    let faults = &mut manifest.faults;
    if let Some(between) = fault::between(&manifest.topology, &link)? {
        match change {
            Change::Cut => faults.between.insert(between),
            Change::Heal => faults.between.remove(&between),
        };
    } else {
        let ports = fault::ports_of(&manifest.topology, &link)?;
        match change {
            Change::Cut => faults.cut(&ports, cut),
            Change::Heal => faults.heal(&ports, cut),
        }
        if change == Change::Heal && link == "all" {
            faults.between.clear();
        }
    }
    let at_ns = now_ns();
    fault::apply(
        &site::switch(paths),
        &manifest.faults.blocked(&manifest.topology),
    )?;
    manifest.store(paths)?;
    let name = match change {
        Change::Cut => "cut",
        Change::Heal => "heal",
    };
    Ok(done(name, link, at_ns, 0))
}

/// Kills the guardian; the kernel ends what it had started. The node counts as off until
/// start-node: a guardian is started by the machine, which here is the lab.
fn kill_guardian(
    paths: &LabPaths,
    manifest: &mut Manifest,
    node: &str,
) -> anyhow::Result<FaultReport> {
    let Some(pid) = manifest.guardians.get(node).copied() else {
        bail!("the lab has started no guardian of '{node}'");
    };
    let namespace = Namespace::named(paths.namespace(node));
    let is_there = process::members(&[&namespace])?
        .iter()
        .any(|one| one.pid == pid);
    let at_ns = now_ns();
    if !is_there || !process::send(pid, Signal::KILL) {
        bail!("the guardian of '{node}' does not run");
    }
    process::await_end(&namespace)?;
    manifest.faults.paused.remove(node);
    manifest.store(paths)?;
    Ok(done("kill-guardian", node.to_owned(), at_ns, 1))
}

fn pause_service(
    namespace: &Namespace,
    service: &str,
    span_ms: Option<u64>,
) -> anyhow::Result<FaultReport> {
    let targets = fault::service_processes(namespace, service)?;
    // A pause is as long as was asked for, also on a busy machine.
    let _ = sys::ask_real_time();
    let at_ns = now_ns();
    let send_all = |signal| {
        targets
            .iter()
            .filter(|pid| process::send(**pid, signal))
            .count()
    };
    let processes = send_all(Signal::STOP);
    if let Some(span_ms) = span_ms {
        sleep_until(at_ns + span_ms * NS_PER_MS);
        // One that was killed meanwhile needs no resuming.
        let _ = send_all(Signal::CONT);
    }
    Ok(done("pause", service.to_owned(), at_ns, processes))
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
    // As in `pause_service`.
    let _ = sys::ask_real_time();
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
