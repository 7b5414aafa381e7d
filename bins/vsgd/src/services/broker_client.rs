//! A service's connection to `mts`, made again whenever it is lost.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use model::{ServiceName, Time};
use runtime::clock;
use runtime::seqpacket::{PacketBuffer, Seqpacket};
use wire::Channel;
use wire::broker::{BrokerFrame, Message};

/// Pause between attempts to connect; `mts` restarts in some ten milliseconds.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);
/// Messages that wait while the broker does not read. It reads all the time; a service that
/// writes this much ahead of it is faster than the node, and loses messages: requesters ask
/// again, and notifications of flows are counted as lost by their receiver's gap.
const QUEUE_MAX: usize = 4096;
/// Messages taken in one turn, so that other inputs and the heartbeat get theirs.
const BATCH_MAX: usize = 64;

/// What the broker's connection tells.
pub(crate) enum BrokerEvent {
    /// It stands and the SAP is bound.
    Connected,
    /// It was lost.
    Lost,
    /// Frames came.
    Frames(Vec<BrokerFrame>),
}

/// See the module.
pub(crate) struct BrokerClient {
    path: PathBuf,
    service: ServiceName,
    socket: Option<Seqpacket>,
    buffer: PacketBuffer,
    queue: VecDeque<BrokerFrame>,
    connect_at: Time,
    dropped: u64,
}

impl BrokerClient {
    pub(crate) fn new(path: PathBuf, service: ServiceName) -> Self {
        Self {
            path,
            service,
            socket: None,
            buffer: PacketBuffer::default(),
            queue: VecDeque::new(),
            connect_at: Time::default(),
            dropped: 0,
        }
    }

    /// Messages dropped since the last look because the broker did not read.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        core::mem::take(&mut self.dropped)
    }

    /// What happens next; also makes the connection. Cancellation loses nothing.
    pub(crate) async fn next(&mut self) -> BrokerEvent {
        loop {
            if self.socket.is_none() {
                clock::sleep_until(Some(self.connect_at)).await;
                self.connect_at = clock::now() + RECONNECT_PAUSE;
                if let Ok(socket) = Seqpacket::connect(&self.path)
                    && socket
                        .try_send(Channel::Broker, &BrokerFrame::Bind(self.service))
                        .is_ok()
                {
                    self.socket = Some(socket);
                    return BrokerEvent::Connected;
                }
                continue;
            }
            let Some(socket) = &self.socket else { continue };
            let event = if let Some(frame) = self.queue.front() {
                tokio::select! {
                    sent = socket.send(Channel::Broker, frame) => match sent {
                        Ok(()) => {
                            self.queue.pop_front();
                            continue;
                        }
                        Err(_) => None,
                    },
                    received = socket.receive(Channel::Broker, &mut self.buffer) => {
                        received.ok().flatten()
                    }
                }
            } else {
                socket
                    .receive(Channel::Broker, &mut self.buffer)
                    .await
                    .ok()
                    .flatten()
            };
            return match event {
                Some(first) => self.batch(first),
                None => self.lose(),
            };
        }
    }

    /// The first frame and those that are there already.
    fn batch(&mut self, first: BrokerFrame) -> BrokerEvent {
        let mut frames = vec![first];
        if let Some(socket) = &self.socket {
            while frames.len() < BATCH_MAX {
                match socket.try_receive(Channel::Broker, &mut self.buffer) {
                    Ok(Some(Some(frame))) => frames.push(frame),
                    // Nothing now, or the end or an error, which the next turn sees too.
                    Ok(Some(None) | None) | Err(_) => break,
                }
            }
        }
        BrokerEvent::Frames(frames)
    }

    fn lose(&mut self) -> BrokerEvent {
        self.socket = None;
        self.queue.clear();
        self.connect_at = clock::now();
        BrokerEvent::Lost
    }

    /// Sends now, or queues while the broker does not read; while it is away the message is
    /// dropped.
    pub(crate) fn send(&mut self, message: Message) {
        let Some(socket) = &self.socket else { return };
        let frame = BrokerFrame::Message(message);
        if self.queue.is_empty() {
            match socket.try_send(Channel::Broker, &frame) {
                Ok(()) => return,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // The receiving side sees the end.
                Err(_) => return,
            }
        }
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(frame);
        } else {
            self.dropped += 1;
        }
    }
}
