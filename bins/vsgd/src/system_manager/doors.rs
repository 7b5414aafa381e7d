//! The control ports of the HA links: who dials, who listens, who is let in, who is only seen.
//!
//! Invariants:
//! - the node with the lower node key dials, the other listens, so that two nodes that start
//!   together make one connection per link and not two; both ports are open, so that whoever is not
//!   paired is seen;
//! - a connection is handed to the loop only with a peer whose identity is trusted at that moment;
//! - a connection in the place of another is made while that one stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{LinkId, NodeKey, PortKind};
use node::supervisor::TrustEvent;
use runtime::clock;
use runtime::envelope::{EXPORT_BYTES, EXPORT_LABEL, ExportedKeys};
use runtime::gate::Gate;
use runtime::identity::Identity;
use runtime::stream::framed;
use runtime::tls::{Authenticated, HANDSHAKES_MAX, Pins, TlsEndpoint, TlsError};
use runtime::traffic::PortCounters;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use wire::Channel;
use wire::control::ControlMessage;

use super::Event;
use super::control::{Connection, ControlEvent};
use crate::configuration::Link;

/// Name of the protocol on these connections.
const PROTOCOL: &str = "twinwall-control/1";
/// Pause before the first new try; it doubles up to [`REDIAL_MAX`].
const REDIAL_MIN: Duration = Duration::from_millis(50);
/// Longest pause: a peer that returns is found within it.
const REDIAL_MAX: Duration = Duration::from_millis(500);
/// One try, including the handshake. Shorter than TCP's first retransmission of a lost SYN.
const DIAL_TIMEOUT: Duration = Duration::from_millis(900);
/// A connection that lives shorter than this is no reason to dial fast again.
const SHORT_LIVED: Duration = Duration::from_secs(1);
/// How often a node without a peer shows itself: an operator who looks on the other node sees it
/// within a moment.
const KNOCK_PERIOD: Duration = Duration::from_secs(2);

/// What the tasks of all links share.
struct Shared {
    /// For the peer.
    endpoint: TlsEndpoint,
    /// For knocking, while there is no peer.
    stranger: TlsEndpoint,
    pins: Pins,
    conduct: watch::Sender<Conduct>,
    /// Counts how often new connections were wanted in the place of those that stand.
    renewals: watch::Sender<u64>,
    events: mpsc::Sender<Event>,
    numbers: std::sync::atomic::AtomicU64,
    ports: Vec<PortCounters>,
}

/// What this side of the links does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Conduct {
    /// The peer dials, or there is nobody.
    #[default]
    Listens,
    /// Dials the peer.
    Dials,
    /// Has no peer, and shows itself where one would be.
    Knocks,
}

/// Counters of the control ports, in the order of the links.
pub(super) fn ports(links: &[Link]) -> Vec<PortCounters> {
    let port = |link: &Link| PortCounters::new(PortKind::Control, &link.name);
    links.iter().map(port).collect()
}

/// The control ports of all links, and who is let in by them.
#[derive(Clone)]
pub(super) struct Doors {
    shared: Arc<Shared>,
}

impl Doors {
    /// Binds every link's port. Nobody is let in before [`Self::trust`] says whom.
    pub(super) async fn open(
        links: &[Link],
        identity: &Identity,
        ports: Vec<PortCounters>,
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<Self> {
        let expected = links.iter().map(|link| link.peer.ip()).collect();
        let pins = Pins::default();
        let shared = Arc::new(Shared {
            endpoint: TlsEndpoint::new(identity, pins.clone(), PROTOCOL)?
                .behind(Gate::new(HANDSHAKES_MAX, expected)),
            stranger: TlsEndpoint::of_strangers(identity, PROTOCOL)?,
            pins,
            conduct: watch::Sender::new(Conduct::default()),
            renewals: watch::Sender::new(0),
            events,
            numbers: std::sync::atomic::AtomicU64::new(1),
            ports,
        });
        for (index, link) in links.iter().enumerate() {
            let id = LinkId(index as u8);
            let listener = TcpListener::bind(link.local).await.map_err(|source| {
                let (name, local) = (link.name.clone(), link.local);
                runtime::heartbeat::StartError::Bind {
                    name,
                    local,
                    source,
                }
            })?;
            tokio::spawn(listen(Arc::clone(&shared), id, listener));
            tokio::spawn(dial(Arc::clone(&shared), id, link.local, link.peer));
        }
        Ok(Self { shared })
    }

    /// Shows another identity from the next handshake on.
    pub(super) fn change_identity(&self, identity: &Identity) -> Result<(), TlsError> {
        self.shared.endpoint.change_identity(identity)?;
        self.shared.stranger.change_identity(identity)
    }

    /// Dials anew, if this side dials; the connections that stand go on until then.
    pub(super) fn renew(&self) {
        self.shared.renewals.send_modify(|count| *count += 1);
    }

    /// Trusts these identities, one peer's, from the next handshake on.
    pub(super) fn trust(&self, keys: &[NodeKey], conduct: Conduct) {
        self.shared.pins.replace(keys.iter().copied());
        self.shared.conduct.send_replace(conduct);
    }
}

async fn dial(shared: Arc<Shared>, link: LinkId, local: SocketAddr, peer: SocketAddr) {
    let mut conduct = shared.conduct.subscribe();
    let mut renewals = shared.renewals.subscribe();
    let mut pause = REDIAL_MIN;
    let mut serving: Option<JoinHandle<()>> = None;
    let mut born = clock::now();
    loop {
        let renews = renewals.has_changed().is_ok_and(|changed| changed);
        let now = *conduct.borrow_and_update();
        let wait = match (now, &mut serving) {
            (Conduct::Listens, _) => {
                if conduct.changed().await.is_err() {
                    return;
                }
                continue;
            }
            (Conduct::Knocks, _) => {
                shared.knock(local, peer).await;
                KNOCK_PERIOD
            }
            (Conduct::Dials, Some(current)) if !renews && !current.is_finished() => {
                tokio::select! {
                    _ = current => {}
                    _ = renewals.changed() => renewals.mark_changed(),
                    _ = conduct.changed() => conduct.mark_changed(),
                }
                if renewals.has_changed().is_ok_and(|changed| changed) {
                    continue;
                }
                // One that ends at once was refused by a peer that does not trust us.
                pause = if clock::now().since(born) >= SHORT_LIVED {
                    REDIAL_MIN
                } else {
                    (pause * 2).min(REDIAL_MAX)
                };
                pause
            }
            (Conduct::Dials, _) => {
                let stands = serving.as_ref().is_some_and(|task| !task.is_finished());
                if let Some(connection) = shared.dial(local, peer, renews && stands).await {
                    renewals.mark_unchanged();
                    born = clock::now();
                    let (shared, renewal) = (Arc::clone(&shared), renews && stands);
                    serving = Some(tokio::spawn(async move {
                        shared.serve(link, connection, renewal).await;
                    }));
                    continue;
                }
                let wait = pause;
                pause = (pause * 2).min(REDIAL_MAX);
                wait
            }
        };
        tokio::select! {
            changed = conduct.changed() => {
                if changed.is_err() {
                    return;
                }
                conduct.mark_changed();
                pause = REDIAL_MIN;
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn listen(shared: Arc<Shared>, link: LinkId, listener: TcpListener) {
    loop {
        let Ok((tcp, from)) = listener.accept().await else {
            // Out of descriptors: those of failed handshakes come free soon.
            tokio::time::sleep(REDIAL_MIN).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            match shared.endpoint.accept(tcp).await {
                // A peer that does not trust us any more shows itself; one that dials although it
                // is our part takes us for somebody else. Neither gets a connection.
                Ok(connection)
                    if connection.is_knock() || *shared.conduct.borrow() != Conduct::Listens => {}
                Ok(connection) => {
                    let renewal = connection.is_renewal();
                    shared.serve(link, connection, renewal).await;
                }
                Err(error) => {
                    if let Some(reason) = error.reason() {
                        shared.ports[usize::from(link.0)].dropped(reason);
                    }
                    shared.note_stranger(&error, from).await;
                }
            }
        });
    }
}

impl Shared {
    /// Dials once.
    async fn dial(
        &self,
        local: SocketAddr,
        peer: SocketAddr,
        renews: bool,
    ) -> Option<Authenticated> {
        let dialling = async {
            if renews {
                self.endpoint.renew(Some(local), peer).await
            } else {
                self.endpoint.connect(Some(local), peer).await
            }
        };
        match tokio::time::timeout(DIAL_TIMEOUT, dialling).await {
            Ok(Ok(connection)) => return Some(connection),
            // A peer that is not there, or not yet, is the heartbeat's news.
            Ok(Err(error)) => self.note_stranger(&error, peer).await,
            Err(_) => {}
        }
        None
    }

    async fn knock(&self, local: SocketAddr, peer: SocketAddr) {
        let tried = tokio::time::timeout(DIAL_TIMEOUT, self.stranger.knock(Some(local), peer));
        if let Ok(Ok(there)) = tried.await {
            self.found(there.key, peer).await;
        }
    }

    /// Tells of somebody whose identity is not pinned.
    async fn note_stranger(&self, error: &TlsError, address: SocketAddr) {
        if let TlsError::NotPinned { key } = error {
            self.found(*key, address).await;
        }
    }

    async fn found(&self, key: NodeKey, address: SocketAddr) {
        let address = address.ip().to_string();
        let event = TrustEvent::Found { key, address };
        let _ = self.events.send(Event::Trust(event)).await;
    }

    /// Until the connection ends.
    async fn serve(&self, link: LinkId, connection: Authenticated, renewal: bool) {
        let key = connection.key;
        let Ok(exported) = connection.export::<EXPORT_BYTES>(EXPORT_LABEL) else {
            return;
        };
        let server = connection.server;
        let number = self
            .numbers
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (sender, receiver) =
            framed::<_, ControlMessage, ControlMessage>(connection.stream, Channel::Control);
        let port = &self.ports[usize::from(link.0)];
        let (sender, mut receiver) = (sender.counted(port), receiver.counted(port));
        let (events, end) = (self.events.clone(), self.events.clone());
        let (start, started) = tokio::sync::oneshot::channel::<()>();
        let reader = tokio::spawn(async move {
            // The main loop must know of the connection before its first message.
            let _ = started.await;
            while let Ok(Some(message)) = receiver.next().await {
                let event = Event::Control(ControlEvent::Message(number, message));
                if events.send(event).await.is_err() {
                    return;
                }
            }
        });
        let up = Connection {
            number,
            link,
            sender: Some(sender),
            reader: reader.abort_handle(),
            keys: ExportedKeys::new(exported),
            key,
            server,
            renewal,
            spoken: false,
        };
        if end
            .send(Event::Control(ControlEvent::Up(Box::new(up))))
            .await
            .is_ok()
        {
            let _ = start.send(());
            // Also ends when the main loop drops the connection.
            let _ = reader.await;
            let _ = end.send(Event::Control(ControlEvent::Down(number))).await;
        }
    }
}
