//! TLS 1.3 between the parts of a site, mutually authenticated by pinned identities.
//!
//! Invariants:
//! - a connection is handed out only after both sides proved possession of a key whose
//!   fingerprint is in the other's pin set; names, issuers and dates are not looked at;
//! - there is no session resumption and no early data, so every connection is proven anew;
//! - a connection made for one purpose is refused by the port of another (ALPN);
//! - peers that have not authenticated cost at most [`HANDSHAKES_MAX`] sockets (or what the
//!   endpoint's gate admits), each for at most [`HANDSHAKE_TIMEOUT`]; the rest is closed at once.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use model::{DropReason, NodeKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, InvalidMessage,
    OtherError, ServerConfig, SignatureScheme,
};
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::gate::Gate;
use crate::identity::{Identity, fingerprint_of};

/// A handshake takes a few milliseconds between healthy machines; whoever needs longer is dead,
/// overloaded or hostile, and tries again.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// The TCP part of it: shorter than the kernel's first retransmission of a lost SYN (1 s), so
/// that dialling a peer that is just coming up asks again sooner.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Unauthenticated peers served at once per endpoint, unless it is given another gate. Their
/// handshakes take turns with all else that its process does, a fraction of a millisecond each.
pub const HANDSHAKES_MAX: usize = 32;
/// A silently dead peer is noticed after this long without an acknowledged byte: short enough
/// that a VEM looks for the other node, long enough for a routing change.
const SILENT_PEER_MS: u32 = 3_000;
/// Idle time before the first keepalive probe, and between probes.
const KEEPALIVE_S: u32 = 1;
/// Our certificates carry no useful name, but the protocol wants one.
const SERVER_NAME: &str = "twinwall";
/// The name called by whoever only shows who he is, and wants no connection.
const KNOCK_NAME: &str = "knock.twinwall";
/// The name called by whoever has a connection already, and wants another in its place.
const RENEWAL_NAME: &str = "renewal.twinwall";

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The peer proved an identity that is not pinned here.
    #[error("peer {key} is not pinned")]
    NotPinned {
        /// Who it is.
        key: NodeKey,
    },
    /// The handshake did not end in time.
    #[error("handshake not finished within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
    /// The peer speaks another protocol than this port.
    #[error("peer speaks another protocol than {expected}")]
    OtherProtocol {
        /// The protocol of this endpoint.
        expected: String,
    },
    /// The peer refused us, broke the protocol, or the network failed.
    #[error("handshake: {0}")]
    Handshake(#[source] io::Error),
    /// The TCP connection could not be made.
    #[error("connection to {peer}: {source}")]
    Connect {
        /// Address dialled.
        peer: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// An expected peer ended its try: it was faster on another link, or impatient.
    #[error("given up by the peer")]
    GaveUp,
    /// Too many connections are unauthenticated at the moment.
    #[error("too many unauthenticated connections")]
    TooMany,
    /// Our own key or certificate is unusable.
    #[error("own identity: {0}")]
    OwnIdentity(#[source] rustls::Error),
}

impl TlsError {
    /// Under which reason such a try to connect to us is counted; `None` for one that its maker
    /// gave up and for faults of our own.
    #[must_use]
    pub fn reason(&self) -> Option<DropReason> {
        match self {
            Self::NotPinned { .. } => Some(DropReason::NotPinned),
            Self::TimedOut => Some(DropReason::TimedOut),
            Self::OtherProtocol { .. } => Some(DropReason::OtherProtocol),
            Self::TooMany => Some(DropReason::TooMany),
            Self::Connect { .. } | Self::GaveUp | Self::OwnIdentity(_) => None,
            Self::Handshake(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Some(DropReason::Truncated)
            }
            Self::Handshake(error) => {
                let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
                match tls {
                    Some(rustls::Error::InvalidMessage(
                        InvalidMessage::MessageTooLarge | InvalidMessage::HandshakePayloadTooLarge,
                    )) => Some(DropReason::Oversized),
                    Some(
                        rustls::Error::InvalidMessage(_)
                        | rustls::Error::InappropriateMessage { .. }
                        | rustls::Error::InappropriateHandshakeMessage { .. }
                        | rustls::Error::PeerMisbehaved(_)
                        | rustls::Error::DecryptError,
                    ) => Some(DropReason::Malformed),
                    Some(rustls::Error::NoApplicationProtocol) => Some(DropReason::OtherProtocol),
                    Some(_) => Some(DropReason::NotAuthenticated),
                    None => None,
                }
            }
        }
    }
}

/// The identities that are trusted, shared by all endpoints that go by them. Replacing them
/// takes effect at the next handshake.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<RwLock<BTreeSet<NodeKey>>>);

impl Pins {
    /// These and no others.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = NodeKey>) -> Self {
        Self(Arc::new(RwLock::new(keys.into_iter().collect())))
    }

    /// Replaces the set.
    pub fn replace(&self, keys: impl IntoIterator<Item = NodeKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.into_iter().collect();
    }

    /// Whether `key` is trusted.
    #[must_use]
    pub fn contains(&self, key: &NodeKey) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(key)
    }
}

/// A peer that proved its identity.
#[derive(Debug)]
pub struct Authenticated {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Who it is.
    pub key: NodeKey,
    /// True on the side that accepted.
    pub server: bool,
}

impl Authenticated {
    /// The peer only shows who it is: the connection is of no use.
    #[must_use]
    pub fn is_knock(&self) -> bool {
        self.was_called(KNOCK_NAME)
    }

    /// The peer wants this connection in the place of the one it has.
    #[must_use]
    pub fn is_renewal(&self) -> bool {
        self.was_called(RENEWAL_NAME)
    }

    fn was_called(&self, name: &str) -> bool {
        match &self.stream {
            TlsStream::Client(_) => false,
            TlsStream::Server(server) => server.get_ref().1.server_name() == Some(name),
        }
    }

    /// Key material bound to this connection and known to both its ends only (RFC 8446, 7.5).
    ///
    /// # Errors
    /// [`TlsError::Handshake`] when the connection cannot export.
    pub fn export<const N: usize>(&self, label: &str) -> Result<[u8; N], TlsError> {
        let exported = match &self.stream {
            TlsStream::Client(client) => {
                client
                    .get_ref()
                    .1
                    .export_keying_material([0; N], label.as_bytes(), None)
            }
            TlsStream::Server(server) => {
                server
                    .get_ref()
                    .1
                    .export_keying_material([0; N], label.as_bytes(), None)
            }
        };
        exported.map_err(|error| TlsError::Handshake(io::Error::other(error)))
    }
}

/// One purpose's way to connect and accept. Clones are the same endpoint.
#[derive(Clone)]
pub struct TlsEndpoint {
    ends: Arc<RwLock<Ends>>,
    trust: Trust,
    protocol: Arc<[u8]>,
    gate: Gate,
}

/// What handshakes are made with.
#[derive(Clone)]
struct Ends {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// Whose key is taken for an identity.
#[derive(Clone, Debug)]
enum Trust {
    /// Theirs.
    Pinned(Pins),
    /// Anybody's: possession is proved, and what it is worth is for the protocol above to find out.
    AnyKey,
}

impl std::fmt::Debug for TlsEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "TlsEndpoint({})",
            String::from_utf8_lossy(&self.protocol)
        )
    }
}

impl TlsEndpoint {
    /// An endpoint for `protocol` (`twinwall-control/1` …) that trusts `pins`.
    ///
    /// # Errors
    /// [`TlsError::OwnIdentity`] when the library refuses our key.
    pub fn new(identity: &Identity, pins: Pins, protocol: &str) -> Result<Self, TlsError> {
        Self::with(identity, Trust::Pinned(pins), protocol)
    }

    /// An endpoint that lets anybody's key pass, for pairing: both ends prove that they have the
    /// keys they show, and must find out by other means whether these are the right ones.
    ///
    /// # Errors
    /// [`TlsError::OwnIdentity`] when the library refuses our key.
    pub fn of_strangers(identity: &Identity, protocol: &str) -> Result<Self, TlsError> {
        Self::with(identity, Trust::AnyKey, protocol)
    }

    fn with(identity: &Identity, trust: Trust, protocol: &str) -> Result<Self, TlsError> {
        let ends = Self::ends(identity, &trust, protocol.as_bytes())?;
        Ok(Self {
            ends: Arc::new(RwLock::new(ends)),
            trust,
            protocol: protocol.as_bytes().into(),
            gate: Gate::new(HANDSHAKES_MAX, Vec::new()),
        })
    }

    /// The same, admitting connections by `gate`.
    #[must_use]
    pub fn behind(self, gate: Gate) -> Self {
        Self { gate, ..self }
    }

    /// Shows another identity from the next handshake on, in all clones; connections that stand
    /// are not touched.
    ///
    /// # Errors
    /// [`TlsError::OwnIdentity`]; then nothing has changed.
    pub fn change_identity(&self, identity: &Identity) -> Result<(), TlsError> {
        let ends = Self::ends(identity, &self.trust, &self.protocol)?;
        *self.ends.write().unwrap_or_else(PoisonError::into_inner) = ends;
        Ok(())
    }

    fn ends(identity: &Identity, trust: &Trust, protocol: &[u8]) -> Result<Ends, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(PinnedVerifier {
            trust: trust.clone(),
            provider: Arc::clone(&provider),
        });
        let protocols = vec![protocol.to_vec()];
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::OwnIdentity)?
            .with_client_cert_verifier(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)
            .with_single_cert(vec![identity.certificate()], identity.private_key())
            .map_err(TlsError::OwnIdentity)?;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols.clone_from(&protocols);
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::OwnIdentity)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(vec![identity.certificate()], identity.private_key())
            .map_err(TlsError::OwnIdentity)?;
        client.resumption = rustls::client::Resumption::disabled();
        client.alpn_protocols = protocols;
        Ok(Ends {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    /// Whether a peer with this key is let in.
    #[must_use]
    pub fn trusts(&self, key: &NodeKey) -> bool {
        match &self.trust {
            Trust::Pinned(pins) => pins.contains(key),
            Trust::AnyKey => true,
        }
    }

    fn present_ends(&self) -> Ends {
        self.ends
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Dials `peer` (from the address of `local`, any port) and proves both identities.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn connect(
        &self,
        local: Option<SocketAddr>,
        peer: SocketAddr,
    ) -> Result<Authenticated, TlsError> {
        self.connect_as(SERVER_NAME, local, peer).await
    }

    /// As [`Self::connect`], for a connection in the place of one that stands.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn renew(
        &self,
        local: Option<SocketAddr>,
        peer: SocketAddr,
    ) -> Result<Authenticated, TlsError> {
        self.connect_as(RENEWAL_NAME, local, peer).await
    }

    /// Shows who we are at `peer` and sees who is there, without wanting a connection.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn knock(
        &self,
        local: Option<SocketAddr>,
        peer: SocketAddr,
    ) -> Result<Authenticated, TlsError> {
        self.connect_as(KNOCK_NAME, local, peer).await
    }

    async fn connect_as(
        &self,
        name: &'static str,
        local: Option<SocketAddr>,
        peer: SocketAddr,
    ) -> Result<Authenticated, TlsError> {
        let in_connect = |source| TlsError::Connect { peer, source };
        let handshake = async {
            let socket = if peer.is_ipv4() {
                TcpSocket::new_v4()
            } else {
                TcpSocket::new_v6()
            }
            .map_err(in_connect)?;
            if let Some(local) = local {
                socket
                    .bind(SocketAddr::new(local.ip(), 0))
                    .map_err(in_connect)?;
            }
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(peer));
            let tcp = connecting
                .await
                .map_err(|_| TlsError::TimedOut)?
                .map_err(in_connect)?;
            tune(&tcp).map_err(in_connect)?;
            let name = ServerName::try_from(name).expect("invariant: a constant DNS name");
            self.present_ends()
                .connector
                .connect(name, tcp)
                .await
                .map_err(refusal)
        };
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| TlsError::TimedOut)??;
        self.authenticated(TlsStream::Client(stream))
    }

    /// Proves both identities on an accepted connection; call it in a task of its own, so that
    /// one slow peer delays nobody.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn accept(&self, tcp: TcpStream) -> Result<Authenticated, TlsError> {
        let source = tcp.peer_addr().map_err(TlsError::Handshake)?.ip();
        let _permit = self.gate.enter(source).ok_or(TlsError::TooMany)?;
        tune(&tcp).map_err(TlsError::Handshake)?;
        let handshake = self.present_ends().acceptor.accept(tcp);
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| TlsError::TimedOut)?
            .map_err(|error| {
                let ended = error.kind() == io::ErrorKind::UnexpectedEof;
                if ended && self.gate.expects(source) {
                    TlsError::GaveUp
                } else {
                    refusal(error)
                }
            })?;
        self.authenticated(TlsStream::Server(stream))
    }

    fn authenticated(&self, stream: TlsStream<TcpStream>) -> Result<Authenticated, TlsError> {
        let session = stream.get_ref().1;
        if session.alpn_protocol() != Some(&*self.protocol) {
            let expected = String::from_utf8_lossy(&self.protocol).into_owned();
            return Err(TlsError::OtherProtocol { expected });
        }
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let key = certificate.and_then(|certificate| key_of(certificate).ok());
        let key = key.ok_or_else(|| TlsError::Handshake(io::Error::other("no certificate")))?;
        let server = matches!(stream, TlsStream::Server(_));
        Ok(Authenticated {
            stream,
            key,
            server,
        })
    }
}

/// Sends at once, and notices a silently dead peer.
fn tune(tcp: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    tcp.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(tcp, SILENT_PEER_MS)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    let second = Duration::from_secs(u64::from(KEEPALIVE_S));
    sockopt::set_tcp_keepidle(tcp, second)?;
    sockopt::set_tcp_keepintvl(tcp, second)?;
    Ok(())
}

/// Tells an unpinned peer apart from every other failure of a handshake.
fn refusal(error: io::Error) -> TlsError {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) = tls
        && let Some(NotPinned(key)) = other.downcast_ref()
    {
        return TlsError::NotPinned { key: *key };
    }
    TlsError::Handshake(error)
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<NodeKey, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(fingerprint_of(&parsed.subject_public_key_info()))
}

#[derive(Debug, Error)]
#[error("{0} is not pinned")]
struct NotPinned(NodeKey);

/// Checks the handshake's signature by the certificate's key, and that key's fingerprint where
/// identities are pinned.
#[derive(Debug)]
struct PinnedVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl PinnedVerifier {
    fn verify(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let key = key_of(certificate)?;
        match &self.trust {
            Trust::Pinned(pins) if pins.contains(&key) => return Ok(()),
            Trust::AnyKey => return Ok(()),
            Trust::Pinned(_) => {}
        }
        let other = OtherError(Arc::new(NotPinned(key)));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(
            other,
        )))
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// TLS 1.2 is not offered, so its signatures are never to be verified.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for PinnedVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

#[cfg(test)]
mod tests;
