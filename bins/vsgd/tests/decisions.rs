//! A host agent's view of two real nodes: it is claimed, asks for verdicts under a policy entered
//! at the console, and is served by the other node when the first one's engine dies.
//!
//! Needs root: a node's System Manager gets a PID namespace of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model::{Direction, Epoch, FlowAttributes, FlowKey, NodeKey, Protocol, Verdict};
use runtime::identity::Identity;
use runtime::stream::{MessageReceiver, MessageSender, framed};
use runtime::tls::{Pins, TlsEndpoint};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::ReadHalf;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsStream;
use wire::Channel;
use wire::console::{FromShell, ToShell};
use wire::vem::{DecisionRequest, FromVem, PROTOCOL, Port, ToVem};

/// For each step that must come about by itself, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A VEM whose request is not answered asks again; nothing here waits longer for one answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);

struct Node {
    config: PathBuf,
    run_dir: PathBuf,
    listen: SocketAddr,
    key: NodeKey,
    guardian: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut guardian) = self.guardian.take() {
            // Its death ends every process of the node.
            let _ = guardian.kill();
            let _ = guardian.wait();
        }
    }
}

fn verb(config: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vsgd"));
    let output = command
        .arg(words[0])
        .arg("--config")
        .arg(config)
        .args(&words[1..])
        .output();
    let output = output.expect("vsgd runs");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

fn node(folder: &Path, own: u8, role: &str) -> Node {
    // Each of the two tests has a loopback network of its own.
    let site = 2 * std::process::id() + u32::from(role == "standalone");
    let network = format!("127.{}.{}", 200 + site % 40, site / 40 % 250);
    let (peer, base) = (3 - own, folder.join(format!("sup-{own}")));
    let text = format!(
        "name = \"sup-{own}\"\nstate_dir = \"{0}/state\"\nrun_dir = \"{0}/run\"\n\
         log_file = \"{0}/log\"\n\
         [[link]]\nname = \"control\"\nlocal = \"{network}.1{own}:7001\"\npeer = \"{network}.1{peer}:7001\"\n\
         [service]\nlisten = \"{network}.3{own}:7003\"\n[bulk]\nport = 7002\n",
        base.display()
    );
    let config = folder.join(format!("sup-{own}.toml"));
    fs::create_dir(&base).expect("a folder");
    fs::write(&config, text).expect("a file");
    let key = verb(&config, &["init", "--role", role, "--pair-id", "9"]);
    Node {
        config,
        run_dir: base.join("run"),
        listen: format!("{network}.3{own}:7003")
            .parse()
            .expect("an address"),
        key: key.parse().expect("a fingerprint"),
        guardian: None,
    }
}

impl Node {
    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vsgd"));
        let command = command
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null());
        self.guardian = Some(command.spawn().expect("vsgd starts"));
    }

    /// Kills a service; waits until it runs, because it may be on its way back.
    async fn kill(&self, service: &str) {
        let deadline = Instant::now() + PATIENCE;
        let pid = loop {
            if let Some(pid) = self.find(service) {
                break pid;
            }
            assert!(
                Instant::now() < deadline,
                "{service} runs within {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL).expect("alive");
    }

    fn find(&self, service: &str) -> Option<i32> {
        let config = self.config.display().to_string();
        let wanted = ["service", service, "--config", &config];
        let mut entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        entries.find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            line.split('\0').skip(1).take(4).eq(wanted).then_some(pid)
        })
    }
}

type Receiver<In, S> = MessageReceiver<ReadHalf<S>, In>;

/// One connection of the host agent.
struct Gateway {
    sender: MessageSender<FromVem>,
    receiver: Receiver<ToVem, TlsStream<TcpStream>>,
}

impl Gateway {
    async fn connect(node: &Node, identity: &Identity) -> Self {
        let pins = Pins::new([node.key]);
        let endpoint = TlsEndpoint::new(identity, pins, PROTOCOL).expect("an endpoint");
        let deadline = Instant::now() + PATIENCE;
        let peer = loop {
            match endpoint.connect(None, node.listen).await {
                Ok(peer) => break peer,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let (sender, receiver) = framed::<_, ToVem, FromVem>(peer.stream, Channel::Vem);
        let ports = vec![Port {
            name: "web".to_owned(),
            profile: "web@root".to_owned(),
        }];
        let host = "host-1".to_owned();
        let hello = FromVem::Hello {
            host,
            fenced: wire::vem::Fenced::default(),
            ports,
        };
        sender.send(&hello).expect("room");
        Self { sender, receiver }
    }

    async fn next(&mut self, within: Duration) -> Option<ToVem> {
        let received = timeout(within, self.receiver.next()).await.ok()?;
        received.expect("a sound stream")
    }

    /// Waits for a claim and accepts it.
    async fn claimed(&mut self) -> Epoch {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(ToVem::Claim { epoch, .. }) = self.next(ANSWER_WITHIN).await {
                self.sender
                    .send(&FromVem::ClaimAccepted { epoch })
                    .expect("room");
                return epoch;
            }
        }
        panic!("no claim within {PATIENCE:?}");
    }

    /// Asks until there is an answer.
    async fn verdict(&mut self, request: u64, port: u16) -> (Verdict, Epoch) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.sender.send(&question(request, port)).expect("room");
            while let Some(message) = self.next(ANSWER_WITHIN).await {
                if let ToVem::Decided { epoch, decisions } = message
                    && let Some(decision) = decisions.iter().find(|d| d.request == request)
                {
                    return (decision.verdict, epoch);
                }
            }
        }
        panic!("no verdict within {PATIENCE:?}");
    }
}

fn question(request: u64, port: u16) -> FromVem {
    let flow = FlowKey {
        src_ip: Ipv4Addr::new(10, 0, 0, 1),
        dst_ip: Ipv4Addr::new(10, 0, 0, 2),
        src_port: (request % 60_000) as u16,
        dst_port: port,
        protocol: Protocol::TCP,
    };
    let attributes = FlowAttributes {
        profile: "web@root".to_owned(),
        direction: Direction::Ingress,
        flow,
        ethertype: 0x0800,
    };
    let port = "web".to_owned();
    FromVem::Decide(vec![DecisionRequest {
        request,
        port,
        attributes,
        revalidation: false,
    }])
}

/// Enters lines at a node's console; each must succeed.
async fn console(node: &Node, lines: &[&str]) {
    let path = node.run_dir.join("console.sock");
    let stream = UnixStream::connect(&path).await.expect("a console");
    let (sender, mut receiver) = framed::<_, ToShell, FromShell>(stream, Channel::Console);
    let mut output = String::new();
    let mut lines = lines.iter();
    loop {
        let received = timeout(PATIENCE, receiver.next())
            .await
            .expect("an answer in time");
        match received.expect("a sound stream") {
            Some(ToShell::Prompt { failed, .. }) => {
                assert!(!failed, "{output}");
                let Some(line) = lines.next() else { return };
                sender
                    .send(&FromShell::Line((*line).to_owned()))
                    .expect("room");
            }
            Some(ToShell::Output(text)) => output += &text,
            Some(_) => {}
            None => panic!("the console closed: {output}"),
        }
    }
}

/// Waits until the active's standby is stable.
async fn stable(node: &Node) {
    let log = node.run_dir.with_file_name("log");
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&log)
        .unwrap_or_default()
        .contains("%MODULE-5-STANDBY_SUP_OK")
    {
        assert!(
            Instant::now() < deadline,
            "no stable standby within {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_host_agent_is_served_by_whichever_node_leads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identity = Identity::create(&folder.path().join("agent.key")).expect("a key");
    let agent = identity.fingerprint().to_string();
    let mut one = node(folder.path(), 1, "primary");
    let mut two = node(folder.path(), 2, "secondary");
    verb(
        &one.config,
        &["pin", "--peer", &two.key.to_string(), "--vem", &agent],
    );
    verb(
        &two.config,
        &["pin", "--peer", &one.key.to_string(), "--vem", &agent],
    );
    one.start();
    two.start();
    stable(&one).await;

    let mut first = Gateway::connect(&one, &identity).await;
    let mut second = Gateway::connect(&two, &identity).await;
    let epoch = first.claimed().await;
    assert_eq!(
        first.verdict(1, 80).await,
        (Verdict::Drop, epoch),
        "what no rule permits"
    );
    let lines = [
        "configure",
        "rule allow-http",
        "condition 1 dst.net.port eq 80",
        "action 10 permit",
        "policy web",
        "rule allow-http order 10",
        "security-profile web",
        "policy web",
        "end",
    ];
    console(&one, &lines).await;
    // The engine follows what is committed; a moment passes until it has compiled it.
    let deadline = Instant::now() + PATIENCE;
    let mut request = 2;
    while first.verdict(request, 80).await.0 != Verdict::Permit {
        assert!(Instant::now() < deadline, "the policy takes effect");
        request += 1;
    }
    assert_eq!(first.verdict(1_000, 81).await.0, Verdict::Drop);

    let mut times = Vec::new();
    for request in 2_000..2_500 {
        let asked = Instant::now();
        assert_eq!(first.verdict(request, 80).await.0, Verdict::Permit);
        times.push(asked.elapsed());
        // As a network asks: at a rate, not as fast as it is answered.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    times.sort_unstable();
    println!(
        "decision: median {:?}, slowest {:?}",
        times[250], times[499]
    );

    let killed = Instant::now();
    one.kill("policy_engine").await;
    let later = second.claimed().await;
    let claimed = killed.elapsed();
    assert!(later > epoch);
    assert_eq!(second.verdict(3_000, 80).await, (Verdict::Permit, later));
    println!(
        "takeover: claimed after {claimed:?}, decided after {:?}",
        killed.elapsed()
    );
    assert!(
        claimed < Duration::from_secs(1),
        "a takeover takes {claimed:?}"
    );

    // What was served by the first node is known to the second.
    let text = shown(&two, "show service-path connection | count").await;
    let lines: usize = text.trim().parse().expect("a count");
    assert!(lines > 450, "connections on the new active: {lines} lines");
}

#[tokio::test]
async fn a_change_entered_while_a_borrowed_service_dies_is_made_once_and_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut alone = node(folder.path(), 1, "standalone");
    alone.start();
    let path = alone.run_dir.join("console.sock");
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(&path).await.is_err() {
        assert!(Instant::now() < deadline, "a console within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = alone.run_dir.with_file_name("log");
    while !fs::read_to_string(&log)
        .unwrap_or_default()
        .contains("Supervisor 1 is active")
    {
        assert!(Instant::now() < deadline, "active within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for service in ["cfgmgr", "pss", "mts", "vem_mgr", "mts"] {
        alone.kill(service).await;
        let zone = format!("zone {service}");
        let begun = Instant::now();
        console(&alone, &["configure", &zone, "end"]).await;
        println!("after the death of {service}: {:?}", begun.elapsed());
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
    }
    // A host agent that nobody has pinned is refused, and the log says which.
    let stranger = Identity::create(&folder.path().join("stranger.key")).expect("a key");
    let endpoint = TlsEndpoint::new(&stranger, Pins::new([alone.key]), PROTOCOL);
    let peer = endpoint
        .expect("an endpoint")
        .connect(None, alone.listen)
        .await;
    if let Ok(peer) = peer {
        // In TLS 1.3 the client learns of it only by the end of the connection.
        let (_sender, mut receiver) = framed::<_, ToVem, FromVem>(peer.stream, Channel::Vem);
        assert!(!matches!(
            timeout(PATIENCE, receiver.next()).await,
            Ok(Ok(Some(_)))
        ));
    }
    let deadline = Instant::now() + PATIENCE;
    let who = stranger.fingerprint().to_string();
    loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if text
            .lines()
            .any(|line| line.contains("VEM_REFUSED") && line.contains(&who))
        {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shown = shown(&alone, "show running-config | include zone").await;
    let zones: Vec<&str> = shown.lines().collect();
    let all = [
        "zone cfgmgr@root",
        "zone mts@root",
        "zone pss@root",
        "zone vem_mgr@root",
    ];
    assert_eq!(zones, all);
}

/// What one command prints.
async fn shown(node: &Node, command: &str) -> String {
    let path = node.run_dir.join("console.sock");
    let stream = UnixStream::connect(&path).await.expect("a console");
    let (sender, mut receiver) = framed::<_, ToShell, FromShell>(stream, Channel::Console);
    sender
        .send(&FromShell::Line(command.to_owned()))
        .expect("room");
    loop {
        let received = timeout(PATIENCE, receiver.next())
            .await
            .expect("an answer in time");
        match received.expect("a sound stream").expect("open") {
            ToShell::Output(text) => return text,
            ToShell::Prompt { .. } | ToShell::NewPrompt(_) | ToShell::Console(_) => {}
            other => panic!("{other:?}"),
        }
    }
}
