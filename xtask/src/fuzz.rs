//! `cargo xtask fuzz`: decoders under inputs that the compiler's coverage counters find worth
//! keeping.
//!
//! The counters are LLVM's, which stable Rust passes flags through to; the build has a folder of
//! its own below the target folder. New inputs are kept in `target/xtask/fuzz/corpus`, those that
//! break a property in `target/xtask/fuzz/failures`, with the command that tries them again.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Counts every edge in an array of bytes.
const COVERAGE_FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Ccodegen-units=1";

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Targets; none means all. `--list` shows them.
    targets: Vec<String>,
    /// Minutes for all of them together.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// What chance begins with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints the targets.
    #[arg(long)]
    list: bool,
    /// Tries one input again, for one target.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
}

/// Builds and runs.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let program = build(workspace)?;
    if options.list {
        return exit(Command::new(&program).arg("list"));
    }
    if let Some(file) = &options.replay {
        let [target] = options.targets.as_slice() else {
            bail!("--replay needs the name of one target");
        };
        return exit(Command::new(&program).arg("replay").arg(target).arg(file));
    }
    let targets = if options.targets.is_empty() {
        let output = Command::new(&program).arg("list").output()?;
        let text = String::from_utf8(output.stdout).context("names of targets")?;
        text.lines().map(str::to_owned).collect()
    } else {
        options.targets.clone()
    };
    let seconds = options.minutes * 60.0 / targets.len().max(1) as f64;
    let seconds = (seconds.ceil() as u64).max(1);
    let out = workspace.logs().join("fuzz");
    let mut failed = Vec::new();
    for target in targets {
        let status = Command::new(&program)
            .arg("run")
            .arg(&target)
            .args(["--seconds", &seconds.to_string()])
            .args(["--seed", &options.seed.to_string()])
            .arg("--out")
            .arg(&out)
            .status()
            .context("the fuzzer")?;
        if !status.success() {
            // A process that was ended by an input could not say so itself.
            let current = out.join("failures").join(format!("{target}.current"));
            if current.exists() {
                eprintln!(
                    "{target}: the process ended ({status}); cargo xtask fuzz --replay {} {target}",
                    current.display()
                );
            }
            failed.push(target);
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("fuzz: failed: {}", failed.join(" "));
    Ok(ExitCode::FAILURE)
}

fn exit(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().context("the fuzzer")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The host's target is named, so that build scripts and macros are not instrumented: they run in
/// the compiler, which does not know the counters.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let host = host()?;
    let folder = workspace.logs().join("fuzz").join("build");
    let words = ["build", "--quiet", "--profile", "fuzz", "--package", "fuzz"];
    let status = workspace
        .cargo(&words)
        .args(["--target", &host, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", COVERAGE_FLAGS)
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("the fuzzer does not build");
    }
    Ok(folder.join(host).join("fuzz").join("fuzz"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8(output.stdout).context("rustc's version")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names no host")
}
