//! Flows and what is decided of them.

use core::fmt;
use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
}

/// Direction of a flow's first packet as the protected VM sees it, in the original's words:
/// `egress` leaves the VM, `ingress` comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// To the VM.
    Ingress,
    /// From the VM.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// The addresses of a flow, oriented as its first packet travelled.
///
/// For ICMP echo the identifier is the source port and the destination port is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowKey {
    /// Source address.
    pub src_ip: Ipv4Addr,
    /// Destination address.
    pub dst_ip: Ipv4Addr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// IP protocol.
    pub protocol: Protocol,
}

/// All that a decision is made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowAttributes {
    /// Security profile bound to the port (`name@org`).
    pub profile: String,
    /// Direction of the first packet.
    pub direction: Direction,
    /// The flow.
    pub flow: FlowKey,
    /// Ethertype of the first packet (0x0800).
    pub ethertype: u16,
}

/// What is done with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Its packets pass.
    Permit,
    /// Its packets are dropped silently.
    Drop,
    /// As drop, and the sender is told by a TCP reset.
    Reset,
}

/// Number of a committed policy; a higher one is newer. A cached verdict carries the generation
/// it was decided under.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation(pub u64);
