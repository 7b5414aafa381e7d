//! `cargo xtask demo`: the failover story, measured.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::workspace::Workspace;

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
}

/// Runs the story.
pub(crate) fn run(_workspace: &Workspace, _options: &Options) -> Result<ExitCode> {
    anyhow::bail!("not built yet")
}
