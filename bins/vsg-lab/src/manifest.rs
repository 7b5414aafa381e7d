//! The lab's own record: what was built, started and broken, in one JSON file.
//!
//! Invariants:
//! - M1: the file is written before the first namespace is made, and replaced
//!   whole (rename), so that `down` always finds a readable one or none.
//! - M2: whoever changes the lab holds its lock; readers need none, by M1.

use crate::fault::Faults;
use crate::paths::{LABS_ROOT, LabPaths};
use crate::topology::Topology;
use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Most tries to get a lock whose file others remove: each loss is one `down`
/// that ended in that instant.
const LOCK_TRIES: usize = 100;

/// The traffic that was started last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficRun {
    /// Host PIDs of its processes, by role.
    pub pids: BTreeMap<String, i32>,
    /// When it was complete, monotonic ns.
    pub started_ns: u64,
    /// When it ends by itself, monotonic ns.
    pub until_ns: u64,
    /// When it was stopped, monotonic ns; none while it runs.
    pub stopped_ns: Option<u64>,
}

/// Everything `vsg-lab` has to remember about one lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The site.
    pub topology: Topology,
    /// Where `vsgd`, `vemd` and `vsh` are.
    pub bin_dir: PathBuf,
    /// False for a lab that is only a network (`up --no-processes`).
    pub has_processes: bool,
    /// Host PIDs of the guardians that the lab started, by member.
    pub guardians: BTreeMap<String, i32>,
    /// What is broken at the moment.
    pub faults: Faults,
    /// The traffic that was started last.
    pub traffic: Option<TrafficRun>,
    /// Named moments, monotonic ns.
    pub marks: BTreeMap<String, u64>,
    /// From the start of the nodes to `Active with HA standby`, ms.
    pub boot_ms: Option<u64>,
}

impl Manifest {
    /// Reads the manifest of a lab that is up.
    ///
    /// # Errors
    /// When there is no such lab, or its manifest is damaged.
    pub fn load(paths: &LabPaths) -> anyhow::Result<Self> {
        let file = paths.manifest();
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("there is no lab '{}': `vsg-lab up` builds it", paths.name());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))
    }

    /// Replaces the stored manifest.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn store(&self, paths: &LabPaths) -> anyhow::Result<()> {
        let file = paths.manifest();
        let fresh = file.with_extension("new");
        let text = serde_json::to_string_pretty(self).context("manifest to JSON")?;
        std::fs::write(&fresh, text)
            .and_then(|()| std::fs::rename(&fresh, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The right to change one lab, held until dropped.
#[derive(Debug)]
pub struct LabLock {
    _file: File,
}

impl LabLock {
    /// Waits for the lock of a lab that is up.
    ///
    /// # Errors
    /// When there is no such lab, and as [`Self::take`].
    pub fn of_existing(paths: &LabPaths) -> anyhow::Result<Self> {
        // Without a lab there is nothing to lock, and no lock file to leave.
        Manifest::load(paths)?;
        Self::take(paths)
    }

    /// Waits for the lab's lock.
    ///
    /// # Errors
    /// When the lock file cannot be made: usually for lack of root.
    pub fn take(paths: &LabPaths) -> anyhow::Result<Self> {
        let path = paths.lock();
        for _ in 0..LOCK_TRIES {
            std::fs::create_dir_all(LABS_ROOT)
                .with_context(|| format!("cannot make {LABS_ROOT} (is this root?)"))?;
            let file = match File::create(&path) {
                Ok(file) => file,
                // The last lab took the folder along just now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot make {}", path.display()));
                }
            };
            flock(&file, FlockOperation::LockExclusive).context("flock")?;
            // The holder before us may have removed the file on its way out.
            let same = std::fs::metadata(&path).is_ok_and(|on_disk| {
                file.metadata()
                    .is_ok_and(|ours| ours.ino() == on_disk.ino())
            });
            if same {
                return Ok(Self { _file: file });
            }
        }
        bail!("{} is removed again and again", path.display())
    }

    /// Gives the lock back and removes its file: the lab is gone.
    pub fn remove(self, paths: &LabPaths) {
        // A file left behind is only untidy; the next `up` uses it again.
        let _ = std::fs::remove_file(paths.lock());
    }
}
