//! `vem_mgr`: a TLS listener on the service network, one connection for each host agent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use node::service::{ServiceInput, ServiceOutput, VemConnection, VemEvent};
use runtime::stream::{MessageSender, framed};
use runtime::tls::{Pins, TlsEndpoint};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use wire::Channel;
use wire::vem::{FromVem, PROTOCOL, ToVem};

use super::harness::{EDGE_QUEUE_MAX, Edge};
use super::{Settings, harness};

/// Pause after a failed `accept` (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
pub(super) async fn run(settings: &Settings, parts: super::Parts) -> anyhow::Result<()> {
    let pins = Pins::new(settings.vems.iter().copied());
    let endpoint = TlsEndpoint::new(&settings.identity()?, pins, PROTOCOL)?;
    let listen = settings
        .service_listen
        .context("no [service] listen address is configured")?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening for host agents on {listen}"))?;
    let senders = Senders::default();
    let (inputs, edge_inputs) = mpsc::channel(EDGE_QUEUE_MAX);
    tokio::spawn(accept(
        listener,
        endpoint,
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
        let (endpoint, senders, inputs) = (endpoint.clone(), Arc::clone(&senders), inputs.clone());
        let address = address.ip().to_string();
        tokio::spawn(async move {
            if let Err(error) = serve(connection, tcp, address, &endpoint, &senders, &inputs).await
            {
                eprintln!("host agent: {error:#}");
            }
        });
    }
}

async fn serve(
    connection: VemConnection,
    tcp: TcpStream,
    address: String,
    endpoint: &TlsEndpoint,
    senders: &Senders,
    inputs: &mpsc::Sender<ServiceInput>,
) -> anyhow::Result<()> {
    let peer = endpoint
        .accept(tcp)
        .await
        .with_context(|| format!("from {address}"))?;
    let (sender, mut receiver) = framed::<_, FromVem, ToVem>(peer.stream, Channel::Vem);
    senders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(connection, sender);
    let tell = |event| inputs.send(ServiceInput::Vem { connection, event });
    tell(VemEvent::Connected {
        key: peer.key,
        address,
    })
    .await?;
    let outcome = loop {
        match receiver.next().await {
            Ok(Some(message)) => tell(VemEvent::Message(message)).await?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let known = senders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&connection);
    if let Some(sender) = known {
        sender.abort();
        tell(VemEvent::Closed).await?;
    }
    outcome.context("host agent's connection")
}
