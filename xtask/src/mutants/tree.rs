//! The copy of the sources that mutants are made in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// A copy of the clone's sources, with a target folder of its own.
#[derive(Debug)]
pub(crate) struct Tree {
    source: PathBuf,
    root: PathBuf,
    target: PathBuf,
}

/// A patched tree.
pub(crate) struct Patched<'a> {
    tree: &'a Tree,
    files: Vec<PathBuf>,
}

impl Tree {
    /// Brings the copy up to date with the clone as it is, commits or not. Files that have not
    /// changed are left alone, so that little is built anew.
    pub(crate) fn copy(workspace: &Workspace) -> Result<Self> {
        let folder = workspace.logs().join("mutants");
        let tree = Self {
            source: workspace.root().to_path_buf(),
            root: folder.join("tree"),
            target: folder.join("target"),
        };
        fs::create_dir_all(&tree.root).with_context(|| tree.root.display().to_string())?;
        let output = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(&tree.source)
            .output()
            .context("cannot run git")?;
        if !output.status.success() {
            bail!("git ls-files failed in {}", tree.source.display());
        }
        let names = String::from_utf8(output.stdout).context("file names are UTF-8")?;
        let names: Vec<PathBuf> = names
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .filter(|name| tree.source.join(name).is_file())
            .collect();
        for name in &names {
            tree.refresh(name)?;
        }
        tree.remove_others(&names)?;
        Ok(tree)
    }

    /// Copies one file if it differs.
    fn refresh(&self, name: &Path) -> Result<()> {
        let (from, to) = (self.source.join(name), self.root.join(name));
        let content = fs::read(&from).with_context(|| from.display().to_string())?;
        if fs::read(&to).is_ok_and(|old| old == content) {
            return Ok(());
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::write(&to, content).with_context(|| to.display().to_string())
    }

    /// Removes what the clone no longer has: a module that is gone must not be built.
    fn remove_others(&self, names: &[PathBuf]) -> Result<()> {
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let path = entry?.path();
                let name = path.strip_prefix(&self.root).unwrap_or(&path);
                if path.is_dir() {
                    folders.push(path);
                } else if !names.iter().any(|known| known == name) {
                    fs::remove_file(&path).with_context(|| path.display().to_string())?;
                }
            }
        }
        Ok(())
    }

    /// Applies a patch.
    pub(crate) fn patch(&self, patch: &Path) -> Result<Patched<'_>> {
        applies(&self.root, patch)?;
        git_apply(&self.root, &["--whitespace=nowarn"], patch)?;
        let text = fs::read_to_string(patch).with_context(|| patch.display().to_string())?;
        let files = text
            .lines()
            .filter_map(|line| line.strip_prefix("+++ b/"))
            .map(PathBuf::from)
            .collect();
        Ok(Patched { tree: self, files })
    }

    /// A cargo command in the copy.
    pub(crate) fn cargo(&self, words: &[&str]) -> Command {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut command = Command::new(cargo);
        command
            .args(words)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            // One change after the other is built: fast builds matter more than small programs.
            .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        command
    }

    /// A release binary of the copy.
    pub(crate) fn binary(&self, name: &str) -> Command {
        let mut command = Command::new(self.target.join("release").join(name));
        command.current_dir(&self.root);
        command
    }
}

impl Patched<'_> {
    /// Makes the copy clean again.
    pub(crate) fn restore(self) -> Result<()> {
        self.files
            .iter()
            .try_for_each(|name| self.tree.refresh(name))
    }
}

/// Whether `patch` applies to the sources in `root`.
fn applies(root: &Path, patch: &Path) -> Result<()> {
    git_apply(root, &["--check"], patch)
}

fn git_apply(root: &Path, words: &[&str], patch: &Path) -> Result<()> {
    let output = Command::new("git")
        .arg("apply")
        .args(words)
        .arg(patch)
        .current_dir(root)
        // Below the clone's folder git would take the patch for one of the clone.
        .env("GIT_CEILING_DIRECTORIES", root.parent().unwrap_or(root))
        .output()
        .context("cannot run git apply")?;
    if !output.status.success() {
        bail!(
            "{} does not apply: {}",
            patch.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
