//! Whatever comes in on any port of two real nodes, nothing changes but the counters.
//!
//! The second link leads through this test, which so gets hold of genuine datagrams, and can send
//! them again, later, or damaged.
//!
//! Needs root: a node's System Manager gets a PID namespace of its own.

#[allow(
    dead_code,
    reason = "each test that shares these files uses a part of them"
)]
mod nodes;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nodes::{Node, eventually, network};
use runtime::identity::Identity;
use runtime::tls::{Pins, TlsEndpoint};

const STABLE: &str = "%MODULE-5-STANDBY_SUP_OK: Supervisor ";
/// Lines that a change of roles or of the pair leaves in the log.
const CHANGES: [&str; 6] = [
    "HASWITCHOVER",
    "SWITCHOVER_OVER",
    "STANDBY_SUP_OK",
    "RESET",
    "SPLIT_BRAIN",
    "is active",
];
/// Datagrams of the flood, on each link of each node.
const FLOOD: usize = 20_000;
/// Connections that say nothing, opened at once.
const IDLERS: usize = 100;
/// What a process may grow by: the counters are fixed, and connections come and go.
const GROWTH_MAX_KIB: u64 = 16 * 1024;

/// Carries datagrams of the second link from one node to the other, and keeps the newest.
struct Relay {
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    hold: Arc<AtomicBool>,
    to: SocketAddr,
    end: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Datagrams that a relay keeps.
const KEPT: usize = 64;

impl Relay {
    fn start(at: &str, to: &str) -> Self {
        let socket = UdpSocket::bind(at).expect("a loopback address");
        let timeout = Some(Duration::from_millis(50));
        socket.set_read_timeout(timeout).expect("a timeout");
        let to: SocketAddr = to.parse().expect("an address");
        let (seen, hold, end) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let (keeps, holds, ends) = (Arc::clone(&seen), Arc::clone(&hold), Arc::clone(&end));
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 2000];
            while !ends.load(Ordering::Relaxed) {
                let Ok((length, _)) = socket.recv_from(&mut bytes) else {
                    continue;
                };
                if !holds.load(Ordering::Relaxed) {
                    let _ = socket.send_to(&bytes[..length], to);
                }
                let mut seen: std::sync::MutexGuard<'_, Vec<Vec<u8>>> =
                    keeps.lock().expect("no panic");
                seen.push(bytes[..length].to_vec());
                let surplus = seen.len().saturating_sub(KEPT);
                seen.drain(..surplus);
            }
        });
        Self {
            seen,
            hold,
            to,
            end,
            thread: Some(thread),
        }
    }

    /// A genuine datagram that has arrived.
    fn passed(&self) -> Vec<u8> {
        self.next()
    }

    fn next(&self) -> Vec<u8> {
        self.seen.lock().expect("no panic").clear();
        eventually("a datagram", || {
            !self.seen.lock().expect("no panic").is_empty()
        });
        self.seen.lock().expect("no panic")[0].clone()
    }

    /// A genuine datagram that was kept back, while later ones have arrived.
    fn overtaken(&self) -> Vec<u8> {
        self.hold.store(true, Ordering::Relaxed);
        // The first may have been on its way already.
        let _ = self.next();
        let kept = self.next();
        self.hold.store(false, Ordering::Relaxed);
        let _ = self.next();
        let _ = self.next();
        kept
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Two nodes that know each other, and the relays to each on the second link.
fn pair(folder: &std::path::Path, ids: [&str; 2], roles: [&str; 2]) -> ([Node; 2], [Relay; 2]) {
    let network = network();
    let nodes = [
        Node::new(folder, &network, 1),
        Node::new(folder, &network, 2),
    ];
    let mut keys = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let peer = 2 - index;
        let text = fs::read_to_string(&node.config).expect("its configuration");
        let through = format!("peer = \"{network}.9{peer}:7001\"");
        let text = text.replace(&format!("peer = \"{network}.2{peer}:7001\""), &through);
        assert!(text.contains(&through), "{text}");
        fs::write(&node.config, text).expect("written");
        keys.push(node.init(roles[index], &["--pair-id", ids[index]]));
    }
    let relays = [1, 2].map(|node| {
        Relay::start(
            &format!("{network}.9{node}:7001"),
            &format!("{network}.2{node}:7001"),
        )
    });
    for (index, node) in nodes.iter().enumerate() {
        let output = node.verb("pin", &["--peer", &keys[1 - index]]);
        assert!(output.status.success(), "{output:?}");
    }
    (nodes, relays)
}

/// What a node has dropped at `port` (of `link`) as `reason`.
fn dropped(node: &Node, port: &str, link: &str, reason: &str) -> u64 {
    let shown = node.shows("redundancy traffic");
    let ports = shown["traffic"]["ports"].as_array().cloned();
    ports
        .unwrap_or_else(|| panic!("{shown}"))
        .iter()
        .filter(|row| row["port"] == port && row["link"] == link)
        .filter_map(|row| row["rx_drops"][reason].as_u64())
        .sum()
}

/// Does `attack`, which must be counted as `reason`, and as nothing else before.
fn counted(node: &Node, (port, link): (&str, &str), reason: &str, attack: impl FnOnce()) {
    let before = dropped(node, port, link, reason);
    attack();
    eventually(&format!("{port} {link} counts {reason}"), || {
        dropped(node, port, link, reason) > before
    });
}

fn tcp(to: &str) -> TcpStream {
    TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"))
}

/// What nobody who is not authenticated gets past.
fn attack_tls(node: &Node, port: (&str, &str), to: &str, protocol: &str) {
    counted(node, port, "malformed", || {
        tcp(to).write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    });
    // A record of 65,535 bytes: TLS allows 16 KiB and a little.
    counted(node, port, "oversized", || {
        tcp(to)
            .write_all(&[0x16, 3, 1, 0xff, 0xff, 1, 2, 3, 4])
            .expect("sent");
    });
    counted(node, port, "truncated", || {
        tcp(to).write_all(&[0x16, 3, 1, 1, 0, 1, 0]).expect("sent");
    });
    counted(node, port, "timed_out", || {
        let idle = tcp(to);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(5));
            drop(idle);
        });
    });
    counted(node, port, "too_many", || {
        let idlers: Vec<_> = (0..IDLERS).map(|_| tcp(to)).collect();
        // Most are closed at once; what is left waits for its time limit.
        std::thread::sleep(Duration::from_millis(200));
        drop(idlers);
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stranger = Identity::create(&folder.path().join("key")).expect("a key");
    let key = fs::read_to_string(&node.config).map(|_| node.verb("fingerprint", &[]));
    let key = String::from_utf8(key.expect("readable").stdout).expect("text");
    let pins = || Pins::new([key.trim().parse().expect("a fingerprint")]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let address: SocketAddr = to.parse().expect("an address");
    let dial = |protocol: &str| {
        let endpoint = TlsEndpoint::new(&stranger, pins(), protocol).expect("an endpoint");
        runtime.block_on(async {
            if let Ok(mut peer) = endpoint.connect(None, address).await {
                // TLS 1.3 tells a client that it was refused only afterwards.
                let _ = tokio::io::AsyncReadExt::read(&mut peer.stream, &mut [0; 1]).await;
            }
        });
    };
    counted(node, port, "not_pinned", || dial(protocol));
    counted(node, port, "other_protocol", || dial("twinwall-other/1"));
}

fn attack_heartbeat(node: &Node, relay: &Relay) {
    let port = ("heartbeat", "management");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let send = |bytes: &[u8]| {
        socket.send_to(bytes, relay.to).expect("sent");
    };
    counted(node, port, "truncated", || send(&[7; 20]));
    counted(node, port, "oversized", || send(&[7; 1300]));
    counted(node, port, "unknown_key", || send(&[7; 200]));
    counted(node, port, "replayed", || send(&relay.passed()));
    counted(node, port, "late", || send(&relay.overtaken()));
    counted(node, port, "not_authenticated", || {
        let mut forged = relay.passed();
        // A counter that has not come yet, and a bit of the content.
        forged[10] ^= 1;
        forged[20] ^= 1;
        send(&forged);
    });
}

fn attack_console(node: &Node) {
    let open = || UnixStream::connect(node.base.join("run/console.sock")).expect("a console");
    let port = ("console", "");
    counted(node, port, "malformed", || {
        open().write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    });
    let header = |length: u32| {
        let mut header = b"TW\x01\x05".to_vec();
        header.extend(length.to_le_bytes());
        header.extend([0; 4]);
        header
    };
    counted(node, port, "oversized", || {
        open().write_all(&header(u32::MAX)).expect("sent");
    });
    counted(node, port, "truncated", || {
        open().write_all(&header(1000)).expect("sent");
    });
}

/// A million kinds of rubbish, and what is counted of it.
fn flood(node: &Node, network: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut bytes = [0_u8; 1200];
    for number in 0..FLOOD {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (number * 31 + index * 7) as u8;
        }
        for link in [1, 2] {
            let to = format!("{network}.{link}{}:7001", node.own);
            let _ = socket.send_to(&bytes[..number % 1200], to);
        }
    }
}

/// Resident memory of all processes of a node.
fn memory_kib(node: &Node) -> u64 {
    let config = node.config.display().to_string();
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            line.split('\0').any(|word| word == config).then_some(())?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim()
                .trim_end_matches(" kB")
                .trim()
                .parse::<u64>()
                .ok()
        })
        .sum()
}

fn changes(node: &Node) -> Vec<usize> {
    CHANGES.iter().map(|text| node.said(text)).collect()
}

#[test]
fn nothing_that_comes_in_changes_anything_and_all_of_it_is_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ([mut one, mut two], relays) = pair(folder.path(), ["7", "7"], ["primary", "secondary"]);
    one.start();
    two.start();
    one.wait_for(STABLE, 0);
    let network = one.network.clone();
    let state = |node: &Node| node.shows("system redundancy status");
    eventually("both links are up and both sides show it", || {
        state(&one)["system_redundancy_status"]["this"]["internal_state"] == "ActiveWithHaStandby"
            && [&one, &two].iter().all(|node| {
                let shown = node.shows("redundancy heartbeat");
                let links = shown["heartbeat"]["links"].as_array().cloned();
                links.is_some_and(|links| links.iter().all(|link| link["heard"] == true))
            })
    });
    let states = [state(&one), state(&two)];
    let before = [changes(&one), changes(&two)];
    let memory = [memory_kib(&one), memory_kib(&two)];

    for (node, relay) in [&one, &two].into_iter().zip(&relays) {
        attack_heartbeat(node, relay);
        attack_console(node);
        let own = node.own;
        let bulk = format!("{network}.1{own}:7002");
        attack_tls(node, ("bulk", "control"), &bulk, "twinwall-bulk/1");
        let service = format!("{network}.3{own}:7003");
        attack_tls(node, ("service", ""), &service, "twinwall-vem/1");
        // One of the two listens for the other.
        let control = format!("{network}.1{own}:7001");
        if TcpStream::connect(&control).is_ok() {
            attack_tls(node, ("control", "control"), &control, "twinwall-control/1");
        }
    }
    for node in [&one, &two] {
        flood(node, &network);
    }
    for (index, node) in [&one, &two].into_iter().enumerate() {
        // A link that was crowded out for a moment is said to be down, and up again.
        eventually("the state after it all is as before", || {
            state(node) == states[index]
        });
        assert_eq!(
            changes(node),
            before[index],
            "lines of a change\n{}",
            node.log()
        );
        let grown = memory_kib(node).saturating_sub(memory[index]);
        assert!(grown < GROWTH_MAX_KIB, "{grown} KiB more than before");
        let lines: Vec<_> = node
            .log()
            .lines()
            .filter(|line| line.contains("RX_DROPS: "))
            .map(|line| {
                line.split("RX_DROPS: ")
                    .nth(1)
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        // One for each port and reason, and again after a minute.
        assert!((10..80).contains(&lines.len()), "{lines:#?}");
    }
    assert_eq!(one.done(&["clear redundancy traffic"]), "");
    assert_eq!(dropped(&one, "heartbeat", "management", "replayed"), 0);
}

#[test]
fn another_pair_id_and_the_same_role_are_counted_as_what_they_are() {
    for (ids, roles, reason) in [
        (["7", "8"], ["primary", "secondary"], "foreign_pair"),
        (["7", "7"], ["primary", "primary"], "wrong_slot"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ([mut one, mut two], _relays) = pair(folder.path(), ids, roles);
        one.start();
        two.start();
        for node in [&one, &two] {
            for port in ["heartbeat", "control"] {
                eventually(&format!("{reason} at {port}"), || {
                    dropped(node, port, "control", reason) > 0
                });
            }
            assert_eq!(node.said(STABLE), 0, "strangers do not pair");
        }
    }
}
