//! TFTP: a request goes to port 69, the answer comes from a port the server chooses, to the port
//! the request came from (RFC 1350, 4).

use model::Protocol;

use crate::{Ends, Pinhole, UNPRIVILEGED_PORT_MIN};

/// Opcodes of a read and a write request.
const REQUESTS: [[u8; 2]; 2] = [[0, 1], [0, 2]];

/// What a client's datagram from `client_port` opens; `None` if it is no request.
#[must_use]
pub fn pinhole(ends: Ends, client_port: u16, datagram: &[u8]) -> Option<Pinhole> {
    let (opcode, rest) = datagram.split_first_chunk::<2>()?;
    let mut strings = rest.split(|byte| *byte == 0);
    let (file, mode) = (strings.next()?, strings.next()?);
    // The mode is ended by a zero too: something, if only nothing, follows it.
    let whole = REQUESTS.contains(opcode)
        && !file.is_empty()
        && is_mode(mode)
        && strings.next().is_some()
        && client_port >= UNPRIVILEGED_PORT_MIN
        && ends.client != ends.server;
    whole.then_some(Pinhole {
        from: ends.server,
        to: ends.client,
        port: client_port,
        protocol: Protocol::UDP,
    })
}

fn is_mode(mode: &[u8]) -> bool {
    [&b"netascii"[..], b"octet", b"mail"]
        .iter()
        .any(|known| mode.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::pinhole;
    use crate::Ends;

    #[test]
    fn a_request_opens_the_port_it_came_from() {
        let ends = Ends {
            client: Ipv4Addr::new(10, 0, 0, 1),
            server: Ipv4Addr::new(10, 0, 0, 2),
        };
        let opened = pinhole(ends, 40_000, b"\0\x01boot.img\0Octet\0").expect("a request");
        assert_eq!(
            (opened.from, opened.to, opened.port),
            (ends.server, ends.client, 40_000)
        );
        assert!(pinhole(ends, 40_000, b"\0\x02f\0octet\0blksize\x001428\0").is_some());
        for none in [
            &b"\0\x03f\0octet\0"[..],
            b"\0\x01f\0octet",
            b"\0\x01\0octet\0",
            b"\0\x01f\0x\0",
            b"\0",
        ] {
            assert_eq!(pinhole(ends, 40_000, none), None, "{none:?}");
        }
        assert_eq!(pinhole(ends, 53, b"\0\x01f\0octet\0"), None);
    }
}
