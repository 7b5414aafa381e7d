//! Protocol inspectors: what a permitted flow says about the flows that belong to it.
//!
//! An inspector reads the bytes of one flow and names [`Pinhole`]s: single related flows that may
//! pass although no rule permits them. It decides nothing else and changes no byte.
//!
//! | module | protocol | related flow |
//! |---|---|---|
//! | [`ftp`] | FTP control, RFC 959, RFC 2428 | the data connection, in either direction |
//! | [`rsh`] | remote shell, BSD | the server's connection for errors |
//! | [`tftp`] | TFTP request, RFC 1350 | the answer from another port of the server |
//!
//! Invariants:
//! - a pinhole joins the two ends of the inspected flow and no third (RFC 2577: no bounce);
//! - a pinhole opens no well-known port: what a peer says cannot reach a service of the other;
//! - no input makes an inspector panic or keep more than its named limits.

pub mod ftp;
pub mod rsh;
pub mod tftp;

use std::net::Ipv4Addr;

use model::Protocol;

/// The lowest port an inspector opens: below are services.
pub const UNPRIVILEGED_PORT_MIN: u16 = 1024;

/// The two ends of the inspected flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who opened it.
    pub client: Ipv4Addr,
    /// Whom it was opened to.
    pub server: Ipv4Addr,
}

/// One related flow that may pass, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinhole {
    /// Who will open it, from any port.
    pub from: Ipv4Addr,
    /// Whom it will be opened to.
    pub to: Ipv4Addr,
    /// At which port.
    pub port: u16,
    /// By which protocol.
    pub protocol: Protocol,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use crate::{Ends, UNPRIVILEGED_PORT_MIN, ftp::FtpControl, rsh, tftp};

    proptest! {
        /// Whatever two peers say, only their own unprivileged ports are opened to each other.
        #[test]
        fn no_bytes_open_more_than_the_two_ends(
            pieces in prop::collection::vec(
                (any::<bool>(), prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    "(PORT|EPRT|227|229|PASV|EPSV) ?\\(?[0-9,|]{0,30}\\)?\r?\n".prop_map(String::into_bytes),
                ]),
                0..20,
            ),
        ) {
            let ends = Ends { client: Ipv4Addr::new(10, 0, 0, 1), server: Ipv4Addr::new(10, 0, 0, 2) };
            let mut ftp = FtpControl::new(ends);
            for (of_client, bytes) in &pieces {
                let mut pinholes =
                    if *of_client { ftp.client_says(bytes) } else { ftp.server_says(bytes) };
                pinholes.extend(tftp::pinhole(ends, 40_000, bytes));
                for pinhole in &pinholes {
                    prop_assert!(pinhole.port >= UNPRIVILEGED_PORT_MIN);
                    prop_assert!([ends.client, ends.server].contains(&pinhole.from));
                    prop_assert!([ends.client, ends.server].contains(&pinhole.to));
                    prop_assert_ne!(pinhole.from, pinhole.to);
                }
                if let Some(pinhole) = rsh::pinhole(ends, bytes) {
                    prop_assert!((512..1024).contains(&pinhole.port));
                }
            }
        }
    }
}
