//! Takes a lab down when its owner dies before it could.
//!
//! A destructor runs on a panic, not on SIGKILL or on Ctrl-C. So a shell in a process group of its
//! own waits on a pipe: a word means that the owner has seen to the lab itself; end of file means
//! that the owner is gone, and the shell takes the lab down.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Reads one line; without one, runs its arguments.
const SCRIPT: &str = r#"read -r word || "$@" >/dev/null 2>&1"#;

/// Waits beside a lab's owner. Dropping it without [`Guard::dismiss`] takes the lab down.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
}

impl Guard {
    /// Posts a guard for the lab called `lab`.
    ///
    /// # Errors
    /// When `sh` cannot be started.
    pub fn post(program: &Path, lab: &str) -> Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "lab-guard"])
            .arg(program)
            .args(["--lab", lab, "down"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the lab's guard (sh)")?;
        Ok(Self { shell })
    }

    /// Ends the guard: the lab was taken down, or stays up on purpose.
    pub fn dismiss(mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            // Fails only when the shell is gone already, and then there is nothing to dismiss.
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.shell.wait();
    }
}
