//! `vemd enroll` against a node that speaks the real protocol over the real TLS.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc;

use model::{Epoch, NodeKey, Role};
use runtime::identity::Identity;
use runtime::pairing::{PairingError, prove};
use runtime::tls::TlsEndpoint;
use tokio::net::TcpListener;
use wire::pairing::{Code, Introduction, NodeIntroduction, PROTOCOL};

const OTHER: NodeKey = NodeKey([9; 32]);

fn configure(folder: &Path) {
    let sample = include_str!("../../../docs/examples/vemd.toml");
    let text: String = sample
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some(("state_dir" | "run_dir", _)) => {
                let key = line.split(' ').next().unwrap_or_default();
                format!("{key} = \"{}/{key}\"\n", folder.display())
            }
            _ => format!("{line}\n"),
        })
        .collect();
    std::fs::write(folder.join("vemd.toml"), text).expect("a file");
}

/// Runs `vemd enroll` with `typed` at a node that printed `printed`; what both came to.
fn enroll(folder: &Path, printed: &str, typed: &str) -> (Output, Result<NodeKey, PairingError>) {
    let identity = Identity::create(&folder.join("node.key")).expect("an identity");
    let code = Code::parse(printed).expect("a code");
    let (tell, address) = mpsc::channel();
    let node = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("its address");
            tell.send(address.to_string()).expect("the test waits");
            serve(&identity, listener, &code).await
        })
    });
    let address: String = address.recv().expect("an address");
    let mut vemd = Command::new(env!("CARGO_BIN_EXE_vemd"));
    let words = ["enroll", "--node", &address, typed, "--config"];
    let output = vemd.args(words).arg(folder.join("vemd.toml")).output();
    let node = node.join().expect("it does not panic");
    (output.expect("vemd starts"), node)
}

async fn serve(
    identity: &Identity,
    listener: TcpListener,
    code: &Code,
) -> Result<NodeKey, PairingError> {
    let endpoint = TlsEndpoint::of_strangers(identity, PROTOCOL).expect("an endpoint");
    let (tcp, _) = listener.accept().await.expect("a host");
    let connection = endpoint.accept(tcp).await.expect("a host");
    let introduction = Introduction::Node(NodeIntroduction {
        name: "sup-1".to_owned(),
        node: identity.fingerprint(),
        pair: None,
        role: Role::Primary,
        acting: true,
        highest_epoch: Epoch::default(),
        other: Some(OTHER),
    });
    let mut host = prove(connection, identity.fingerprint(), introduction, code).await?;
    host.agree(None).await?;
    host.await_pinned().await?;
    host.tell_pinned().await?;
    Ok(host.key)
}

fn pins(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("state_dir/pins.toml")).unwrap_or_default()
}

#[test]
fn the_code_enrols_the_host_at_both_nodes() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path());
    let (output, node) = enroll(folder.path(), "ABC-DEF-GHJ", "abcdefghj");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let host = node.expect("paired");
    assert!(
        said.contains(&format!("Enrolled at sup-1 as {host}.")),
        "{said}"
    );
    let pins = pins(folder.path());
    assert_eq!(pins.matches("SHA256:").count(), 2, "{pins}");
    assert!(pins.contains(&OTHER.to_string()));
}

#[test]
fn a_wrong_code_pins_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path());
    let (output, node) = enroll(folder.path(), "ABC-DEF-GHJ", "ABC-DEF-GHK");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the code is not the one"), "{said}");
    assert!(matches!(node, Err(PairingError::NotProven)), "{node:?}");
    assert_eq!(pins(folder.path()), "");
}
