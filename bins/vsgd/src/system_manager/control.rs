//! The control connections: one TLS connection with the pinned peer over each HA link, of which
//! one is used at a time.
//!
//! Invariants:
//! - the node with the lower node key dials, the other listens, so that two nodes that start
//!   together make one connection per link and not two; both ports are open, so that whoever is not
//!   paired is seen;
//! - the dialling side chooses the connection in use, the listening side follows it; each change
//!   is told to the core as an end and a new beginning, because what was sent on the old one may
//!   be lost;
//! - a link that is silent while another is heard is not used, and connections with a peer that
//!   is silent on all are given up, long before TCP notices;
//! - heartbeat keys of a connection are installed before its first message leaves, and used by
//!   the listening side only after the dialling side's first message.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{LinkId, NodeKey, PortKind, Time};
use node::supervisor::TrustEvent;
use runtime::envelope::{EXPORT_BYTES, EXPORT_LABEL, ExportedKeys};
use runtime::gate::Gate;
use runtime::identity::Identity;
use runtime::stream::{MessageSender, framed};
use runtime::tls::{Authenticated, HANDSHAKES_MAX, Pins, TlsEndpoint, TlsError};
use runtime::traffic::PortCounters;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use wire::Channel;
use wire::control::ControlMessage;

use super::Event;
use crate::configuration::Link;

/// Name of the protocol on these connections.
pub(super) const PROTOCOL: &str = "twinwall-control/1";
/// Pause before the first new try; it doubles up to [`REDIAL_MAX`].
const REDIAL_MIN: Duration = Duration::from_millis(50);
/// Longest pause: a peer that returns is found within it.
const REDIAL_MAX: Duration = Duration::from_millis(500);
/// One try, including the handshake. Shorter than TCP's first retransmission of a lost SYN.
const DIAL_TIMEOUT: Duration = Duration::from_millis(900);
/// Silence on every link before connections are given up, if the hold time is shorter: a new
/// handshake on a busy machine must not be mistaken for it.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// How often a node without a peer shows itself: an operator who looks on the other node sees it
/// within a moment.
const KNOCK_PERIOD: Duration = Duration::from_secs(2);
/// Connections whose place another has taken, at once: one on each link, and as many again if
/// identities are changed in a hurry.
const RETIRED_MAX: usize = 8;
/// A connection with a peer that was unpaired may send what waits for so long.
const FAREWELL: Duration = Duration::from_millis(200);

/// One connection: counts all of them.
pub(super) type ConnectionNumber = u64;

/// What the tasks tell the main loop.
#[derive(Debug)]
pub(super) enum ControlEvent {
    /// A connection stands.
    Up(Box<Connection>),
    /// A message came on it.
    Message(ConnectionNumber, ControlMessage),
    /// It has ended.
    Down(ConnectionNumber),
}

/// One connection with the peer.
#[derive(Debug)]
pub(super) struct Connection {
    number: ConnectionNumber,
    link: LinkId,
    /// `None` once another has taken its place: what the peer still says on it is heard.
    sender: Option<MessageSender<ControlMessage>>,
    reader: AbortHandle,
    /// The peer's identity on it.
    pub(super) key: NodeKey,
    /// It takes the place of one that stands, without a break.
    pub(super) renewal: bool,
    /// Heartbeat keys.
    pub(super) keys: ExportedKeys,
    /// We listened.
    pub(super) server: bool,
    spoken: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        if let Some(sender) = &self.sender {
            sender.abort();
        }
    }
}

/// What a change of the connections means for the core, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Connected,
    Disconnected,
}

/// Connections by number, and which is in use.
#[derive(Debug, Default)]
pub(super) struct Connections {
    all: BTreeMap<ConnectionNumber, Connection>,
    current: Option<ConnectionNumber>,
    heard: BTreeMap<LinkId, Time>,
    /// Those whose place another has taken, until the peer has said its last word on them.
    retired: BTreeMap<ConnectionNumber, Connection>,
}

impl Connections {
    /// Takes a new connection; it replaces an older one on the same link.
    pub(super) fn up(&mut self, connection: Connection) -> Vec<Change> {
        if connection.renewal {
            return self.renewed(connection);
        }
        let older: Vec<_> = self
            .all
            .values()
            .filter(|old| old.link == connection.link)
            .map(|old| old.number)
            .collect();
        let mut changes = Vec::new();
        let number = connection.number;
        let replaced = self.current.is_some_and(|current| older.contains(&current));
        for old in older {
            self.all.remove(&old);
        }
        self.all.insert(number, connection);
        if replaced {
            changes.push(Change::Disconnected);
            self.current = None;
        }
        if self.current.is_none() {
            self.current = Some(number);
            changes.push(Change::Connected);
        }
        changes
    }

    /// Takes a connection in the place of another of its link: for the core nothing happens. The
    /// listening side goes on sending on the old one until the dialling side speaks on the new.
    fn renewed(&mut self, connection: Connection) -> Vec<Change> {
        let (number, link, server) = (connection.number, connection.link, connection.server);
        self.all.insert(number, connection);
        if !server {
            self.retire(link, number);
        }
        if self.current.is_none() {
            self.current = Some(number);
            return vec![Change::Connected];
        }
        Vec::new()
    }

    /// Nothing is sent any more on the other connections of a link.
    fn retire(&mut self, link: LinkId, stays: ConnectionNumber) {
        let old: Vec<_> = self
            .all
            .values()
            .filter(|old| old.link == link && old.number != stays)
            .map(|old| old.number)
            .collect();
        for number in old {
            if let Some(mut connection) = self.all.remove(&number) {
                // What waits is sent, then the peer reads the end.
                connection.sender = None;
                self.retired.insert(number, connection);
            }
            if self.current == Some(number) {
                self.current = Some(stays);
            }
        }
        while self.retired.len() > RETIRED_MAX {
            self.retired.pop_first();
        }
    }

    /// Forgets a connection that has ended.
    pub(super) fn down(&mut self, number: ConnectionNumber) -> Vec<Change> {
        self.retired.remove(&number);
        self.all.remove(&number);
        if self.current != Some(number) {
            return Vec::new();
        }
        self.current = None;
        let mut changes = vec![Change::Disconnected];
        if let Some(other) = self.best() {
            self.current = Some(other);
            changes.push(Change::Connected);
        }
        changes
    }

    /// A message came: whether to heed it, whether it is the dialling side's first (its keys are
    /// now in force: returns their id), and what it changes.
    pub(super) fn message(
        &mut self,
        number: ConnectionNumber,
        message: &ControlMessage,
    ) -> Option<(Option<u64>, Vec<Change>)> {
        if self.retired.contains_key(&number) {
            return Some((None, Vec::new()));
        }
        let connection = self.all.get_mut(&number)?;
        let renewal = connection.renewal && connection.server && !connection.spoken;
        let link = connection.link;
        let first = connection.server && !std::mem::replace(&mut connection.spoken, true);
        let (keys, server) = (first.then_some(connection.keys.id()), connection.server);
        let mut changes = Vec::new();
        if renewal {
            self.retire(link, number);
        }
        if server && self.current != Some(number) {
            // The dialling side begins anew on this connection: follow it.
            if self.current.is_some() && matches!(message, ControlMessage::Hello(_)) {
                changes.extend([Change::Disconnected, Change::Connected]);
            }
            self.current = Some(number);
        }
        Some((keys, changes))
    }

    /// The link that a connection goes over.
    pub(super) fn link(&self, number: ConnectionNumber) -> Option<LinkId> {
        self.all.get(&number).map(|connection| connection.link)
    }

    /// Sends on the connection in use; dropped if there is none. A peer that does not read is cut
    /// off.
    pub(super) fn send(&mut self, message: &ControlMessage) -> Vec<Change> {
        let Some(number) = self.current else {
            return Vec::new();
        };
        let Some(connection) = self.all.get(&number) else {
            return Vec::new();
        };
        let Some(sender) = &connection.sender else {
            return Vec::new();
        };
        match sender.send(message) {
            Ok(()) => Vec::new(),
            Err(_) => self.down(number),
        }
    }

    /// Ends all connections: the peer is another, or none. What waits is still sent.
    pub(super) fn leave_all(&mut self) -> Vec<Change> {
        let all = core::mem::take(&mut self.all);
        self.retired.clear();
        self.heard.clear();
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            drop(all);
        });
        let used = self.current.take().is_some();
        used.then_some(Change::Disconnected).into_iter().collect()
    }

    /// A heartbeat was heard on a link.
    pub(super) fn heard(&mut self, link: LinkId, now: Time) {
        self.heard.insert(link, now);
    }

    /// Leaves a connection whose link is silent while another's is heard.
    pub(super) fn avoid_silence(&mut self, now: Time, hold_time: Duration) -> Vec<Change> {
        let Some(current) = self.current.and_then(|number| self.all.get(&number)) else {
            return Vec::new();
        };
        let heard = |link: LinkId| {
            self.heard
                .get(&link)
                .is_some_and(|heard| now.since(*heard) <= hold_time)
        };
        if current.server || heard(current.link) {
            return Vec::new();
        }
        let better = self
            .all
            .values()
            .find(|other| heard(other.link))
            .map(|other| other.number);
        match better {
            None => Vec::new(),
            Some(better) => {
                self.current = Some(better);
                vec![Change::Disconnected, Change::Connected]
            }
        }
    }

    /// Gives up connections with a peer that is silent on every link: it is dead, or back as a
    /// new process that waits to be dialled, and TCP would notice only seconds later. Their ends
    /// are told as events.
    pub(super) fn leave_the_dead(&mut self, now: Time, hold_time: Duration) {
        let patience = hold_time.max(SILENCE_MIN);
        let newest = self.heard.values().max();
        if newest.is_some_and(|newest| now.since(*newest) > patience) {
            // Silence is held against connections only once they were heard.
            self.heard.clear();
            self.all
                .values()
                .for_each(|connection| connection.reader.abort());
        }
    }

    /// The connection of the most recently heard link.
    fn best(&self) -> Option<ConnectionNumber> {
        let newest = self
            .all
            .values()
            .max_by_key(|one| (self.heard.get(&one.link), one.number));
        newest.map(|connection| connection.number)
    }
}

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
                pause = REDIAL_MIN;
                if renewals.has_changed().is_ok_and(|changed| changed) {
                    continue;
                }
                pause
            }
            (Conduct::Dials, _) => {
                let stands = serving.as_ref().is_some_and(|task| !task.is_finished());
                if let Some(connection) = shared.dial(local, peer, renews && stands).await {
                    renewals.mark_unchanged();
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

#[cfg(test)]
mod tests;
