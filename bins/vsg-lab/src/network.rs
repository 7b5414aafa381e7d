//! The site's cables: namespaces, bridges, veth pairs, addresses.
//!
//! Each cable is a veth pair with one end in the switch namespace, so that a
//! fault can be made there and neither end's carrier shows it. The switch has
//! four bridges: `ha0`, `ha1`, `svc` and `data`.

use crate::namespace::Namespace;
use crate::paths::LabPaths;
use crate::tool;
use crate::topology::{PREFIX_BITS, SWITCH, Topology};
use anyhow::Context;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

/// The bridges of the switch.
pub const BRIDGES: [&str; 4] = ["ha0", "ha1", "svc", "data"];

/// Kernel settings of every namespace: no IPv6, because its discovery traffic
/// would be noise on links whose silence is being measured.
const QUIET_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv4/ip_forward", "0"),
];

/// Kernel settings where bridges are: frames are bridged, not IP-filtered.
const BRIDGE_SYSCTLS: &[(&str, &str)] = &[
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
];

/// Kernel settings of VMs. The measuring client binds its own source ports
/// below 61000 in turn (see `traffic::connections`); everything else gets the
/// ports above, so the two never meet.
const VM_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_local_port_range", "61000 65500"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/core/somaxconn", "4096"),
    ("net/ipv4/tcp_max_syn_backlog", "4096"),
    // A new site has no metrics of earlier connections to learn from.
    ("net/ipv4/tcp_no_metrics_save", "1"),
];

/// The names of all namespaces of the site, as `ip netns` shows them.
#[must_use]
pub fn namespaces(paths: &LabPaths, topology: &Topology) -> Vec<Namespace> {
    topology
        .member_names()
        .chain([SWITCH])
        .map(|member| Namespace::named(paths.namespace(member)))
        .collect()
}

/// One end of a cable in the switch: the bridge and the port's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SwitchPort {
    /// The bridge it is a member of.
    pub bridge: &'static str,
    /// The member whose cable it is.
    pub member: String,
}

impl SwitchPort {
    /// The name of the interface in the switch namespace.
    #[must_use]
    pub fn interface(&self) -> String {
        format!("{}-{}", self.bridge, self.member)
    }
}

/// All ports of the switch.
#[must_use]
pub fn switch_ports(topology: &Topology) -> BTreeSet<SwitchPort> {
    let nodes = topology.nodes.iter().flat_map(|node| {
        ["ha0", "ha1", "svc"].map(|bridge| SwitchPort {
            bridge,
            member: node.name.clone(),
        })
    });
    let hosts = topology.hosts.iter().flat_map(|host| {
        ["svc", "data"].map(|bridge| SwitchPort {
            bridge,
            member: host.name.clone(),
        })
    });
    nodes.chain(hosts).collect()
}

/// Builds the whole network.
///
/// # Errors
/// When a step fails; what was made until then is left for `down`.
pub fn build(paths: &LabPaths, topology: &Topology) -> anyhow::Result<()> {
    for namespace in namespaces(paths, topology) {
        tool::run(
            Command::new("ip").args(["netns", "add", namespace.name()]),
            "",
        )?;
        namespace.run(|| write_sysctls(QUIET_SYSCTLS))?;
    }
    for member in topology
        .hosts
        .iter()
        .map(|host| host.name.as_str())
        .chain([SWITCH])
    {
        // The bridge settings exist only with br_netfilter: without it there
        // is nothing to turn off.
        let namespace = Namespace::named(paths.namespace(member));
        namespace.run(|| {
            if std::path::Path::new("/proc/sys/net/bridge").exists() {
                write_sysctls(BRIDGE_SYSCTLS)?;
            }
            Ok(())
        })?;
    }
    for vm in &topology.vms {
        Namespace::named(paths.namespace(&vm.name)).run(|| write_sysctls(VM_SYSCTLS))?;
    }
    ip_batch(None, &cables(paths, topology))?;
    ip_batch(Some(&paths.namespace(SWITCH)), &switch_setup(topology))?;
    for (member, batch) in member_setups(topology) {
        ip_batch(Some(&paths.namespace(&member)), &batch)?;
    }
    Ok(())
}

/// Removes the namespaces that exist; gives the problems met.
#[must_use]
pub fn remove(paths: &LabPaths, topology: &Topology) -> Vec<String> {
    let mut problems = Vec::new();
    for namespace in namespaces(paths, topology) {
        if namespace.exists()
            && let Err(error) = tool::run(
                Command::new("ip").args(["netns", "del", namespace.name()]),
                "",
            )
        {
            problems.push(format!("{error:#}"));
        }
    }
    problems
}

fn write_sysctls(settings: &[(&str, &str)]) -> anyhow::Result<()> {
    for (name, value) in settings {
        let path = format!("/proc/sys/{name}");
        // A kernel without IPv6 has nothing to turn off.
        if name.starts_with("net/ipv6") && !std::path::Path::new(&path).exists() {
            continue;
        }
        std::fs::write(&path, value).with_context(|| format!("cannot set {name} to {value}"))?;
    }
    Ok(())
}

fn ip_batch(namespace: Option<&str>, batch: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    tool::run(command.args(["-batch", "-"]), batch)?;
    Ok(())
}

/// The veth pairs, each made with both ends in their namespaces at once, so
/// that no interface of the lab is ever seen outside (L2).
fn cables(paths: &LabPaths, topology: &Topology) -> String {
    let mut batch = String::new();
    let switch = paths.namespace(SWITCH);
    for port in switch_ports(topology) {
        let inner = if port.bridge == "svc" {
            "svc0"
        } else {
            port.bridge
        };
        let _ = writeln!(
            batch,
            "link add {inner} netns {} type veth peer name {} netns {switch}",
            paths.namespace(&port.member),
            port.interface(),
        );
    }
    for vm in &topology.vms {
        let _ = writeln!(
            batch,
            "link add eth0 address {} netns {} type veth peer name {} netns {}",
            vm.mac(),
            paths.namespace(&vm.name),
            vm.port(),
            paths.namespace(&vm.host),
        );
    }
    batch
}

/// A bridge that forwards at once and speaks no protocol of its own.
fn bridge_lines(batch: &mut String, name: &str) {
    let _ = writeln!(
        batch,
        "link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set {name} up"
    );
}

fn switch_setup(topology: &Topology) -> String {
    let mut batch = String::from("link set lo up\n");
    for bridge in BRIDGES {
        bridge_lines(&mut batch, bridge);
    }
    for port in switch_ports(topology) {
        let _ = writeln!(
            batch,
            "link set {} master {} up",
            port.interface(),
            port.bridge
        );
    }
    batch
}

fn member_setups(topology: &Topology) -> Vec<(String, String)> {
    let mut setups = Vec::new();
    for node in &topology.nodes {
        let mut batch = String::from("link set lo up\n");
        for (interface, address) in [("ha0", node.ha0), ("ha1", node.ha1), ("svc0", node.service)] {
            address_lines(&mut batch, interface, address);
        }
        setups.push((node.name.clone(), batch));
    }
    for host in &topology.hosts {
        let mut batch = String::from("link set lo up\n");
        address_lines(&mut batch, "svc0", host.service);
        bridge_lines(&mut batch, "br0");
        let _ = writeln!(batch, "link set data master br0 up");
        for vm in topology.vms_of(&host.name) {
            let _ = writeln!(batch, "link set {} master br0 up", vm.port());
        }
        setups.push((host.name.clone(), batch));
    }
    for vm in &topology.vms {
        let mut batch = String::from("link set lo up\n");
        address_lines(&mut batch, "eth0", vm.address);
        setups.push((vm.name.clone(), batch));
    }
    setups
}

fn address_lines(batch: &mut String, interface: &str, address: std::net::Ipv4Addr) {
    let _ = writeln!(
        batch,
        "address add {address}/{PREFIX_BITS} dev {interface}\nlink set {interface} up"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernel() {
        let topology = Topology::load(None).expect("the embedded topology");
        for port in switch_ports(&topology) {
            assert!(port.interface().len() <= 15, "{}", port.interface());
        }
        assert_eq!(switch_ports(&topology).len(), 10);
    }

    #[test]
    fn no_cable_is_made_outside_the_labs_namespaces() {
        let topology = Topology::load(None).expect("the embedded topology");
        let paths = LabPaths::new("blue".parse().expect("a plain name"));
        for line in cables(&paths, &topology).lines() {
            assert_eq!(line.matches("netns tw-blue-").count(), 2, "{line}");
        }
    }
}
