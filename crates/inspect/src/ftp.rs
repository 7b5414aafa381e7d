//! FTP's control connection.
//!
//! | who says | what | who opens the data connection |
//! |---|---|---|
//! | client | `PORT h1,h2,h3,h4,p1,p2` · `EPRT \|1\|address\|port\|` | the server, to the client |
//! | server | `227 … (h1,h2,h3,h4,p1,p2)` after `PASV` | the client, to the server |
//! | server | `229 … (\|\|\|port\|)` after `EPSV` | the client, to the server |
//!
//! Not handled: commands under TLS (they cannot be read), and answers to `PASV` that name another
//! address than the server's, which are refused.

use std::net::Ipv4Addr;

use model::Protocol;

use crate::{Ends, Pinhole, UNPRIVILEGED_PORT_MIN};

/// Longest line kept. Commands that matter are short; of a longer line the rest is skipped, and
/// it opens nothing.
pub const LINE_MAX_BYTES: usize = 512;

/// Reads both directions of one control connection.
#[derive(Clone, Debug)]
pub struct FtpControl {
    ends: Ends,
    client: Lines,
    server: Lines,
    /// The client has asked for a passive port, and the answer is awaited.
    passive_asked: bool,
}

impl FtpControl {
    /// A connection that has said nothing.
    #[must_use]
    pub fn new(ends: Ends) -> Self {
        Self {
            ends,
            client: Lines::default(),
            server: Lines::default(),
            passive_asked: false,
        }
    }

    /// The client's next bytes, in order.
    pub fn client_says(&mut self, bytes: &[u8]) -> Vec<Pinhole> {
        let mut pinholes = Vec::new();
        for line in self.client.take(bytes) {
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let target = match verb.to_ascii_uppercase().as_str() {
                "PASV" | "EPSV" => {
                    self.passive_asked = true;
                    None
                }
                "PORT" => six_numbers(rest),
                "EPRT" => extended(rest),
                _ => None,
            };
            pinholes.extend(target.and_then(|(address, port)| {
                self.pinhole(self.ends.server, self.ends.client, address, port)
            }));
        }
        pinholes
    }

    /// The server's next bytes, in order.
    pub fn server_says(&mut self, bytes: &[u8]) -> Vec<Pinhole> {
        let mut pinholes = Vec::new();
        for line in self.server.take(bytes) {
            let (code, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let inside = rest
                .split_once('(')
                .and_then(|(_, rest)| rest.split_once(')'));
            let Some((inside, _)) = inside else { continue };
            let target = match code {
                "227" => six_numbers(inside),
                "229" => extended_passive(inside).map(|port| (self.ends.server, port)),
                _ => continue,
            };
            if !std::mem::take(&mut self.passive_asked) {
                continue;
            }
            pinholes.extend(target.and_then(|(address, port)| {
                self.pinhole(self.ends.client, self.ends.server, address, port)
            }));
        }
        pinholes
    }

    fn pinhole(&self, from: Ipv4Addr, to: Ipv4Addr, said: Ipv4Addr, port: u16) -> Option<Pinhole> {
        let allowed = said == to && from != to && port >= UNPRIVILEGED_PORT_MIN;
        allowed.then_some(Pinhole {
            from,
            to,
            port,
            protocol: Protocol::TCP,
        })
    }
}

/// `h1,h2,h3,h4,p1,p2` (RFC 959, 4.1.2).
fn six_numbers(text: &str) -> Option<(Ipv4Addr, u16)> {
    let mut numbers = text.trim().split(',').map(|part| part.trim().parse::<u8>());
    let mut next = || numbers.next()?.ok();
    let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
    let port = u16::from_be_bytes([next()?, next()?]);
    numbers.next().is_none().then_some((address, port))
}

/// `|1|132.235.1.2|6275|`, with any delimiter (RFC 2428, 2).
fn extended(text: &str) -> Option<(Ipv4Addr, u16)> {
    let text = text.trim();
    let delimiter = text.chars().next()?;
    let mut parts = text.split(delimiter).skip(1);
    let family = parts.next()?;
    let address = parts.next()?.parse().ok()?;
    let port = parts.next()?.parse().ok()?;
    (family == "1" && parts.next() == Some("")).then_some((address, port))
}

/// `|||6446|` (RFC 2428, 3).
fn extended_passive(text: &str) -> Option<u16> {
    let delimiter = text.chars().next()?;
    let mut parts = text.split(delimiter);
    let empty = parts.next() == Some("") && parts.next() == Some("") && parts.next() == Some("");
    let port = parts.next()?.parse().ok()?;
    (empty && parts.next() == Some("")).then_some(port)
}

/// Cuts one direction into lines.
///
/// Invariant: `begun` is at most [`LINE_MAX_BYTES`] long.
#[derive(Clone, Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    overlong: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.begun);
                    if !std::mem::take(&mut self.overlong) {
                        lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                    }
                }
                _ if self.begun.len() < LINE_MAX_BYTES => self.begun.push(*byte),
                _ => self.overlong = true,
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use model::Protocol;

    use super::{FtpControl, LINE_MAX_BYTES};
    use crate::{Ends, Pinhole};

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn control() -> FtpControl {
        FtpControl::new(Ends {
            client: CLIENT,
            server: SERVER,
        })
    }

    fn to_client(port: u16) -> Vec<Pinhole> {
        vec![Pinhole {
            from: SERVER,
            to: CLIENT,
            port,
            protocol: Protocol::TCP,
        }]
    }

    fn to_server(port: u16) -> Vec<Pinhole> {
        vec![Pinhole {
            from: CLIENT,
            to: SERVER,
            port,
            protocol: Protocol::TCP,
        }]
    }

    #[test]
    fn active_mode_opens_the_clients_port_even_in_pieces() {
        assert_eq!(
            control().client_says(b"PORT 10,0,0,1,19,137\r\n"),
            to_client(5001)
        );
        assert_eq!(
            control().client_says(b"eprt |1|10.0.0.1|5002|\r\n"),
            to_client(5002)
        );
        let mut ftp = control();
        let pieces = b"USER a\r\nPORT 10,0,0,1,19,137\r\n".iter();
        let found: Vec<Pinhole> = pieces.flat_map(|byte| ftp.client_says(&[*byte])).collect();
        assert_eq!(found, to_client(5001));
    }

    #[test]
    fn passive_mode_opens_the_servers_port_once_and_only_when_asked() {
        let answer = b"227 Entering Passive Mode (10,0,0,2,19,138).\r\n";
        let mut ftp = control();
        assert!(ftp.server_says(answer).is_empty());
        ftp.client_says(b"PASV\r\n");
        assert_eq!(ftp.server_says(answer), to_server(5002));
        assert!(ftp.server_says(answer).is_empty());
        ftp.client_says(b"EPSV\r\n");
        let answer = b"229 Entering Extended Passive Mode (|||6446|)\r\n";
        assert_eq!(ftp.server_says(answer), to_server(6446));
    }

    #[test]
    fn a_third_host_or_a_service_is_not_opened() {
        for line in [
            "PORT 10,0,0,9,19,137\r\n",
            "PORT 10,0,0,1,0,22\r\n",
            "PORT 10,0,0,1,19\r\n",
            "PORT 10,0,0,1,19,137,1\r\n",
            "EPRT |2|10.0.0.1|5002|\r\n",
            "EPRT |1|10.0.0.9|5002|\r\n",
        ] {
            assert!(control().client_says(line.as_bytes()).is_empty(), "{line}");
        }
        let mut ftp = control();
        ftp.client_says(b"PASV\r\n");
        assert!(ftp.server_says(b"227 ok (10,0,0,9,19,138)\r\n").is_empty());
    }

    #[test]
    fn an_overlong_line_opens_nothing_and_the_next_is_read() {
        let mut ftp = control();
        ftp.client_says(&vec![b'x'; LINE_MAX_BYTES + 1]);
        assert!(ftp.client_says(b"\nPORT 10,0,0,1").is_empty());
        assert_eq!(ftp.client_says(b",19,137\n"), to_client(5001));
    }
}
