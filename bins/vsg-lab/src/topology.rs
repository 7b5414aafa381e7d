//! The site as its file describes it: nodes, hosts, VMs and measured traffic.
//!
//! Invariants of a checked [`Topology`]:
//! - T1: member names are unique, and short enough for interface names.
//! - T2: one or two nodes; at most one primary and one secondary, and no secondary alone.
//! - T3: each VM's host exists; each traffic end names an existing VM.
//! - T4: no address is used twice.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;

/// The site that `up` builds when no file is given.
pub const DEFAULT_TOPOLOGY: &str = include_str!("../../../docs/examples/topology.toml");
/// Name of the namespace that joins all cables.
pub const SWITCH: &str = "switch";
/// Longest member name: `data-<name>` has to fit the kernel's 15 characters.
const MEMBER_NAME_MAX: usize = 8;
/// Most hosts or VMs of one lab: more than one machine can usefully run.
const MEMBERS_MAX: usize = 64;
/// Every network of the lab is a /24, so that a site reads at a glance.
pub const PREFIX_BITS: u8 = 24;

/// A node's administrative role, as `vsgd init --role` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// First of a pair.
    Primary,
    /// Second of a pair.
    Secondary,
    /// Alone.
    Standalone,
}

impl NodeRole {
    /// The word that `vsgd init --role` takes.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Standalone => "standalone",
        }
    }
}

/// What a port does with new flows when no gateway answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// Drop them.
    #[default]
    Close,
    /// Let them pass.
    Open,
}

/// One gateway node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, `sup-1` or `sup-2`.
    pub name: String,
    /// Its role at first boot.
    pub role: NodeRole,
    /// Address on the control HA link.
    pub ha0: Ipv4Addr,
    /// Address on the management HA link.
    pub ha1: Ipv4Addr,
    /// Address on the service network.
    pub service: Ipv4Addr,
}

/// One host, with its `vemd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Address on the service network.
    pub service: Ipv4Addr,
}

/// One virtual machine: a namespace behind a protected port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// The host that runs it.
    pub host: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The security profile of its port.
    pub profile: String,
    /// The fail mode of its port.
    #[serde(default)]
    pub fail_mode: FailMode,
}

impl Vm {
    /// The host's end of its cable: the protected port.
    #[must_use]
    pub fn port(&self) -> String {
        format!("vp-{}", self.name)
    }

    /// Its MAC address: locally administered, and its IP address readable.
    #[must_use]
    pub fn mac(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("02:09:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }
}

/// One end of measured traffic: `VM:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerEnd {
    /// The serving VM.
    pub vm: String,
    /// The port it listens on.
    pub port: u16,
}

impl TryFrom<String> for ServerEnd {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parsed = text.split_once(':').and_then(|(vm, port)| {
            Some(Self {
                vm: vm.to_owned(),
                port: port.parse().ok().filter(|port| *port > 0)?,
            })
        });
        parsed.ok_or_else(|| format!("'{text}' is not VM:PORT"))
    }
}

impl From<ServerEnd> for String {
    fn from(end: ServerEnd) -> Self {
        end.to_string()
    }
}

impl fmt::Display for ServerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.vm, self.port)
    }
}

/// The ends of the measured traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficPlan {
    /// The VM that all traffic starts from.
    pub client: String,
    /// TCP stream of one message each millisecond.
    pub stream: ServerEnd,
    /// New TCP connections at an open-loop rate.
    pub connections: ServerEnd,
    /// UDP flow of 1 kHz.
    pub udp: ServerEnd,
    /// TCP port that the policy must drop.
    pub forbidden: ServerEnd,
    /// nginx, asked by wrk.
    pub http: ServerEnd,
    /// iperf3.
    pub bulk: ServerEnd,
}

impl TrafficPlan {
    /// All serving ends, each with what it is for.
    #[must_use]
    pub fn ends(&self) -> [(&'static str, &ServerEnd); 6] {
        [
            ("stream", &self.stream),
            ("connections", &self.connections),
            ("udp", &self.udp),
            ("forbidden", &self.forbidden),
            ("http", &self.http),
            ("bulk", &self.bulk),
        ]
    }
}

/// A whole site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The pair's number, 1 to 4095.
    pub pair_id: u16,
    /// The gateway nodes.
    #[serde(rename = "node")]
    pub nodes: Vec<Node>,
    /// The hosts.
    #[serde(rename = "host")]
    pub hosts: Vec<Host>,
    /// The VMs.
    #[serde(rename = "vm")]
    pub vms: Vec<Vm>,
    /// What is measured; a site without it has no `traffic`.
    pub traffic: Option<TrafficPlan>,
}

/// Why a text is no topology.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The file cannot be read.
    #[error("cannot read the topology {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML of this shape.
    #[error("the topology is not readable: {0}")]
    Syntax(String),
    /// A name that cannot be used.
    #[error("'{0}' is no member name: letters and digits, a dash only before a digit, at most 8")]
    Name(String),
    /// Two members with one name.
    #[error("two members are called '{0}'")]
    Duplicate(String),
    /// Two members with one address.
    #[error("the address {0} is used twice")]
    AddressTwice(Ipv4Addr),
    /// A secondary alone, or two of a kind that is there once.
    #[error("the nodes must be one primary and one secondary, either of them may be standalone")]
    Roles,
    /// A reference to something that does not exist.
    #[error("'{referrer}' names '{missing}', which does not exist")]
    Missing {
        /// Who refers.
        referrer: String,
        /// To what.
        missing: String,
    },
    /// A number out of range.
    #[error("pair_id {0} is out of range (1 to 4095)")]
    PairId(u16),
    /// More members than a lab may have.
    #[error("a lab has at most {MEMBERS_MAX} hosts and {MEMBERS_MAX} VMs")]
    TooMany,
}

impl Topology {
    /// Reads and checks a topology; without a file the embedded default.
    ///
    /// # Errors
    /// [`TopologyError`] says what is wrong with it.
    pub fn load(file: Option<&Path>) -> Result<Self, TopologyError> {
        match file {
            None => Self::parse(DEFAULT_TOPOLOGY),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| TopologyError::Unreadable {
                        path: path.display().to_string(),
                        source,
                    })?;
                Self::parse(&text)
            }
        }
    }

    /// Reads and checks a topology.
    ///
    /// # Errors
    /// [`TopologyError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TopologyError> {
        let topology: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| {
                text.bytes()
                    .take(span.start)
                    .filter(|byte| *byte == b'\n')
                    .count()
                    + 1
            });
            TopologyError::Syntax(format!(
                "line {line}: {}",
                error.message().replace('\n', " ")
            ))
        })?;
        topology.check()?;
        Ok(topology)
    }

    /// Checks T1 to T4.
    fn check(&self) -> Result<(), TopologyError> {
        if !(1..=4095).contains(&self.pair_id) {
            return Err(TopologyError::PairId(self.pair_id));
        }
        if self.hosts.len() > MEMBERS_MAX || self.vms.len() > MEMBERS_MAX {
            return Err(TopologyError::TooMany);
        }
        self.check_names()?;
        let mut roles: Vec<_> = self.nodes.iter().map(|node| node.role.word()).collect();
        roles.sort_unstable();
        if !matches!(
            roles[..],
            ["standalone" | "primary"]
                | ["primary", "secondary" | "standalone"]
                | ["secondary" | "standalone", "standalone"]
        ) {
            return Err(TopologyError::Roles);
        }
        self.check_references()?;
        let mut seen = BTreeSet::new();
        let nodes = self
            .nodes
            .iter()
            .flat_map(|node| [node.ha0, node.ha1, node.service]);
        let hosts = self.hosts.iter().map(|host| host.service);
        let vms = self.vms.iter().map(|vm| vm.address);
        for address in nodes.chain(hosts).chain(vms) {
            if !seen.insert(address) {
                return Err(TopologyError::AddressTwice(address));
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), TopologyError> {
        let mut seen = BTreeSet::from([SWITCH]);
        for name in self.member_names() {
            if !is_member_name(name) {
                return Err(TopologyError::Name(name.to_owned()));
            }
            if !seen.insert(name) {
                return Err(TopologyError::Duplicate(name.to_owned()));
            }
        }
        Ok(())
    }

    fn check_references(&self) -> Result<(), TopologyError> {
        let missing = |referrer: &str, missing: &str| TopologyError::Missing {
            referrer: referrer.to_owned(),
            missing: missing.to_owned(),
        };
        for vm in &self.vms {
            if self.host(&vm.host).is_none() {
                return Err(missing(&vm.name, &vm.host));
            }
        }
        if let Some(plan) = &self.traffic {
            let ends = plan.ends();
            let wanted = ends
                .iter()
                .map(|(what, end)| (*what, end.vm.as_str()))
                .chain([("client", plan.client.as_str())]);
            for (what, vm) in wanted {
                if self.vm(vm).is_none() {
                    return Err(missing(&format!("traffic.{what}"), vm));
                }
            }
        }
        Ok(())
    }

    /// The names of all nodes, hosts and VMs.
    pub fn member_names(&self) -> impl Iterator<Item = &str> {
        let nodes = self.nodes.iter().map(|node| node.name.as_str());
        let hosts = self.hosts.iter().map(|host| host.name.as_str());
        nodes
            .chain(hosts)
            .chain(self.vms.iter().map(|vm| vm.name.as_str()))
    }

    /// The node called `name`.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The host called `name`.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The VM called `name`.
    #[must_use]
    pub fn vm(&self, name: &str) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.name == name)
    }

    /// The other node of the pair.
    #[must_use]
    pub fn peer_of(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name != name)
    }

    /// The VMs of `host`.
    pub fn vms_of<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Vm> {
        self.vms.iter().filter(move |vm| vm.host == host)
    }
}

/// A dash only before a digit: with it, no two labs can make one namespace
/// name (`tw-a-b-web` belongs to the lab `a-b`, never to `a`).
pub(crate) fn is_member_name(name: &str) -> bool {
    crate::paths::is_plain_name(name, MEMBER_NAME_MAX)
        && name
            .split('-')
            .skip(1)
            .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_site_is_sound() {
        let topology = Topology::load(None).expect("the embedded topology");
        assert_eq!(topology.nodes.len(), 2);
        assert_eq!(
            topology.vm("web").map(Vm::mac).as_deref(),
            Some("02:09:0a:09:00:0b")
        );
        assert_eq!(
            topology.peer_of("sup-1").map(|node| node.name.as_str()),
            Some("sup-2")
        );
    }

    fn broken(from: &str, to: &str) -> String {
        assert!(DEFAULT_TOPOLOGY.contains(from), "{from}");
        let text = DEFAULT_TOPOLOGY.replacen(from, to, 1);
        Topology::parse(&text)
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn each_fault_of_a_topology_is_named() {
        assert!(broken("pair_id = 10", "pair_id = 4096").contains("4096"));
        assert!(broken("name = \"web\"", "name = \"app\"").contains("'app'"));
        assert!(broken("name = \"web\"", "name = \"switch\"").contains("'switch'"));
        assert!(broken("name = \"web\"", "name = \"web-x\"").contains("'web-x'"));
        assert!(broken("name = \"web\"", "name = \"longername\"").contains("'longername'"));
        assert!(broken("host = \"host-1\"", "host = \"host-9\"").contains("'host-9'"));
        assert!(broken("10.9.0.11", "10.9.0.12").contains("10.9.0.12"));
        assert!(broken("role = \"secondary\"", "role = \"primary\"").contains("one primary"));
        assert!(broken("stream = \"app:8001\"", "stream = \"app\"").contains("VM:PORT"));
        assert!(broken("stream = \"app:8001\"", "stream = \"xyz:1\"").contains("'xyz'"));
        assert!(broken("role = \"secondary\"", "role = \"chief\"").contains("line "));
        assert!(broken("pair_id = 10", "pair_id = 10\nspeed = 3").contains("speed"));
    }

    #[test]
    fn no_two_labs_share_a_namespace_name() {
        // The dangerous case: lab "a" with member "b-web", lab "a-b" with "web".
        assert!(!is_member_name("b-web"));
        assert!(is_member_name("sup-1"));
        assert!(!is_member_name("1"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Topology::load(Some(Path::new("/no/such.toml"))).expect_err("missing");
        assert!(error.to_string().contains("/no/such.toml"));
    }
}
