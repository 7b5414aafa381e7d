//! `cargo xtask test` and `cargo xtask fix`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::packages;
use crate::process::{self, Ending};
use crate::progress::{Progress, clock};
use crate::stage::{Counting, Stage};
use crate::workspace::Workspace;

/// Lines of a failed check's log that are printed: enough for a compiler error or a panic with its
/// context; the whole stays in the log.
const TAIL_LINES: usize = 120;

/// Tests that passed, failed, and were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs the checks named by `only`, or all, and prints the sum as the last line.
pub(crate) fn test(workspace: &Workspace, only: &[Stage]) -> Result<ExitCode> {
    let progress = Progress::start();
    let needs_release = only.iter().any(|stage| stage.needs_release());
    let chosen = Stage::value_variants().iter().filter(|stage| {
        let needed = **stage == Stage::Release && needs_release;
        only.is_empty() || only.contains(stage) || needed
    });
    let logs = fresh_logs(workspace, "test")?;
    let mut sum = Count::default();
    for stage in chosen {
        let count = run_stage(workspace, *stage, &logs, &progress)?;
        sum.add(count);
    }
    println!();
    if sum.failed > 0 {
        println!("logs: {}", logs.display());
    }
    if sum.skipped > 0 {
        println!(
            "{} passed, {} failed, {} skipped",
            sum.passed, sum.failed, sum.skipped
        );
    } else {
        println!("{} passed, {} failed", sum.passed, sum.failed);
    }
    Ok(if sum.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Formats and applies the linter's suggestions.
pub(crate) fn fix(workspace: &Workspace) -> Result<ExitCode> {
    packages::require(packages::BUILD)?;
    let clippy = [
        "clippy",
        "--fix",
        "--workspace",
        "--all-targets",
        "--allow-dirty",
    ];
    for words in [&clippy[..], &["fmt", "--all"][..]] {
        let status = workspace
            .cargo(words)
            .status()
            .context("cannot run cargo")?;
        if !status.success() {
            bail!("cargo {} failed", words.join(" "));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An empty folder for the logs of one run of `verb`.
pub(crate) fn fresh_logs(workspace: &Workspace, verb: &str) -> Result<PathBuf> {
    let folder = workspace.logs().join(verb);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

fn run_stage(
    workspace: &Workspace,
    stage: Stage,
    logs: &Path,
    progress: &Progress,
) -> Result<Count> {
    if stage.needs_root() && !packages::is_root() {
        return Ok(skip(stage, progress));
    }
    packages::require(stage.needs())?;
    progress.begin(stage.title());
    let started = Instant::now();
    let log = logs.join(format!("{}.log", stage.name()));
    let ending = process::run_logged(stage.command(workspace), &log, stage.limit())?;
    let text = fs::read(&log).with_context(|| log.display().to_string())?;
    let text = String::from_utf8_lossy(&text);
    let count = tally(stage.counting(), ending, &text);
    let took = clock(started.elapsed());
    if ending == Ending::Success && count.failed == 0 {
        progress.end(&format!("ok, {} passed, {}", count.passed, took.trim()));
    } else {
        let why = if ending == Ending::TimedOut {
            "TIMED OUT"
        } else {
            "FAILED"
        };
        progress.end(&format!("{why}, {} failed, {}", count.failed, took.trim()));
        explain(&text, &log);
    }
    Ok(count)
}

/// A check that this user may not run: said aloud, and a failure where nobody reads along.
fn skip(stage: Stage, progress: &Progress) -> Count {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let verdict = if in_ci { "FAILED" } else { "SKIPPED" };
    progress.line(&format!(
        "{} {verdict}: this check needs root",
        stage.title()
    ));
    if in_ci {
        Count {
            failed: 1,
            ..Count::default()
        }
    } else {
        Count {
            skipped: 1,
            ..Count::default()
        }
    }
}

fn tally(counting: Counting, ending: Ending, log: &str) -> Count {
    let mut count = match counting {
        Counting::One => Count {
            passed: u64::from(ending == Ending::Success),
            ..Count::default()
        },
        Counting::Harness => harness_count(log),
    };
    // A check that fails without a failed test (it does not compile, it crashed, it hung) is one
    // failure of its own; so is a harness that found no test to run.
    let silent_failure = ending != Ending::Success && count.failed == 0;
    let ran_nothing = count == Count::default();
    if silent_failure || ran_nothing {
        count.failed += 1;
    }
    count
}

/// Adds up the `test result:` lines of cargo's test harness.
fn harness_count(log: &str) -> Count {
    let mut sum = Count::default();
    for line in log.lines().filter(|line| line.starts_with("test result:")) {
        for part in line.split([';', '.']) {
            let mut words = part.split_whitespace();
            let Some(Ok(number)) = words.next().map(str::parse::<u64>) else {
                continue;
            };
            match words.next() {
                Some("passed") => sum.passed += number,
                Some("failed") => sum.failed += number,
                Some("ignored") => sum.skipped += number,
                Some(_) | None => {}
            }
        }
    }
    sum
}

fn explain(text: &str, log: &Path) {
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.len().saturating_sub(TAIL_LINES);
    let early = lines[..tail].iter().filter(|line| {
        line.starts_with("error") || (line.starts_with("test ") && line.ends_with("FAILED"))
    });
    for line in early.chain(&lines[tail..]) {
        println!("    | {line}");
    }
    println!("    the whole log: {}", log.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harness_lines_add_up() {
        let log = "running 2 tests\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.20s\n";
        let expected = Count {
            passed: 5,
            failed: 1,
            skipped: 1,
        };
        assert_eq!(tally(Counting::Harness, Ending::Failure, log), expected);
    }

    #[test]
    fn a_check_that_dies_without_a_failed_test_is_a_failure() {
        let log = "test result: ok. 2 passed; 0 failed; 0 ignored\nerror: could not compile\n";
        assert_eq!(tally(Counting::Harness, Ending::Failure, log).failed, 1);
        assert_eq!(tally(Counting::One, Ending::TimedOut, "").failed, 1);
    }

    #[test]
    fn a_harness_that_ran_no_test_is_a_failure() {
        assert_eq!(
            tally(Counting::Harness, Ending::Success, "nothing here").failed,
            1
        );
    }
}
