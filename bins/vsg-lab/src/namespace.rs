//! Entering network namespaces, and finding the processes inside them.

use anyhow::Context;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where `ip netns` keeps its names.
const NETNS_FOLDER: &str = "/run/netns";

/// A named network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace that `ip netns` calls `name`.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        Path::new(NETNS_FOLDER).join(&self.name)
    }

    /// True when it exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Its inode, by which the kernel names it in `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// When there is no such namespace.
    pub fn inode(&self) -> anyhow::Result<u64> {
        let meta = std::fs::metadata(self.path())
            .with_context(|| format!("there is no namespace {}", self.name))?;
        Ok(meta.ino())
    }

    /// Moves the calling thread, and what it starts from now on, into it.
    ///
    /// Only the network namespace changes; `/sys/class/net` keeps showing the
    /// devices of the namespace that mounted it.
    ///
    /// # Errors
    /// When there is no such namespace, or no right to enter it.
    pub fn enter(&self) -> anyhow::Result<()> {
        let file = File::open(self.path())
            .with_context(|| format!("there is no namespace {}", self.name))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter the namespace {}", self.name))
    }

    /// Runs `work` on a thread of its own inside the namespace.
    ///
    /// # Errors
    /// When it cannot be entered, and whatever `work` reports.
    pub fn run<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter()?;
                work()
            });
            match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// One process, as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its host PID.
    pub pid: i32,
    /// Its parent's host PID.
    pub parent: i32,
    /// The inode of its network namespace; 0 when it is a zombie.
    pub netns: u64,
    /// Its command line.
    pub arguments: Vec<String>,
}

impl Process {
    /// True when it runs `program` (or one whose name begins so, as a renamed
    /// worker's may), by itself or through an interpreter.
    #[must_use]
    pub fn runs(&self, program: &str) -> bool {
        self.arguments.iter().take(2).any(|word| {
            word.rsplit('/')
                .next()
                .is_some_and(|name| name.starts_with(program))
        })
    }

    /// The file name of its program, as its command line states it.
    #[must_use]
    pub fn program(&self) -> &str {
        self.arguments
            .first()
            .and_then(|a| a.rsplit('/').next())
            .unwrap_or("")
    }
}

fn read_process(pid: i32) -> Option<Process> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    // The name is in parentheses and may hold spaces and parentheses itself.
    let after_name = stat.get(stat.rfind(')')? + 2..)?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    let netns = std::fs::metadata(folder.join("ns/net")).map_or(0, |meta| meta.ino());
    let arguments = std::fs::read(folder.join("cmdline"))
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect();
    Some(Process {
        pid,
        parent,
        netns,
        arguments,
    })
}

/// Every live process of the machine, by PID.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn all_processes() -> anyhow::Result<BTreeMap<i32, Process>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").context("cannot read /proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process may end between the listing and the reading.
        if let Some(process) = read_process(pid) {
            found.insert(pid, process);
        }
    }
    Ok(found)
}

/// The processes inside the namespaces with these inodes, and all their
/// descendants wherever those are: a sandboxed service may have a network
/// namespace of its own.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn processes_within(inodes: &[u64]) -> anyhow::Result<Vec<Process>> {
    Ok(select_within(&all_processes()?, inodes, own_line()))
}

/// This process and its ancestors: never to be signalled, even when started
/// from a shell inside the lab.
fn own_line() -> Vec<i32> {
    let mut line = vec![std::process::id() as i32];
    while let Some(last) = line.last().copied() {
        match read_process(last) {
            Some(process) if process.parent > 0 && !line.contains(&process.parent) => {
                line.push(process.parent);
            }
            Some(_) | None => break,
        }
    }
    line
}

fn select_within(all: &BTreeMap<i32, Process>, inodes: &[u64], spared: Vec<i32>) -> Vec<Process> {
    let inside = |process: &Process| -> bool {
        // Up the line of parents, at most as many steps as there are processes.
        let mut current = Some(process);
        for _ in 0..all.len() {
            match current {
                Some(one) if inodes.contains(&one.netns) => return true,
                Some(one) => current = all.get(&one.parent),
                None => return false,
            }
        }
        false
    };
    all.values()
        .filter(|process| inside(process) && !spared.contains(&process.pid))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, netns: u64) -> (i32, Process) {
        (
            pid,
            Process {
                pid,
                parent,
                netns,
                arguments: vec!["/usr/bin/x".into()],
            },
        )
    }

    #[test]
    fn descendants_in_other_namespaces_belong_too() {
        let all: BTreeMap<_, _> = [
            process(1, 0, 1),
            process(10, 1, 77),
            process(11, 10, 99),
            process(12, 1, 1),
        ]
        .into();
        let pids: Vec<_> = select_within(&all, &[77], Vec::new())
            .into_iter()
            .map(|p| p.pid)
            .collect();
        assert_eq!(pids, [10, 11]);
    }

    #[test]
    fn the_callers_own_line_is_spared() {
        let all: BTreeMap<_, _> = [process(10, 1, 77), process(11, 10, 77)].into();
        let pids: Vec<_> = select_within(&all, &[77], vec![10])
            .into_iter()
            .map(|p| p.pid)
            .collect();
        assert_eq!(pids, [11]);
    }

    #[test]
    fn this_process_is_found_and_named() {
        let all = all_processes().expect("/proc");
        let me = &all[&(std::process::id() as i32)];
        assert!(me.program().starts_with("vsg_lab"), "{me:?}");
        assert!(me.netns != 0);
    }
}
