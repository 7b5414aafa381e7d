//! Routing, binding and flow control.

use std::collections::{BTreeMap, VecDeque};

use model::{Sap, ServiceName, Time};
use serde::{Deserialize, Serialize};
use wire::broker::{BODY_MAX_BYTES, BrokerFrame, Destination, Kind, Message};
use wire::supervision::Activity;

use crate::limits::{
    CLIENT_WINDOW_FRAMES, CLIENTS_MAX, HELD_AGE, HELD_MESSAGES, PEER_QUEUE_BYTES,
    PEER_QUEUE_MESSAGES, PEER_WINDOW_FRAMES, SAP_QUEUE_BYTES, SAP_QUEUE_MESSAGES,
    UNDELIVERABLE_RESERVE,
};
use crate::queue::Queue;
use crate::{ClientId, Input, Output};

/// What the broker has done, for `show` and for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Messages handed to a local service.
    pub delivered: u64,
    /// Messages handed to the peer's connection.
    pub to_peer: u64,
    /// Messages not delivered whose sender was told.
    pub undeliverable: u64,
    /// Messages not delivered whose sender did not ask to be told, and answers that found
    /// nobody.
    pub dropped: u64,
    /// Connections closed because their other end broke the protocol.
    pub violations: u64,
}

/// One SAP that can be bound.
#[derive(Debug, Default)]
struct Point {
    client: Option<ClientId>,
    /// Since when nobody is bound.
    vacant_since: Time,
    queue: Queue,
}

#[derive(Debug, Default)]
struct Client {
    sap: Option<Sap>,
    in_flight: u32,
    /// `PeerConnected` frames to be sent ahead of messages; only the newest matters.
    peer_news: Option<bool>,
}

#[derive(Debug, Default)]
struct Peer {
    connected: bool,
    in_flight: u32,
    /// One queue for each sender, so that FIFO per sender holds and senders take turns.
    queues: BTreeMap<Sap, Queue>,
    last_served: Option<Sap>,
}

/// Where a message goes next.
enum Route {
    Here,
    Peer,
    Nowhere,
}

/// The broker's core.
///
/// | destination | acting (`Active`, `Quiesce`) | `Standby` | `Idle` |
/// |---|---|---|---|
/// | `Local` | here | here | here |
/// | `Peer` | peer | peer | peer |
/// | `Active` | here | peer | peer |
/// | `Standby` | peer | here | undeliverable |
///
/// A message from the peer is delivered here if the table says *here* (`Peer` counts as `Local`
/// at its receiver), else it is undeliverable.
#[derive(Debug)]
pub struct Broker {
    points: BTreeMap<Sap, Point>,
    clients: BTreeMap<ClientId, Client>,
    peer: Peer,
    activity: Activity,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl Default for Broker {
    fn default() -> Self {
        Self::new()
    }
}

impl Broker {
    /// A broker that knows of nobody.
    #[must_use]
    pub fn new() -> Self {
        let points = ServiceName::ALL
            .into_iter()
            .filter(|service| *service != ServiceName::Mts)
            .map(|service| (service.sap(), Point::default()))
            .collect();
        Self {
            points,
            clients: BTreeMap::new(),
            peer: Peer::default(),
            activity: Activity::Idle,
            counters: Counters::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes one event in.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Tick => {}
            Input::ClientConnected { client } => self.client_connected(client),
            Input::ClientFrame { client, frame } => self.client_frame(now, client, frame),
            Input::ClientSent { client, frames } => self.client_sent(client, frames),
            Input::ClientGone { client } => self.forget_client(now, client),
            Input::PeerConnected => self.peer_connected(now),
            Input::PeerFrame(frame) => self.peer_frame(now, frame),
            Input::PeerSent { frames } => {
                self.peer.in_flight = self.peer.in_flight.saturating_sub(frames);
                self.pump_peer();
            }
            Input::PeerGone => self.peer_gone(now),
            Input::Posture(activity) => self.activity = activity,
        }
        self.expire(now);
    }

    /// The next effect to be carried out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When a held message expires, if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.points.values().filter_map(Self::expiry).min()
    }

    /// What has been done so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Messages and bytes that wait for each service, for `show`.
    pub fn backlog(&self) -> impl Iterator<Item = (Sap, usize, usize)> + '_ {
        self.points
            .iter()
            .map(|(sap, point)| (*sap, point.queue.len(), point.queue.bytes()))
    }

    // ---- clients

    fn client_connected(&mut self, client: ClientId) {
        if self.clients.len() >= CLIENTS_MAX {
            self.counters.violations += 1;
            let reason = format!("{CLIENTS_MAX} clients are connected already");
            self.outputs
                .push_back(Output::CloseClient { client, reason });
            return;
        }
        self.clients.insert(client, Client::default());
    }

    fn client_frame(&mut self, now: Time, client: ClientId, frame: BrokerFrame) {
        let Some(sap) = self.clients.get(&client).map(|known| known.sap) else {
            return; // Closed by us; its last frames are still in the shell.
        };
        match (frame, sap) {
            (BrokerFrame::Bind(service), None) => self.bind(now, client, service),
            (BrokerFrame::Bind(_), Some(_)) => self.violation(now, client, "bound twice"),
            (BrokerFrame::Message(_), None) => self.violation(now, client, "sent before binding"),
            (BrokerFrame::Message(message), Some(sap)) => {
                self.client_message(now, client, sap, message);
            }
            (BrokerFrame::PeerConnected(_), _) => {
                self.violation(now, client, "spoke as the broker");
            }
        }
    }

    fn bind(&mut self, now: Time, client: ClientId, service: ServiceName) {
        let Some(point) = self.points.get_mut(&service.sap()) else {
            self.violation(now, client, "bound a SAP that is not to be bound");
            return;
        };
        // The newest wins: a service that restarts binds before the shell has noticed that its
        // old socket is closed.
        if let Some(old) = point.client.replace(client) {
            self.clients.remove(&old);
            let reason = format!("another process took the SAP of {service}");
            self.outputs.push_back(Output::CloseClient {
                client: old,
                reason,
            });
        }
        if let Some(known) = self.clients.get_mut(&client) {
            known.sap = Some(service.sap());
            known.peer_news = Some(self.peer.connected);
        }
        self.pump_client(client);
    }

    fn client_message(&mut self, now: Time, client: ClientId, sap: Sap, mut message: Message) {
        message.source = sap;
        message.from_peer = false;
        if message.body.len() > BODY_MAX_BYTES {
            self.violation(now, client, "sent a body above the limit");
            return;
        }
        if message.kind == Kind::Undeliverable {
            self.violation(now, client, "spoke as the broker");
            return;
        }
        match self.route(message.destination) {
            Route::Here => self.deliver(now, message),
            Route::Peer => self.send_to_peer(now, message),
            Route::Nowhere => self.undeliverable(now, message),
        }
    }

    fn client_sent(&mut self, client: ClientId, frames: u32) {
        if let Some(known) = self.clients.get_mut(&client) {
            known.in_flight = known.in_flight.saturating_sub(frames);
            self.pump_client(client);
        }
    }

    fn violation(&mut self, now: Time, client: ClientId, what: &str) {
        self.counters.violations += 1;
        self.forget_client(now, client);
        self.outputs.push_back(Output::CloseClient {
            client,
            reason: what.to_owned(),
        });
    }

    /// Forgets a client; what waits for its SAP waits on for the next process that binds it.
    fn forget_client(&mut self, now: Time, client: ClientId) {
        let Some(Client { sap: Some(sap), .. }) = self.clients.remove(&client) else {
            return;
        };
        if let Some(point) = self.points.get_mut(&sap)
            && point.client == Some(client)
        {
            point.client = None;
            point.vacant_since = now;
        }
    }

    // ---- the peer

    fn peer_connected(&mut self, now: Time) {
        if self.peer.connected {
            self.peer_gone(now); // A new connection replaces the old one and what was on it.
        }
        self.peer.connected = true;
        self.tell_peer_news();
    }

    fn peer_gone(&mut self, now: Time) {
        self.peer.connected = false;
        self.peer.in_flight = 0;
        for (_, mut queue) in core::mem::take(&mut self.peer.queues) {
            while let Some(message) = queue.pop() {
                self.undeliverable(now, message);
            }
        }
        self.tell_peer_news();
    }

    fn tell_peer_news(&mut self) {
        let bound: Vec<ClientId> = self
            .points
            .values()
            .filter_map(|point| point.client)
            .collect();
        for client in bound {
            if let Some(known) = self.clients.get_mut(&client) {
                known.peer_news = Some(self.peer.connected);
            }
            self.pump_client(client);
        }
    }

    fn peer_frame(&mut self, now: Time, frame: BrokerFrame) {
        if !self.peer.connected {
            return;
        }
        let mut message = match frame {
            BrokerFrame::Message(message) if message.body.len() <= BODY_MAX_BYTES => message,
            BrokerFrame::Message(_) | BrokerFrame::Bind(_) | BrokerFrame::PeerConnected(_) => {
                self.counters.violations += 1;
                let reason = "the peer's broker broke the protocol".to_owned();
                self.outputs.push_back(Output::ClosePeer { reason });
                return;
            }
        };
        message.from_peer = true;
        let here = match message.destination {
            Destination::Local | Destination::Peer => true,
            Destination::Active | Destination::Standby => {
                matches!(self.route(message.destination), Route::Here)
            }
        };
        if here {
            self.deliver(now, message);
        } else {
            self.undeliverable(now, message);
        }
    }

    // ---- routing

    fn route(&self, destination: Destination) -> Route {
        let acting = matches!(self.activity, Activity::Active(_) | Activity::Quiesce(_));
        match destination {
            Destination::Local => Route::Here,
            Destination::Peer => Route::Peer,
            Destination::Active if acting => Route::Here,
            Destination::Active => Route::Peer,
            Destination::Standby if acting => Route::Peer,
            Destination::Standby if self.activity == Activity::Standby => Route::Here,
            Destination::Standby => Route::Nowhere,
        }
    }

    fn deliver(&mut self, now: Time, message: Message) {
        let Some(point) = self.points.get_mut(&message.sap) else {
            self.undeliverable(now, message);
            return;
        };
        let messages_max = if point.client.is_some() {
            SAP_QUEUE_MESSAGES
        } else {
            HELD_MESSAGES
        };
        match point
            .queue
            .push(now, message, messages_max, SAP_QUEUE_BYTES)
        {
            Ok(()) => {
                if let Some(client) = point.client {
                    self.pump_client(client);
                }
            }
            Err(message) => self.undeliverable(now, message),
        }
    }

    fn send_to_peer(&mut self, now: Time, message: Message) {
        if !self.peer.connected {
            self.undeliverable(now, message);
            return;
        }
        let queue = self.peer.queues.entry(message.source).or_default();
        match queue.push(now, message, PEER_QUEUE_MESSAGES, PEER_QUEUE_BYTES) {
            Ok(()) => self.pump_peer(),
            Err(message) => self.undeliverable(now, message),
        }
    }

    /// Tells the sender, if it is to be told; else counts.
    fn undeliverable(&mut self, now: Time, message: Message) {
        let told = match message.kind {
            Kind::Request => true,
            Kind::Notification => message.correlation != 0,
            Kind::Response | Kind::Undeliverable => false,
        };
        if !told {
            self.counters.dropped += 1;
            return;
        }
        self.counters.undeliverable += 1;
        let back = Message {
            source: message.sap,
            from_peer: false,
            destination: if message.from_peer {
                Destination::Peer
            } else {
                Destination::Local
            },
            sap: message.source,
            kind: Kind::Undeliverable,
            correlation: message.correlation,
            body: Vec::new(),
        };
        if message.from_peer {
            self.send_to_peer(now, back);
        } else {
            self.deliver(now, back);
        }
    }

    // ---- flow

    fn pump_client(&mut self, client: ClientId) {
        let Some(known) = self.clients.get_mut(&client) else {
            return;
        };
        let Some(point) = known.sap.and_then(|sap| self.points.get_mut(&sap)) else {
            return;
        };
        while known.in_flight < CLIENT_WINDOW_FRAMES {
            let frame = if let Some(connected) = known.peer_news.take() {
                BrokerFrame::PeerConnected(connected)
            } else if let Some(message) = point.queue.pop() {
                self.counters.delivered += 1;
                BrokerFrame::Message(message)
            } else {
                break;
            };
            known.in_flight += 1;
            self.outputs.push_back(Output::ToClient { client, frame });
        }
    }

    fn pump_peer(&mut self) {
        while self.peer.connected && self.peer.in_flight < PEER_WINDOW_FRAMES {
            let after = |sap: &Sap| self.peer.last_served.is_none_or(|last| *sap > last);
            let waiting = || {
                self.peer
                    .queues
                    .iter()
                    .filter(|(_, queue)| !queue.is_empty())
                    .map(|(sap, _)| *sap)
            };
            let Some(sap) = waiting().find(after).or_else(|| waiting().next()) else {
                break;
            };
            let message = self.peer.queues.get_mut(&sap).and_then(Queue::pop);
            self.peer.last_served = Some(sap);
            if let Some(message) = message {
                self.peer.in_flight += 1;
                self.counters.to_peer += 1;
                self.outputs
                    .push_back(Output::ToPeer(BrokerFrame::Message(message)));
            }
        }
    }

    fn expiry(point: &Point) -> Option<Time> {
        if point.client.is_some() {
            return None;
        }
        Some(point.queue.oldest()?.max(point.vacant_since) + HELD_AGE)
    }

    fn expire(&mut self, now: Time) {
        let mut expired = Vec::new();
        for point in self.points.values_mut() {
            while Self::expiry(point).is_some_and(|at| at <= now) {
                expired.extend(point.queue.pop());
            }
        }
        for message in expired {
            self.undeliverable(now, message);
        }
    }

    /// Checks the invariants at the crate's head that can be seen in one state.
    ///
    /// # Errors
    /// The first one that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        for (sap, point) in &self.points {
            if let Some(client) = point.client
                && self.clients.get(&client).and_then(|known| known.sap) != Some(*sap)
            {
                return Err(format!(
                    "{sap:?} is bound by {client:?}, which does not know it"
                ));
            }
            let over = point.queue.len() > SAP_QUEUE_MESSAGES + UNDELIVERABLE_RESERVE
                || point.queue.bytes() > SAP_QUEUE_BYTES;
            if over {
                return Err(format!("the queue of {sap:?} is above its limits"));
            }
            if point.queue.bytes() != point.queue.counted_bytes() {
                return Err(format!("the bytes of {sap:?} are miscounted"));
            }
        }
        for (client, known) in &self.clients {
            if known.in_flight > CLIENT_WINDOW_FRAMES {
                return Err(format!(
                    "{client:?} has {} frames in flight",
                    known.in_flight
                ));
            }
            let bound = known.sap.and_then(|sap| self.points.get(&sap));
            if known.sap.is_some() && bound.and_then(|point| point.client) != Some(*client) {
                return Err(format!("{client:?} believes to be bound"));
            }
        }
        if !self.peer.connected && !self.peer.queues.is_empty() {
            return Err("messages wait for a peer that is away".to_owned());
        }
        if self.peer.in_flight > PEER_WINDOW_FRAMES {
            return Err(format!(
                "{} frames in flight to the peer",
                self.peer.in_flight
            ));
        }
        Ok(())
    }
}
