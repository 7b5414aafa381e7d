//! Starting the site's processes, and signalling all those of one member.

use crate::clock::{self, now_ns};
use crate::namespace::{Namespace, Process, processes_within};
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long the members' processes get to end by themselves at `down`.
const GRACE: Duration = Duration::from_secs(3);
/// How long a killed member may still show processes: a process in an
/// uninterruptible disk write dies only after it.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Most rounds of stopping: a parent may start a child between the look and
/// the signal, but not again once it is stopped itself.
const STOP_ROUNDS: usize = 8;

/// Starts `program` inside `namespace`, detached from this process's terminal,
/// its output appended to `output`.
///
/// # Errors
/// When the namespace, the program or the output file is not there.
pub fn start(
    namespace: &Namespace,
    program: &Path,
    arguments: &[String],
    output: &Path,
) -> anyhow::Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(output)
        .with_context(|| format!("cannot write {}", output.display()))?;
    let errors = log.try_clone().context("duplicate the output file")?;
    namespace.run(|| {
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .current_dir("/")
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))
    })
}

/// Sends `signal`; false when the process is already gone.
#[must_use]
pub fn send(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// The processes of the members in these namespaces.
///
/// # Errors
/// When a namespace does not exist or `/proc` cannot be read.
pub fn members(namespaces: &[&Namespace]) -> anyhow::Result<Vec<Process>> {
    let inodes: Vec<u64> = namespaces
        .iter()
        .map(|one| one.inode())
        .collect::<Result<_, _>>()?;
    processes_within(&inodes)
}

/// Ends every process of the namespaces with SIGKILL; gives how many there
/// were.
///
/// # Errors
/// When some are still there after 10 s.
pub fn kill_all(namespaces: &[&Namespace]) -> anyhow::Result<usize> {
    let deadline = now_ns() + KILL_LIMIT.as_nanos() as u64;
    let mut killed = BTreeSet::new();
    loop {
        let left = members(namespaces)?;
        if left.is_empty() {
            return Ok(killed.len());
        }
        for process in &left {
            if send(process.pid, Signal::KILL) {
                killed.insert(process.pid);
            }
        }
        if now_ns() > deadline {
            let pids: Vec<_> = left.iter().map(|process| process.pid.to_string()).collect();
            bail!("processes that do not die: {}", pids.join(" "));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until no process of the namespace is left: those of a node end by themselves, in the
/// kernel, when their guardian has.
///
/// # Errors
/// When some are still there after 10 s.
pub fn await_end(namespace: &Namespace) -> anyhow::Result<()> {
    let ended = clock::poll_until(KILL_LIMIT, Duration::from_millis(1), || {
        Ok(members(&[namespace])?.is_empty().then_some(()))
    })?;
    ended.with_context(|| format!("processes in {} that do not end", namespace.name()))
}

/// Ends every process of the namespaces: asks first, kills what stays.
///
/// # Errors
/// As [`kill_all`].
pub fn end_all(namespaces: &[&Namespace]) -> anyhow::Result<()> {
    let all = members(namespaces)?;
    let pids: BTreeSet<i32> = all.iter().map(|one| one.pid).collect();
    // Only who was not started by another of them: guardians stop their own
    // children in order. A stopped process hears nothing until it goes on.
    for process in all.iter().filter(|one| !pids.contains(&one.parent)) {
        let _ = send(process.pid, Signal::TERM);
    }
    for pid in pids {
        let _ = send(pid, Signal::CONT);
    }
    clock::poll_until(GRACE, Duration::from_millis(5), || {
        Ok(members(namespaces)?.is_empty().then_some(()))
    })?;
    kill_all(namespaces)?;
    Ok(())
}

/// Stops (SIGSTOP) every process of the namespace; gives how many.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn pause_all(namespace: &Namespace) -> anyhow::Result<usize> {
    let mut stopped = BTreeSet::new();
    for _ in 0..STOP_ROUNDS {
        let fresh: Vec<i32> = members(&[namespace])?
            .into_iter()
            .map(|process| process.pid)
            .filter(|pid| !stopped.contains(pid))
            .collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            let _ = send(pid, Signal::STOP);
            stopped.insert(pid);
        }
    }
    Ok(stopped.len())
}

/// Lets every process of the namespace go on (SIGCONT); gives how many.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn resume_all(namespace: &Namespace) -> anyhow::Result<usize> {
    let all = members(&[namespace])?;
    Ok(all
        .iter()
        .filter(|process| send(process.pid, Signal::CONT))
        .count())
}
