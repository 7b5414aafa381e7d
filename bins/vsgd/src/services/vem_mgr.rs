//! `vem_mgr`: a TLS listener on the service network, one connection for each host agent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use model::{NodeKey, PortKind};
use node::service::{ServiceInput, ServiceOutput, VemConnection, VemEvent};
use runtime::gate::Gate;
use runtime::identity::Identity;
use runtime::stream::{MessageSender, ReceiveError, framed};
use runtime::tls::{Pins, TlsEndpoint, TlsError};
use runtime::traffic::PortCounters;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use wire::Channel;
use wire::supervision::Trust;
use wire::vem::{FromVem, PROTOCOL, ToVem};

use super::harness::{EDGE_QUEUE_MAX, Edge};
use super::{Settings, harness};

/// Pause after a failed `accept` (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Host agents that may be unauthenticated at once: all of a large site that reconnects after its
/// network was away. Those beyond it are closed, and try again.
const UNAUTHENTICATED_MAX: usize = 256;

/// An open connection.
struct Open {
    sender: MessageSender<ToVem>,
    key: NodeKey,
    /// Ends it.
    cut: Arc<Notify>,
}

/// The open connections.
type Senders = Arc<Mutex<BTreeMap<VemConnection, Open>>>;

struct VemEdge {
    senders: Senders,
    inputs: mpsc::Sender<ServiceInput>,
    pins: Pins,
    endpoint: TlsEndpoint,
    identity_file: PathBuf,
    /// Which of its identities this node shows.
    identity: u64,
    /// The listener, until it is known who is let in.
    waiting: Option<(TcpListener, PortCounters)>,
}

impl Edge for VemEdge {
    fn perform(&mut self, output: ServiceOutput) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        match output {
            ServiceOutput::Vem {
                connection,
                message,
            } => {
                let Some(Open { sender, .. }) = senders.get(&connection) else {
                    return;
                };
                if sender.send(&message).is_err() {
                    // It does not read as fast as we write, or is gone: it connects anew.
                    sender.abort();
                    senders.remove(&connection);
                    let inputs = self.inputs.clone();
                    tokio::spawn(async move {
                        let event = VemEvent::Closed;
                        let _ = inputs.send(ServiceInput::Vem { connection, event }).await;
                    });
                }
            }
            ServiceOutput::CloseVem(connection) => {
                if let Some(open) = senders.remove(&connection) {
                    open.sender.abort();
                    open.cut.notify_one();
                }
            }
            ServiceOutput::Send(_)
            | ServiceOutput::Supervision(_)
            | ServiceOutput::Shell { .. }
            | ServiceOutput::CloseShell(_) => {}
        }
    }

    /// Whoever is not trusted any more is cut off.
    fn trust(&mut self, trust: &Trust) -> anyhow::Result<()> {
        if trust.identity != self.identity {
            self.endpoint
                .change_identity(&Identity::load(&self.identity_file)?)?;
            self.identity = trust.identity;
        }
        self.pins.replace(trust.vems.iter().copied());
        if let Some((listener, port)) = self.waiting.take() {
            let (endpoint, senders) = (self.endpoint.clone(), Arc::clone(&self.senders));
            tokio::spawn(accept(
                listener,
                endpoint,
                port,
                senders,
                self.inputs.clone(),
            ));
        }
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        for open in senders
            .values()
            .filter(|open| !self.pins.contains(&open.key))
        {
            open.cut.notify_one();
        }
        Ok(())
    }
}

/// Runs until stopped.
pub(super) async fn run(settings: &Settings, mut parts: super::Parts) -> anyhow::Result<()> {
    let pins = Pins::default();
    let gate = Gate::new(UNAUTHENTICATED_MAX, Vec::new());
    let endpoint = TlsEndpoint::new(&settings.identity()?, pins.clone(), PROTOCOL)?.behind(gate);
    let listen = settings
        .service_listen
        .context("no [service] listen address is configured")?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening for host agents on {listen}"))?;
    let port = PortCounters::new(PortKind::Service, "");
    parts.supervision.report(port.clone());
    let (inputs, edge_inputs) = mpsc::channel(EDGE_QUEUE_MAX);
    let service = node::services::vem_mgr::VemMgr::new(parts.now);
    let edge = VemEdge {
        senders: Senders::default(),
        inputs,
        pins,
        endpoint,
        identity_file: settings.identity_file.clone(),
        identity: 0,
        waiting: Some((listener, port)),
    };
    harness::run(service, parts.supervision, parts.broker, edge, edge_inputs).await
}

async fn accept(
    listener: TcpListener,
    endpoint: TlsEndpoint,
    port: PortCounters,
    senders: Senders,
    inputs: mpsc::Sender<ServiceInput>,
) {
    let mut next = 0;
    loop {
        let Ok((tcp, address)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        next += 1;
        let connection = VemConnection(next);
        let (endpoint, port) = (endpoint.clone(), port.clone());
        let (senders, inputs) = (Arc::clone(&senders), inputs.clone());
        let address = address.ip().to_string();
        tokio::spawn(async move {
            let listener = (&endpoint, &port);
            serve(connection, tcp, address, listener, &senders, &inputs).await
        });
    }
}

/// Serves one connection; `None` when the loop is gone, and the process about to end.
async fn serve(
    connection: VemConnection,
    tcp: TcpStream,
    address: String,
    (endpoint, port): (&TlsEndpoint, &PortCounters),
    senders: &Senders,
    inputs: &mpsc::Sender<ServiceInput>,
) -> Option<()> {
    let tell = |event| inputs.send(ServiceInput::Vem { connection, event });
    let peer = match endpoint.accept(tcp).await {
        Ok(peer) => peer,
        Err(error) => {
            if let Some(reason) = error.reason() {
                port.dropped(reason);
            }
            // Only an identity that was proven is worth a line; rubbish is counted.
            if !matches!(error, TlsError::NotPinned { .. }) {
                return Some(());
            }
            let reason = error.to_string();
            return tell(VemEvent::Refused { address, reason }).await.ok();
        }
    };
    let (sender, receiver) = framed::<_, FromVem, ToVem>(peer.stream, Channel::Vem);
    let (sender, mut receiver) = (sender.counted(port), receiver.counted(port));
    let cut = Arc::new(Notify::new());
    senders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(
            connection,
            Open {
                sender,
                key: peer.key,
                cut: Arc::clone(&cut),
            },
        );
    // Removed while its handshake ran: nobody has cut it.
    if !endpoint.trusts(&peer.key) {
        cut.notify_one();
    }
    tell(VemEvent::Connected {
        key: peer.key,
        address: address.clone(),
    })
    .await
    .ok()?;
    loop {
        let message = tokio::select! {
            message = receiver.next() => message,
            () = cut.notified() => break,
        };
        match message {
            Ok(Some(message)) => tell(VemEvent::Message(message)).await.ok()?,
            // A network that failed is told by the end of the connection.
            Ok(None) | Err(ReceiveError::Connection(_)) => break,
            Err(error @ ReceiveError::Malformed(_)) => {
                let reason = error.to_string();
                tell(VemEvent::Refused { address, reason }).await.ok()?;
                break;
            }
        }
    }
    let known = senders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&connection);
    if let Some(open) = known {
        open.sender.abort();
        tell(VemEvent::Closed).await.ok()?;
    }
    Some(())
}
