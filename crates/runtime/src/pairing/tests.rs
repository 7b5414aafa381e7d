//! On loopback: the right code convinces both, anything else neither.

use model::{Epoch, NodeKey, PairId, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::pairing::{Code, Introduction, NodeIntroduction, PROTOCOL, PairingMessage};

use super::{PairingError, Proven, prove};
use crate::identity::Identity;
use crate::tls::{Authenticated, TlsEndpoint};

struct Side {
    key: NodeKey,
    endpoint: TlsEndpoint,
}

fn side() -> Side {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identity = Identity::create(&folder.path().join("identity.key")).expect("an identity");
    Side {
        key: identity.fingerprint(),
        endpoint: TlsEndpoint::of_strangers(&identity, PROTOCOL).expect("an endpoint"),
    }
}

fn code(number: u8) -> Code {
    Code::from_random([number; 9])
}

fn introduction(role: Role) -> Introduction {
    Introduction::Node(NodeIntroduction {
        name: role.to_string(),
        node: NodeKey([7; 32]),
        pair: PairId::try_from(7).ok(),
        role,
        acting: false,
        highest_epoch: Epoch::default(),
        other: None,
    })
}

async fn meet(server: &Side, client: &Side) -> (Authenticated, Authenticated) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let accept = async {
        let (tcp, _) = listener.accept().await.expect("a peer");
        server.endpoint.accept(tcp).await.expect("accepted")
    };
    let connect = async {
        let connected = client.endpoint.connect(None, address).await;
        connected.expect("connected")
    };
    tokio::join!(accept, connect)
}

async fn exchange(
    (server, client): (&Side, &Side),
    (server_code, client_code): (Code, Code),
) -> (Result<Proven, PairingError>, Result<Proven, PairingError>) {
    let (accepted, connected) = meet(server, client).await;
    let introductions = (introduction(Role::Primary), introduction(Role::Secondary));
    tokio::join!(
        prove(accepted, server.key, introductions.0, &server_code),
        prove(connected, client.key, introductions.1, &client_code),
    )
}

#[tokio::test]
async fn the_same_code_convinces_both_and_they_agree() {
    let (server, client) = (side(), side());
    let (one, two) = exchange((&server, &client), (code(1), code(1))).await;
    let (mut one, mut two) = (one.expect("proven"), two.expect("proven"));
    assert_eq!((one.key, two.key), (client.key, server.key));
    assert_eq!(one.introduction, introduction(Role::Secondary));
    assert_eq!(two.introduction, introduction(Role::Primary));
    let (ours, theirs) = tokio::join!(one.agree(None), two.agree(None));
    assert!(ours.is_ok() && theirs.is_ok());
    two.tell_pinned().await.expect("told");
    one.await_pinned().await.expect("pinned");
}

#[tokio::test]
async fn another_code_convinces_neither() {
    let (server, client) = (side(), side());
    let (one, two) = exchange((&server, &client), (code(1), code(2))).await;
    assert!(matches!(one, Err(PairingError::NotProven)), "{one:?}");
    assert!(matches!(two, Err(PairingError::NotProven)), "{two:?}");
}

#[tokio::test]
async fn a_refusal_is_heard_by_the_other_in_its_words() {
    let (server, client) = (side(), side());
    let (one, two) = exchange((&server, &client), (code(1), code(1))).await;
    let (mut one, mut two) = (one.expect("proven"), two.expect("proven"));
    let refusal = Some("both are primary\u{1b}".to_owned());
    let (ours, theirs) = tokio::join!(one.agree(refusal), async {
        let heard = two.agree(None).await;
        drop(two);
        heard
    });
    assert!(matches!(ours, Err(PairingError::Refused(_))));
    assert!(
        matches!(&theirs, Err(PairingError::Refused(why)) if why == "both are primary"),
        "{theirs:?}"
    );
}

/// Somebody in between with an identity of his own towards each side passes every message on,
/// and convinces neither, although both know the code.
#[tokio::test]
async fn somebody_in_between_convinces_neither() {
    let (server, client, between) = (side(), side(), side());
    let (accepted, to_server) = meet(&server, &between).await;
    let (to_client, connected) = meet(&between, &client).await;
    let (server_code, client_code) = (code(1), code(1));
    let introductions = (introduction(Role::Primary), introduction(Role::Secondary));
    let ends = async {
        tokio::join!(
            prove(accepted, server.key, introductions.0, &server_code),
            prove(connected, client.key, introductions.1, &client_code),
        )
    };
    let relay = async {
        let (mut one, mut two) = (to_server.stream, to_client.stream);
        // Ends by error when an end gives up.
        let _ = tokio::io::copy_bidirectional(&mut one, &mut two).await;
        let _ = (one.shutdown().await, two.shutdown().await);
    };
    let ((one, two), ()) = tokio::join!(ends, relay);
    assert!(matches!(one, Err(PairingError::NotProven)), "{one:?}");
    assert!(matches!(two, Err(PairingError::NotProven)), "{two:?}");
}

/// What a client that knows the code said to one server, said again on another connection.
#[tokio::test]
async fn a_recording_convinces_nobody() {
    let (server, client) = (side(), side());
    let code = code(1);
    let (mut recorder, connected) = meet(&server, &client).await;
    let record = async {
        let mut begin = vec![0; 1024];
        let read = recorder.stream.read(&mut begin).await.expect("begin");
        begin.truncate(read);
        drop(recorder);
        begin
    };
    let introduced = introduction(Role::Secondary);
    let honest = prove(connected, client.key, introduced, &code);
    let (proven, begin) = tokio::join!(honest, record);
    assert!(proven.is_err());
    // Even who has the client's own key does not know what to say after the recorded word.
    let (accepted, mut replaying) = meet(&server, &client).await;
    let replay = async {
        let stream = &mut replaying.stream;
        stream.write_all(&begin).await.expect("said");
        let mut reply = [0; 1024];
        let read = stream.read(&mut reply).await.expect("an answer");
        let guess = PairingMessage::Prove { mac: [0; 32] };
        let guess = wire::encode(wire::Channel::Pairing, &guess);
        stream.write_all(&guess).await.expect("said");
        let after = stream.read(&mut reply).await.unwrap_or(0);
        assert!(read > 0 && after == 0, "the server proves nothing");
    };
    let prover = async {
        let proven = prove(accepted, server.key, introduction(Role::Primary), &code);
        proven.await.map(drop)
    };
    let (proven, ()) = tokio::join!(prover, replay);
    assert!(matches!(proven, Err(PairingError::NotProven)), "{proven:?}");
}

#[tokio::test]
async fn rubbish_and_what_is_too_long_end_the_exchange() {
    let mut announced = [0; 12];
    announced[..4].copy_from_slice(&[b'T', b'W', 1, 8]);
    announced[4..8].copy_from_slice(&100_000_u32.to_le_bytes());
    for said in [&b"GET / HTTP/1.1\r\n"[..], &announced] {
        let (server, client) = (side(), side());
        let (accepted, mut connected) = meet(&server, &client).await;
        connected.stream.write_all(said).await.expect("said");
        connected.stream.flush().await.expect("said");
        let proven = prove(accepted, server.key, introduction(Role::Primary), &code(1)).await;
        assert!(matches!(proven, Err(PairingError::Protocol)), "{proven:?}");
    }
}
