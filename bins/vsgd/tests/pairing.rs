//! Real nodes pair by a one-time code while they run, and unpair.
//!
//! Needs root: a node's System Manager gets a PID namespace of its own.

#[allow(
    dead_code,
    reason = "each test that shares these files uses a part of them"
)]
mod nodes;

use std::time::Duration;

use model::NodeKey;
use runtime::identity::Identity;
use runtime::pairing::{PairingError, prove};
use runtime::stream::{MessageReceiver, MessageSender, framed};
use runtime::tls::{Pins, TlsEndpoint};
use tokio::io::ReadHalf;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use wire::Channel;
use wire::pairing::{Code, Introduction};
use wire::vem::{FromVem, ToVem};

use nodes::{Node, eventually, network};

const STABLE: &str = "%MODULE-5-STANDBY_SUP_OK: Supervisor ";
const LEADS: &str = "-> active under epoch";

/// Two nodes that were just made and do not know each other.
fn strangers(folder: &std::path::Path) -> (Node, Node) {
    let network = network();
    let (one, two) = (
        Node::new(folder, &network, 1),
        Node::new(folder, &network, 2),
    );
    one.init("primary", &["--pair-id", "7"]);
    two.init("secondary", &["--pair-id", "7"]);
    (one, two)
}

fn pair(one: &Node, two: &Node) -> String {
    let code = one.code("redundancy pair");
    two.done(&[&format!("redundancy join {} {code}", one.address())])
}

#[test]
fn two_strangers_pair_by_a_code_and_the_pair_forms_by_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut one, mut two) = strangers(folder.path());
    one.start();
    one.wait_for(LEADS, 0);
    two.start();
    // Found, not paired: each shows the other's identity, and no pair is formed.
    let identity = |node: &Node| node.shows("redundancy identity")["identity"].clone();
    let own = |node: &Node| identity(node)["fingerprint"].clone();
    let (first, second) = (own(&one), own(&two));
    for (node, other) in [(&one, &second), (&two, &first)] {
        eventually("the other node is found", || {
            let found = identity(node)["found_not_paired"].clone();
            found[0]["fingerprint"] == *other && found[0]["count"].as_u64() > Some(0)
        });
        assert_eq!(identity(node)["peer"], serde_json::Value::Null);
        assert_eq!(node.said("PEER_NOT_PAIRED"), 1, "one line a minute");
    }
    assert_eq!(one.said(STABLE), 0);

    let answer = pair(&one, &two);
    assert!(answer.contains("Paired with sup-1 (primary)"), "{answer}");
    one.wait_for(STABLE, 0);
    for (node, other) in [(&one, &second), (&two, &first)] {
        let identity = identity(node);
        assert_eq!(identity["peer"]["fingerprint"], *other);
        assert_eq!(identity["peer"]["connected"], true);
        assert_eq!(
            identity["code"],
            serde_json::Value::Null,
            "the code is used"
        );
        assert_eq!(identity["found_not_paired"], serde_json::json!([]));
    }
    assert_eq!(one.said(LEADS), 1, "nothing moved here");
    one.refused("redundancy pair", "redundancy unpair first");
    two.refused(
        "redundancy join 127.0.0.1 ABC-DEF-GHJ",
        "redundancy unpair first",
    );

    // Durable: after the power failed on both, they know each other.
    one.stop();
    two.stop();
    one.start();
    two.start();
    eventually("a pair again", || one.said(STABLE) + two.said(STABLE) > 1);
}

#[test]
fn wrong_codes_burn_the_code_and_let_nobody_in() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut one, mut two) = strangers(folder.path());
    one.start();
    two.start();
    let listens = || {
        let address = format!("{}:{}", one.address(), wire::pairing::DEFAULT_PORT);
        std::net::TcpStream::connect(address).is_ok()
    };
    one.shows("redundancy identity");
    assert!(!listens(), "no code, no listener");
    let code = one.code("redundancy pair");
    assert!(listens());
    let wrong = if code.starts_with('A') { "B" } else { "A" }.to_owned() + &code[1..];
    for failures in 1..=3 {
        let line = format!("redundancy join {} {wrong}", one.address());
        two.refused(&line, "the code is not the one");
        one.wait_for("PAIRING_FAILED", failures - 1);
    }
    one.wait_for("PAIRING_BURNT", 0);
    eventually("the listener is gone", || !listens());
    let line = format!("redundancy join {} {code}", one.address());
    let said = two.say(&[&line]);
    assert!(said.failed, "burnt: {}", said.text);
    let log = one.log() + &two.log();
    assert!(
        !log.contains(&code) && !log.contains(&wrong),
        "no code in a log"
    );
    for node in [&one, &two] {
        let identity = node.shows("redundancy identity");
        assert_eq!(identity["identity"]["peer"], serde_json::Value::Null);
    }
    // A newer code voids the one before it, and is as good as the first would have been.
    let code = one.code("redundancy pair");
    let newer = one.code("redundancy pair");
    assert_ne!(code, newer);
    let line = format!("redundancy join {} {code}", one.address());
    two.refused(&line, "the code is not the one");
    pair(&one, &two);
    eventually("a pair", || one.said(STABLE) + two.said(STABLE) > 0);
}

#[test]
fn pairing_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let network = network();
    let mut one = Node::new(folder.path(), &network, 1);
    let mut two = Node::new(folder.path(), &network, 2);
    one.init("standalone", &[]);
    two.init("primary", &["--pair-id", "8"]);
    one.start();
    two.start();
    one.refused("redundancy pair", "standalone");
    one.refused("redundancy join 127.0.0.1 ABC-DEF-GHJ", "standalone");
    one.done(&["system redundancy role primary"]);
    one.refused("redundancy pair", "ha-pair id");
    one.done(&["configure", "ha-pair id 7"]);
    let join = |code: &str| format!("redundancy join {} {code}", one.address());
    let code = one.code("redundancy pair");
    two.refused(&join(&code), "both have the role primary");
    // Whoever knows the code costs no try.
    for _ in 0..3 {
        two.refused(&join(&code), "both have the role primary");
    }
    let left = one.shows("redundancy identity");
    assert_eq!(left["identity"]["code"]["tries"], 3);
    two.done(&["system redundancy role secondary"]);
    let led = two.said(LEADS);
    two.say(&["reload", "y"]);
    two.wait_for(LEADS, led);
    two.refused(&join(&code), "The pair IDs differ: 8 on sup-2, 7 on sup-1");
    two.refused("redundancy join 127.0.0.1 short", "Not a code");
    two.done(&["configure", "ha-pair id 7"]);
    // Both lead, and the other has led more often: it restarts all the same, and nothing moves here.
    let said = two.say(&[&join(&code)]);
    assert!(said.text.contains("restarts and follows"), "{said:?}");
    one.wait_for(STABLE, 0);
    assert_eq!(one.said("%REDUNDANCY-2-RESET"), 0);
}

#[test]
fn unpaired_the_active_goes_on_and_the_other_waits_and_may_be_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut one, mut two) = strangers(folder.path());
    one.start();
    one.wait_for(LEADS, 0);
    two.start();
    pair(&one, &two);
    one.wait_for(STABLE, 0);
    let answer = one.done(&["redundancy unpair", "y"]);
    assert!(answer.contains("forgotten this one too"), "{answer}");
    two.wait_for("unpaired from the active supervisor", 0);
    eventually("the other says why it waits", || {
        let status = two.shows("system redundancy status");
        status.to_string().contains("redundancy join here")
    });
    assert_eq!((one.said(LEADS), two.said(LEADS)), (1, 0));
    one.done(&["configure", "zone web@root"]);

    // A new machine in the place of the second, with an empty disk.
    two.stop();
    let fresh = Node::new(&folder.path().join("sup-1"), &two.network, 2);
    fresh.init("secondary", &["--pair-id", "7"]);
    let mut two = fresh;
    two.start();
    pair(&one, &two);
    one.wait_for(STABLE, 1);
    assert_eq!(one.said(LEADS), 1, "it led all the time");
    assert_eq!(one.said("%REDUNDANCY-2-RESET"), 0);
}

/// Another pair on the same network, with the same pair ID and the roles and addresses that fit: it
/// is seen, and that is all.
#[test]
fn two_pairs_with_equal_ids_on_one_network_never_mix() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut one, mut two) = strangers(folder.path());
    one.start();
    one.wait_for(LEADS, 0);
    two.start();
    pair(&one, &two);
    one.wait_for(STABLE, 0);
    // The second of the other pair comes up where the second of this one was.
    let elsewhere = folder.path().join("sup-1");
    let mut foreign = Node::new(&elsewhere, &one.network, 2);
    foreign.init("secondary", &["--pair-id", "7"]);
    let output = foreign.verb("pin", &["--peer", &format!("SHA256:{}", "ab".repeat(32))]);
    assert!(output.status.success(), "{output:?}");
    two.stop();
    one.wait_for("MOD_REMOVE", 0);
    foreign.start();
    // Both serve their own; whoever of them dials is refused by the other, and seen.
    let identity = |node: &Node| node.shows("redundancy identity")["identity"].clone();
    let their = identity(&foreign)["fingerprint"].clone();
    eventually("the foreign node is seen", || {
        identity(&one)["found_not_paired"][0]["fingerprint"] == their
            || identity(&foreign)["found_not_paired"][0]["fingerprint"]
                == identity(&one)["fingerprint"]
    });
    foreign.wait_for(LEADS, 0);
    assert_eq!(identity(&one)["peer"]["connected"], false);
    assert_eq!((one.said(STABLE), one.said(LEADS)), (1, 1));
    assert_eq!(
        one.said("%REDUNDANCY-2-RESET") + foreign.said("%REDUNDANCY-2-RESET"),
        0
    );
    // The right one finds its place again.
    foreign.stop();
    two.start();
    one.wait_for(STABLE, 1);
}

/// A host agent as far as pairing and trust go.
struct Host {
    identity: Identity,
}

impl Host {
    async fn enroll(&self, at: &str, code: &str) -> Result<Vec<NodeKey>, PairingError> {
        let endpoint = TlsEndpoint::of_strangers(&self.identity, wire::pairing::PROTOCOL);
        let address = format!("{at}:{}", wire::pairing::DEFAULT_PORT);
        let address = address.parse().expect("an address");
        let connection = endpoint
            .expect("an endpoint")
            .connect(None, address)
            .await?;
        let introduction = Introduction::Vem { host: "h1".into() };
        let code = Code::parse(code).expect("a code");
        let own = self.identity.fingerprint();
        let mut node = prove(connection, own, introduction, &code).await?;
        node.agree(None).await?;
        node.tell_pinned().await?;
        node.await_pinned().await?;
        let Introduction::Node(there) = &node.introduction else {
            panic!("a node");
        };
        Ok([node.key].into_iter().chain(there.other).collect())
    }

    /// Connects as a host agent and says hello; `None` if it is not let in.
    async fn connect(&self, to: &Node, pins: &[NodeKey]) -> Option<Vem> {
        let pins = Pins::new(pins.iter().copied());
        let endpoint = TlsEndpoint::new(&self.identity, pins, wire::vem::PROTOCOL);
        let address = format!("{}.3{}:7003", to.network, to.own);
        let address = address.parse().expect("an address");
        let peer = endpoint.expect("an endpoint").connect(None, address).await;
        let (sender, mut receiver) = framed::<_, ToVem, FromVem>(peer.ok()?.stream, Channel::Vem);
        let hello = FromVem::Hello {
            host: "h1".to_owned(),
            fenced: wire::vem::Fenced::default(),
            ports: Vec::new(),
        };
        sender.send(&hello).ok()?;
        let first = tokio::time::timeout(nodes::PATIENCE, receiver.next()).await;
        // A server that refuses our certificate says so after the handshake.
        let first = first.expect("an answer in time").ok()??;
        Some(Vem {
            sender,
            receiver,
            first: Some(first),
            gateways: Vec::new(),
        })
    }
}

struct Vem {
    sender: MessageSender<FromVem>,
    receiver: MessageReceiver<ReadHalf<TlsStream<TcpStream>>, ToVem>,
    first: Option<ToVem>,
    gateways: Vec<NodeKey>,
}

impl Vem {
    /// The next message, answered as a host agent does.
    async fn next(&mut self) -> Option<ToVem> {
        let message = match self.first.take() {
            Some(message) => message,
            None => self.receiver.next().await.ok()??,
        };
        match &message {
            ToVem::Claim { epoch, .. } => {
                let _ = self.sender.send(&FromVem::ClaimAccepted { epoch: *epoch });
            }
            ToVem::Gateways { keys, .. } => {
                self.gateways.clone_from(keys);
                let _ = self
                    .sender
                    .send(&FromVem::GatewaysPinned { keys: keys.clone() });
            }
            _ => {}
        }
        Some(message)
    }

    /// Accepts claims and confirms gateways until it is told to trust `wanted`; false if the
    /// connection ends before.
    async fn told(&mut self, wanted: &[NodeKey]) -> bool {
        let told = |gateways: &[NodeKey]| {
            gateways.len() == wanted.len() && wanted.iter().all(|key| gateways.contains(key))
        };
        while !told(&self.gateways) || wanted.is_empty() {
            let next = tokio::time::timeout(nodes::PATIENCE, self.next());
            if next.await.expect("a message in time").is_none() {
                return false;
            }
        }
        true
    }
}

#[test]
fn a_host_enrolled_at_the_active_is_trusted_by_both_nodes_until_it_is_removed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut one, mut two) = strangers(folder.path());
    one.start();
    one.wait_for(LEADS, 0);
    two.start();
    pair(&one, &two);
    one.wait_for(STABLE, 0);
    let identity = Identity::create(&folder.path().join("host.key")).expect("an identity");
    let (host, runtime) = (Host { identity }, runtime());
    let key = host.identity.fingerprint();

    let refused = two.say(&["vem enroll"]);
    assert!(refused.failed, "{refused:?}");
    let at = format!("{}.31", one.network);
    let code = one.code("vem enroll");
    let joined = two.say(&[&format!("redundancy join {at} {code}")]);
    assert!(joined.failed, "a paired node does not join: {joined:?}");
    let wrong = runtime.block_on(host.enroll(&at, "AAA-AAA-AAA"));
    assert!(matches!(wrong, Err(PairingError::NotProven)), "{wrong:?}");
    let gateways = runtime.block_on(host.enroll(&at, &code)).expect("enrolled");
    assert_eq!(gateways.len(), 2, "both nodes' identities");
    let again = runtime.block_on(host.enroll(&at, &code));
    assert!(again.is_err(), "a code is used once");
    for node in [&one, &two] {
        eventually("trusted there", || {
            let identity = node.shows("redundancy identity");
            identity["identity"]["vems"] == serde_json::json!([key.to_string()])
        });
    }
    let mut vem = runtime
        .block_on(host.connect(&one, &gateways))
        .expect("let in");
    assert!(runtime.block_on(vem.told(&gateways)), "told whom to trust");

    let said = one.done(&["vem remove 3", "y"]);
    assert!(!said.contains('%'), "{said}");
    assert!(!runtime.block_on(vem.told(&[])), "cut off");
    for node in [&one, &two] {
        eventually("not trusted any more", || {
            let identity = node.shows("redundancy identity");
            identity["identity"]["vems"] == serde_json::json!([])
        });
        assert!(runtime.block_on(host.connect(node, &gateways)).is_none());
    }
    let modules = one.done(&["show module"]);
    assert!(!modules.contains("Virtual Ethernet"), "{modules}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Active, then standby, change their keys under a stable pair with a host agent: nothing moves,
/// nothing is synchronised anew, and everybody trusts the new keys only.
#[test]
fn identities_rotate_without_a_role_change_or_a_resync() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut one, mut two) = strangers(folder.path());
    one.start();
    one.wait_for(LEADS, 0);
    two.start();
    pair(&one, &two);
    one.wait_for(STABLE, 0);
    let identity = Identity::create(&folder.path().join("host.key")).expect("an identity");
    let (host, runtime) = (Host { identity }, runtime());
    let code = one.code("vem enroll");
    let at = format!("{}.31", one.network);
    let gateways = runtime.block_on(host.enroll(&at, &code)).expect("enrolled");
    let mut vem = runtime
        .block_on(host.connect(&one, &gateways))
        .expect("let in");
    assert!(runtime.block_on(vem.told(&gateways)));
    let resyncs = |node: &Node| {
        node.said("%REDUNDANCY-2-RESET")
            + node.said("GRANT_WITHDRAWN")
            + node.said("ROLE_CHANGE")
            + node.said("bulk")
            + node.said("not stable")
    };
    let before = (resyncs(&one), resyncs(&two));
    let own = |node: &Node| {
        let identity = node.shows("redundancy identity");
        let text = |field: &str| {
            identity["identity"][field]
                .as_str()
                .expect("text")
                .to_owned()
        };
        (text("fingerprint"), text("node_key"))
    };
    for (turning, other) in [(&one, &two), (&two, &one)] {
        let (old, node_key) = own(turning);
        // The host agent does what one does, while the operator waits.
        let said = std::thread::scope(|scope| {
            let said = scope.spawn(|| turning.done(&["redundancy identity rotate"]));
            while !said.is_finished() {
                runtime.block_on(async {
                    let _ = tokio::time::timeout(Duration::from_millis(50), vem.next()).await;
                });
            }
            said.join().expect("said")
        });
        assert!(said.contains("trusts only that one"), "{said}");
        let (new, same) = own(turning);
        assert!(said.contains(&new), "{said}");
        assert_ne!(new, old);
        assert_eq!(same, node_key, "what epochs are ordered by stays");
        let peer = other.shows("redundancy identity")["identity"]["peer"].clone();
        assert_eq!(peer["fingerprint"], new);
        assert_eq!(peer["next"], serde_json::Value::Null);
        assert_eq!(peer["connected"], true);
    }
    let keys: Vec<NodeKey> = [&one, &two]
        .map(|node| own(node).0.parse().expect("a fingerprint"))
        .into();
    assert!(
        runtime.block_on(vem.told(&keys)),
        "told of both new ones, and only of those"
    );
    assert_eq!((resyncs(&one), resyncs(&two)), before);
    assert_eq!(
        (one.said(STABLE), one.said(LEADS), two.said(LEADS)),
        (1, 1, 0)
    );
    // A new connection, as the host would make it, and a failover under the new identities.
    let again = runtime.block_on(host.connect(&one, &keys));
    assert!(again.is_some());
    one.done(&["system switchover"]);
    two.wait_for("%SYSMGR-2-SWITCHOVER_OVER", 0);
    two.wait_for(STABLE, 0);
    // Durable, with the node keys.
    one.stop();
    two.stop();
    one.start();
    two.start();
    let stable = |one: &Node, two: &Node| one.said(STABLE) + two.said(STABLE);
    eventually("a pair again", || stable(&one, &two) > 2);
}
