//! What a lab could leave behind, compared before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Programs of the product: whose processes are looked for.
const PROGRAMS: [&str; 4] = ["vsgd", "vemd", "vsh", "vsg-lab"];

/// Everything a lab could leave on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Named network namespaces.
    pub namespaces: BTreeSet<String>,
    /// Host PIDs and names of the product's processes.
    pub processes: BTreeSet<String>,
    /// Mount points of labs, bpf file systems among them.
    pub mounts: BTreeSet<String>,
    /// Folders of labs.
    pub folders: BTreeSet<String>,
}

impl Inventory {
    /// Looks around, at what belongs to the lab called `lab`.
    #[must_use]
    pub fn of_lab(lab: &str) -> Self {
        Self {
            namespaces: names(Path::new("/run/netns"))
                .into_iter()
                .filter(|name| name.starts_with(&format!("tw-{lab}-")))
                .collect(),
            processes: processes(&format!("/{lab}/")),
            mounts: mounts(&format!("/{lab}/")),
            folders: names(Path::new("/run/twinwall-lab"))
                .into_iter()
                .filter(|name| name.trim_matches('.').starts_with(lab))
                .collect(),
        }
    }

    /// True when there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
            && self.processes.is_empty()
            && self.mounts.is_empty()
            && self.folders.is_empty()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Processes of the product whose command line mentions the lab's folder.
fn processes(mark: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pid in names(Path::new("/proc"))
        .into_iter()
        .filter(|name| name.parse::<u32>().is_ok())
    {
        // A process may end while it is looked at.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let program = line.split(' ').next().unwrap_or_default();
        let ours = PROGRAMS
            .iter()
            .any(|name| program.rsplit('/').next() == Some(name));
        if ours && line.contains(mark) {
            found.insert(format!("{pid} {}", line.trim()));
        }
    }
    found
}

fn mounts(mark: &str) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    points
        .filter(|point| point.starts_with("/run/twinwall-lab") && point.contains(mark))
        .map(str::to_owned)
        .collect()
}
