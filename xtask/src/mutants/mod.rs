//! `cargo xtask mutants`: deliberate faults, each of which a named check must find.
//!
//! `mutants/mutants.toml` says which rule each patch beside it breaks and what is to find it. The
//! clone is never touched: the sources are copied under the target folder, with a target folder of
//! their own, and patched there. First the clean copy must pass all that is going to be asked of
//! the mutants; then a mutant must build, and a *named* rule, schedule or test must fail. One that
//! does not build, or no longer applies, is a failure of this run, not a kill.

mod detector;
mod plan;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::mutants::detector::{Detector, Finding};
use crate::mutants::plan::Mutant;
use crate::mutants::tree::Tree;
use crate::workspace::Workspace;

/// What the command line says.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these mutants; none means all.
    names: Vec<String>,
    /// Lists them.
    #[arg(long)]
    list: bool,
    /// Seeds of the simulation that each mutant is given, where the simulation is to find it.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Writes the results there as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    total: usize,
    killed: usize,
    mutants: Vec<Verdict>,
}

#[derive(Debug, Serialize)]
struct Verdict {
    name: String,
    /// The rule, schedule or test that failed; null if none did.
    killed_by: Option<String>,
    /// Seeds of the simulation that it was given.
    seeds: u64,
}

/// Runs the mutants.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let mut mutants = plan::read(workspace)?;
    for name in &options.names {
        if !mutants.iter().any(|mutant| mutant.name == *name) {
            bail!("there is no mutant {name:?}; --list shows them");
        }
    }
    mutants.retain(|mutant| options.names.is_empty() || options.names.contains(&mutant.name));
    if options.list {
        for mutant in &mutants {
            println!("{:<34} {}", mutant.name, mutant.breaks);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let tree = Tree::copy(workspace)?;
    clean(&tree, &mutants, options.seeds)?;
    let mut report = Report {
        total: mutants.len(),
        killed: 0,
        mutants: Vec::new(),
    };
    for mutant in &mutants {
        let started = Instant::now();
        let (killed_by, seeds) = judge(&tree, mutant, options.seeds)?;
        let seconds = started.elapsed().as_secs();
        match &killed_by {
            Some(by) => println!("{:<34} killed by {by} ({seconds} s)", mutant.name),
            None => println!("{:<34} SURVIVED ({seconds} s)", mutant.name),
        }
        report.killed += usize::from(killed_by.is_some());
        report.mutants.push(Verdict {
            name: mutant.name.clone(),
            killed_by,
            seeds,
        });
    }
    println!("{} of {} mutants killed", report.killed, report.total);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).context("results as JSON")?;
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(if report.killed == report.total {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The clean copy passes whatever the mutants are going to be asked.
fn clean(tree: &Tree, mutants: &[Mutant], seeds: u64) -> Result<()> {
    let asked: BTreeMap<String, Detector> = mutants
        .iter()
        .flat_map(|mutant| &mutant.detectors)
        .map(|detector| (detector.to_string(), detector.clone()))
        .collect();
    for (name, detector) in asked {
        let started = Instant::now();
        let finding = detector.run(tree, seeds)?;
        let seconds = started.elapsed().as_secs();
        match finding {
            Finding::Nothing => println!("{:<34} passes {name} ({seconds} s)", "the clean tree"),
            Finding::Named(what) => bail!("the clean tree fails {name}: {what}"),
            Finding::Other(what) => bail!("the clean tree: {name}: {what}"),
        }
    }
    Ok(())
}

/// What kills `mutant`, if anything does, and how many seeds it was given.
fn judge(tree: &Tree, mutant: &Mutant, seeds: u64) -> Result<(Option<String>, u64)> {
    let patched = tree.patch(&mutant.patch)?;
    let mut given = 0;
    let mut killed_by = None;
    for detector in &mutant.detectors {
        if matches!(detector, Detector::Seeds) {
            given = seeds;
        }
        match detector.run(tree, seeds)? {
            Finding::Named(what) => {
                killed_by = Some(what);
                break;
            }
            Finding::Nothing => {}
            Finding::Other(what) => bail!("{}: {detector}: {what}", mutant.name),
        }
    }
    patched.restore()?;
    Ok((killed_by, given))
}
