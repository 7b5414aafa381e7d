//! Pairings on the network: the listener while a code is valid, and the exchange on either side.
//!
//! Invariants:
//! - the code is in this process only, drawn here and wiped when it ends; it goes to the operator
//!   who asked for it and nowhere else;
//! - there is a listener only while a code is valid, and one exchange on it at a time: the cores
//!   judge, and count the tries, one after the other;
//! - a task of an exchange waits for the other side [`runtime::pairing::STEP_TIMEOUT`] at most for
//!   each message, and for our own part [`OWN_STEP_MAX`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::NodeKey;
use node::supervisor::{TrustEvent, TrustOrder};
use runtime::entropy;
use runtime::gate::Gate;
use runtime::identity::Identity;
use runtime::pairing::{PairingError, Proven, prove};
use runtime::tls::{Authenticated, TlsEndpoint};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use wire::pairing::{Code, Introduction, PROTOCOL, Purpose};
use wire::supervision::OfferedCode;

use super::Event;

/// Strangers served at once before they say anything: somebody types a code, once.
const STRANGERS_MAX: usize = 4;
/// Connections that the kernel keeps for us meanwhile.
const BACKLOG: u32 = 8;
/// What our own part of a step may take: a write of the node file on a busy disk.
const OWN_STEP_MAX: Duration = Duration::from_secs(4);
/// Answers that wait for an exchange's task; it asks for one at a time.
const REPLIES_MAX: usize = 4;
/// Pause after a failed `accept`, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the cores answer to an exchange.
#[derive(Debug)]
enum Reply {
    Begin(Option<Introduction>),
    Verdict(Option<String>),
    Pinned(bool),
}

/// Where a node listens while a code is valid.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// For the other node: our addresses on the HA links.
    pub(super) nodes: Vec<IpAddr>,
    /// For host agents: our address on the service network.
    pub(super) vems: Option<IpAddr>,
    /// Port of both.
    pub(super) port: u16,
}

impl Places {
    fn of(&self, purpose: Purpose) -> Vec<SocketAddr> {
        let at = |ip: &IpAddr| SocketAddr::new(*ip, self.port);
        match purpose {
            Purpose::Node => self.nodes.iter().map(at).collect(),
            Purpose::Vem => self.vems.iter().map(at).collect(),
        }
    }
}

struct Open {
    offer: u64,
    listeners: Vec<AbortHandle>,
}

/// See the module.
pub(super) struct Pairing {
    endpoint: TlsEndpoint,
    own: NodeKey,
    places: Places,
    open: Option<Open>,
    waiting: BTreeMap<u64, mpsc::Sender<Reply>>,
    attempts: u64,
    events: mpsc::Sender<Event>,
}

/// What every exchange needs.
#[derive(Clone)]
struct Exchange {
    endpoint: TlsEndpoint,
    own: NodeKey,
    events: mpsc::Sender<Event>,
}

impl Pairing {
    pub(super) fn new(
        identity: &Identity,
        places: Places,
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<Self> {
        let gate = Gate::new(STRANGERS_MAX, Vec::new());
        Ok(Self {
            endpoint: TlsEndpoint::of_strangers(identity, PROTOCOL)?.behind(gate),
            own: identity.fingerprint(),
            places,
            open: None,
            waiting: BTreeMap::new(),
            attempts: 0,
            events,
        })
    }

    /// For showing another identity.
    pub(super) fn endpoint(&self) -> TlsEndpoint {
        self.endpoint.clone()
    }

    /// This node shows another identity from now on. An exchange that runs fails.
    pub(super) const fn set_own(&mut self, own: NodeKey) {
        self.own = own;
    }

    /// Draws a code and listens for whoever was told it.
    ///
    /// # Errors
    /// In words for the operator.
    pub(super) fn open(&mut self, offer: u64, purpose: Purpose) -> Result<OfferedCode, String> {
        self.open = None;
        let addresses = self.places.of(purpose);
        if addresses.is_empty() {
            let what = match purpose {
                Purpose::Node => "HA link",
                Purpose::Vem => "[service] address",
            };
            return Err(format!(
                "No {what} is configured: nobody could reach this node"
            ));
        }
        let code = entropy::draw_bytes().map_err(|error| error.to_string())?;
        let code = Code::from_random(code);
        let mut listeners = Vec::new();
        for address in &addresses {
            let bound = listen_at(*address);
            listeners.push(bound.map_err(|error| format!("Cannot listen on {address}: {error}"))?);
        }
        let (code_kept, one) = (Arc::new(code.clone()), Arc::new(Semaphore::new(1)));
        let listeners = listeners.into_iter().map(|listener| {
            let door = Door {
                offer,
                code: Arc::clone(&code_kept),
                one: Arc::clone(&one),
                exchange: self.exchange(),
            };
            tokio::spawn(door.listen(listener)).abort_handle()
        });
        self.open = Some(Open {
            offer,
            listeners: listeners.collect(),
        });
        Ok(OfferedCode {
            code,
            purpose,
            valid_s: node::trust::VALID.as_secs() as u32,
            tries: node::trust::TRIES,
            addresses,
        })
    }

    /// Forgets the code, and stops listening; an exchange that runs ends by itself.
    pub(super) fn close(&mut self, offer: u64) {
        if self.open.as_ref().is_some_and(|open| open.offer == offer) {
            self.open = None;
        }
    }

    /// Connects to whoever printed the code.
    pub(super) fn join(
        &mut self,
        attempt: u64,
        (address, code): (SocketAddr, Code),
        introduction: Introduction,
    ) {
        let (sender, replies) = mpsc::channel(REPLIES_MAX);
        self.waiting.insert(attempt, sender);
        let exchange = self.exchange();
        tokio::spawn(async move {
            let outcome = exchange
                .typed(attempt, (address, code), introduction, replies)
                .await;
            exchange.ended(attempt, outcome).await;
        });
    }

    /// An answer of the cores to an exchange.
    pub(super) fn reply(&mut self, order: TrustOrder) {
        let (attempt, reply) = match order {
            TrustOrder::Begin {
                attempt,
                introduction,
            } => (attempt, Reply::Begin(introduction)),
            TrustOrder::Verdict { attempt, refusal } => (attempt, Reply::Verdict(refusal)),
            TrustOrder::Pinned { attempt, durable } => (attempt, Reply::Pinned(durable)),
            TrustOrder::OpenCode { .. }
            | TrustOrder::CloseCode { .. }
            | TrustOrder::Join { .. }
            | TrustOrder::PrepareIdentity
            | TrustOrder::ExchangeIdentity
            | TrustOrder::Renew
            | TrustOrder::Peer { .. } => return,
        };
        if let Some(waiting) = self.waiting.get(&attempt) {
            let _ = waiting.try_send(reply);
        }
    }

    /// Somebody connected to a listener: numbers the exchange.
    pub(super) fn knocked(&mut self, knock: Knock) -> TrustEvent {
        self.attempts += 1;
        let attempt = self.attempts;
        let (sender, replies) = mpsc::channel(REPLIES_MAX);
        self.waiting.insert(attempt, sender);
        // A task that has gone needs no answer.
        let _ = knock.begin.send((attempt, replies));
        TrustEvent::Begun {
            attempt,
            offer: knock.offer,
            address: knock.address,
        }
    }

    /// An exchange has ended.
    pub(super) fn ended(&mut self, attempt: u64) {
        self.waiting.remove(&attempt);
    }

    fn exchange(&self) -> Exchange {
        Exchange {
            endpoint: self.endpoint.clone(),
            own: self.own,
            events: self.events.clone(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listeners.iter().for_each(AbortHandle::abort);
    }
}

/// Somebody is connected where a code is listened for.
#[derive(Debug)]
pub(super) struct Knock {
    offer: u64,
    address: String,
    begin: tokio::sync::oneshot::Sender<(u64, mpsc::Receiver<Reply>)>,
}

/// One listener's task.
struct Door {
    offer: u64,
    code: Arc<Code>,
    one: Arc<Semaphore>,
    exchange: Exchange,
}

impl Door {
    async fn listen(self, listener: TcpListener) {
        let door = Arc::new(self);
        loop {
            let Ok((tcp, from)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let door = Arc::clone(&door);
            tokio::spawn(async move {
                // Who fails here has not been told a code, nor used a try.
                let Ok(connection) = door.exchange.endpoint.accept(tcp).await else {
                    return;
                };
                let Ok(_turn) = door.one.try_acquire() else {
                    return;
                };
                door.serve(connection, from.ip().to_string()).await;
            });
        }
    }

    async fn serve(&self, connection: Authenticated, address: String) {
        let (begin, begun) = tokio::sync::oneshot::channel();
        let knock = Knock {
            offer: self.offer,
            address,
            begin,
        };
        let told = self.exchange.events.send(Event::Knock(knock)).await;
        let (Ok(()), Ok((attempt, replies))) = (told, begun.await) else {
            return;
        };
        let outcome = self
            .exchange
            .printed(attempt, connection, &self.code, replies)
            .await;
        self.exchange.ended(attempt, outcome).await;
    }
}

impl Exchange {
    /// The side that printed the code.
    async fn printed(
        &self,
        attempt: u64,
        connection: Authenticated,
        code: &Code,
        mut replies: mpsc::Receiver<Reply>,
    ) -> Result<(), PairingError> {
        let Some(Reply::Begin(Some(introduction))) = next(&mut replies).await else {
            return Err(PairingError::Refused("no tries are left".to_owned()));
        };
        let proven = prove(connection, self.own, introduction, code).await?;
        let mut proven = self.agree(attempt, proven, &mut replies).await?;
        proven.await_pinned().await?;
        self.pin(attempt, &mut replies).await?;
        proven.tell_pinned().await
    }

    /// The side where it was typed.
    async fn typed(
        &self,
        attempt: u64,
        (address, code): (SocketAddr, Code),
        introduction: Introduction,
        mut replies: mpsc::Receiver<Reply>,
    ) -> Result<(), PairingError> {
        let connection = self.endpoint.connect(None, address).await?;
        let proven = prove(connection, self.own, introduction, &code).await?;
        drop(code);
        let mut proven = self.agree(attempt, proven, &mut replies).await?;
        self.pin(attempt, &mut replies).await?;
        proven.tell_pinned().await?;
        proven.await_pinned().await
    }

    /// Both say whether they will.
    async fn agree(
        &self,
        attempt: u64,
        mut proven: Proven,
        replies: &mut mpsc::Receiver<Reply>,
    ) -> Result<Proven, PairingError> {
        self.tell(TrustEvent::Proven {
            attempt,
            key: proven.key,
            introduction: proven.introduction.clone(),
        })
        .await;
        let Some(Reply::Verdict(refusal)) = next(replies).await else {
            return Err(PairingError::TimedOut);
        };
        proven.agree(refusal).await?;
        Ok(proven)
    }

    /// Has the other side pinned here.
    async fn pin(
        &self,
        attempt: u64,
        replies: &mut mpsc::Receiver<Reply>,
    ) -> Result<(), PairingError> {
        self.tell(TrustEvent::Agreed { attempt }).await;
        match next(replies).await {
            Some(Reply::Pinned(true)) => Ok(()),
            Some(_) => Err(PairingError::Refused(
                "another pairing came about meanwhile".to_owned(),
            )),
            None => Err(PairingError::Refused(
                "the node file could not be written in time".to_owned(),
            )),
        }
    }

    async fn ended(&self, attempt: u64, outcome: Result<(), PairingError>) {
        let outcome = outcome.map_err(|error| error.to_string());
        self.tell(TrustEvent::Ended { attempt, outcome }).await;
    }

    async fn tell(&self, event: TrustEvent) {
        // The loop ends with the process only.
        let _ = self.events.send(Event::Trust(event)).await;
    }
}

/// Listens, beside the listener of the code before, which is on its way out.
fn listen_at(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn next(replies: &mut mpsc::Receiver<Reply>) -> Option<Reply> {
    tokio::time::timeout(OWN_STEP_MAX, replies.recv())
        .await
        .ok()
        .flatten()
}
