//! Connections to the gateways: one task each, dialling for ever.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use model::NodeKey;
use runtime::stream::{self, MessageSender};
use runtime::tls::{Pins, TlsEndpoint};
use tokio::sync::{mpsc, watch};
use vem::GatewayId;
use wire::Channel;
use wire::vem::{FromVem, ToVem};

/// Pause after the first failed dial; it doubles up to [`DIAL_AGAIN_MAX`].
const DIAL_AGAIN_FIRST: Duration = Duration::from_millis(20);
/// A gateway that comes back is found this soon.
const DIAL_AGAIN_MAX: Duration = Duration::from_millis(500);
/// Messages from gateways that the worker has not taken yet. A full queue stops the reading, and
/// TCP slows the gateway down.
pub(crate) const MESSAGES_MAX: usize = 1024;

/// What a connection tells the worker.
pub(crate) enum FromGateway {
    /// It stands.
    Connected(GatewayId, MessageSender<FromVem>),
    /// A message.
    Message(GatewayId, ToVem),
    /// It has ended.
    Disconnected(GatewayId, String),
    /// It could not be made; told when the reason changes.
    Unreachable(GatewayId, String),
}

/// Who is trusted, for all connections: in a file that an operator or the gateways change.
#[derive(Clone)]
pub(crate) struct Trusted {
    state_dir: PathBuf,
    pins: Pins,
    changed: watch::Sender<()>,
}

impl Trusted {
    pub(crate) fn load(state_dir: &Path) -> Result<Self> {
        Ok(Self {
            state_dir: state_dir.to_owned(),
            pins: Pins::new(crate::keys::pins(state_dir)?),
            changed: watch::Sender::new(()),
        })
    }

    pub(crate) fn pins(&self) -> Pins {
        self.pins.clone()
    }

    /// Makes these the trusted ones, durably; connections with others end.
    pub(crate) fn replace(&self, keys: &[NodeKey]) -> Result<()> {
        crate::keys::replace(&self.state_dir, keys)?;
        self.pins.replace(keys.iter().copied());
        self.changed.send_replace(());
        Ok(())
    }

    /// Looks whether somebody else has changed the file. A file that cannot be read changes
    /// nothing.
    fn look(&self) {
        if let Ok(keys) = crate::keys::pins(&self.state_dir) {
            self.pins.replace(keys);
        }
    }
}

/// Keeps a connection to one gateway, until the worker is gone.
pub(crate) async fn keep_connected(
    gateway: GatewayId,
    address: SocketAddr,
    (endpoint, trusted): (TlsEndpoint, Trusted),
    worker: mpsc::Sender<FromGateway>,
) {
    let mut pause = DIAL_AGAIN_FIRST;
    let mut last_reason = String::new();
    loop {
        trusted.look();
        let told = match endpoint.connect(None, address).await {
            Ok(peer) => {
                pause = DIAL_AGAIN_FIRST;
                last_reason.clear();
                converse(gateway, peer, &trusted, &worker).await
            }
            Err(error) => {
                let reason = error.to_string();
                if reason == last_reason {
                    !worker.is_closed()
                } else {
                    last_reason.clone_from(&reason);
                    worker
                        .send(FromGateway::Unreachable(gateway, reason))
                        .await
                        .is_ok()
                }
            }
        };
        if !told {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(DIAL_AGAIN_MAX);
    }
}

/// False if the worker is gone.
async fn converse(
    gateway: GatewayId,
    peer: runtime::tls::Authenticated,
    trusted: &Trusted,
    worker: &mpsc::Sender<FromGateway>,
) -> bool {
    let mut changed = trusted.changed.subscribe();
    let (sender, mut receiver) = stream::framed(peer.stream, Channel::Vem);
    let connected = FromGateway::Connected(gateway, sender.clone());
    if worker.send(connected).await.is_err() {
        return false;
    }
    let reason = loop {
        let message = tokio::select! {
            message = receiver.next() => message,
            Ok(()) = changed.changed() => {
                if trusted.pins.contains(&peer.key) {
                    continue;
                }
                break "it is not trusted any more".to_owned();
            }
        };
        match message {
            Ok(Some(message)) => {
                if worker
                    .send(FromGateway::Message(gateway, message))
                    .await
                    .is_err()
                {
                    return false;
                }
            }
            Ok(None) => break "closed by the gateway".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    sender.abort();
    worker
        .send(FromGateway::Disconnected(gateway, reason))
        .await
        .is_ok()
}
