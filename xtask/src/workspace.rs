//! Where the clone and its target folder are, and how cargo is called in them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

/// The packages whose binaries the lab runs.
pub(crate) const PRODUCT: [&str; 4] = ["vsgd", "vemd", "vsh", "vsg-lab"];

/// The clone this command runs in.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Asks cargo, so that `CARGO_TARGET_DIR`, a configured target folder and a call from a
    /// sub-folder mean here what they mean to cargo.
    pub(crate) fn discover() -> Result<Self> {
        let output = Command::new(cargo())
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!(
                "cargo metadata failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
        let path = |key: &str| -> Result<PathBuf> {
            let text = metadata[key].as_str();
            Ok(text
                .with_context(|| format!("cargo metadata has no {key}"))?
                .into())
        };
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
        })
    }

    /// A cargo command in the clone's root, into the same target folder.
    pub(crate) fn cargo(&self, words: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command
            .args(words)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        // Set by `cargo run` for this process only; they would change what build scripts and
        // tests of the child see.
        for name in [
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "CARGO_PKG_NAME",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Builds `packages` in the release profile; cargo's own progress is shown.
    pub(crate) fn build_release(&self, packages: &[&str]) -> Result<()> {
        let mut command = self.cargo(&["build", "--release", "--quiet"]);
        for package in packages {
            command.args(["-p", package]);
        }
        let status = command.status().context("cannot run cargo build")?;
        if !status.success() {
            bail!("cargo build --release of {} failed", packages.join(", "));
        }
        Ok(())
    }

    /// Where the release binaries are.
    pub(crate) fn release_folder(&self) -> PathBuf {
        self.target.join("release")
    }

    /// The clone.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where this command keeps its logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.target.join("xtask")
    }

    /// Runs a release binary with the caller's terminal, and ends as it ends.
    pub(crate) fn hand_over(&self, binary: &str, words: &[String]) -> Result<ExitCode> {
        let program = self.release_folder().join(binary);
        let status = Command::new(&program)
            .args(words)
            .status()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let code = status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1);
        Ok(ExitCode::from(code))
    }
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
