//! `cargo xtask soak`: hours of faults under traffic. What is done and checked is in
//! `tests/src/soak/`, so that the system tests run the same for seconds.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use system_tests::soak::distribution::Distribution;
use system_tests::soak::{Profile, Violation, pauses, random, saturated, stalls};
use system_tests::{Lab, Plan, site};

use crate::checks::fresh_logs;
use crate::packages;
use crate::progress::Progress;
use crate::workspace::{PRODUCT, Workspace};

/// The pauses of the scenario of that name, in milliseconds.
const PAUSES_MS: [u64; 3] = [500, 1000, 5000];
/// How often each.
const PAUSE_REPETITIONS: usize = 5;

/// How often both nodes are stopped in the scenario `stalls`.
const STALLS: usize = 100;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Random faults, one after the other, for so many minutes.
    Random,
    /// The active stopped for 0.5, 1 and 5 s, five times each, at two heartbeat profiles.
    Pauses,
    /// Both nodes stopped at once for 400 ms, a hundred times.
    Stalls,
    /// No core idle: quiet, with pauses of 200 ms, with pauses of 2 s; so many minutes each.
    Saturated,
}

/// A heartbeat profile, as a word.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProfileWord {
    Fast,
    Default,
    VmSafe,
}

impl From<ProfileWord> for Profile {
    fn from(word: ProfileWord) -> Self {
        match word {
            ProfileWord::Fast => Self::Fast,
            ProfileWord::Default => Self::Default,
            ProfileWord::VmSafe => Self::VmSafe,
        }
    }
}

/// What the caller asks of the soak.
#[derive(Args)]
pub(crate) struct Options {
    /// What is done.
    #[arg(long, value_enum, default_value = "random")]
    scenario: Scenario,
    /// How long, in minutes; `pauses` takes as long as it takes.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Writes the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// All random faults follow from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first round: with the seed it decides which faults come.
    #[arg(long, default_value_t = 0)]
    round: u64,
    /// At most so many rounds.
    #[arg(long, default_value_t = u64::MAX)]
    rounds: u64,
    /// The heartbeat profile; none means default and fast in turn.
    #[arg(long, value_enum)]
    profile: Option<ProfileWord>,
    /// New connections a second.
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// How often each pause of the scenario of that name.
    #[arg(long, default_value_t = PAUSE_REPETITIONS)]
    repetitions: usize,
    /// Name of the lab.
    #[arg(long, default_value = "soak")]
    lab: String,
    /// Runs the binaries in this folder instead of building them.
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
}

/// Runs a scenario; succeeds only if everything held.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !packages::is_root() {
        bail!("the soak makes network namespaces and loads BPF programs: run it as root");
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
    let logs = fresh_logs(workspace, "soak")?;
    let lab = Lab::up(Plan {
        binaries,
        name: options.lab.clone(),
        topology: None,
    })?;
    let active = lab.await_redundant()?;
    lab.configure(active, site::POLICY)?;
    let ran = scenario(&lab, options, &progress);
    let saved = lab.copy_logs(&logs);
    lab.down()?;
    saved?;
    let violations = ran.inspect_err(|_| println!("logs: {}", logs.display()))?;
    if violations.is_empty() {
        println!("Everything held.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("NOT everything held:");
    for violation in &violations {
        println!("  {}: {}", violation.during, violation.what);
        println!("    again: {}", violation.replay);
    }
    println!("logs: {}", logs.display());
    Ok(ExitCode::FAILURE)
}

fn scenario(lab: &Lab, options: &Options, progress: &Progress) -> Result<Vec<Violation>> {
    let say = |text: &str| progress.line(text);
    let duration = Duration::try_from_secs_f64(options.minutes * 60.0).context("--minutes")?;
    match options.scenario {
        Scenario::Random => {
            let wanted = random::Options {
                duration,
                seed: options.seed,
                first_round: options.round,
                rounds: options.rounds,
                rate: options.rate,
                profile: options.profile.map(Into::into),
            };
            let keep = |report: &random::Report| {
                // The last of them counts; that one is checked.
                let _ = write(options, report);
            };
            let report = random::run(lab, &wanted, &say, &keep)?;
            write(options, &report)?;
            println!("{}", render(&report));
            Ok(report.violations)
        }
        Scenario::Pauses => {
            let profiles = match options.profile {
                Some(word) => vec![word.into()],
                None => vec![Profile::Default, Profile::Fast],
            };
            let wanted = pauses::Options {
                profiles,
                pauses_ms: PAUSES_MS.to_vec(),
                repetitions: options.repetitions,
                rate: options.rate,
            };
            let report = pauses::run(lab, &wanted, &say)?;
            write(options, &report)?;
            Ok(report.violations)
        }
        Scenario::Stalls => {
            let report = stalls::run(lab, STALLS, options.rate, &say)?;
            write(options, &report)?;
            println!(
                "{} stalls, {} role changes; longest stall of an established flow {:.1} ms, \
                 slowest new connection {:.1} ms",
                report.stalls,
                report.role_changes,
                report.established_stall_ms,
                report.slowest_connect_ms
            );
            Ok(report.violations)
        }
        Scenario::Saturated => {
            let wanted = saturated::Options {
                duration,
                rate: options.rate,
            };
            let report = saturated::run(lab, &wanted, &say)?;
            write(options, &report)?;
            Ok(report.violations)
        }
    }
}

fn write(options: &Options, report: &impl Serialize) -> Result<()> {
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(report).context("figures to JSON")?;
        fs::write(file, text + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn render(report: &random::Report) -> String {
    let mut lines = vec![
        format!(
            "{} rounds in {:.0} s, {} failovers ({:.1} a minute); seed {}",
            report.rounds,
            report.seconds,
            report.failovers,
            report.failovers_per_minute,
            report.seed
        ),
        String::new(),
        format!(
            "{:<34} {:>7} {:>8} {:>8} {:>8} {:>8}",
            "ms", "rounds", "median", "95 %", "99 %", "worst"
        ),
    ];
    let rows: [(&str, &Distribution); 4] = [
        ("stall of an established flow", &report.stall_ms),
        ("slowest new connection", &report.slowest_connect_ms),
        ("mended to redundant", &report.redundant_ms),
        ("mended to one active", &report.one_active_ms),
    ];
    for (name, spread) in rows {
        let Distribution {
            count,
            p50,
            p95,
            p99,
            max,
        } = spread;
        lines.push(format!(
            "{name:<34} {count:>7} {p50:>8.1} {p95:>8.1} {p99:>8.1} {max:>8.1}"
        ));
    }
    let commits = &report.commits;
    lines.push(String::new());
    lines.push(format!(
        "{} connections ({} SYN sent again), {} datagrams, {} attempts at the forbidden port",
        report.connections, report.syn_retransmitted, report.datagrams, report.forbidden_attempts
    ));
    lines.push(format!(
        "commits: {} by both nodes, {} by one ({} of them lost a conflict), {} unanswered",
        commits.replicated, commits.local, commits.local_gone, commits.unknown
    ));
    lines.join("\n")
}
