//! Running the programs of others: bounded in time, their complaint kept.

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The limit for `ip`, `nft` and the product's one-shot verbs. They need
/// milliseconds; a loaded two-core machine may stretch that a thousandfold.
pub const TOOL_LIMIT: Duration = Duration::from_secs(20);

/// What a finished program said.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// The last non-empty line of its complaint, for a one-line message.
    #[must_use]
    pub fn complaint(&self) -> String {
        let text = if self.stderr.trim().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        text.lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("no message")
            .to_owned()
    }
}

/// Waits for `child` at most `limit`; `None` when it still runs.
///
/// # Errors
/// When the kernel cannot watch the process.
pub fn wait_within(child: &mut Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    let deadline = crate::clock::now_ns() + limit.as_nanos() as u64;
    loop {
        let left = deadline.saturating_sub(crate::clock::now_ns());
        if left == 0 {
            return Ok(child.try_wait()?);
        }
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&crate::clock::timespec(left))) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(child.try_wait()?),
            Err(error) => return Err(error).context("poll"),
        }
    }
}

/// Runs `command` to its end within `limit`, feeding it `input`.
///
/// # Errors
/// When it cannot be started or does not end in time. A non-zero exit is not
/// an error here: see [`run`].
pub fn finish(command: &mut Command, input: &str, limit: Duration) -> anyhow::Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run '{name}'"))?;
    // Readers and writer run beside the wait, so that no full pipe blocks it.
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let fed = input.to_owned();
    let writer = std::thread::spawn(move || {
        if let Some(mut pipe) = stdin {
            // A program that does not read its input closes the pipe; its
            // exit status tells what matters.
            let _ = pipe.write_all(fed.as_bytes());
        }
    });
    let reader_out = std::thread::spawn(move || read_all(stdout));
    let reader_err = std::thread::spawn(move || read_all(stderr));
    let Some(status) = wait_within(&mut child, limit)? else {
        child.kill().ok();
        child.wait().ok();
        bail!("'{name}' did not finish within {} s", limit.as_secs());
    };
    writer.join().ok();
    Ok(Finished {
        status,
        stdout: reader_out.join().unwrap_or_default(),
        stderr: reader_err.join().unwrap_or_default(),
    })
}

fn read_all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs `command`, which must succeed; gives its standard output.
///
/// # Errors
/// As [`finish`], and when it exits non-zero: the message carries its last line.
pub fn run(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let finished = finish(command, input, TOOL_LIMIT)?;
    if !finished.status.success() {
        let arguments: Vec<_> = command
            .get_args()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        bail!(
            "'{} {}' failed: {}",
            command.get_program().to_string_lossy(),
            arguments.join(" "),
            finished.complaint()
        );
    }
    Ok(finished.stdout)
}

/// Finds `program` in the search path.
#[must_use]
pub fn in_path(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        // Debian's root shell may lack the system folders (`su` without `-`).
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(std::path::PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Checks that every one of `programs` is installed.
///
/// # Errors
/// Names the first that is missing and the Debian package that has it.
pub fn require(programs: &[(&str, &str)]) -> anyhow::Result<()> {
    for (program, package) in programs {
        if in_path(program).is_none() {
            bail!("'{program}' is not installed (Debian: apt-get install {package})");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended() {
        let started = std::time::Instant::now();
        let error = finish(
            Command::new("sleep").arg("30"),
            "",
            Duration::from_millis(50),
        )
        .expect_err("must not wait for it");
        assert!(error.to_string().contains("did not finish"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failure_carries_the_last_line_of_the_complaint() {
        let error = run(
            Command::new("sh").args(["-c", "echo first >&2; echo last >&2; exit 3"]),
            "",
        )
        .expect_err("exit 3");
        assert!(error.to_string().ends_with("failed: last"), "{error}");
    }

    #[test]
    fn input_larger_than_a_pipe_is_fed_and_read_back() {
        let text = "x".repeat(1 << 20);
        let out = run(&mut Command::new("cat"), &text).expect("cat");
        assert_eq!(out.len(), text.len());
    }

    #[test]
    fn a_missing_tool_is_named() {
        let error = require(&[("no-such-program-here", "nothing")]).expect_err("missing");
        assert!(error.to_string().contains("no-such-program-here"));
    }
}
