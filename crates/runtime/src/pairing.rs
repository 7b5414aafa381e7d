//! Two strangers prove to each other that they were told the same one-time code.
//!
//! SPAKE2 (RFC 9382, by the `spake2` crate) over a TLS 1.3 connection whose certificates nobody
//! has pinned, then a proof each way: HMAC-SHA256 under the key that both derived, over the TLS
//! exporter, both identities, both introductions and both SPAKE2 messages.
//!
//! Invariants:
//! - somebody in between has two TLS connections, so two exporters and other identities, and
//!   neither proof verifies; a recording proves nothing on another connection;
//! - the server proves nothing before the client has: whoever guesses learns from one connection
//!   whether one guess was right, and no more, and nothing can be tried offline;
//! - the code is never compared; proofs are, in constant time; derived keys are wiped;
//! - a frame is refused by its header when it is longer than a pairing's longest, and each step
//!   has a time limit.

use std::io;
use std::time::Duration;

use model::NodeKey;
use ring::digest::{Context, SHA256};
use ring::hmac;
use spake2::{Ed25519Group, Identity as Side, Password, Spake2};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use wire::pairing::{Code, Introduction, PairingMessage, decode, frame_bytes};
use wire::{Channel, DecodeError, HEADER_BYTES, encode};
use zeroize::Zeroizing;

use crate::tls::{Authenticated, TlsError};

/// Exporter label (RFC 5705 asks for the prefix).
const EXPORT_LABEL: &str = "EXPORTER-twinwall-pairing";
/// Bytes of the exporter: those of the hash.
const EXPORT_BYTES: usize = 32;
/// What the other side may take for one message. Some wait for a disk, and for one round trip of
/// the pair, none for a person.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Whom SPAKE2 derives a key for: whoever typed the code, and whoever printed it.
const SIDES: [&[u8]; 2] = [b"twinwall client", b"twinwall server"];

/// Why two did not pair.
#[derive(Debug, Error)]
pub enum PairingError {
    /// The connection failed or was closed.
    #[error("the other side closed the connection")]
    Closed,
    /// The other side did not say its next message in time.
    #[error("the other side said nothing for {} s", STEP_TIMEOUT.as_secs())]
    TimedOut,
    /// What came is no message of a pairing, or not the one that was due.
    #[error("the other side does not keep to the protocol")]
    Protocol,
    /// The other side was told another code, or somebody is in between.
    #[error("the code is not the one that the other side was told, or somebody is in between")]
    NotProven,
    /// The other side knows the code and refuses.
    #[error("{0}")]
    Refused(String),
    /// No connection.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl From<DecodeError> for PairingError {
    fn from(_: DecodeError) -> Self {
        Self::Protocol
    }
}

impl From<io::Error> for PairingError {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// A peer that has proved that it was told the code.
#[derive(Debug)]
pub struct Proven {
    stream: TlsStream<TcpStream>,
    /// Its identity.
    pub key: NodeKey,
    /// Who it says it is; the proof covers it.
    pub introduction: Introduction,
}

/// Proves `code` to the peer and has it proved by it. `own` is our identity on this connection.
///
/// # Errors
/// [`PairingError`]; nothing about the peer is then known.
pub async fn prove(
    connection: Authenticated,
    own: NodeKey,
    introduction: Introduction,
    code: &Code,
) -> Result<Proven, PairingError> {
    let exported: Zeroizing<[u8; EXPORT_BYTES]> = connection.export(EXPORT_LABEL)?.into();
    let Authenticated {
        mut stream,
        key,
        server,
    } = connection;
    let password = Password::new(code.secret());
    let (client_side, server_side) = (Side::new(SIDES[0]), Side::new(SIDES[1]));
    let (state, share) = if server {
        Spake2::<Ed25519Group>::start_b(&password, &client_side, &server_side)
    } else {
        Spake2::<Ed25519Group>::start_a(&password, &client_side, &server_side)
    };
    let (ours, theirs);
    if server {
        theirs = receive(&mut stream).await?;
        ours = PairingMessage::Reply {
            introduction,
            share,
        };
        send(&mut stream, &ours).await?;
    } else {
        ours = PairingMessage::Begin {
            introduction,
            share,
        };
        send(&mut stream, &ours).await?;
        theirs = receive(&mut stream).await?;
    }
    let (introduction, share) = match (server, &theirs) {
        (
            true,
            PairingMessage::Begin {
                introduction,
                share,
            },
        )
        | (
            false,
            PairingMessage::Reply {
                introduction,
                share,
            },
        ) => (introduction.clone(), share),
        _ => return Err(PairingError::Protocol),
    };
    let shared = state.finish(share).map_err(|_| PairingError::Protocol)?;
    let shared = Zeroizing::new(shared);
    let proofs = Proofs::new(&shared, &*exported, server, (own, key), (&ours, &theirs));
    if server {
        proofs.check(&receive(&mut stream).await?)?;
        send(&mut stream, &proofs.ours()).await?;
    } else {
        send(&mut stream, &proofs.ours()).await?;
        match receive(&mut stream).await {
            // The server says nothing to whom it does not believe.
            Err(PairingError::Closed) => return Err(PairingError::NotProven),
            message => proofs.check(&message?)?,
        }
    }
    Ok(Proven {
        stream,
        key,
        introduction,
    })
}

impl Proven {
    /// Tells our verdict and hears theirs.
    ///
    /// # Errors
    /// [`PairingError::Refused`] with ours, or with theirs if ours is none.
    pub async fn agree(&mut self, refusal: Option<String>) -> Result<(), PairingError> {
        let message = PairingMessage::Verdict {
            refusal: refusal.clone(),
        };
        send(&mut self.stream, &message).await?;
        if let Some(refusal) = refusal {
            // So that it is read before the connection ends.
            let _ = receive(&mut self.stream).await;
            return Err(PairingError::Refused(refusal));
        }
        match receive(&mut self.stream).await? {
            PairingMessage::Verdict { refusal: None } => Ok(()),
            PairingMessage::Verdict {
                refusal: Some(refusal),
            } => Err(PairingError::Refused(printable(&refusal))),
            _ => Err(PairingError::Protocol),
        }
    }

    /// Tells that the peer is pinned here, durably.
    ///
    /// # Errors
    /// [`PairingError`].
    pub async fn tell_pinned(&mut self) -> Result<(), PairingError> {
        send(&mut self.stream, &PairingMessage::Pinned).await
    }

    /// Waits until we are pinned there, durably.
    ///
    /// # Errors
    /// [`PairingError`].
    pub async fn await_pinned(&mut self) -> Result<(), PairingError> {
        match receive(&mut self.stream).await? {
            PairingMessage::Pinned => Ok(()),
            _ => Err(PairingError::Protocol),
        }
    }
}

/// What a stranger says goes to a terminal: text only.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The tags of both sides.
struct Proofs {
    key: hmac::Key,
    transcript: [u8; 32],
    server: bool,
}

impl Proofs {
    fn new(
        shared: &[u8],
        exported: &[u8],
        server: bool,
        (own, peer): (NodeKey, NodeKey),
        (ours, theirs): (&PairingMessage, &PairingMessage),
    ) -> Self {
        let (ours, theirs) = (
            encode(Channel::Pairing, ours),
            encode(Channel::Pairing, theirs),
        );
        let (identities, messages) = if server {
            ([peer, own], [theirs, ours])
        } else {
            ([own, peer], [ours, theirs])
        };
        let mut context = Context::new(&SHA256);
        let parts = [
            exported,
            &identities[0].0,
            &identities[1].0,
            &messages[0],
            &messages[1],
        ];
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut transcript = [0; 32];
        transcript.copy_from_slice(context.finish().as_ref());
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, shared),
            transcript,
            server,
        }
    }

    fn text(&self, server: bool) -> Vec<u8> {
        [SIDES[usize::from(server)], &self.transcript].concat()
    }

    fn ours(&self) -> PairingMessage {
        let tag = hmac::sign(&self.key, &self.text(self.server));
        let mut mac = [0; 32];
        mac.copy_from_slice(tag.as_ref());
        PairingMessage::Prove { mac }
    }

    /// Compared in constant time by the library.
    fn check(&self, message: &PairingMessage) -> Result<(), PairingError> {
        let PairingMessage::Prove { mac } = message else {
            return Err(PairingError::Protocol);
        };
        hmac::verify(&self.key, &self.text(!self.server), mac).map_err(|_| PairingError::NotProven)
    }
}

async fn send(
    stream: &mut TlsStream<TcpStream>,
    message: &PairingMessage,
) -> Result<(), PairingError> {
    let frame = encode(Channel::Pairing, message);
    let sending = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    tokio::time::timeout(STEP_TIMEOUT, sending)
        .await
        .map_err(|_| PairingError::TimedOut)??;
    Ok(())
}

async fn receive(stream: &mut TlsStream<TcpStream>) -> Result<PairingMessage, PairingError> {
    let receiving = async {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await?;
        let mut frame = vec![0; frame_bytes(&header)?];
        frame[..HEADER_BYTES].copy_from_slice(&header);
        stream.read_exact(&mut frame[HEADER_BYTES..]).await?;
        Ok(decode(&frame)?)
    };
    tokio::time::timeout(STEP_TIMEOUT, receiving)
        .await
        .map_err(|_| PairingError::TimedOut)?
}

#[cfg(test)]
mod tests;
