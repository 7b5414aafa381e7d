//! What finds a mutant: a schedule, seeds of the simulation, the model check, or a test.

use core::fmt;
use core::str::FromStr;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use crate::mutants::tree::Tree;

/// Seconds that the model check may take; a configuration ends within a fraction of it.
const MODEL_SECONDS: &str = "900";

/// One detector, as it is written in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Detector {
    /// `schedule N`.
    Schedule(u8),
    /// `seeds`: the simulation's invariants.
    Seeds,
    /// `model CONFIGURATION`.
    Model(String),
    /// `test PACKAGE NAME`: the tests whose names contain NAME.
    Test(String, String),
}

/// What a detector has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// All is well.
    Nothing,
    /// This rule, schedule or test failed.
    Named(String),
    /// Something else went wrong: it does not build, it crashed.
    Other(String),
}

impl FromStr for Detector {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words[..] {
            ["schedule", number] => Self::Schedule(number.parse().context("a schedule's number")?),
            ["seeds"] => Self::Seeds,
            ["model", configuration] => Self::Model(configuration.to_owned()),
            ["test", package, name] => Self::Test(package.to_owned(), name.to_owned()),
            _ => bail!(
                "{text:?} is none of: schedule N, seeds, model CONFIGURATION, test PACKAGE NAME"
            ),
        })
    }
}

impl fmt::Display for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedule(number) => write!(f, "schedule {number}"),
            Self::Seeds => f.write_str("seeds"),
            Self::Model(configuration) => write!(f, "model {configuration}"),
            Self::Test(package, name) => write!(f, "test {package} {name}"),
        }
    }
}

impl Detector {
    /// Builds what it needs, and runs it.
    pub(crate) fn run(&self, tree: &Tree, seeds: u64) -> Result<Finding> {
        if let Self::Test(package, name) = self {
            return run_test(tree, package, name);
        }
        let package = if matches!(self, Self::Model(_)) {
            "model-check"
        } else {
            "sim"
        };
        let built = output(tree.cargo(&["build", "--release", "--quiet", "-p", package]))?;
        if !built.status.success() {
            return Ok(Finding::Other(format!(
                "does not build: {}",
                last_lines(&built)
            )));
        }
        let mut command = tree.binary(package);
        match self {
            Self::Schedule(number) => {
                command.args(["--schedule", &number.to_string()]);
            }
            Self::Seeds => {
                command.args(["--seeds", &seeds.to_string()]);
            }
            Self::Model(configuration) => {
                command.args([configuration, "--seconds", MODEL_SECONDS]);
            }
            Self::Test(..) => {}
        }
        let ran = output(command)?;
        if ran.status.success() {
            return Ok(Finding::Nothing);
        }
        let text = text(&ran);
        let named = match self {
            Self::Model(_) => after(&text, "BROKEN: ").map(|rule| format!("model check, {rule}")),
            Self::Schedule(number) => {
                let failed = after(&text, &format!("schedule {number} FAILED "));
                failed.map(|what| format!("schedule {number}: {what}"))
            }
            Self::Seeds | Self::Test(..) => invariant(&text),
        };
        Ok(named.map_or_else(
            || Finding::Other(format!("failed without a name: {}", last_lines(&ran))),
            Finding::Named,
        ))
    }
}

/// The invariant that a seed has found broken. A core checks its own and panics: such a panic
/// counts if it names the invariant, any other is a crash.
fn invariant(text: &str) -> Option<String> {
    let failed = |line: &str| {
        let (seed, what) = line.strip_prefix("seed ")?.split_once(" FAILED ")?;
        (what != "by a panic").then(|| format!("simulation, {what} (seed {seed})"))
    };
    let by_panic = |line: &str| {
        let mut parts = line.trim().splitn(2, ':');
        let name = parts.next()?;
        let mut letters = name.chars();
        let is_name = letters
            .next()
            .is_some_and(|first| first.is_ascii_uppercase())
            && letters.clone().next().is_some()
            && letters.all(|digit| digit.is_ascii_digit());
        (is_name && parts.next().is_some()).then(|| format!("simulation, {}", line.trim()))
    };
    text.lines()
        .find_map(failed)
        .or_else(|| text.lines().find_map(by_panic))
}

fn run_test(tree: &Tree, package: &str, name: &str) -> Result<Finding> {
    let built = output(tree.cargo(&["test", "--quiet", "-p", package, "--no-run"]))?;
    if !built.status.success() {
        return Ok(Finding::Other(format!(
            "does not build: {}",
            last_lines(&built)
        )));
    }
    let ran = output(tree.cargo(&["test", "-p", package, name]))?;
    let text = text(&ran);
    if ran.status.success() {
        let ran_some = text
            .lines()
            .any(|line| line.starts_with("test ") && line.ends_with(" ok"));
        return Ok(if ran_some {
            Finding::Nothing
        } else {
            Finding::Other(format!("no test of {package} is named {name}"))
        });
    }
    let failed = text
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .next();
    Ok(failed.map_or_else(
        || Finding::Other(format!("failed without a name: {}", last_lines(&ran))),
        |test| Finding::Named(format!("test {package}::{test}")),
    ))
}

fn output(mut command: Command) -> Result<Output> {
    let program = command.get_program().to_os_string();
    command
        .output()
        .with_context(|| format!("cannot run {}", program.display()))
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// What follows `mark` in the first line that has it.
fn after(text: &str, mark: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.split_once(mark))
        .map(|(_, rest)| rest.trim().to_owned())
}

/// The end of what was printed, for the message of a failure.
fn last_lines(output: &Output) -> String {
    let text = text(output);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
