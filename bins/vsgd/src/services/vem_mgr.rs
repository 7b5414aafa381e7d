//! `vem_mgr`: a TLS listener on the service network, one connection for each host agent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use model::PortKind;
use node::service::{ServiceInput, ServiceOutput, VemConnection, VemEvent};
use runtime::gate::Gate;
use runtime::stream::{MessageSender, ReceiveError, framed};
use runtime::tls::{Pins, TlsEndpoint, TlsError};
use runtime::traffic::PortCounters;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use wire::Channel;
use wire::vem::{FromVem, PROTOCOL, ToVem};

use super::harness::{EDGE_QUEUE_MAX, Edge};
use super::{Settings, harness};

/// Pause after a failed `accept` (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Host agents that may be unauthenticated at once: all of a large site that reconnects after its
/// network was away. Those beyond it are closed, and try again.
const UNAUTHENTICATED_MAX: usize = 256;

/// Senders of the open connections.
type Senders = Arc<Mutex<BTreeMap<VemConnection, MessageSender<ToVem>>>>;

struct VemEdge {
    senders: Senders,
    inputs: mpsc::Sender<ServiceInput>,
}

impl Edge for VemEdge {
    fn perform(&mut self, output: ServiceOutput) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        match output {
            ServiceOutput::Vem {
                connection,
                message,
            } => {
                let Some(sender) = senders.get(&connection) else {
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
                if let Some(sender) = senders.remove(&connection) {
                    sender.abort();
                }
            }
            ServiceOutput::Send(_)
            | ServiceOutput::Supervision(_)
            | ServiceOutput::Shell { .. }
            | ServiceOutput::CloseShell(_) => {}
        }
    }
}

/// Runs until stopped.
pub(super) async fn run(settings: &Settings, mut parts: super::Parts) -> anyhow::Result<()> {
    let pins = Pins::new(settings.vems.iter().copied());
    let gate = Gate::new(UNAUTHENTICATED_MAX, Vec::new());
    let endpoint = TlsEndpoint::new(&settings.identity()?, pins, PROTOCOL)?.behind(gate);
    let listen = settings
        .service_listen
        .context("no [service] listen address is configured")?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening for host agents on {listen}"))?;
    let port = PortCounters::new(PortKind::Service, "");
    parts.supervision.report(port.clone());
    let senders = Senders::default();
    let (inputs, edge_inputs) = mpsc::channel(EDGE_QUEUE_MAX);
    tokio::spawn(accept(
        listener,
        endpoint,
        port,
        Arc::clone(&senders),
        inputs.clone(),
    ));
    let service = node::services::vem_mgr::VemMgr::new(parts.now);
    let edge = VemEdge { senders, inputs };
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
    senders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(connection, sender);
    tell(VemEvent::Connected {
        key: peer.key,
        address: address.clone(),
    })
    .await
    .ok()?;
    loop {
        match receiver.next().await {
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
    if let Some(sender) = known {
        sender.abort();
        tell(VemEvent::Closed).await.ok()?;
    }
    Some(())
}
