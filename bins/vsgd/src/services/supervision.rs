//! A service's end of the socket pair to the System Manager.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, bail};
use model::{ServiceName, Time};
use runtime::process::inherited_socket;
use runtime::seqpacket::{PacketBuffer, Seqpacket};
use runtime::traffic::{PortCounters, take_all};
use wire::Channel;
use wire::supervision::{FromService, ToService};

/// How often a service proves that its work loop turns.
pub(crate) const HEARTBEAT_PERIOD: Duration = Duration::from_millis(100);
/// Messages that wait while the System Manager does not read: some seconds of heartbeats and a
/// burst of log records. When it is full, log records are dropped and counted; should anything
/// else not fit, the System Manager is stuck and the service ends.
const QUEUE_MAX: usize = 1024;

/// See the module.
pub(crate) struct Supervision {
    socket: Seqpacket,
    buffer: PacketBuffer,
    queue: VecDeque<FromService>,
    turns: u64,
    heartbeat_at: Time,
    lost_records: u64,
    ports: Vec<PortCounters>,
}

impl Supervision {
    /// Takes over the inherited socket and says who we are.
    pub(crate) fn open(service: ServiceName, now: Time) -> anyhow::Result<Self> {
        let socket = Seqpacket::from_fd(inherited_socket()?).context("supervision socket")?;
        let mut supervision = Self {
            socket,
            buffer: PacketBuffer::default(),
            queue: VecDeque::new(),
            turns: 0,
            heartbeat_at: now + HEARTBEAT_PERIOD,
            lost_records: 0,
            ports: Vec::new(),
        };
        supervision.send(FromService::Handshake { service })?;
        Ok(supervision)
    }

    /// Has what `port` counts told with each heartbeat.
    pub(crate) fn report(&mut self, port: PortCounters) {
        self.ports.push(port);
    }

    /// The next message; `None` when the System Manager is gone. Cancellation loses nothing.
    pub(crate) async fn receive(&mut self) -> anyhow::Result<Option<ToService>> {
        let received = self.socket.receive(Channel::Supervision, &mut self.buffer);
        received.await.context("from the System Manager")
    }

    /// Sends, or queues while the System Manager does not read.
    pub(crate) fn send(&mut self, message: FromService) -> anyhow::Result<()> {
        if self.queue.len() >= QUEUE_MAX {
            if matches!(message, FromService::Log(_)) {
                self.lost_records += 1;
                return Ok(());
            }
            bail!("the System Manager does not read: {QUEUE_MAX} messages wait for it");
        }
        self.queue.push_back(message);
        self.flush()
    }

    /// Writes what waits, as far as the socket takes it.
    fn flush(&mut self) -> anyhow::Result<()> {
        while let Some(message) = self.queue.front() {
            match self.socket.try_send(Channel::Supervision, message) {
                Ok(()) => {
                    self.queue.pop_front();
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("to the System Manager"),
            }
        }
        if self.queue.is_empty() && self.lost_records > 0 {
            // Said on standard error, which the System Manager does not need to read for.
            eprintln!(
                "{} log records were lost",
                std::mem::take(&mut self.lost_records)
            );
        }
        Ok(())
    }

    /// Counts a turn of the work loop; sends the heartbeat when it is due.
    pub(crate) fn turn(&mut self, now: Time) -> anyhow::Result<()> {
        self.turns += 1;
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + HEARTBEAT_PERIOD;
            self.send(FromService::Heartbeat { turns: self.turns })?;
            let counted = take_all(&self.ports);
            if !counted.is_empty() {
                self.send(FromService::Traffic(counted))?;
            }
        }
        self.flush()
    }

    /// When [`Self::turn`] is wanted.
    pub(crate) fn next_deadline(&self) -> Time {
        self.heartbeat_at
    }
}
