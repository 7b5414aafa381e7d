//! What a pure package's sources must not mention.
//!
//! The dependency table keeps others' I/O out; this keeps the standard library's out. It reads
//! text, not types, so it can be fooled on purpose; `clippy.toml` in each of these folders bans
//! the same by type.

use crate::graph::PURE;
use crate::sources::{files, verdict};

/// A word, and what a pure package does instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("std::time::Instant", "`now` is an argument"),
    ("std::time::SystemTime", "wall time is for display, outside"),
    ("Instant::now", "`now` is an argument"),
    ("SystemTime::now", "wall time is for display, outside"),
    ("std::fs", "storage is a trait or an Output"),
    ("std::io::stdin", "input is an Input"),
    ("std::io::stdout", "output is an Output"),
    ("println!", "output is an Output"),
    ("eprintln!", "a log line is an Output"),
    ("std::thread", "cores have no threads"),
    ("thread::sleep", "time passes by `handle(now, …)`"),
    ("std::process", "starting a service is an Output"),
    ("std::env", "configuration is an argument"),
    ("TcpStream", "sockets belong to runtime"),
    ("TcpListener", "sockets belong to runtime"),
    ("UdpSocket", "sockets belong to runtime"),
    ("UnixStream", "sockets belong to runtime"),
    ("std::os::", "descriptors belong to runtime"),
    ("tokio::", "async belongs to runtime"),
    ("rand::", "randomness is an argument"),
    ("RandomState", "randomness is an argument"),
    ("HashMap", "its order is random: BTreeMap"),
    ("HashSet", "its order is random: BTreeSet"),
];

/// The file storage of the checkpoint store: its one edge, behind the `Storage` trait.
const STORAGE_EDGE: &str = "crates/pss/src/storage";

#[test]
fn pure_sources_reach_for_nothing_outside() {
    let mut findings = Vec::new();
    for package in PURE {
        for source in files(&format!("crates/{package}/src"), "rs") {
            let is_edge = source.path.to_string_lossy().starts_with(STORAGE_EDGE);
            if source.is_test() || is_edge {
                continue;
            }
            for (number, line) in source.product_lines() {
                for (word, instead) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
                    let place = source.path.display();
                    findings.push(format!("{place}:{number}: {word} ({instead})"));
                }
            }
        }
    }
    verdict(
        "pure packages do no I/O, read no clock, draw no randomness, spawn nothing",
        &findings,
    );
}
