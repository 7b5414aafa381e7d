//! The list of mutants.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::mutants::detector::Detector;
use crate::workspace::Workspace;

/// A deliberate fault.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    pub(crate) name: String,
    /// The rule it breaks.
    pub(crate) breaks: String,
    /// What is to find it, in the order in which they are asked.
    pub(crate) detectors: Vec<Detector>,
    pub(crate) patch: PathBuf,
}

#[derive(Deserialize)]
struct File {
    mutant: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    breaks: String,
    detectors: Vec<String>,
}

/// Reads the list. Every patch is in it, and it names no patch that is not there.
pub(crate) fn read(workspace: &Workspace) -> Result<Vec<Mutant>> {
    let folder = workspace.root().join("mutants");
    let list = folder.join("mutants.toml");
    let text = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let file: File = toml::from_str(&text).with_context(|| list.display().to_string())?;
    let mut mutants = Vec::new();
    for entry in file.mutant {
        let patch = folder.join(format!("{}.patch", entry.name));
        if !patch.is_file() {
            bail!("mutant {} has no {}", entry.name, patch.display());
        }
        let detectors = entry
            .detectors
            .iter()
            .map(|text| text.parse().with_context(|| entry.name.clone()))
            .collect::<Result<Vec<Detector>>>()?;
        if detectors.is_empty() {
            bail!("nothing is to find mutant {}", entry.name);
        }
        mutants.push(Mutant {
            name: entry.name,
            breaks: entry.breaks,
            detectors,
            patch,
        });
    }
    for file in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = file?.path();
        let is_patch = path
            .extension()
            .is_some_and(|extension| extension == "patch");
        if is_patch && !mutants.iter().any(|mutant| mutant.patch == path) {
            bail!("{} is not in {}", path.display(), list.display());
        }
    }
    Ok(mutants)
}
