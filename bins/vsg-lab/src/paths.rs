//! Names and places: what a lab's namespaces and files are called.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the folders of all labs are.
pub const LABS_ROOT: &str = "/run/twinwall-lab";
/// Longest lab name. Namespace names are file names, so this is only for
/// readable listings.
const LAB_NAME_MAX: usize = 24;

/// The name of a lab: lower-case letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabName(String);

/// Why a text is no lab name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is no lab name: 1 to 24 lower-case letters, digits or dashes, a letter first")]
pub struct LabNameError(String);

impl FromStr for LabName {
    type Err = LabNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_plain_name(text, LAB_NAME_MAX) {
            Ok(Self(text.to_owned()))
        } else {
            Err(LabNameError(text.to_owned()))
        }
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// True when `text` is a letter followed by letters, digits or dashes (all
/// lower case), at most `longest` long.
#[must_use]
pub fn is_plain_name(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// The places of one lab.
#[derive(Debug, Clone)]
pub struct LabPaths {
    name: LabName,
    root: PathBuf,
}

impl LabPaths {
    /// The places of the lab called `name`.
    #[must_use]
    pub fn new(name: LabName) -> Self {
        let root = Path::new(LABS_ROOT).join(&name.0);
        Self { name, root }
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &LabName {
        &self.name
    }

    /// The lab's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The prefix of every namespace of this lab.
    ///
    /// A lab name may be another's beginning ("a" and "a-b"), so a listing by
    /// prefix is no list of this lab's namespaces; [`crate::topology`] is.
    #[must_use]
    pub fn namespace(&self, member: &str) -> String {
        format!("tw-{}-{member}", self.name)
    }

    /// Where the manifest is.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.root.join("manifest.json")
    }

    /// The lock that one `vsg-lab` holds while it changes the lab.
    ///
    /// Beside the folder, not in it: `down` removes the folder while it holds
    /// the lock.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        Path::new(LABS_ROOT).join(format!(".{}.lock", self.name))
    }

    /// The folder of all logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The log file of `member`'s process.
    #[must_use]
    pub fn log_of(&self, member: &str) -> PathBuf {
        self.logs().join(format!("{member}.log"))
    }

    /// The file that takes a member's standard output and standard error.
    #[must_use]
    pub fn output_of(&self, member: &str) -> PathBuf {
        self.logs().join(format!("{member}.out"))
    }

    /// The configuration file of a node or a host.
    #[must_use]
    pub fn config_of(&self, member: &str) -> PathBuf {
        self.root.join("etc").join(format!("{member}.toml"))
    }

    /// The durable state of a node or a host; survives kill-node.
    #[must_use]
    pub fn state_of(&self, member: &str) -> PathBuf {
        self.root.join("state").join(member)
    }

    /// The volatile state of a node or a host: a tmpfs, lost with kill-node.
    #[must_use]
    pub fn run_of(&self, member: &str) -> PathBuf {
        self.root.join("run").join(member)
    }

    /// The console socket of a node.
    #[must_use]
    pub fn console_of(&self, node: &str) -> PathBuf {
        self.run_of(node).join("console.sock")
    }

    /// Where the traffic's records are: a tmpfs.
    #[must_use]
    pub fn traffic(&self) -> PathBuf {
        self.root.join("traffic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lab_names_are_plain() {
        for good in ["lab", "a", "lab-2", "x1"] {
            assert!(good.parse::<LabName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "Lab", "a/b", "a b", "1a", "..", &"x".repeat(25)] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn everything_of_a_lab_carries_its_name() {
        let paths = LabPaths::new("blue".parse().expect("a plain name"));
        assert_eq!(paths.namespace("sup-1"), "tw-blue-sup-1");
        assert!(
            paths
                .console_of("sup-1")
                .starts_with("/run/twinwall-lab/blue")
        );
    }
}
