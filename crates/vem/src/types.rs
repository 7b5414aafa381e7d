//! The nouns of the host agent.

use core::net::Ipv4Addr;

use model::{Direction, FlowAttributes, FlowKey, Protocol};
use serde::{Deserialize, Serialize};

/// Ethertype of IPv4, the only one that is decided.
const ETHERTYPE_IPV4: u16 = 0x0800;

/// A protected port: its place in [`crate::Settings::ports`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortIndex(pub u16);

/// A configured gateway: its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatewayId(pub u8);

/// A place for one held packet in the shell's pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId(pub u32);

/// What becomes of a new flow when nobody can decide it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// It is dropped.
    #[default]
    Close,
    /// It is permitted, and asked for when a gateway is back.
    Open,
}

/// A protected port as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSettings {
    /// Name.
    pub name: String,
    /// Security profile bound to it (`name@org`).
    pub profile: String,
    /// Its fail mode.
    pub fail_mode: FailMode,
}

/// The key of a flow, oriented to the VM: both directions of a flow have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowId {
    /// The port it crosses.
    pub port: PortIndex,
    /// The VM's address.
    pub vm_ip: Ipv4Addr,
    /// The other end's address.
    pub remote_ip: Ipv4Addr,
    /// The VM's port; the identifier for ICMP echo.
    pub vm_port: u16,
    /// The other end's port; 0 for ICMP echo.
    pub remote_port: u16,
    /// IP protocol.
    pub protocol: Protocol,
}

/// One life of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// Its key.
    pub id: FlowId,
    /// When the kernel created the entry, in its nanoseconds: tells this life of the key from an
    /// earlier one.
    pub born_ns: u64,
    /// Direction of the first packet.
    pub opened: Direction,
}

impl Flow {
    /// The flow as its first packet travelled.
    #[must_use]
    pub const fn key(&self) -> FlowKey {
        let id = self.id;
        // An echo's identifier is the source port whichever end asks.
        let (vm_port, remote_port) = match (self.opened, id.protocol) {
            (Direction::Ingress, Protocol::ICMP) => (id.remote_port, id.vm_port),
            (Direction::Egress | Direction::Ingress, _) => (id.vm_port, id.remote_port),
        };
        match self.opened {
            Direction::Egress => FlowKey {
                src_ip: id.vm_ip,
                dst_ip: id.remote_ip,
                src_port: vm_port,
                dst_port: remote_port,
                protocol: id.protocol,
            },
            Direction::Ingress => FlowKey {
                src_ip: id.remote_ip,
                dst_ip: id.vm_ip,
                src_port: remote_port,
                dst_port: vm_port,
                protocol: id.protocol,
            },
        }
    }

    /// What it is decided from, at a port with this profile.
    #[must_use]
    pub fn attributes(&self, profile: &str) -> FlowAttributes {
        FlowAttributes {
            profile: profile.to_owned(),
            direction: self.opened,
            flow: self.key(),
            ethertype: ETHERTYPE_IPV4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(protocol: Protocol, vm_port: u16, remote_port: u16, opened: Direction) -> FlowKey {
        let id = FlowId {
            port: PortIndex(0),
            vm_ip: Ipv4Addr::new(10, 0, 0, 1),
            remote_ip: Ipv4Addr::new(10, 0, 0, 2),
            vm_port,
            remote_port,
            protocol,
        };
        Flow {
            id,
            born_ns: 1,
            opened,
        }
        .key()
    }

    #[test]
    fn key_follows_the_first_packet() {
        let out = flow(Protocol::TCP, 4000, 80, Direction::Egress);
        assert_eq!(
            (out.src_ip, out.src_port, out.dst_port),
            ([10, 0, 0, 1].into(), 4000, 80)
        );
        let back = flow(Protocol::TCP, 80, 4000, Direction::Ingress);
        assert_eq!(
            (back.src_ip, back.src_port, back.dst_port),
            ([10, 0, 0, 2].into(), 4000, 80)
        );
    }

    #[test]
    fn echo_identifier_is_the_source_port_either_way() {
        for opened in [Direction::Egress, Direction::Ingress] {
            let key = flow(Protocol::ICMP, 77, 0, opened);
            assert_eq!((key.src_port, key.dst_port), (77, 0));
        }
    }
}
