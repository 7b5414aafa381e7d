//! The deliberate faults of `cargo xtask mutants` stay with the sources.

use std::process::Command;

use crate::sources::{root, verdict};

/// A change that a mutant depends on is seen when it is made, and not when mutants are next run.
#[test]
fn every_mutant_applies_and_is_listed() {
    let folder = root().join("mutants");
    let list = std::fs::read_to_string(folder.join("mutants.toml")).expect("the list is there");
    let mut findings = Vec::new();
    let mut patches = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("a folder can be read").path();
        if path
            .extension()
            .is_none_or(|extension| extension != "patch")
        {
            continue;
        }
        patches += 1;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if !list.contains(&format!("name = \"{name}\"")) {
            findings.push(format!("{name} is not in mutants.toml"));
        }
        let output = Command::new("git")
            .args(["apply", "--check"])
            .arg(&path)
            .current_dir(root())
            .output()
            .expect("git is installed");
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            findings.push(format!("{name} no longer applies: {}", why.trim()));
        }
    }
    assert_eq!(
        list.matches("[[mutant]]").count(),
        patches,
        "one patch each"
    );
    verdict("every mutant applies to the sources as they are", &findings);
}
