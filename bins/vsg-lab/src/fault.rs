//! Faults: what is cut, killed and stopped, and the frames the switch drops
//! for it.
//!
//! A cut is made in the switch, as a drop on its ports: carriers stay up, no
//! closing packet and no link event tells either end.
//!
//! Invariants:
//! - F1: [`Faults::blocked`] alone says what the switch drops; each change of
//!   the faults replaces the switch's sets in one transaction.
//! - F2: healing a cut never revives a killed node's cables, nor the reverse.

use crate::clock::now_ns;
use crate::namespace::{Namespace, Process};
use crate::network::{BRIDGES, SwitchPort, switch_ports};
use crate::process;
use crate::tool;
use crate::topology::Topology;
use anyhow::bail;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

/// Which way frames are dropped at a cable, seen from its member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// What the member sends.
    pub from_member: bool,
    /// What is sent to the member.
    pub to_member: bool,
}

impl Cut {
    /// Both ways.
    pub const BOTH: Self = Self {
        from_member: true,
        to_member: true,
    };

    fn with(self, other: Self) -> Self {
        Self {
            from_member: self.from_member || other.from_member,
            to_member: self.to_member || other.to_member,
        }
    }

    fn without(self, other: Self) -> Self {
        Self {
            from_member: self.from_member && !other.from_member,
            to_member: self.to_member && !other.to_member,
        }
    }

    fn is_nothing(self) -> bool {
        !self.from_member && !self.to_member
    }
}

/// What is broken at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Cuts by switch port (interface name).
    pub cuts: BTreeMap<String, Cut>,
    /// Pairs of switch ports between which nothing passes, each in the order of its names.
    #[serde(default)]
    pub between: BTreeSet<(String, String)>,
    /// Nodes that were killed and not started again.
    pub killed: BTreeSet<String>,
    /// Members whose processes are stopped.
    pub paused: BTreeSet<String>,
}

/// The interfaces whose frames the switch drops.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Frames that come in by these.
    pub incoming: BTreeSet<String>,
    /// Frames that would go out by these.
    pub outgoing: BTreeSet<String>,
    /// Frames that come in by the first and would go out by the second.
    pub between: BTreeSet<(String, String)>,
}

impl Faults {
    /// What the switch has to drop for these faults.
    #[must_use]
    pub fn blocked(&self, topology: &Topology) -> Blocked {
        let mut blocked = Blocked::default();
        for (one, two) in &self.between {
            blocked.between.insert((one.clone(), two.clone()));
            blocked.between.insert((two.clone(), one.clone()));
        }
        for port in switch_ports(topology) {
            let interface = port.interface();
            let mut cut = self.cuts.get(&interface).copied().unwrap_or_default();
            if self.killed.contains(&port.member) {
                cut = cut.with(Cut::BOTH);
            }
            if cut.from_member {
                blocked.incoming.insert(interface.clone());
            }
            if cut.to_member {
                blocked.outgoing.insert(interface);
            }
        }
        blocked
    }

    /// Adds `cut` at each of `ports`.
    pub fn cut(&mut self, ports: &[SwitchPort], cut: Cut) {
        for port in ports {
            let entry = self.cuts.entry(port.interface()).or_default();
            *entry = entry.with(cut);
        }
    }

    /// Takes `cut` away at each of `ports`.
    pub fn heal(&mut self, ports: &[SwitchPort], cut: Cut) {
        for port in ports {
            if let Some(entry) = self.cuts.get_mut(&port.interface()) {
                *entry = entry.without(cut);
            }
        }
        self.cuts.retain(|_, entry| !entry.is_nothing());
    }
}

/// Why a text names no cable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LinkError {
    /// No such bridge.
    #[error("there is no link '{0}': ha0, ha1, svc or data, or LINK:MEMBER for one cable")]
    NoLink(String),
    /// The member has no cable there.
    #[error("'{member}' has no cable at '{link}'")]
    NoCable {
        /// The link.
        link: String,
        /// The member.
        member: String,
    },
}

/// The switch ports that `text` names: a whole link (`ha0`), one cable
/// (`ha0:sup-1`), all cables of a member (`all:sup-1`), or everything (`all`).
///
/// # Errors
/// When there is no such link or cable.
pub fn ports_of(topology: &Topology, text: &str) -> Result<Vec<SwitchPort>, LinkError> {
    let (link, member) = match text.split_once(':') {
        Some((link, member)) => (link, Some(member)),
        None => (text, None),
    };
    if link != "all" && !BRIDGES.contains(&link) {
        return Err(LinkError::NoLink(link.to_owned()));
    }
    let ports: Vec<_> = switch_ports(topology)
        .into_iter()
        .filter(|port| link == "all" || port.bridge == link)
        .filter(|port| member.is_none_or(|member| port.member == member))
        .collect();
    if ports.is_empty() {
        return Err(LinkError::NoCable {
            link: link.to_owned(),
            member: member.unwrap_or("").to_owned(),
        });
    }
    Ok(ports)
}

/// The two ports that `text` names as `LINK:MEMBER+MEMBER`; none when it names no pair.
///
/// # Errors
/// When there is no such link or cable.
pub fn between(topology: &Topology, text: &str) -> Result<Option<(String, String)>, LinkError> {
    let Some((one, two)) = text.split_once('+') else {
        return Ok(None);
    };
    let link = one.split_once(':').map_or(one, |(link, _)| link);
    let mut names = Vec::new();
    for cable in [one.to_owned(), format!("{link}:{two}")] {
        let ports = ports_of(topology, &cable)?;
        let [port] = &ports[..] else {
            return Err(LinkError::NoLink(text.to_owned()));
        };
        names.push(port.interface());
    }
    names.sort();
    let two = names.pop().unwrap_or_default();
    let one = names.pop().unwrap_or_default();
    Ok(Some((one, two)))
}

/// Makes the switch's filter, dropping nothing yet.
///
/// # Errors
/// When the kernel has no nftables for bridges.
pub fn prepare_switch(switch: &Namespace) -> anyhow::Result<()> {
    nft(
        switch,
        "table bridge lab {\n\
         set incoming { type ifname; }\n\
         set outgoing { type ifname; }\n\
         set between { type ifname . ifname; }\n\
         chain entry { type filter hook prerouting priority -300; policy accept;\n\
           iifname @incoming counter drop; }\n\
         chain exit { type filter hook postrouting priority 300; policy accept;\n\
           oifname @outgoing counter drop; }\n\
         chain middle { type filter hook forward priority 0; policy accept;\n\
           iifname . oifname @between counter drop; }\n\
         }\n",
    )
}

/// Makes the switch drop exactly `blocked`, in one transaction.
///
/// # Errors
/// When `nft` refuses.
pub fn apply(switch: &Namespace, blocked: &Blocked) -> anyhow::Result<()> {
    nft(switch, &transaction(blocked))
}

fn transaction(blocked: &Blocked) -> String {
    let mut script = String::new();
    let quoted = |names: &BTreeSet<String>| -> Vec<String> {
        names.iter().map(|name| format!("\"{name}\"")).collect()
    };
    let pairs = blocked
        .between
        .iter()
        .map(|(from, to)| format!("\"{from}\" . \"{to}\""));
    for (set, elements) in [
        ("incoming", quoted(&blocked.incoming)),
        ("outgoing", quoted(&blocked.outgoing)),
        ("between", pairs.collect()),
    ] {
        let _ = writeln!(script, "flush set bridge lab {set}");
        if !elements.is_empty() {
            let elements = elements.join(", ");
            let _ = writeln!(script, "add element bridge lab {set} {{ {elements} }}");
        }
    }
    script
}

fn nft(switch: &Namespace, script: &str) -> anyhow::Result<()> {
    switch.run(|| {
        tool::run(Command::new("nft").args(["-f", "-"]), script)?;
        Ok(())
    })
}

/// When a fault took effect, for the measurements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultReport {
    /// The fault.
    pub fault: &'static str,
    /// What it struck.
    pub target: String,
    /// Just before its first effect, monotonic ns.
    pub at_ns: u64,
    /// When it was complete, monotonic ns.
    pub done_ns: u64,
    /// How many processes it struck.
    pub processes: usize,
}

/// What the System Manager's command line says of it.
const SYSTEM_MANAGER: &str = "sysmgr";

/// True when `process` is the node's System Manager: `… sysmgr --config FILE`.
fn is_system_manager(process: &Process) -> bool {
    process.arguments.get(1).map(String::as_str) == Some(SYSTEM_MANAGER)
}

/// True when `process` is the node's service `name`: its command line says
/// `… service NAME`, or its program is called so.
fn is_service(process: &Process, name: &str) -> bool {
    process.program() == name
        || process.program().strip_prefix("vsgd-") == Some(name)
        || process
            .arguments
            .windows(2)
            .any(|pair| pair[0] == "service" && pair[1] == name)
}

/// Ends one service of a node with SIGKILL.
///
/// # Errors
/// When the node runs no such service; the message lists those it runs.
pub fn kill_service(node: &Namespace, service: &str) -> anyhow::Result<FaultReport> {
    let targets = service_processes(node, service)?;
    let at_ns = now_ns();
    let processes = targets
        .iter()
        .filter(|pid| process::send(**pid, Signal::KILL))
        .count();
    Ok(FaultReport {
        fault: "kill-service",
        target: service.to_owned(),
        at_ns,
        done_ns: now_ns(),
        processes,
    })
}

/// The processes of a node's service, or of its System Manager by the name `sysmgr`.
///
/// # Errors
/// As [`kill_service`].
pub fn service_processes(node: &Namespace, service: &str) -> anyhow::Result<Vec<i32>> {
    let all = process::members(&[node])?;
    let is_wanted = |one: &&Process| {
        if service == SYSTEM_MANAGER {
            is_system_manager(one)
        } else {
            is_service(one, service)
        }
    };
    let targets: Vec<_> = all.iter().filter(is_wanted).map(|one| one.pid).collect();
    if targets.is_empty() {
        let running: BTreeSet<_> = all
            .iter()
            .flat_map(|one| one.arguments.windows(2))
            .filter(|pair| pair[0] == "service")
            .map(|pair| pair[1].as_str())
            .collect();
        let list: Vec<_> = running.into_iter().collect();
        bail!(
            "no service '{service}' runs there (running: {})",
            list.join(", ")
        );
    }
    Ok(targets)
}

/// Ends a node's System Manager with SIGKILL.
///
/// # Errors
/// When the node runs none.
pub fn kill_sysmgr(node: &Namespace) -> anyhow::Result<FaultReport> {
    let report = kill_service(node, SYSTEM_MANAGER)?;
    Ok(FaultReport {
        fault: "kill-sysmgr",
        ..report
    })
}

/// Ends a host agent's worker with SIGKILL, its guardian too when asked.
///
/// The guardian is known by its program; a worker by its parent, since it may
/// have been started as `/proc/self/exe`.
///
/// # Errors
/// When the host runs no such process.
pub fn kill_vemd(host: &Namespace, with_guardian: bool) -> anyhow::Result<FaultReport> {
    let all = process::members(&[host])?;
    let agents: BTreeSet<i32> = all
        .iter()
        .filter(|one| one.runs("vemd"))
        .map(|one| one.pid)
        .collect();
    let (guardians, others): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|one| agents.contains(&one.pid) && !agents.contains(&one.parent));
    let is_worker = |one: &Process| guardians.iter().any(|guardian| guardian.pid == one.parent);
    let workers: Vec<_> = others.into_iter().filter(is_worker).collect();
    let mut targets = workers;
    // The guardian first, so that it cannot start another worker meanwhile.
    if with_guardian {
        targets.splice(0..0, guardians);
    }
    if targets.is_empty() {
        bail!(
            "no vemd {} runs there",
            if with_guardian { "process" } else { "worker" }
        );
    }
    let at_ns = now_ns();
    let processes = targets
        .iter()
        .filter(|one| process::send(one.pid, Signal::KILL))
        .count();
    Ok(FaultReport {
        fault: "kill-vemd",
        target: host.name().to_owned(),
        at_ns,
        done_ns: now_ns(),
        processes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Topology {
        Topology::load(None).expect("the embedded topology")
    }

    fn names(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_link_is_all_its_cables_and_a_cable_is_one() {
        assert_eq!(ports_of(&site(), "ha0").map(|ports| ports.len()), Ok(2));
        assert_eq!(ports_of(&site(), "svc").map(|ports| ports.len()), Ok(4));
        assert_eq!(
            ports_of(&site(), "ha0:sup-1").map(|ports| ports.len()),
            Ok(1)
        );
        assert_eq!(
            ports_of(&site(), "all:sup-1").map(|ports| ports.len()),
            Ok(3)
        );
        assert_eq!(
            ports_of(&site(), "ha9"),
            Err(LinkError::NoLink("ha9".into()))
        );
        assert!(matches!(
            ports_of(&site(), "ha0:web"),
            Err(LinkError::NoCable { .. })
        ));
    }

    #[test]
    fn a_one_way_cut_blocks_one_way() {
        let mut faults = Faults::default();
        let ports = ports_of(&site(), "ha0:sup-1").expect("a cable");
        faults.cut(
            &ports,
            Cut {
                from_member: true,
                to_member: false,
            },
        );
        let blocked = faults.blocked(&site());
        assert_eq!(names(&blocked.incoming), ["ha0-sup-1"]);
        assert!(blocked.outgoing.is_empty());
    }

    #[test]
    fn a_pair_of_cables_is_cut_in_both_directions() {
        let pair = between(&site(), "svc:sup-1+host-2").expect("two cables");
        assert_eq!(between(&site(), "svc:host-2+sup-1"), Ok(pair.clone()));
        assert_eq!(between(&site(), "svc:sup-1"), Ok(None));
        assert!(between(&site(), "svc:sup-1+web").is_err());
        assert!(between(&site(), "all:sup-1+sup-2").is_err());
        let faults = Faults {
            between: pair.into_iter().collect(),
            ..Faults::default()
        };
        let script = transaction(&faults.blocked(&site()));
        for direction in [
            "\"svc-host-2\" . \"svc-sup-1\"",
            "\"svc-sup-1\" . \"svc-host-2\"",
        ] {
            assert!(script.contains(direction), "{script}");
        }
    }

    #[test]
    fn healing_and_starting_do_not_undo_each_other() {
        let mut faults = Faults::default();
        let ha0 = ports_of(&site(), "ha0").expect("a link");
        faults.cut(&ha0, Cut::BOTH);
        faults.killed.insert("sup-1".into());
        faults.heal(&ha0, Cut::BOTH);
        assert_eq!(
            names(&faults.blocked(&site()).incoming),
            ["ha0-sup-1", "ha1-sup-1", "svc-sup-1"]
        );
        faults.cut(&ha0, Cut::BOTH);
        faults.killed.clear();
        assert_eq!(
            names(&faults.blocked(&site()).outgoing),
            ["ha0-sup-1", "ha0-sup-2"]
        );
        faults.heal(&ha0, Cut::BOTH);
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn each_transaction_replaces_all_sets() {
        let script = transaction(&Blocked::default());
        assert_eq!(script.matches("flush set").count(), 3);
        assert!(!script.contains("add element"));
    }

    #[test]
    fn a_service_is_known_by_its_command_line() {
        let of = |arguments: &[&str]| Process {
            pid: 1,
            parent: 0,
            netns: 0,
            arguments: arguments.iter().map(|one| (*one).to_owned()).collect(),
        };
        assert!(is_service(
            &of(&["/x/vsgd", "service", "mts", "--fd", "3"]),
            "mts"
        ));
        assert!(is_service(&of(&["vsgd-mts"]), "mts"));
        assert!(!is_service(&of(&["/x/vsgd", "service", "pss"]), "mts"));
        assert!(!is_service(&of(&["/x/vsgd", "--config", "mts"]), "mts"));
    }
}
