//! The measured TCP stream and the message that stream and UDP flow share.
//!
//! Stream records (receiver): sequence, sent ns, arrived ns, 0. A record whose
//! sequence is [`BROKEN`] says that the connection ended at its third word,
//! for the reason (errno, 0 for an orderly end) in its fourth; the sender's log
//! holds only such records.

use super::records::RecordLog;
use crate::clock::now_ns;
use crate::sys;
use anyhow::Context;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes of one message.
pub const MESSAGE_LEN: usize = 64;
/// The sequence of a record that says "broken".
pub const BROKEN: u64 = u64::MAX;
/// How long the first connection may take: longer than a gateway's failover.
const CONNECT_LIMIT: Duration = Duration::from_secs(8);

/// One message: its number and when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Counts from 0, one for each millisecond.
    pub sequence: u64,
    /// Monotonic ns, just before it was handed to the kernel.
    pub sent_ns: u64,
}

impl Message {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> [u8; MESSAGE_LEN] {
        let mut bytes = [0; MESSAGE_LEN];
        bytes[..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sent_ns.to_le_bytes());
        bytes
    }

    /// Reads it back; `None` when there are too few bytes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |from: usize| -> Option<u64> {
            Some(u64::from_le_bytes(
                bytes.get(from..from + 8)?.try_into().ok()?,
            ))
        };
        (bytes.len() == MESSAGE_LEN)
            .then(|| {
                Some(Self {
                    sequence: word(0)?,
                    sent_ns: word(8)?,
                })
            })
            .flatten()
    }
}

/// A record that says the connection ended now, and why.
fn broken(error: &io::Error) -> [u64; 4] {
    [
        BROKEN,
        0,
        now_ns(),
        error.raw_os_error().unwrap_or(0) as u64,
    ]
}

/// The sending end.
#[derive(Debug)]
pub struct StreamSender {
    connection: Option<TcpStream>,
    sequence: u64,
    /// Bytes of a message that the kernel has not taken yet.
    rest: Vec<u8>,
    log: RecordLog,
}

impl StreamSender {
    /// Connects to `server`.
    ///
    /// # Errors
    /// When the connection does not come about.
    pub fn connect(server: SocketAddr, log: RecordLog) -> anyhow::Result<Self> {
        let connection = TcpStream::connect_timeout(&server, CONNECT_LIMIT)
            .with_context(|| format!("the measured stream cannot connect to {server}"))?;
        connection.set_nodelay(true).context("TCP_NODELAY")?;
        connection.set_nonblocking(true).context("non-blocking")?;
        Ok(Self {
            connection: Some(connection),
            sequence: 0,
            rest: Vec::with_capacity(MESSAGE_LEN),
            log,
        })
    }

    /// Sends one message, or nothing while the kernel's buffer is full: the
    /// receiver sees the stall in any case.
    pub fn tick(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if self.rest.is_empty() {
            let message = Message {
                sequence: self.sequence,
                sent_ns: now_ns(),
            };
            self.rest.extend_from_slice(&message.encode());
            self.sequence += 1;
        }
        match connection.write(&self.rest) {
            Ok(taken) => {
                self.rest.drain(..taken);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                // A stream that broke stays broken: that is the measurement.
                self.log.push(broken(&error));
                self.connection = None;
            }
        }
    }
}

/// The receiving end of one connection.
#[derive(Debug)]
pub struct StreamReceiver {
    connection: TcpStream,
    buffer: [u8; MESSAGE_LEN],
    filled: usize,
}

impl StreamReceiver {
    /// Takes an accepted connection.
    ///
    /// # Errors
    /// When the kernel gives no time stamps.
    pub fn new(connection: TcpStream) -> anyhow::Result<Self> {
        sys::enable_stamps(&connection).context("SO_TIMESTAMPNS")?;
        Ok(Self {
            connection,
            buffer: [0; MESSAGE_LEN],
            filled: 0,
        })
    }

    /// The connection to wait for.
    #[must_use]
    pub fn connection(&self) -> &TcpStream {
        &self.connection
    }

    /// Reads what is there, one message at a time, since each read has one
    /// time stamp; false when the connection is over.
    pub fn read(&mut self, log: &mut RecordLog) -> bool {
        loop {
            let space = &mut self.buffer[self.filled..];
            match sys::receive_stamped(&self.connection, space) {
                Ok((0, at_ns)) => {
                    log.push([BROKEN, 0, at_ns, 0]);
                    return false;
                }
                Ok((length, at_ns)) => {
                    self.filled += length;
                    if let Some(message) = Message::decode(&self.buffer[..self.filled]) {
                        log.push([message.sequence, message.sent_ns, at_ns, 0]);
                        self.filled = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    log.push(broken(&error));
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::records;

    #[test]
    fn messages_survive_their_encoding() {
        let message = Message {
            sequence: 7,
            sent_ns: u64::MAX - 1,
        };
        assert_eq!(Message::decode(&message.encode()), Some(message));
        assert_eq!(Message::decode(&message.encode()[..63]), None);
    }

    #[test]
    fn sent_messages_arrive_stamped_and_the_end_is_recorded() {
        let folder = tempfile::tempdir().expect("a folder");
        let received = folder.path().join("received.rec");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let own = RecordLog::create(&folder.path().join("sent.rec"), 4).expect("a log");
        let mut sender = StreamSender::connect(address, own).expect("a connection");
        let (connection, _) = listener.accept().expect("accepted");
        let mut receiver = StreamReceiver::new(connection).expect("a receiver");
        let mut log = RecordLog::create(&received, 16).expect("a log");
        let before = now_ns();
        for _ in 0..3 {
            sender.tick();
        }
        drop(sender);
        let mut open = true;
        while open && now_ns() < before + 5 * crate::clock::NS_PER_S {
            open = receiver.read(&mut log);
        }
        let records = records::read(&received).expect("the log").records;
        let numbers: Vec<_> = records.iter().map(|record| record[0]).collect();
        assert_eq!(numbers, [0, 1, 2, BROKEN]);
        for [_, sent, arrived, _] in &records[..3] {
            assert!(*sent >= before && *arrived + 1_000_000 >= *sent && *arrived <= now_ns());
        }
    }
}
