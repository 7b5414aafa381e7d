//! Runs a command with its output in a file and a limit on its time.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It exited with zero.
    Success,
    /// It exited with another code, or by a signal.
    Failure,
    /// It did not end in time; it and its children were killed.
    TimedOut,
}

/// Runs `command` with standard output and error in `log`.
///
/// The child leads its own process group, so that a limit that runs out ends the whole tree.
pub(crate) fn run_logged(mut command: Command, log: &Path, limit: Duration) -> Result<Ending> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let file = File::create(log).with_context(|| log.display().to_string())?;
    let errors = file.try_clone().context("cannot share the log file")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let group = format!("-{}", child.id());
    let (ended, wait) = mpsc::channel();
    thread::spawn(move || {
        // The receiver is gone only when the limit ran out, and then nobody asks any more.
        let _ = ended.send(child.wait());
    });
    match wait.recv_timeout(limit) {
        Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => {
            Ok(Ending::Success)
        }
        Ok(_) => Ok(Ending::Failure),
        Err(_) => {
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = wait.recv();
            Ok(Ending::TimedOut)
        }
    }
}
