//! What of a frame names its flow. Only frames that the datapath chose to hold come here: IPv4 TCP,
//! UDP and ICMP echo, whole headers; anything else is `None`.

use core::net::Ipv4Addr;

use model::{Direction, Protocol};
use vem::{FlowId, PortIndex};

/// An Ethernet header.
pub(crate) const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;

/// The flow of a frame at a port whose VM has this MAC, and the frame's direction.
pub(crate) fn flow_of(frame: &[u8], port: PortIndex, mac: [u8; 6]) -> Option<(FlowId, Direction)> {
    let source_mac: &[u8] = frame.get(6..12)?;
    let direction = if source_mac == mac {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    let ip = ipv4(frame)?;
    let (source, destination) = (address(ip, 12)?, address(ip, 16)?);
    let header = usize::from(ip[0] & 0xf) * 4;
    let payload = ip.get(header..)?;
    let number = |at: usize| Some(u16::from_be_bytes(*payload.get(at..)?.first_chunk()?));
    let protocol = Protocol(ip[9]);
    let (source_port, destination_port) = match protocol {
        Protocol::TCP | Protocol::UDP => (number(0)?, number(2)?),
        Protocol::ICMP if matches!(payload.first()?, &(ICMP_ECHO | ICMP_ECHO_REPLY)) => {
            // The identifier stands for the VM's port whichever way it goes.
            let identifier = number(4)?;
            match direction {
                Direction::Egress => (identifier, 0),
                Direction::Ingress => (0, identifier),
            }
        }
        _ => return None,
    };
    let (vm_ip, remote_ip, vm_port, remote_port) = match direction {
        Direction::Egress => (source, destination, source_port, destination_port),
        Direction::Ingress => (destination, source, destination_port, source_port),
    };
    Some((
        FlowId {
            port,
            vm_ip,
            remote_ip,
            vm_port,
            remote_port,
            protocol,
        },
        direction,
    ))
}

/// Length of an IPv4 frame by its own account.
pub(crate) fn frame_length(frame: &[u8]) -> Option<usize> {
    let ip = ipv4(frame)?;
    let length = ETHERNET_BYTES + usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    (length <= frame.len()).then_some(length)
}

fn ipv4(frame: &[u8]) -> Option<&[u8]> {
    let ip = frame.get(ETHERNET_BYTES..)?;
    let sound = frame[12..14] == [8, 0] && ip.len() >= IPV4_BYTES && ip[0] >> 4 == 4;
    sound.then_some(ip)
}

fn address(ip: &[u8], at: usize) -> Option<Ipv4Addr> {
    ip.get(at..)?
        .first_chunk::<4>()
        .map(|octets| Ipv4Addr::from(*octets))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const VM: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// A UDP frame from the VM's port 1000 + `n`, with so many bytes of payload.
    pub(crate) fn udp_frame(n: u16, payload: usize) -> Vec<u8> {
        let mut frame = [&[2, 0, 0, 0, 0, 9][..], &VM, &[8, 0]].concat();
        let length = (IPV4_BYTES + 8 + payload) as u16;
        frame.extend([
            0x45,
            0,
            (length >> 8) as u8,
            length as u8,
            0,
            0,
            0,
            0,
            64,
            17,
            0,
            0,
        ]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend((1000 + n).to_be_bytes());
        frame.extend([0, 53, 0, 0, 0, 0]);
        frame.resize(frame.len() + payload, 7);
        frame
    }

    #[test]
    fn both_directions_have_one_key() {
        let out = udp_frame(5, 1);
        let mut back = out.clone();
        back[..6].copy_from_slice(&VM);
        back[6..12].copy_from_slice(&out[..6]);
        back[26..30].copy_from_slice(&out[30..34]);
        back[30..34].copy_from_slice(&out[26..30]);
        back[34..36].copy_from_slice(&out[36..38]);
        back[36..38].copy_from_slice(&out[34..36]);
        let (id, direction) = flow_of(&out, PortIndex(3), VM).expect("a flow");
        assert_eq!(
            (id.vm_port, id.remote_port, direction),
            (1005, 53, Direction::Egress)
        );
        assert_eq!(
            flow_of(&back, PortIndex(3), VM),
            Some((id, Direction::Ingress))
        );
    }

    #[test]
    fn length_is_the_ip_headers() {
        assert_eq!(frame_length(&udp_frame(1, 100)), Some(14 + 20 + 8 + 100));
        assert_eq!(frame_length(&udp_frame(1, 100)[..80]), None);
    }

    #[test]
    fn nothing_is_read_behind_the_end() {
        let whole = udp_frame(1, 4);
        for length in 0..whole.len() {
            let cut = flow_of(&whole[..length], PortIndex(0), VM);
            assert!(cut.is_none() || length >= 38, "{length}");
        }
    }
}
