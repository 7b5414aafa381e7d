//! What the lab looks like at the moment.

use crate::manifest::Manifest;
use crate::namespace::{Namespace, all_processes};
use crate::paths::LabPaths;
use crate::site;
use serde::Serialize;
use std::fmt::Write as _;

/// One node, host or VM.
#[derive(Debug, Clone, Serialize)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// `node`, `host` or `vm`.
    pub kind: &'static str,
    /// Its addresses.
    pub addresses: Vec<std::net::Ipv4Addr>,
    /// The host of a VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its processes: host PID and command line.
    pub processes: Vec<(i32, String)>,
    /// `up`, `killed`, `paused` or `no processes`.
    pub state: &'static str,
    /// What a node says of itself (`Active with HA standby`, …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_state: Option<String>,
}

/// The whole lab.
#[derive(Debug, Clone, Serialize)]
pub struct LabStatus {
    /// The lab's name.
    pub lab: String,
    /// Its folder.
    pub folder: std::path::PathBuf,
    /// Time from start to `Active with HA standby`, ms.
    pub boot_ms: Option<u64>,
    /// The members.
    pub members: Vec<MemberStatus>,
    /// Cables cut by hand.
    pub cuts: std::collections::BTreeMap<String, crate::fault::Cut>,
    /// True while measured traffic runs.
    pub traffic_runs: bool,
}

/// Looks at every member.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn collect(paths: &LabPaths, manifest: &Manifest) -> anyhow::Result<LabStatus> {
    let topology = &manifest.topology;
    let all = all_processes()?;
    let mut members = Vec::new();
    let nodes = topology.nodes.iter().map(|node| {
        (
            &node.name,
            "node",
            vec![node.ha0, node.ha1, node.service],
            None,
        )
    });
    let hosts = topology
        .hosts
        .iter()
        .map(|host| (&host.name, "host", vec![host.service], None));
    let vms = topology
        .vms
        .iter()
        .map(|vm| (&vm.name, "vm", vec![vm.address], Some(vm.host.clone())));
    for (name, kind, addresses, host) in nodes.chain(hosts).chain(vms) {
        let inode = Namespace::named(paths.namespace(name)).inode().unwrap_or(0);
        let processes: Vec<_> = all
            .values()
            .filter(|process| inode != 0 && process.netns == inode)
            .map(|process| (process.pid, process.arguments.join(" ")))
            .collect();
        let state = if manifest.faults.killed.contains(name) {
            "killed"
        } else if manifest.faults.paused.contains(name) {
            "paused"
        } else if inode == 0 {
            "no namespace"
        } else if kind != "vm" && processes.is_empty() {
            "no processes"
        } else {
            "up"
        };
        let internal_state = (kind == "node" && state == "up")
            .then(|| site::internal_state(paths, &manifest.bin_dir, name))
            .map(|state| state.unwrap_or_else(|error| format!("unknown ({error:#})")));
        members.push(MemberStatus {
            name: name.clone(),
            kind,
            addresses,
            host,
            processes,
            state,
            internal_state,
        });
    }
    let traffic_runs = manifest
        .traffic
        .as_ref()
        .is_some_and(crate::traffic::is_running);
    Ok(LabStatus {
        lab: paths.name().to_string(),
        folder: paths.root().to_owned(),
        boot_ms: manifest.boot_ms,
        members,
        cuts: manifest.faults.cuts.clone(),
        traffic_runs,
    })
}

/// The status as a table.
#[must_use]
pub fn render(status: &LabStatus) -> String {
    let mut text = format!("lab {} in {}\n", status.lab, status.folder.display());
    for member in &status.members {
        let addresses: Vec<_> = member.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "  {:<8} {:<5} {:<34} {:<13} {:>3} processes  {}",
            member.name,
            member.kind,
            addresses.join(" "),
            member.state,
            member.processes.len(),
            member
                .internal_state
                .as_deref()
                .or(member.host.as_deref())
                .unwrap_or(""),
        );
    }
    for (port, cut) in &status.cuts {
        let way = match (cut.from_member, cut.to_member) {
            (true, true) => "both ways",
            (true, false) => "what the member sends",
            (false, true) => "what is sent to the member",
            (false, false) => "nothing",
        };
        let _ = writeln!(text, "  cut: {port} ({way})");
    }
    let _ = writeln!(
        text,
        "  traffic: {}",
        if status.traffic_runs {
            "running"
        } else {
            "none"
        }
    );
    text
}
