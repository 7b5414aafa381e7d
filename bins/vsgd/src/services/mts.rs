//! `mts`: the broker's core between a seqpacket socket for the services of this node and one TLS
//! connection to the broker of the peer.
//!
//! Invariant: frames for one client are written in the order of the core's outputs: directly
//! while the socket takes them, by the client's writer task from the first that it did not take
//! until that task has caught up.

mod peer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use model::{PortKind, Time};
use mts::{Broker, ClientId, Input, Output};
use runtime::clock;
use runtime::seqpacket::{PacketBuffer, Seqpacket, SeqpacketListener};
use runtime::traffic::PortCounters;
use tokio::sync::mpsc;
use wire::Channel;
use wire::broker::BrokerFrame;
use wire::supervision::{FromService, Posture, ToService};

use super::supervision::Supervision;
use super::{BROKER_SOCKET, Settings};
use peer::{PeerEvent, PeerLink};

/// Events that wait for the loop; a full channel makes the readers wait, and so the services.
const EVENTS_MAX: usize = 1024;
/// Events taken in one turn.
const BATCH_MAX: usize = 128;
/// Pause after a failed `accept`, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refused connections are logged at most this often: whoever knocks decides how often he does.
const REFUSED_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What the tasks tell the loop.
enum Event {
    Connected(ClientId, Seqpacket),
    Frame(ClientId, BrokerFrame),
    /// The writer task wrote a frame.
    Written(ClientId),
    Gone(ClientId),
    Peer(PeerEvent),
}

struct Client {
    socket: Arc<Seqpacket>,
    /// Frames for the writer task; the core's window bounds them.
    overflow: mpsc::UnboundedSender<BrokerFrame>,
    /// Frames given to the writer task and not yet written.
    waiting: usize,
    reader: tokio::task::AbortHandle,
}

struct Shell {
    broker: Broker,
    supervision: Supervision,
    clients: BTreeMap<ClientId, Client>,
    peer: PeerLink,
    events: mpsc::Sender<Event>,
    port: PortCounters,
    refused_log_at: Time,
}

/// Runs until stopped.
pub(super) async fn run(settings: &Settings, mut supervision: Supervision) -> anyhow::Result<()> {
    let path = settings.run_dir.join(BROKER_SOCKET);
    let listener = SeqpacketListener::bind(&path)
        .with_context(|| format!("broker socket {}", path.display()))?;
    let (events, mut incoming) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(accept(listener, events.clone()));
    let (peer, ports) = PeerLink::start(settings, events.clone())?;
    let port = PortCounters::new(PortKind::Broker, "");
    for port in ports.into_iter().chain([port.clone()]) {
        supervision.report(port);
    }
    let broker = Broker::new();
    let mut shell = Shell {
        broker,
        supervision,
        clients: BTreeMap::new(),
        peer,
        events,
        port,
        refused_log_at: Time::default(),
    };
    loop {
        shell.supervision.turn(clock::now())?;
        let broker_deadline = shell.broker.next_deadline();
        let heartbeat = shell.supervision.next_deadline();
        let deadline = broker_deadline.map_or(heartbeat, |at| Ord::min(at, heartbeat));
        tokio::select! {
            biased;
            message = shell.supervision.receive() => match message? {
                Some(ToService::Posture(posture)) => shell.posture(posture)?,
                Some(ToService::Trust(trust)) => shell.peer.trust(&trust)?,
                Some(ToService::Stop) | None => return Ok(()),
                Some(
                    ToService::Answer { .. }
                    | ToService::Console(_)
                    | ToService::AskVotes { .. }
                    | ToService::Archive { .. }
                    | ToService::Resync { .. },
                ) => {}
            },
            Some(event) = incoming.recv() => {
                shell.event(event)?;
                for _ in 1..BATCH_MAX {
                    let Ok(event) = incoming.try_recv() else { break };
                    shell.event(event)?;
                }
            }
            () = clock::sleep_until(Some(deadline)) => shell.handle(clock::now(), Input::Tick)?,
        }
    }
}

impl Shell {
    fn posture(&mut self, posture: Posture) -> anyhow::Result<()> {
        self.peer.want(posture.peer_connected);
        self.handle(clock::now(), Input::Posture(posture.activity))?;
        // On a switchover nothing is to be drained here: an answer that a service still waits for
        // passes through by itself.
        self.supervision.send(FromService::Applied {
            sequence: posture.sequence,
        })
    }

    fn event(&mut self, event: Event) -> anyhow::Result<()> {
        let now = clock::now();
        match event {
            Event::Connected(client, socket) => {
                self.add_client(client, socket);
                self.handle(now, Input::ClientConnected { client })
            }
            Event::Frame(client, frame) => self.handle(now, Input::ClientFrame { client, frame }),
            Event::Written(client) => {
                let Some(known) = self.clients.get_mut(&client) else {
                    return Ok(());
                };
                known.waiting = known.waiting.saturating_sub(1);
                self.handle(now, Input::ClientSent { client, frames: 1 })
            }
            Event::Gone(client) => {
                self.remove_client(client);
                self.handle(now, Input::ClientGone { client })
            }
            Event::Peer(PeerEvent::Refused(who)) => {
                if now < self.refused_log_at {
                    return Ok(());
                }
                self.refused_log_at = now + REFUSED_LOG_INTERVAL;
                self.log(
                    4,
                    "PEER_REFUSED",
                    format!("A bulk connection was refused: {who}"),
                )
            }
            Event::Peer(event) => match self.peer.event(event) {
                Some(inputs) => inputs
                    .into_iter()
                    .try_for_each(|input| self.handle(now, input)),
                None => Ok(()),
            },
        }
    }

    fn handle(&mut self, now: Time, input: Input) -> anyhow::Result<()> {
        self.broker.handle(now, input);
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::ToClient { client, frame } => self.deliver(now, client, frame),
                Output::ToPeer(frame) => self.peer.send(frame),
                Output::CloseClient { client, reason } => {
                    self.remove_client(client);
                    self.log(
                        4,
                        "CLIENT_CLOSED",
                        format!("A connection was closed: {reason}"),
                    )?;
                }
                Output::ClosePeer { reason } => {
                    self.peer.close();
                    self.log(
                        3,
                        "PEER_CLOSED",
                        format!("The peer's broker was cut off: {reason}"),
                    )?;
                    self.broker.handle(now, Input::PeerGone);
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, now: Time, client: ClientId, frame: BrokerFrame) {
        let Some(known) = self.clients.get_mut(&client) else {
            return;
        };
        self.port.sent();
        if known.waiting == 0 && known.socket.try_send(Channel::Broker, &frame).is_ok() {
            self.broker
                .handle(now, Input::ClientSent { client, frames: 1 });
            return;
        }
        // The writer task meets the same error if the client is gone; its reader tells us.
        known.waiting += 1;
        let _ = known.overflow.send(frame);
    }

    fn add_client(&mut self, client: ClientId, socket: Seqpacket) {
        let socket = Arc::new(socket);
        let (overflow, frames) = mpsc::unbounded_channel();
        tokio::spawn(write(
            client,
            Arc::clone(&socket),
            frames,
            self.events.clone(),
        ));
        let (port, events) = (self.port.clone(), self.events.clone());
        let reading = tokio::spawn(read(client, Arc::clone(&socket), port, events));
        let reader = reading.abort_handle();
        self.clients.insert(
            client,
            Client {
                socket,
                overflow,
                waiting: 0,
                reader,
            },
        );
    }

    /// Its writer ends because the sender is dropped, its reader by being aborted.
    fn remove_client(&mut self, client: ClientId) {
        if let Some(known) = self.clients.remove(&client) {
            known.reader.abort();
        }
    }

    fn log(&mut self, severity: u8, mnemonic: &str, text: String) -> anyhow::Result<()> {
        self.supervision
            .send(FromService::Log(wire::log::LogRecord {
                facility: "MTS".to_owned(),
                severity,
                mnemonic: mnemonic.to_owned(),
                text,
                service: Some(model::ServiceName::Mts),
            }))
    }
}

async fn accept(listener: SeqpacketListener, events: mpsc::Sender<Event>) {
    let mut next = 0;
    loop {
        let Ok(socket) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        next += 1;
        if events
            .send(Event::Connected(ClientId(next), socket))
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn read(
    client: ClientId,
    socket: Arc<Seqpacket>,
    port: PortCounters,
    events: mpsc::Sender<Event>,
) {
    let mut buffer = PacketBuffer::default();
    loop {
        let frame = match socket.receive(Channel::Broker, &mut buffer).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            // A malformed packet ends the connection like a close does.
            Err(error) => {
                if let Some(reason) = error.reason() {
                    port.dropped(reason);
                }
                break;
            }
        };
        port.received();
        if events.send(Event::Frame(client, frame)).await.is_err() {
            return;
        }
    }
    let _ = events.send(Event::Gone(client)).await;
}

async fn write(
    client: ClientId,
    socket: Arc<Seqpacket>,
    mut frames: mpsc::UnboundedReceiver<BrokerFrame>,
    events: mpsc::Sender<Event>,
) {
    while let Some(frame) = frames.recv().await {
        let sent = socket.send(Channel::Broker, &frame).await;
        if sent.is_err() || events.send(Event::Written(client)).await.is_err() {
            return;
        }
    }
}
