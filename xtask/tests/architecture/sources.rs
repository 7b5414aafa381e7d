//! The files of the clone, as the rules read them.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file and its text.
pub(crate) struct Source {
    /// Relative to the clone's root.
    pub(crate) path: PathBuf,
    /// The whole text.
    pub(crate) text: String,
}

impl Source {
    /// The lines of code, numbered from one: without comments, and without the tests at the end
    /// of the file.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
            .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
    }

    /// True for files that hold tests only.
    pub(crate) fn is_test(&self) -> bool {
        self.path
            .components()
            .any(|part| part.as_os_str() == "tests")
            || self.path.file_name().is_some_and(|name| name == "tests.rs")
    }
}

/// The clone's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the root")
        .to_owned()
}

/// Every file with this extension below `folder` (relative to the root).
pub(crate) fn files(folder: &str, extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(folder), extension, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every Rust file of the workspace.
pub(crate) fn rust_files() -> Vec<Source> {
    ["crates", "bins", "sim", "tests", "xtask"]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .collect()
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("the clone can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let path = path
                .strip_prefix(root())
                .expect("below the root")
                .to_owned();
            found.push(Source { path, text });
        }
    }
}

/// Fails with all `findings`, one a line, under the rule's sentence.
pub(crate) fn verdict(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}
