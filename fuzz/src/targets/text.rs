//! What operators type and packets carry: command lines, configurations, inspected protocols.

use std::net::Ipv4Addr;

use cli::tree::Grammar;
use cli::{Mode, Standing};
use config::Configuration;
use inspect::ftp::FtpControl;
use inspect::{Ends, Pinhole, UNPRIVILEGED_PORT_MIN};
use rand::Rng;
use rand::rngs::StdRng;

use super::Target;
use crate::generate::generate;

/// The shipped example.
const POLICY: &str = include_str!("../../../docs/examples/policy.vsg");

/// Words of the grammar and values of each kind.
const WORDS: &[&str] = &[
    "zone",
    "object-group",
    "rule",
    "policy",
    "security-profile",
    "hostname",
    "no",
    "condition",
    "match",
    "action",
    "order",
    "cond-match-criteria:",
    "match-any",
    "match-all",
    "permit",
    "drop",
    "log",
    "inspect",
    "member",
    "not-member",
    "eq",
    "neq",
    "gt",
    "lt",
    "in-range",
    "not-in-range",
    "prefix",
    "net.ip-address",
    "src.net.port",
    "dst.zone.name",
    "net.protocol",
    "net.ethertype",
    "net.service",
    "a@root",
    "b@root/T1",
    "10.0.0.1",
    "255.255.255.0",
    "80",
    "65535",
    "65536",
    "0x800",
    "-1",
    "exit",
    "end",
    "!",
    "?",
    "show",
    "system",
    "redundancy",
    "status",
    "configure",
    "copy",
    "running-config",
    "startup-config",
    "reload",
    "module",
    "attach",
    "clear",
    "| json",
    "| include",
    "| exclude",
    "| begin",
    "| grep",
    "\"",
    "'",
    "\\",
    "\u{fe}",
    "\t",
];

/// A command tree, a configuration's objects and their texts.
const TEXT_MEMORY_BYTES: usize = 8 * 1024 * 1024;

pub(super) fn targets() -> Vec<Target> {
    vec![command_line(), configuration(), inspected()]
}

fn line(random: &mut StdRng) -> String {
    let words = random.random_range(1..8);
    let word = |_| WORDS[random.random_range(0..WORDS.len())];
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

/// Every mode understands, helps with, completes or refuses every line.
fn command_line() -> Target {
    let grammar = Grammar::new();
    Target {
        name: "command-line",
        seed: Box::new(|random| {
            let mode: Mode = generate(random);
            let mut input = postcard::to_stdvec(&mode).expect("a Vec grows");
            input.extend(line(random).into_bytes());
            input
        }),
        run: Box::new(move |input| {
            let Ok((mode, text)) = postcard::take_from_bytes::<Mode>(input) else {
                return false;
            };
            let text = String::from_utf8_lossy(text);
            let mut accepted = false;
            for standing in [Standing::Active, Standing::Standby] {
                match cli::parse(&grammar, &text, &mode, standing) {
                    Ok(invocation) => {
                        accepted = true;
                        let _ = mode.after(&invocation);
                        let _ = cli::pipe::apply(&invocation.filters, POLICY);
                    }
                    Err(error) => {
                        let _ = error.render(5);
                    }
                }
                let help = cli::parse::help(&grammar, &text, &mode, standing);
                let _ = cli::parse::render_help(&help);
                for word in cli::parse::complete(&grammar, &text, &mode, standing) {
                    assert!(!word.is_empty(), "an empty completion");
                }
                let _ = mode.prompt("vsg", standing);
            }
            accepted
        }),
        repair: None,
        memory_bytes: TEXT_MEMORY_BYTES,
        words: WORDS,
    }
}

/// What loads is written as a text that loads as the same.
fn configuration() -> Target {
    Target {
        name: "configuration",
        seed: Box::new(|random| {
            let lines: Vec<&str> = POLICY.lines().collect();
            let from = random.random_range(0..lines.len());
            let to = random.random_range(from..=lines.len());
            lines[from..to].join("\n").into_bytes()
        }),
        run: Box::new(|input| {
            let text = String::from_utf8_lossy(input);
            let Ok(loaded) = Configuration::load(&text) else {
                return false;
            };
            let written = loaded.text();
            let again = Configuration::load(&written).expect("our own text loads");
            assert_eq!(again.text(), written);
            assert_eq!(again.hash(), loaded.hash());
            let _ = config::context_diff(&text, &written);
            true
        }),
        repair: None,
        memory_bytes: TEXT_MEMORY_BYTES,
        words: WORDS,
    }
}

/// Whatever two peers say, only their own unprivileged ports are opened to each other.
fn inspected() -> Target {
    let ends = Ends {
        client: Ipv4Addr::new(10, 0, 0, 1),
        server: Ipv4Addr::new(10, 0, 0, 2),
    };
    Target {
        name: "inspected",
        seed: Box::new(|random| {
            let said = [
                "PORT 10,0,0,1,200,13\r\n",
                "EPRT |1|10.0.0.1|6275|\r\n",
                "227 Entering Passive Mode (10,0,0,2,200,13)\r\n",
                "229 Entering Extended Passive Mode (|||6446|)\r\n",
                "1022\0root\0root\0ls\0",
                "\0\u{1}file\0octet\0",
            ];
            let mut input = vec![random.random()];
            input.extend(said[random.random_range(0..said.len())].as_bytes());
            input
        }),
        run: Box::new(move |input| {
            let Some((cut, bytes)) = input.split_first() else {
                return false;
            };
            let mut opened: Vec<Pinhole> = Vec::new();
            let mut ftp = FtpControl::new(ends);
            for piece in bytes.chunks(usize::from(*cut) + 1) {
                opened.extend(ftp.client_says(piece));
                opened.extend(ftp.server_says(piece));
            }
            opened.extend(inspect::rsh::pinhole(ends, bytes));
            opened.extend(inspect::tftp::pinhole(ends, 40_000, bytes));
            for pinhole in &opened {
                let ours = [ends.client, ends.server];
                assert!(ours.contains(&pinhole.from) && ours.contains(&pinhole.to));
                assert_ne!(pinhole.from, pinhole.to);
                // The shell's second connection comes from a reserved port, by its nature.
                assert!(
                    pinhole.port >= UNPRIVILEGED_PORT_MIN
                        || inspect::rsh::pinhole(ends, bytes).is_some()
                );
            }
            !opened.is_empty()
        }),
        repair: None,
        memory_bytes: 1024 * 1024,
        words: &[
            "PORT ", "EPRT ", "227 ", "229 ", "(", ")", ",", "|", "\r\n", "65536", "0",
        ],
    }
}
