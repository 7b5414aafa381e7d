//! Style that a machine can read: length, leftovers, lint tables, bans.

use std::fs;

use crate::graph::PURE;
use crate::sources::{files, root, rust_files, verdict};

/// Lines above which a file surely holds more than one concern. The aim is 600.
const FILE_LINES_MAX: usize = 900;

/// Text that is never committed, made up here so that this file does not find itself.
fn leftovers() -> Vec<String> {
    [
        ("FIX", "ME"),
        ("XX", "X"),
        ("TO", "DO"),
        ("dbg", "!("),
        ("todo", "!("),
        ("#[ig", "nore]"),
    ]
    .iter()
    .map(|(start, end)| format!("{start}{end}"))
    .collect()
}

/// What every `clippy.toml` bans: the root's, and each pure package's, since a file in a package's
/// folder replaces the root's instead of adding to it.
const BANS_EVERYWHERE: [&str; 1] = ["std::env::set_var"];

/// What a pure package's `clippy.toml` bans besides.
const BANS_IN_PURE: [&str; 9] = [
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::sleep",
    "std::thread::spawn",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::fs::File",
];

#[test]
fn files_hold_one_concern() {
    let findings: Vec<String> = rust_files()
        .iter()
        .map(|source| {
            (
                source.path.display().to_string(),
                source.text.lines().count(),
            )
        })
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    verdict(
        &format!("no file is longer than {FILE_LINES_MAX} lines"),
        &findings,
    );
}

#[test]
fn nothing_is_left_over() {
    let leftovers = leftovers();
    let mut sources = rust_files();
    sources.extend(files("bpf", "c"));
    sources.extend(files("bpf", "h"));
    let mut findings = Vec::new();
    for source in &sources {
        for (index, line) in source.text.lines().enumerate() {
            if let Some(word) = leftovers.iter().find(|word| line.contains(word.as_str())) {
                findings.push(format!("{}:{}: {word}", source.path.display(), index + 1));
            }
        }
    }
    verdict(
        "no leftover, and no test that is left out without saying why",
        &findings,
    );
}

#[test]
fn every_package_has_the_lints() {
    let mut findings = Vec::new();
    for manifest in files(".", "toml") {
        let text = &manifest.text;
        let path = manifest.path.display().to_string();
        if !path.ends_with("Cargo.toml") || path == "Cargo.toml" || path.starts_with("target") {
            continue;
        }
        let inherits = text.contains("[lints]\nworkspace = true");
        let own = [
            "unsafe_code = \"deny\"",
            "missing_docs",
            "unwrap_used",
            "undocumented_unsafe",
        ];
        if !inherits && !own.iter().all(|lint| text.contains(lint)) {
            findings.push(format!(
                "{path}: neither the workspace's lints nor a copy of them"
            ));
        }
    }
    verdict("every package is linted alike", &findings);
}

#[test]
fn bans_are_repeated_where_they_would_be_replaced() {
    let mut findings = Vec::new();
    let mut read = |folder: &str, bans: &[&str]| {
        let path = root().join(folder).join("clippy.toml");
        let text = fs::read_to_string(path).unwrap_or_default();
        for ban in bans
            .iter()
            .filter(|ban| !text.contains(&format!("\"{ban}\"")))
        {
            findings.push(format!("{folder}/clippy.toml does not ban {ban}"));
        }
    };
    read(".", &BANS_EVERYWHERE);
    for package in PURE {
        let folder = format!("crates/{package}");
        read(&folder, &BANS_EVERYWHERE);
        // The checkpoint store's file storage needs files.
        let bans = BANS_IN_PURE.iter().copied();
        let bans: Vec<&str> = bans
            .filter(|ban| package != "pss" || !ban.contains("fs"))
            .collect();
        read(&folder, &bans);
    }
    verdict(
        "a clippy.toml in a package repeats the root's bans",
        &findings,
    );
}
