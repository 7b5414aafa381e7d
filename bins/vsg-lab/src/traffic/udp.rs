//! The measured UDP flow: one datagram each millisecond.
//!
//! Sent records: sequence, sent ns, 0, 0. Received records: sequence, sent ns,
//! arrived ns, 0.

use super::records::RecordLog;
use super::stream::{MESSAGE_LEN, Message};
use crate::clock::now_ns;
use crate::sys;
use anyhow::Context;
use std::net::{SocketAddr, UdpSocket};

/// The sending end.
#[derive(Debug)]
pub struct UdpSender {
    socket: UdpSocket,
    sequence: u64,
    log: RecordLog,
}

impl UdpSender {
    /// A flow to `server`.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(server: SocketAddr, log: RecordLog) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0").context("a UDP socket")?;
        socket
            .connect(server)
            .with_context(|| format!("a UDP flow to {server}"))?;
        socket.set_nonblocking(true).context("non-blocking")?;
        Ok(Self {
            socket,
            sequence: 0,
            log,
        })
    }

    /// Sends one datagram. One that the kernel refuses counts as sent, so that
    /// it shows as lost.
    pub fn tick(&mut self) {
        let message = Message {
            sequence: self.sequence,
            sent_ns: now_ns(),
        };
        self.sequence += 1;
        self.log.push([message.sequence, message.sent_ns, 0, 0]);
        let _ = self.socket.send(&message.encode());
    }

    /// States that everything sent so far is in the log.
    pub fn settle(&self, at_ns: u64) {
        self.log.settle(at_ns);
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct UdpReceiver {
    socket: UdpSocket,
}

impl UdpReceiver {
    /// Listens at `address`.
    ///
    /// # Errors
    /// When the port is taken or the kernel gives no time stamps.
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(address).with_context(|| format!("UDP at {address}"))?;
        socket.set_nonblocking(true).context("non-blocking")?;
        sys::enable_stamps(&socket).context("SO_TIMESTAMPNS")?;
        Ok(Self { socket })
    }

    /// The socket to wait for.
    #[must_use]
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Reads every datagram that is there.
    pub fn read(&self, log: &mut RecordLog) {
        let mut buffer = [0; MESSAGE_LEN];
        // An error other than "nothing there" is an ICMP complaint about some
        // earlier datagram: the flow itself shows what was lost.
        while let Ok((length, at_ns)) = sys::receive_stamped(&self.socket, &mut buffer) {
            if let Some(message) = Message::decode(&buffer[..length]) {
                log.push([message.sequence, message.sent_ns, at_ns, 0]);
            }
        }
    }
}
