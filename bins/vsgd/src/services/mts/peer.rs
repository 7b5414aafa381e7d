//! The TLS connection to the peer's broker.
//!
//! Both nodes listen on every HA link; the one with the lower node key dials, on all links, and
//! the first to succeed is used. There is one connection at a time; a newer one
//! replaces the older, whose end may not have been noticed. It stands only while the System
//! Manager holds the peer for ours (`peer_connected`): a standalone node speaks to nobody.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::{DropReason, NodeKey, PortKind};
use mts::Input;
use runtime::gate::Gate;
use runtime::identity::Identity;
use runtime::tls::{Authenticated, HANDSHAKES_MAX, Pins, TlsEndpoint, TlsError};
use runtime::traffic::PortCounters;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use wire::broker::BrokerFrame;
use wire::supervision::Trust;
use wire::{Channel, FrameBuffer};

use super::Event;
use crate::services::{BulkLink, Settings};

/// ALPN name of the connection.
const PROTOCOL: &str = "twinwall-bulk/1";
/// Pause between rounds of dialling.
const DIAL_PAUSE: Duration = Duration::from_millis(50);
/// What a link gets before the next one is tried too: some round trips and a handshake.
const LINK_HEAD_START: Duration = Duration::from_millis(100);
/// Pause before an address that could not be bound is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(1);
/// How often a quiet connection says that it stands, by a frame that means nothing to the core.
const KEEPALIVE: Duration = Duration::from_millis(250);
/// A connection on which nothing came for so long is dead, and another link is dialled. TCP alone
/// would take seconds, and commits would wait for a standby that is well reachable.
const SILENCE_LIMIT: Duration = Duration::from_secs(1);
/// Most bytes put into one write: some TLS records.
const COALESCE_MAX_BYTES: usize = 64 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// What the tasks of the link tell.
pub(super) enum PeerEvent {
    /// A connection stands.
    Up(Box<Authenticated>, PortCounters),
    /// A frame came on the connection of that number.
    Frame(u64, BrokerFrame),
    /// Frames were written to it.
    Written(u64, u32),
    /// It ended.
    Down(u64),
    /// Somebody else than the peer knocked.
    Refused(String),
}

struct Connection {
    number: u64,
    frames: mpsc::UnboundedSender<BrokerFrame>,
    reader: AbortHandle,
    writer: AbortHandle,
}

/// See the module.
pub(super) struct PeerLink {
    connection: Option<Connection>,
    count: u64,
    /// Whether a connection is wanted, and whether the dialler has to make one.
    wanted: bool,
    dial: watch::Sender<bool>,
    events: mpsc::Sender<Event>,
    links: Vec<(BulkLink, PortCounters)>,
    endpoint: TlsEndpoint,
    identity_file: PathBuf,
    /// Which of its identities this node shows.
    identity: u64,
    pins: Pins,
    peer: Vec<NodeKey>,
    /// Of the two nodes, this one dials.
    dials: bool,
    /// The tasks that listen and dial run.
    started: bool,
}

impl PeerLink {
    /// Listens and dials nobody before [`Self::trust`] says who the peer is. Returns the counters
    /// of its ports too.
    pub(super) fn start(
        settings: &Settings,
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<(Self, Vec<PortCounters>)> {
        let ports: Vec<_> = settings
            .bulk_links
            .iter()
            .map(|link| PortCounters::new(PortKind::Bulk, &link.name))
            .collect();
        let pins = Pins::default();
        let expected = settings.bulk_links.iter().map(|link| link.peer.ip());
        let gate = Gate::new(HANDSHAKES_MAX, expected.collect());
        let identity = settings.identity()?;
        let endpoint = TlsEndpoint::new(&identity, pins.clone(), PROTOCOL)?.behind(gate);
        let links = settings.bulk_links.iter().cloned().zip(ports.clone());
        let link = Self {
            connection: None,
            count: 0,
            wanted: false,
            dials: false,
            dial: watch::Sender::new(false),
            events,
            links: links.collect(),
            pins,
            endpoint,
            identity_file: settings.identity_file.clone(),
            identity: 0,
            peer: Vec::new(),
            started: false,
        };
        Ok((link, ports))
    }

    /// Who the peer is from now on. A connection with somebody else ends.
    pub(super) fn trust(&mut self, trust: &Trust) -> anyhow::Result<()> {
        if trust.identity != self.identity {
            self.endpoint
                .change_identity(&Identity::load(&self.identity_file)?)?;
            self.identity = trust.identity;
        }
        self.pins.replace(trust.peer.iter().copied());
        self.dials = trust.dials;
        let same = self.peer.iter().any(|key| trust.peer.contains(key));
        self.peer.clone_from(&trust.peer);
        if !self.started && !trust.peer.is_empty() {
            self.started = true;
            for (link, port) in self.links.clone() {
                let (endpoint, events) = (self.endpoint.clone(), self.events.clone());
                tokio::spawn(listen(link.local, endpoint, port, events));
            }
            let (links, endpoint) = (self.links.clone(), self.endpoint.clone());
            let (dial, events) = (self.dial.subscribe(), self.events.clone());
            tokio::spawn(dialler(links, endpoint, dial, events));
        }
        if !same {
            self.end();
        }
        self.update_dial();
        Ok(())
    }

    /// The connection's end is told as an event, so that the core hears of it in order.
    fn end(&self) {
        if let Some(connection) = &self.connection {
            let event = Event::Peer(PeerEvent::Down(connection.number));
            let events = self.events.clone();
            tokio::spawn(async move { events.send(event).await });
        }
    }

    /// Whether the peer is ours to speak with.
    pub(super) fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
        if !wanted {
            self.end();
        }
        self.update_dial();
    }

    fn update_dial(&mut self) {
        let dial = self.wanted && self.dials && self.connection.is_none();
        self.dial
            .send_if_modified(|current| core::mem::replace(current, dial) != dial);
    }

    /// Hands a frame to the connection's writer; the core's window bounds what waits there.
    pub(super) fn send(&mut self, frame: BrokerFrame) {
        if let Some(connection) = &self.connection {
            let _ = connection.frames.send(frame);
        }
    }

    /// Ends the connection; no `Down` follows.
    pub(super) fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.reader.abort();
            connection.writer.abort();
        }
        self.update_dial();
    }

    /// What the core is to be told, if anything.
    pub(super) fn event(&mut self, event: PeerEvent) -> Option<Vec<Input>> {
        let current = self.connection.as_ref().map(|connection| connection.number);
        match event {
            PeerEvent::Up(authenticated, port) => {
                if !self.wanted {
                    return None;
                }
                let replaced = self.connection.is_some();
                self.close();
                self.open(*authenticated, port);
                self.update_dial();
                let gone = replaced.then_some(Input::PeerGone);
                Some(gone.into_iter().chain([Input::PeerConnected]).collect())
            }
            PeerEvent::Frame(number, frame) => {
                (current == Some(number)).then(|| vec![Input::PeerFrame(frame)])
            }
            PeerEvent::Written(number, frames) => {
                (current == Some(number)).then(|| vec![Input::PeerSent { frames }])
            }
            PeerEvent::Refused(_) => None,
            PeerEvent::Down(number) => (current == Some(number)).then(|| {
                self.close();
                vec![Input::PeerGone]
            }),
        }
    }

    fn open(&mut self, authenticated: Authenticated, port: PortCounters) {
        self.count += 1;
        let number = self.count;
        let (read_half, write_half) = tokio::io::split(authenticated.stream);
        let (frames, queued) = mpsc::unbounded_channel();
        let reading = read(number, read_half, port.clone(), self.events.clone());
        let reader = tokio::spawn(reading).abort_handle();
        let writing = tokio::spawn(write(number, write_half, queued, port, self.events.clone()));
        let writer = writing.abort_handle();
        self.connection = Some(Connection {
            number,
            frames,
            reader,
            writer,
        });
    }
}

async fn listen(
    local: SocketAddr,
    endpoint: TlsEndpoint,
    port: PortCounters,
    events: mpsc::Sender<Event>,
) {
    loop {
        let Ok(listener) = TcpListener::bind(local).await else {
            tokio::time::sleep(BIND_PAUSE).await;
            continue;
        };
        while let Ok((tcp, _)) = listener.accept().await {
            let (endpoint, port, events) = (endpoint.clone(), port.clone(), events.clone());
            tokio::spawn(async move {
                let accepted = endpoint.accept(tcp).await;
                if let Some(reason) = accepted.as_ref().err().and_then(TlsError::reason) {
                    port.dropped(reason);
                }
                match accepted {
                    Ok(peer) => {
                        let event = PeerEvent::Up(Box::new(peer), port);
                        let _ = events.send(Event::Peer(event)).await;
                    }
                    Err(error @ TlsError::NotPinned { .. }) => {
                        let text = error.to_string();
                        let _ = events.send(Event::Peer(PeerEvent::Refused(text))).await;
                    }
                    // A dialler that was faster on another link gives up here.
                    Err(_) => {}
                }
            });
        }
        tokio::time::sleep(BIND_PAUSE).await;
    }
}

async fn dialler(
    links: Vec<(BulkLink, PortCounters)>,
    endpoint: TlsEndpoint,
    mut dial: watch::Receiver<bool>,
    events: mpsc::Sender<Event>,
) {
    while dial.wait_for(|dial| *dial).await.is_ok() {
        if let Some((peer, port)) = dial_all(&links, &endpoint).await {
            dial.mark_unchanged();
            let event = PeerEvent::Up(Box::new(peer), port);
            if events.send(Event::Peer(event)).await.is_err() {
                return;
            }
            // The loop takes the connection up, or drops it because it is not wanted any more.
            tokio::time::sleep(DIAL_PAUSE).await;
        } else {
            tokio::time::sleep(DIAL_PAUSE).await;
        }
    }
}

/// Dials on every link, the first at once and each further one [`LINK_HEAD_START`] later; the
/// first connection wins and the other attempts are dropped.
async fn dial_all(
    links: &[(BulkLink, PortCounters)],
    endpoint: &TlsEndpoint,
) -> Option<(Authenticated, PortCounters)> {
    let mut attempts = JoinSet::new();
    let mut wait = Duration::ZERO;
    for (BulkLink { local, peer, .. }, port) in links.iter().cloned() {
        let endpoint = endpoint.clone();
        attempts.spawn(async move {
            tokio::time::sleep(wait).await;
            (endpoint.connect(Some(local), peer).await, port)
        });
        wait += LINK_HEAD_START;
    }
    while let Some(attempt) = attempts.join_next().await {
        if let Ok((Ok(peer), port)) = attempt {
            return Some((peer, port));
        }
    }
    None
}

async fn read<S: AsyncRead>(
    number: u64,
    mut half: ReadHalf<S>,
    port: PortCounters,
    events: mpsc::Sender<Event>,
) {
    let mut buffer = FrameBuffer::new(Channel::Broker);
    let mut bytes = vec![0; READ_BYTES];
    'connection: loop {
        // A malformed frame ends the connection like a close does.
        match timeout(SILENCE_LIMIT, half.read(&mut bytes)).await {
            Ok(Ok(count)) if count > 0 => buffer.extend(&bytes[..count]),
            Ok(Ok(_) | Err(_)) | Err(_) => {
                if buffer.is_within_a_frame() {
                    port.dropped(DropReason::Truncated);
                }
                break;
            }
        }
        loop {
            match buffer.next_frame() {
                Ok(Some(BrokerFrame::PeerConnected(_))) => port.received(),
                Ok(Some(frame)) => {
                    port.received();
                    let event = Event::Peer(PeerEvent::Frame(number, frame));
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    port.dropped(error.reason());
                    eprintln!("bulk connection: {error}");
                    break 'connection;
                }
            }
        }
    }
    let _ = events.send(Event::Peer(PeerEvent::Down(number))).await;
}

async fn write<S: AsyncWrite>(
    number: u64,
    mut half: WriteHalf<S>,
    mut frames: mpsc::UnboundedReceiver<BrokerFrame>,
    port: PortCounters,
    events: mpsc::Sender<Event>,
) {
    loop {
        let (mut bytes, mut count) = match timeout(KEEPALIVE, frames.recv()).await {
            Ok(Some(frame)) => (wire::encode(Channel::Broker, &frame), 1),
            Ok(None) => return,
            Err(_) => (
                wire::encode(Channel::Broker, &BrokerFrame::PeerConnected(true)),
                0,
            ),
        };
        while bytes.len() < COALESCE_MAX_BYTES
            && let Ok(frame) = frames.try_recv()
        {
            bytes.extend(wire::encode(Channel::Broker, &frame));
            count += 1;
        }
        // A keepalive is a frame too, but none of the core's.
        (0..count.max(1)).for_each(|_| port.sent());
        if half.write_all(&bytes).await.is_err() || half.flush().await.is_err() {
            break;
        }
        if events
            .send(Event::Peer(PeerEvent::Written(number, count)))
            .await
            .is_err()
        {
            return;
        }
    }
    let _ = events.send(Event::Peer(PeerEvent::Down(number))).await;
}
