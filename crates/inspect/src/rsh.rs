//! The remote shell: the client's first bytes are the port, in ASCII and ended by a zero byte, to
//! which the server connects for errors (BSD, rshd).

use model::Protocol;

use crate::{Ends, Pinhole};

/// Reserved ports from which and to which the protocol speaks: the classic servers refuse others,
/// and no service listens there on a client.
const PORTS: std::ops::Range<u16> = 512..1024;

/// Digits of a port.
const DIGITS_MAX: usize = 5;

/// What the client's first bytes open; `None` if they ask for no second connection.
#[must_use]
pub fn pinhole(ends: Ends, first_bytes: &[u8]) -> Option<Pinhole> {
    let end = first_bytes
        .iter()
        .take(DIGITS_MAX + 1)
        .position(|byte| *byte == 0)?;
    let digits = &first_bytes[..end];
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let port = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let pinhole = Pinhole {
        from: ends.server,
        to: ends.client,
        port,
        protocol: Protocol::TCP,
    };
    (PORTS.contains(&port) && ends.client != ends.server).then_some(pinhole)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::pinhole;
    use crate::Ends;

    #[test]
    fn the_port_for_errors_is_opened() {
        let ends = Ends {
            client: Ipv4Addr::new(10, 0, 0, 1),
            server: Ipv4Addr::new(10, 0, 0, 2),
        };
        let opened = pinhole(ends, b"1022\0root\0root\0ls\0").expect("a reserved port");
        assert_eq!(
            (opened.from, opened.to, opened.port),
            (ends.server, ends.client, 1022)
        );
        for none in [
            &b"0\0"[..],
            b"\0",
            b"1022",
            b"22\0",
            b"1024\0",
            b"10x2\0",
            b"999999\0",
            b"",
        ] {
            assert_eq!(pinhole(ends, none), None, "{none:?}");
        }
    }
}
