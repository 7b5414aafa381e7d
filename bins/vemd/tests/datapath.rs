//! vemd and its datapath with real packets, between network namespaces.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

mod site;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::Generation;
use site::gateway::{Mood, epoch};
use site::{Site, VM_A, at_b, inside, possible, until};
use wire::vem::{FlowEvent, FromVem, ToVem};

const OPEN: u16 = 5001;
const FORBIDDEN: u16 = 5002;

/// A site whose first gateway is active.
fn active_site() -> Site {
    let site = Site::new(1);
    site.gateways[0].claim(epoch(1, 1), 1);
    until("gateway 0 is obeyed", || site.obeys(0));
    site
}

/// Accepts in vm b for ever; each connection is echoed until its end.
fn serve_tcp(site: &Site, port: u16) {
    let (ready, listening) = std::sync::mpsc::channel();
    let _serving = inside(&site.vm("b"), move || {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut bytes = vec![0; 65_536];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    listening.recv().unwrap();
}

/// Connects, exchanges a message, closes; returns how long the connect took.
fn visit(port: u16, within: Duration) -> std::io::Result<Duration> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&at_b(port), within)?;
    let connected = started.elapsed();
    stream.set_read_timeout(Some(within))?;
    stream.write_all(b"hello")?;
    stream.read_exact(&mut [0; 5])?;
    Ok(connected)
}

#[test]
fn connections_are_decided_and_the_forbidden_port_is_never_reached() {
    if !possible() {
        return;
    }
    let site = active_site();
    site.gateways[0].set_mood(Mood::Forbid(FORBIDDEN));
    serve_tcp(&site, OPEN);
    serve_tcp(&site, FORBIDDEN);
    let visits = inside(&site.vm("a"), || {
        let limit = Duration::from_secs(3);
        let mut times: Vec<_> = (0..200).map(|_| visit(OPEN, limit).unwrap()).collect();
        times.sort();
        let forbidden = visit(FORBIDDEN, Duration::from_millis(400));
        (times[100], times[199], forbidden)
    });
    let (median, worst, forbidden) = visits.join().unwrap();
    assert!(forbidden.is_err(), "the forbidden port was reached");
    eprintln!("connect through two undecided ports: median {median:?}, worst {worst:?}");
    assert!(
        worst < Duration::from_millis(300),
        "a SYN was lost: {worst:?}"
    );
    // Each connection is decided at the client's port and at the server's.
    let asked = site.gateways[0].asked();
    let permitted = asked
        .iter()
        .filter(|request| request.attributes.flow.dst_port == OPEN);
    assert_eq!(permitted.count(), 400);
    assert_eq!(site.count("a", "upcalls"), 201);
    assert_eq!(site.count("b", "upcalls"), 200);
    assert_eq!(site.count("a", "dropped_stray"), 0);
    let closed = || {
        let closed = |message: &FromVem| match message {
            FromVem::Report { flows, .. } => flows
                .iter()
                .filter(|flow| flow.event == FlowEvent::Closed)
                .count(),
            _ => 0,
        };
        site.gateways[0].heard().iter().map(closed).sum::<usize>() == 400
    };
    until("each close is reported", closed);
    let left = || {
        let flows = site.show("flows");
        flows.as_array().unwrap().len()
    };
    until("the kernel forgets every flow", || left() == 0);
}

#[test]
fn bulk_tcp_with_large_segments_arrives_whole() {
    if !possible() {
        return;
    }
    let site = active_site();
    serve_tcp(&site, OPEN);
    let echoed = inside(&site.vm("a"), || {
        let mut stream = TcpStream::connect(at_b(OPEN)).unwrap();
        let block: Vec<u8> = (0..1_000_000_u32)
            .map(|n| (n * 7 + n / 256) as u8)
            .collect();
        let mut reader = stream.try_clone().unwrap();
        let expected = block.clone();
        let reading = std::thread::spawn(move || {
            let mut back = vec![0; expected.len()];
            (0..50).all(|_| reader.read_exact(&mut back).is_ok() && back == expected)
        });
        for _ in 0..50 {
            stream.write_all(&block).unwrap();
        }
        reading.join().unwrap()
    });
    assert!(echoed.join().unwrap(), "bytes were changed or lost");
}

#[test]
fn packets_of_an_undecided_flow_wait_in_their_order() {
    if !possible() {
        return;
    }
    const PACKETS: u32 = 400;
    let site = active_site();
    site.gateways[0].set_mood(Mood::Slow(Duration::from_millis(60)));
    let (ready, listening) = std::sync::mpsc::channel();
    let receiving = inside(&site.vm("b"), move || {
        let socket = UdpSocket::bind(("0.0.0.0", OPEN)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        ready.send(()).unwrap();
        let mut numbers = Vec::new();
        let mut bytes = [0; 4];
        while numbers.len() < PACKETS as usize && socket.recv(&mut bytes).is_ok() {
            numbers.push(u32::from_be_bytes(bytes));
        }
        numbers
    });
    listening.recv().unwrap();
    let sending = inside(&site.vm("a"), || {
        let socket = UdpSocket::bind((VM_A, 0)).unwrap();
        // Faster than one packet per millisecond, through the verdict and far beyond it.
        for number in 0..PACKETS {
            socket.send_to(&number.to_be_bytes(), at_b(OPEN)).unwrap();
            std::thread::sleep(Duration::from_micros(300));
        }
    });
    sending.join().unwrap();
    let numbers = receiving.join().unwrap();
    assert_eq!(
        numbers,
        (0..PACKETS).collect::<Vec<_>>(),
        "lost, doubled or out of order"
    );
    assert!(
        site.count("a", "queued") > 50,
        "nothing waited: the test proves nothing"
    );
    assert_eq!(site.show("status")["counters"]["forced"], 0);
}

#[test]
fn what_belongs_to_no_flow_is_dropped_and_counted() {
    if !possible() {
        return;
    }
    let site = active_site();
    serve_tcp(&site, OPEN);
    let visited = inside(&site.vm("a"), || {
        // Established before its entry goes, then in the middle of nothing.
        let mut stream = TcpStream::connect(at_b(OPEN)).unwrap();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        // A datagram of 4000 bytes is sent in fragments.
        let socket = UdpSocket::bind((VM_A, 0)).unwrap();
        socket.send_to(&[0; 4000], at_b(OPEN)).unwrap();
        stream
    });
    let mut stream = visited.join().unwrap();
    until("fragments are counted", || {
        site.count("a", "dropped_fragment") >= 3
    });
    until("IPv6 is counted", || site.count("a", "dropped_ipv6") >= 1);
    let mut site = site;
    // A clean stop forgets all flows; the new start knows none.
    site.stop();
    site.start();
    until("gateway 0 is obeyed", || site.obeys(0));
    stream.write_all(b"y").unwrap();
    until("mid-stream is counted", || {
        site.count("a", "dropped_midstream") >= 1
    });
}

fn set_mark(socket: &UdpSocket, mark: u32) {
    use std::os::fd::AsRawFd;
    #[allow(unsafe_code, reason = "a socket option that rustix does not wrap")]
    // SAFETY: the option is a u32, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            (&raw const mark).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "root may set marks");
}

#[test]
fn a_vm_cannot_make_its_packets_look_decided() {
    if !possible() {
        return;
    }
    let site = active_site();
    site.gateways[0].set_mood(Mood::Silent);
    let mark = site.reinject_mark();
    let sent = inside(&site.vm("a"), move || {
        let socket = UdpSocket::bind((VM_A, 0)).unwrap();
        set_mark(&socket, mark);
        socket.send_to(b"marked", at_b(OPEN)).unwrap();
    });
    sent.join().unwrap();
    until("it waits like any other", || {
        site.count("a", "upcalls") == 1
    });
    assert_eq!(
        site.count("a", "dropped_stray"),
        0,
        "the mark crossed into the host"
    );
}

#[test]
fn a_worker_that_is_killed_loses_no_connection() {
    if !possible() {
        return;
    }
    let site = active_site();
    serve_tcp(&site, OPEN);
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    // Open loop: a connection each 2 ms, whatever became of the others.
    let visiting = inside(&site.vm("a"), move || {
        let mut visits = Vec::new();
        let started = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            visits.push(std::thread::spawn(|| visit(OPEN, Duration::from_secs(5))));
            let next = Duration::from_millis(2) * visits.len() as u32;
            std::thread::sleep(next.saturating_sub(started.elapsed()));
        }
        visits
            .into_iter()
            .map(|visit| visit.join().unwrap())
            .collect::<Vec<_>>()
    });
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(400));
        let pid = site.worker_pid();
        site.kill_worker(pid);
        let socket_answers = || {
            let status = site.vemd(&["show", "stats", "--json"]);
            status.contains("permitted") && site.worker_pid() != pid
        };
        until("the next worker", socket_answers);
    }
    std::thread::sleep(Duration::from_millis(400));
    done.store(true, Ordering::Relaxed);
    let visits = visiting.join().unwrap();
    let mut times: Vec<_> = visits
        .into_iter()
        .map(|visit| visit.expect("no failure"))
        .collect();
    times.sort();
    let (count, median, worst) = (times.len(), times[times.len() / 2], times[times.len() - 1]);
    eprintln!("{count} connections through 3 kills: median {median:?}, slowest {worst:?}");
    assert!(count > 300, "too few connections to prove anything");
    assert!(worst < Duration::from_millis(300), "slowest {worst:?}");
}

#[test]
fn a_failover_delays_undecided_flows_and_fences_the_old_active() {
    if !possible() {
        return;
    }
    let site = Site::new(2);
    let [old, new] = [&site.gateways[0], &site.gateways[1]];
    old.claim(epoch(1, 1), 1);
    until("the old active is obeyed", || site.obeys(0));
    old.set_mood(Mood::Silent);
    serve_tcp(&site, OPEN);
    let visiting = inside(&site.vm("a"), || visit(OPEN, Duration::from_secs(5)));
    until("the old active was asked", || !old.asked().is_empty());
    let asked = old.asked();
    new.claim(epoch(2, 2), 1);
    visiting.join().unwrap().expect("decided by the new active");
    until("the new active is obeyed", || site.obeys(1));
    // The old one wakes up: what it says is void.
    let decision = wire::vem::Decision {
        request: asked[0].request,
        verdict: model::Verdict::Drop,
        generation: Generation(1),
    };
    old.send(&ToVem::Decided {
        epoch: epoch(1, 1),
        decisions: vec![decision],
    });
    old.claim(epoch(1, 1), 1);
    let refused = |message: &FromVem| matches!(message, FromVem::ClaimRefused { .. });
    until("the old claim is refused", || {
        old.heard().iter().any(refused)
    });
    assert!(site.obeys(1));
    let counters = site.show("status")["counters"].clone();
    assert_eq!(
        (&counters["answers_ignored"], &counters["claims_refused"]),
        (&1.into(), &1.into())
    );
    // A restarted agent still knows the highest epoch.
    let pid = site.worker_pid();
    site.kill_worker(pid);
    until("obeyed again", || {
        std::thread::sleep(Duration::from_millis(20));
        let status = site.vemd(&["show", "stats", "--json"]);
        status.contains("permitted") && site.worker_pid() != pid && site.obeys(1)
    });
}

#[test]
fn a_policy_change_turns_the_flows_it_forbids() {
    if !possible() {
        return;
    }
    let site = active_site();
    serve_tcp(&site, OPEN);
    let connected = inside(&site.vm("a"), || TcpStream::connect(at_b(OPEN)).unwrap());
    let mut stream = connected.join().unwrap();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    site.gateways[0].set_mood(Mood::Forbid(OPEN));
    site.gateways[0].claim(epoch(1, 1), 2);
    let turned = || {
        let flows = site.show("flows");
        let flows = flows.as_array().unwrap().clone();
        flows.iter().all(|flow| flow["verdict"] == "drop")
    };
    until("the flow is turned", turned);
    stream.write_all(b"y").unwrap();
    until("its packets are dropped", || site.count("a", "denied") >= 1);
}

#[test]
fn the_kernel_forgets_flows_without_vemd_and_a_clean_stop_leaves_nothing() {
    if !possible() {
        return;
    }
    let mut site = Site::with(1, "on_stop = \"keep\"", "close");
    site.gateways[0].claim(epoch(1, 1), 1);
    until("gateway 0 is obeyed", || site.obeys(0));
    serve_tcp(&site, OPEN);
    let visited = inside(&site.vm("a"), || {
        let kept = TcpStream::connect(at_b(OPEN)).unwrap();
        visit(OPEN, Duration::from_secs(3)).unwrap();
        kept
    });
    let mut kept = visited.join().unwrap();
    site.stop();
    let flows = |site: &Site| site.show("flows").as_array().unwrap().len();
    until("the closed flow expires", || flows(&site) == 2);
    kept.write_all(b"still here").unwrap();
    kept.read_exact(&mut [0; 10]).unwrap();
    let refused = inside(&site.vm("a"), || {
        // Until vemd counts as silent its packets wait; then the port fails close.
        let deadline = Instant::now() + Duration::from_secs(9);
        while Instant::now() < deadline {
            assert!(visit(OPEN, Duration::from_millis(300)).is_err());
        }
    });
    refused.join().unwrap();
    assert!(site.count("a", "dropped_fail_closed") > 0);
    kept.write_all(b"still here").unwrap();
    kept.read_exact(&mut [0; 10]).unwrap();
    // Started again it finds its flows; stopped without `keep` it leaves nothing.
    site.start();
    kept.write_all(b"still here").unwrap();
    kept.read_exact(&mut [0; 10]).unwrap();
    until("gateway 0 is obeyed", || site.obeys(0));
    site.detach_on_stop();
    site.stop();
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[test]
fn with_the_guardian_dead_the_kernel_goes_on_and_the_fail_mode_opens() {
    if !possible() {
        return;
    }
    let mut site = Site::with(1, "", "open");
    site.gateways[0].claim(epoch(1, 1), 1);
    until("gateway 0 is obeyed", || site.obeys(0));
    serve_tcp(&site, OPEN);
    let connected = inside(&site.vm("a"), || TcpStream::connect(at_b(OPEN)).unwrap());
    let mut kept = connected.join().unwrap();
    let mut echo = move || {
        kept.write_all(b"still here").unwrap();
        kept.read_exact(&mut [0; 10]).unwrap();
    };
    echo();
    site.kill_guardian();
    echo();
    let opened = inside(&site.vm("a"), || {
        // The ports open once vemd has been silent for 5 s.
        let deadline = Instant::now() + Duration::from_secs(9);
        while visit(OPEN, Duration::from_millis(500)).is_err() {
            assert!(Instant::now() < deadline, "the ports do not open");
        }
        TcpStream::connect(at_b(OPEN)).unwrap()
    });
    let _opened = opened.join().unwrap();
    assert!(site.count("a", "fail_opened") > 0);
    echo();
    let asked_before = site.gateways[0].asked().len();
    site.start();
    until("what the fail mode permitted is asked for", || {
        let asked = site.gateways[0].asked();
        asked[asked_before..]
            .iter()
            .any(|request| request.revalidation)
    });
    echo();
    let visited = inside(&site.vm("a"), || visit(OPEN, Duration::from_secs(3)));
    visited.join().unwrap().expect("decided again");
}

/// Figures, by hand: `cargo test --release -p vemd --test datapath -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a promise"]
fn measure() {
    if !possible() {
        return;
    }
    let site = active_site();
    serve_tcp(&site, OPEN);
    let visits = inside(&site.vm("a"), || {
        let limit = Duration::from_secs(3);
        let mut times: Vec<_> = (0..2000).map(|_| visit(OPEN, limit).unwrap()).collect();
        times.sort();
        times
    });
    let times = visits.join().unwrap();
    let at = |percent: usize| times[times.len() * percent / 100];
    eprintln!(
        "connect: p50 {:?} p99 {:?} max {:?}",
        at(50),
        at(99),
        times[times.len() - 1]
    );
    eprintln!("status: {}", site.show("status"));
    let server = site.vm("b");
    let _serving = inside(&server, || {
        std::process::Command::new("iperf3")
            .args(["-s", "-1", "-p", "5201"])
            .output()
            .unwrap()
    });
    let client = inside(&site.vm("a"), || {
        let mut iperf = std::process::Command::new("iperf3");
        iperf.args(["-c", site::VM_B, "-p", "5201", "-t", "3", "-P", "4"]);
        // The server needs a moment to listen; the client says so when it was too early.
        loop {
            let output = iperf.output().unwrap();
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
        }
    });
    eprintln!("{}", client.join().unwrap());
    eprintln!("{}", site.vemd(&["show", "stats"]));
    eprintln!("{}", site.vemd(&["show", "flows"]));
}
