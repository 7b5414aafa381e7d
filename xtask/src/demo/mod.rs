//! `cargo xtask demo`: the failover story, measured.
//!
//! | module | holds |
//! |---|---|
//! | [`step`] | the faults of the story, and how each is made and mended |
//! | [`measure`] | one repetition: a control window, the fault, its window |
//! | [`promise`] | what must hold of a repetition |
//! | [`figures`] | the worst and the median of the repetitions, and their JSON |
//! | [`table`] | the figures as text |
//! | [`story`] | the order of it all |

mod figures;
mod measure;
mod promise;
mod step;
mod story;
mod table;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use system_tests::{Lab, Plan};

use crate::checks::fresh_logs;
use crate::packages;
use crate::progress::Progress;
use crate::workspace::{PRODUCT, Workspace};

/// Repetitions of each fault; worst and median are shown.
const REPETITIONS: usize = 5;

/// What the caller asks of the demo.
#[derive(Args)]
pub(crate) struct Options {
    /// Writes the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leaves the lab up at the end.
    #[arg(long)]
    keep: bool,
    /// Runs each fault once instead of five times.
    #[arg(long)]
    quick: bool,
    /// Only these steps; none means all.
    #[arg(long, value_enum)]
    step: Vec<step::Step>,
    /// Name of the lab.
    #[arg(long, default_value = "demo")]
    lab: String,
    /// Runs the binaries in this folder instead of building them.
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
}

impl Options {
    const fn repetitions(&self) -> usize {
        if self.quick { 1 } else { REPETITIONS }
    }

    fn takes(&self, step: step::Step) -> bool {
        self.step.is_empty() || self.step.contains(&step)
    }
}

/// Runs the story; succeeds only if every promise held.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !packages::is_root() {
        bail!("the demo makes network namespaces and loads BPF programs: run it as root");
    }
    packages::require_kernel()?;
    let progress = Progress::start();
    packages::require(packages::LAB)?;
    let binaries = match &options.binaries {
        Some(folder) => std::path::absolute(folder)?,
        None => {
            progress.line("building vsgd, vemd, vsh and vsg-lab (release; minutes the first time)");
            workspace.build_release(&PRODUCT)?;
            workspace.release_folder()
        }
    };
    let logs = fresh_logs(workspace, "demo")?;
    progress.line("bringing up a pair, two hosts and four virtual machines");
    let lab = Lab::up(Plan {
        binaries,
        name: options.lab.clone(),
        topology: None,
    })?;
    let told = story::tell(&lab, options, &progress);
    let saved = lab.copy_logs(&logs);
    let name = lab.name().to_owned();
    if options.keep {
        lab.keep();
        progress.line(&format!(
            "the lab stays up: cargo xtask lab --lab {name} status"
        ));
    } else {
        progress.line("taking the lab down");
        lab.down()?;
    }
    saved?;
    let demo = match told {
        Ok(demo) => demo,
        Err(error) => {
            println!("logs: {}", logs.display());
            return Err(error);
        }
    };
    println!("\n{}", table::render(&demo));
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&demo).context("figures to JSON")?;
        fs::write(file, text + "\n").with_context(|| file.display().to_string())?;
    }
    if demo.promises_held {
        return Ok(ExitCode::SUCCESS);
    }
    println!("logs: {}", logs.display());
    Ok(ExitCode::FAILURE)
}
