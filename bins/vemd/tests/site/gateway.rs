//! A gateway that decides by a closure of the test: the real protocol over the real TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use model::{Epoch, Generation, Incarnation, ModuleNumber, NodeKey, Verdict};
use runtime::identity::Identity;
use runtime::stream::{self, MessageSender};
use runtime::tls::{Pins, TlsEndpoint};
use wire::Channel;
use wire::vem::{Decision, DecisionRequest, FromVem, PROTOCOL, ToVem};

/// What it does with requests.
#[derive(Clone, Default)]
pub enum Mood {
    /// Permits.
    #[default]
    Permit,
    /// Permits all but this destination port.
    Forbid(u16),
    /// Permits after a while.
    Slow(Duration),
    /// Takes requests and says nothing.
    Silent,
}

#[derive(Default)]
struct Shared {
    mood: Mood,
    claim: Option<(Epoch, Generation)>,
    heard: Vec<FromVem>,
    connection: Option<MessageSender<ToVem>>,
}

/// One gateway.
pub struct Gateway {
    pub address: SocketAddr,
    pub fingerprint: String,
    pins: Pins,
    shared: Arc<Mutex<Shared>>,
}

/// An epoch of gateway `node`.
pub fn epoch(counter: u64, node: u8) -> Epoch {
    Epoch {
        counter,
        node: NodeKey([node; 32]),
        incarnation: Incarnation(7),
    }
}

impl Gateway {
    pub fn start(namespace: &str, folder: &Path, number: usize) -> Self {
        let identity =
            Identity::create(&folder.join(format!("gateway-{number}"))).expect("a new identity");
        let pins = Pins::default();
        let endpoint = TlsEndpoint::new(&identity, pins.clone(), PROTOCOL).expect("an endpoint");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (tell, address) = mpsc::channel();
        let state = Arc::clone(&shared);
        // Ends with the test's process: the listener is in a namespace that is deleted.
        let _serving = super::inside(namespace, move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                    .await
                    .expect("a port");
                tell.send(listener.local_addr().expect("its address"))
                    .expect("the test waits");
                while let Ok((tcp, _)) = listener.accept().await {
                    if let Ok(peer) = endpoint.accept(tcp).await {
                        tokio::spawn(serve(peer, Arc::clone(&state)));
                    }
                }
            });
        });
        let fingerprint = identity.fingerprint().to_string();
        Self {
            address: address.recv().expect("an address"),
            fingerprint,
            pins,
            shared,
        }
    }

    pub fn trust(&self, vem: NodeKey) {
        self.pins.replace([vem]);
    }

    pub fn set_mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// Claims now, and at each later connection.
    pub fn claim(&self, epoch: Epoch, generation: u64) {
        let generation = Generation(generation);
        let mut shared = self.lock();
        shared.claim = Some((epoch, generation));
        if let Some(connection) = &shared.connection {
            let _ = connection.send(&ToVem::Claim { epoch, generation });
        }
    }

    pub fn send(&self, message: &ToVem) {
        let sent = self
            .lock()
            .connection
            .as_ref()
            .map(|connection| connection.send(message));
        assert_eq!(sent, Some(Ok(())), "vemd is connected");
    }

    /// All that vemd said.
    pub fn heard(&self) -> Vec<FromVem> {
        self.lock().heard.clone()
    }

    /// All requests.
    pub fn asked(&self) -> Vec<DecisionRequest> {
        let requests = |message| match message {
            FromVem::Decide(requests) => requests,
            _ => Vec::new(),
        };
        self.heard().into_iter().flat_map(requests).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(peer: runtime::tls::Authenticated, shared: Arc<Mutex<Shared>>) {
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let (sender, mut receiver) = stream::framed::<_, FromVem, ToVem>(peer.stream, Channel::Vem);
    while let Ok(Some(message)) = receiver.next().await {
        let (mood, claim) = {
            let mut shared = lock();
            shared.heard.push(message.clone());
            (shared.mood.clone(), shared.claim)
        };
        match message {
            FromVem::Hello { .. } => {
                lock().connection = Some(sender.clone());
                let _ = sender.send(&ToVem::Welcome {
                    module: ModuleNumber(3),
                });
                if let Some((epoch, generation)) = claim {
                    let _ = sender.send(&ToVem::Claim { epoch, generation });
                }
            }
            FromVem::Decide(requests) => {
                let Some((epoch, generation)) = claim else {
                    continue;
                };
                let forbidden = match mood {
                    Mood::Silent => continue,
                    Mood::Slow(time) => {
                        tokio::time::sleep(time).await;
                        None
                    }
                    Mood::Forbid(port) => Some(port),
                    Mood::Permit => None,
                };
                let decide = |request: &DecisionRequest| Decision {
                    request: request.request,
                    verdict: if Some(request.attributes.flow.dst_port) == forbidden {
                        Verdict::Drop
                    } else {
                        Verdict::Permit
                    },
                    generation,
                };
                let decisions = requests.iter().map(decide).collect();
                let _ = sender.send(&ToVem::Decided { epoch, decisions });
            }
            FromVem::GatewaysPinned { .. }
            | FromVem::ClaimAccepted { .. }
            | FromVem::ClaimRefused { .. }
            | FromVem::Report { .. }
            | FromVem::Alive { .. }
            | FromVem::Inquire { .. }
            | FromVem::Ballot { .. }
            | FromVem::Raised(_) => {}
        }
    }
}
