//! What the lab tells the product: its configuration files, identities and
//! pins.

use crate::namespace::Namespace;
use crate::paths::LabPaths;
use crate::tool;
use crate::topology::{FailMode, Host, Node, Topology};
use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// UDP heartbeats and TCP control share this number on each HA link.
const LINK_PORT: u16 = 7100;
/// The port for bulk replication between the nodes.
const BULK_PORT: u16 = 7101;
/// The port where a node hears hosts.
const SERVICE_PORT: u16 = 7200;

#[derive(Serialize)]
struct LinkSection<'a> {
    name: &'a str,
    local: String,
    peer: String,
}

#[derive(Serialize)]
struct NodeConfig<'a> {
    name: &'a str,
    state_dir: PathBuf,
    run_dir: PathBuf,
    log_file: PathBuf,
    link: Vec<LinkSection<'a>>,
    service: ServiceSection,
    bulk: BulkSection,
}

#[derive(Serialize)]
struct ServiceSection {
    listen: String,
}

#[derive(Serialize)]
struct BulkSection {
    port: u16,
}

#[derive(Serialize)]
struct HostConfig<'a> {
    host: &'a str,
    state_dir: PathBuf,
    run_dir: PathBuf,
    log_file: PathBuf,
    gateway: Vec<GatewaySection>,
    port: Vec<PortSection<'a>>,
}

#[derive(Serialize)]
struct GatewaySection {
    address: String,
}

#[derive(Serialize)]
struct PortSection<'a> {
    name: &'a str,
    interface: String,
    mac: String,
    profile: &'a str,
    fail_mode: FailMode,
}

/// Writes each node's and host's configuration file.
pub(crate) fn write_configurations(paths: &LabPaths, topology: &Topology) -> anyhow::Result<()> {
    for node in &topology.nodes {
        write_toml(
            &paths.config_of(&node.name),
            &node_config(paths, topology, node),
        )?;
    }
    for host in &topology.hosts {
        write_toml(
            &paths.config_of(&host.name),
            &host_config(paths, topology, host),
        )?;
    }
    Ok(())
}

fn write_toml(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = toml::to_string(value).context("configuration to TOML")?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn node_config<'a>(paths: &LabPaths, topology: &'a Topology, node: &'a Node) -> NodeConfig<'a> {
    let mut link = Vec::new();
    if let Some(peer) = topology.peer_of(&node.name) {
        let end = |address: Ipv4Addr| format!("{address}:{LINK_PORT}");
        link.push(LinkSection {
            name: "ha0",
            local: end(node.ha0),
            peer: end(peer.ha0),
        });
        link.push(LinkSection {
            name: "ha1",
            local: end(node.ha1),
            peer: end(peer.ha1),
        });
    }
    NodeConfig {
        name: &node.name,
        state_dir: paths.state_of(&node.name),
        run_dir: paths.run_of(&node.name),
        log_file: paths.log_of(&node.name),
        link,
        service: ServiceSection {
            listen: format!("{}:{SERVICE_PORT}", node.service),
        },
        bulk: BulkSection { port: BULK_PORT },
    }
}

fn host_config<'a>(paths: &LabPaths, topology: &'a Topology, host: &'a Host) -> HostConfig<'a> {
    let gateway = topology
        .nodes
        .iter()
        .map(|node| GatewaySection {
            address: format!("{}:{SERVICE_PORT}", node.service),
        })
        .collect();
    let port = topology
        .vms_of(&host.name)
        .map(|vm| PortSection {
            name: &vm.name,
            interface: vm.port(),
            mac: vm.mac(),
            profile: &vm.profile,
            fail_mode: vm.fail_mode,
        })
        .collect();
    HostConfig {
        host: &host.name,
        state_dir: paths.state_of(&host.name),
        run_dir: paths.run_of(&host.name),
        log_file: paths.log_of(&host.name),
        gateway,
        port,
    }
}

/// Runs one of the product's one-shot verbs for `member`.
fn verb(
    paths: &LabPaths,
    bin_dir: &Path,
    program: &str,
    member: &str,
    verb: &str,
    more: &[&str],
) -> anyhow::Result<String> {
    let namespace = Namespace::named(paths.namespace(member));
    let program = bin_dir.join(program);
    namespace.run(|| {
        tool::run(
            Command::new(&program)
                .arg(verb)
                .arg("--config")
                .arg(paths.config_of(member))
                .args(more),
            "",
        )
    })
}

/// Gives each node and host its identity and pins the others' to it: what an
/// operator does by hand with the fingerprints in sight.
pub(crate) fn pair(paths: &LabPaths, topology: &Topology, bin_dir: &Path) -> anyhow::Result<()> {
    let pair_id = topology.pair_id.to_string();
    let mut nodes = BTreeMap::new();
    for node in &topology.nodes {
        let more = ["--role", node.role.word(), "--pair-id", &pair_id];
        let out = verb(paths, bin_dir, "vsgd", &node.name, "init", &more)?;
        nodes.insert(node.name.as_str(), fingerprint(&node.name, &out)?);
    }
    let mut hosts = BTreeMap::new();
    for host in &topology.hosts {
        let out = verb(paths, bin_dir, "vemd", &host.name, "init", &[])?;
        hosts.insert(host.name.as_str(), fingerprint(&host.name, &out)?);
    }
    for node in &topology.nodes {
        for (peer, print) in nodes.iter().filter(|(name, _)| **name != node.name) {
            verb(
                paths,
                bin_dir,
                "vsgd",
                &node.name,
                "pin",
                &["--peer", print],
            )
            .with_context(|| format!("{} does not pin {peer}", node.name))?;
        }
        for print in hosts.values() {
            verb(paths, bin_dir, "vsgd", &node.name, "pin", &["--vem", print])?;
        }
    }
    for host in &topology.hosts {
        for print in nodes.values() {
            verb(
                paths,
                bin_dir,
                "vemd",
                &host.name,
                "pin",
                &["--gateway", print],
            )?;
        }
    }
    Ok(())
}

fn fingerprint(member: &str, output: &str) -> anyhow::Result<String> {
    output
        .split_whitespace()
        .find(|word| word.starts_with("SHA256:"))
        .map(str::to_owned)
        .with_context(|| format!("the init of {member} printed no SHA256: fingerprint"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_have_the_agreed_fields() {
        let topology = Topology::load(None).expect("the embedded topology");
        let paths = LabPaths::new("t".parse().expect("a plain name"));
        let node = topology.node("sup-1").expect("sup-1");
        let text = toml::to_string(&node_config(&paths, &topology, node)).expect("TOML");
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(table["link"][0]["peer"].as_str(), Some("10.1.0.2:7100"));
        assert_eq!(table["link"][1]["local"].as_str(), Some("10.2.0.1:7100"));
        assert_eq!(table["service"]["listen"].as_str(), Some("10.3.0.1:7200"));
        assert_eq!(table["bulk"]["port"].as_integer(), Some(7101));
        let host = topology.host("host-2").expect("host-2");
        let text = toml::to_string(&host_config(&paths, &topology, host)).expect("TOML");
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(table["gateway"].as_array().map(Vec::len), Some(2));
        assert_eq!(table["port"][0]["interface"].as_str(), Some("vp-app"));
        assert_eq!(table["port"][0]["fail_mode"].as_str(), Some("close"));
    }

    #[test]
    fn a_fingerprint_is_found_in_other_words() {
        let print = fingerprint("x", "identity made\nSHA256:ab12 (keep it)\n").expect("there");
        assert_eq!(print, "SHA256:ab12");
        assert!(fingerprint("x", "nothing").is_err());
    }
}
