//! Who may depend on whom.
//!
//! The table is the design's tree of boundaries. An edge that is not in it fails, and so does a
//! package that is not in it: a new boundary is decided, not slipped in.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::sources::{root, verdict};

/// Packages without I/O, clock, randomness or threads.
pub(crate) const PURE: [&str; 12] = [
    "cli",
    "config",
    "inspect",
    "model",
    "mts",
    "node",
    "policy",
    "pss",
    "redundancy",
    "sysmgr",
    "vem",
    "wire",
];

/// The state machines. They meet in `node` and nowhere else.
const CORES: [&str; 5] = ["mts", "pss", "redundancy", "sysmgr", "vem"];

/// The only packages that may name more than one core: the composition, what runs it in processes
/// and what runs it on virtual time.
const COMPOSERS: [&str; 6] = ["model-check", "node", "runtime", "vsgd", "sim", "fuzz"];

/// Our packages, and which of ours each may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &["model"]),
    // Cores.
    ("redundancy", &["model", "wire"]),
    ("sysmgr", &["model", "wire"]),
    ("mts", &["model", "wire"]),
    ("pss", &["model", "wire"]),
    ("vem", &["model", "wire"]),
    // Libraries: between them one way only.
    ("policy", &["model"]),
    ("inspect", &["model"]),
    ("cli", &["model"]),
    ("config", &["cli", "model", "policy"]),
    // Composition.
    (
        "node",
        &[
            "cli",
            "config",
            "inspect",
            "model",
            "mts",
            "policy",
            "pss",
            "redundancy",
            "sysmgr",
            "wire",
        ],
    ),
    ("runtime", &["model", "node", "redundancy", "wire"]),
    // Binaries. The host agent shares no core with the node, and the shell only words and bytes.
    (
        "vsgd",
        &[
            "cli",
            "config",
            "model",
            "mts",
            "node",
            "policy",
            "pss",
            "redundancy",
            "runtime",
            "sysmgr",
            "wire",
        ],
    ),
    ("vemd", &["model", "runtime", "vem", "wire"]),
    ("vsh", &["cli", "model", "wire"]),
    // The lab drives binaries, so that what it shows is what is shipped.
    ("vsg-lab", &[]),
    (
        "sim",
        &[
            "cli",
            "config",
            "model",
            "mts",
            "node",
            "policy",
            "pss",
            "redundancy",
            // The envelope of heartbeats as it is shipped: forged and replayed ones are thrown at it.
            "runtime",
            "sysmgr",
            "vem",
            "wire",
        ],
    ),
    // Everything that decodes.
    (
        "fuzz",
        &[
            "cli",
            "config",
            "inspect",
            "model",
            "mts",
            "pss",
            "redundancy",
            "runtime",
            "wire",
        ],
    ),
    // The cores that decide who leads and who is obeyed, as values.
    ("model-check", &["model", "redundancy", "vem", "wire"]),
    ("system-tests", &[]),
    ("xtask", &["system-tests"]),
];

/// What pure packages may use of others' work: values in, values out.
const PURE_MAY_USE: [&str; 7] = [
    "crc32fast",
    "postcard",
    "serde",
    "serde_json",
    "sha2",
    "similar",
    "zeroize",
];

/// Names of direct dependencies, by package: ours and others'.
struct Graph {
    normal: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(root())
            .output()
            .expect("cargo runs this test");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        let packages = metadata["packages"]
            .as_array()
            .expect("a workspace has packages");
        let normal = packages
            .iter()
            .map(|package| {
                let names = package["dependencies"].as_array().into_iter().flatten();
                // `kind` is null for a dependency of the product itself.
                let names = names.filter(|dependency| dependency["kind"].is_null());
                (
                    text(&package["name"]),
                    names.map(|d| text(&d["name"])).collect(),
                )
            })
            .collect();
        Self { normal }
    }

    fn of(&self, package: &str) -> impl Iterator<Item = &str> {
        self.normal
            .get(package)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().expect("names are text").to_owned()
}

fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    ALLOWED.iter().copied().collect()
}

#[test]
fn every_edge_between_our_packages_is_allowed() {
    let graph = Graph::read();
    let allowed = allowed();
    let mut findings = Vec::new();
    for package in graph.normal.keys() {
        let Some(may_use) = allowed.get(package.as_str()) else {
            findings.push(format!("{package} is not in the table"));
            continue;
        };
        for used in graph.of(package).filter(|used| allowed.contains_key(used)) {
            if !may_use.contains(&used) {
                findings.push(format!("{package} must not depend on {used}"));
            }
        }
    }
    for package in allowed
        .keys()
        .filter(|name| !graph.normal.contains_key(**name))
    {
        findings.push(format!(
            "{package} is in the table and not in the workspace"
        ));
    }
    verdict("the dependency graph is the design's", &findings);
}

#[test]
fn cores_meet_only_where_they_are_composed() {
    let graph = Graph::read();
    let mut findings = Vec::new();
    for package in graph.normal.keys() {
        let cores: Vec<&str> = graph
            .of(package)
            .filter(|used| CORES.contains(used))
            .collect();
        let is_core = CORES.contains(&package.as_str());
        let composes = COMPOSERS.contains(&package.as_str());
        if (is_core && !cores.is_empty()) || (!composes && cores.len() > 1) {
            findings.push(format!("{package} names {}", cores.join(", ")));
        }
    }
    verdict("cores know nothing of each other", &findings);
}

#[test]
fn pure_packages_use_only_libraries_of_values() {
    let graph = Graph::read();
    let allowed = allowed();
    let mut findings = Vec::new();
    for package in PURE {
        for used in graph.of(package) {
            let known = PURE.contains(&used) || PURE_MAY_USE.contains(&used) || used == "thiserror";
            if !known {
                findings.push(format!("{package} must not use {used}"));
            }
            if allowed.contains_key(used) && !PURE.contains(&used) {
                findings.push(format!("{package} is pure and {used} is not"));
            }
        }
    }
    verdict(
        "pure packages use only libraries that compute values",
        &findings,
    );
}

#[test]
fn only_programs_and_tools_use_catch_all_errors() {
    let graph = Graph::read();
    let may = [
        "runtime",
        "vsgd",
        "vemd",
        "vsh",
        "vsg-lab",
        "model-check",
        "sim",
        "system-tests",
        "xtask",
    ];
    let findings: Vec<String> = graph
        .normal
        .keys()
        .filter(|package| !may.contains(&package.as_str()))
        .filter(|package| graph.of(package).any(|used| used == "anyhow"))
        .map(|package| format!("{package} uses anyhow"))
        .collect();
    verdict("libraries have an error type for each operation", &findings);
}
