//! Two ends on loopback: whoever is pinned gets in, nobody else.

use model::NodeKey;
use tokio::net::TcpListener;

use super::{Authenticated, Pins, TlsEndpoint, TlsError};
use crate::identity::Identity;

fn identity() -> Identity {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Identity::create(&folder.path().join("identity.key")).expect("a new identity")
}

async fn meet(
    server: &TlsEndpoint,
    client: &TlsEndpoint,
) -> (
    Result<Authenticated, TlsError>,
    Result<Authenticated, TlsError>,
) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a loopback port");
    let address = listener.local_addr().expect("its address");
    let accept = async {
        server
            .accept(listener.accept().await.expect("a peer").0)
            .await
    };
    tokio::join!(accept, client.connect(None, address))
}

fn endpoint(identity: &Identity, pins: &[NodeKey], protocol: &str) -> TlsEndpoint {
    TlsEndpoint::new(identity, Pins::new(pins.iter().copied()), protocol).expect("an endpoint")
}

#[tokio::test]
async fn pinned_peers_meet_and_share_exported_keys() {
    let (one, two) = (identity(), identity());
    let server = endpoint(&one, &[two.fingerprint()], "test/1");
    let client = endpoint(&two, &[one.fingerprint()], "test/1");
    let (accepted, connected) = meet(&server, &client).await;
    let (accepted, connected) = (accepted.expect("accepted"), connected.expect("connected"));
    assert_eq!((accepted.key, accepted.server), (two.fingerprint(), true));
    assert_eq!(
        (connected.key, connected.server),
        (one.fingerprint(), false)
    );
    let keys: [u8; 72] = accepted.export("EXPORTER-test").expect("keys");
    assert_eq!(keys, connected.export("EXPORTER-test").expect("keys"));
    assert_ne!(keys, connected.export("EXPORTER-other").expect("keys"));
}

#[tokio::test]
async fn an_unpinned_client_is_refused_by_name() {
    let (one, two, stranger) = (identity(), identity(), identity());
    let server = endpoint(&one, &[two.fingerprint()], "test/1");
    let client = endpoint(&stranger, &[one.fingerprint()], "test/1");
    let (accepted, _) = meet(&server, &client).await;
    assert!(matches!(accepted, Err(TlsError::NotPinned { key }) if key == stranger.fingerprint()));
}

#[tokio::test]
async fn an_unpinned_server_is_refused_by_name() {
    let (one, two) = (identity(), identity());
    let server = endpoint(&one, &[two.fingerprint()], "test/1");
    let client = endpoint(&two, &[], "test/1");
    let (_, connected) = meet(&server, &client).await;
    assert!(matches!(connected, Err(TlsError::NotPinned { key }) if key == one.fingerprint()));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    use std::sync::Arc;

    let (one, two) = (identity(), identity());
    let server = endpoint(&one, &[two.fingerprint()], "test/1");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = super::PinnedVerifier {
        trust: super::Trust::Pinned(Pins::new([one.fingerprint()])),
        provider: Arc::clone(&provider),
    };
    let mut bare = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    bare.alpn_protocols = vec![b"test/1".to_vec()];
    let client = endpoint(&two, &[one.fingerprint()], "test/1");
    client.ends.write().expect("sound").connector =
        tokio_rustls::TlsConnector::from(Arc::new(bare));
    let (accepted, _) = meet(&server, &client).await;
    assert!(
        matches!(accepted, Err(TlsError::Handshake(_))),
        "{accepted:?}"
    );
}

#[tokio::test]
async fn a_changed_identity_is_shown_from_the_next_handshake_on() {
    let (one, old, new) = (identity(), identity(), identity());
    let server = endpoint(&one, &[old.fingerprint(), new.fingerprint()], "test/1");
    let client = endpoint(&old, &[one.fingerprint()], "test/1");
    let clone = client.clone();
    for (identity, shown) in [(None, &old), (Some(&new), &new)] {
        if let Some(identity) = identity {
            client.change_identity(identity).expect("usable");
        }
        let (accepted, _) = meet(&server, &clone).await;
        assert_eq!(accepted.expect("accepted").key, shown.fingerprint());
    }
}

#[tokio::test]
async fn strangers_see_each_other_and_a_knock_is_told_apart() {
    let (one, two) = (identity(), identity());
    let server = TlsEndpoint::of_strangers(&one, "test/1").expect("an endpoint");
    let client = TlsEndpoint::of_strangers(&two, "test/1").expect("an endpoint");
    let (accepted, connected) = meet(&server, &client).await;
    let (accepted, connected) = (accepted.expect("accepted"), connected.expect("connected"));
    assert_eq!(
        (accepted.key, connected.key),
        (two.fingerprint(), one.fingerprint())
    );
    assert!(!accepted.is_knock() && !connected.is_knock());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let accept = async {
        server
            .accept(listener.accept().await.expect("a peer").0)
            .await
    };
    let (accepted, knocked) = tokio::join!(accept, client.knock(None, address));
    assert!(accepted.expect("accepted").is_knock() && !knocked.expect("knocked").is_knock());
}

#[tokio::test]
async fn a_connection_for_another_purpose_is_refused() {
    let (one, two) = (identity(), identity());
    let server = endpoint(&one, &[two.fingerprint()], "test/1");
    let client = endpoint(&two, &[one.fingerprint()], "other/1");
    let (accepted, connected) = meet(&server, &client).await;
    assert!(accepted.is_err() && connected.is_err());
}

#[tokio::test]
async fn a_replaced_pin_set_holds_from_the_next_handshake() {
    let (one, two) = (identity(), identity());
    let pins = Pins::default();
    let server = TlsEndpoint::new(&one, pins.clone(), "test/1").expect("an endpoint");
    let client = endpoint(&two, &[one.fingerprint()], "test/1");
    assert!(meet(&server, &client).await.0.is_err());
    pins.replace([two.fingerprint()]);
    assert!(meet(&server, &client).await.0.is_ok());
}

#[tokio::test]
async fn a_silent_peer_is_let_go() {
    let one = identity();
    let server = endpoint(&one, &[], "test/1");
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a loopback port");
    let address = listener.local_addr().expect("its address");
    let _silent = std::net::TcpStream::connect(address).expect("a connection");
    let (tcp, _) = listener.accept().await.expect("a peer");
    assert!(matches!(server.accept(tcp).await, Err(TlsError::TimedOut)));
}
