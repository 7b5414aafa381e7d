//! `model-check`: the redundancy protocol as a model, every order of bounded faults.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use model_check::configurations::{self, Configuration};
use model_check::coverage::{Coverage, Row};
use model_check::{Pair, Site};
use serde::Serialize;
use stateright::{Checker, HasDiscoveries, Model};

#[derive(Parser)]
#[command(
    name = "model-check",
    about = "Checks the redundancy protocol as a model: every order of bounded faults"
)]
struct Arguments {
    /// Configurations to check; none means all.
    configurations: Vec<String>,
    /// Lists the configurations.
    #[arg(long)]
    list: bool,
    /// Threads; none means one for each core.
    #[arg(long)]
    threads: Option<usize>,
    /// Gives up on a configuration after so many seconds; it then has no fixpoint, and fails.
    #[arg(long, default_value_t = 1_200)]
    seconds: u64,
    /// Lets so many things happen at once, instead of what the configuration says.
    #[arg(long)]
    at_once: Option<u8>,
    /// Prints which rows of the transition table did not come about, but were tried.
    #[arg(long)]
    rows: bool,
    /// Prints every input of a core on the way to a broken rule.
    #[arg(long)]
    inputs: bool,
    /// Writes the results there as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What became of one configuration.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    states: usize,
    transitions: usize,
    depth: usize,
    seconds: f64,
    fixpoint: bool,
    slowest_recovery_ticks: u16,
    broken: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("model-check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut chosen = configurations::all();
    if arguments.list {
        for configuration in chosen {
            println!("{:<12} {}", configuration.name, configuration.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    for name in &arguments.configurations {
        if !chosen.iter().any(|known| known.name == name) {
            bail!("there is no configuration {name:?}; --list shows them");
        }
    }
    chosen.retain(|known| {
        arguments.configurations.is_empty()
            || arguments
                .configurations
                .iter()
                .any(|name| name == known.name)
    });
    let coverage = Arc::new(Coverage::default());
    let mut outcomes = Vec::new();
    for configuration in &mut chosen {
        if let Some(at_once) = arguments.at_once {
            configuration.scope.at_once = at_once;
        }
        outcomes.push(check(arguments, configuration, &coverage));
    }
    let all = arguments.configurations.is_empty();
    let covered = rows(&coverage, arguments.rows) || !all;
    let well = outcomes
        .iter()
        .all(|outcome| outcome.broken.is_empty() && outcome.fixpoint)
        && covered;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&outcomes).context("results as JSON")?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints how much of the transition table was visited. True if all of it was.
fn rows(coverage: &Coverage, each: bool) -> bool {
    let rows = coverage.rows();
    let count = |of: fn(&Row) -> usize| rows.iter().map(of).sum::<usize>();
    let (met, given) = (count(|row| row.met.len()), count(|row| row.given.len()));
    let missed = count(|row| row.missed.len());
    println!(
        "transition table: {} states, {} rows: {met} came about, {given} more were tried, \
         {missed} were missed",
        rows.len(),
        met + given + missed
    );
    for row in rows {
        if each {
            println!("  {}: tried only: {}", row.state, row.given.join("; "));
        }
        if !row.missed.is_empty() {
            println!("  {}: MISSED: {}", row.state, row.missed.join("; "));
        }
    }
    missed == 0
}

fn check(
    arguments: &Arguments,
    configuration: &Configuration,
    coverage: &Arc<Coverage>,
) -> Outcome {
    println!("{}: {}", configuration.name, configuration.about);
    println!("  bounds: {:?}", configuration.scope.budget);
    let started = Instant::now();
    let threads = arguments
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let pair = Pair::new(
        configuration.scope.clone(),
        configuration.cold,
        Arc::clone(coverage),
        started + Duration::from_secs(arguments.seconds),
    );
    let checker = pair
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let seconds = started.elapsed().as_secs_f64();
    let mut broken: Vec<String> = Vec::new();
    if arguments.inputs {
        coverage.tell();
    }
    for (rule, path) in checker.discoveries() {
        println!("  BROKEN: {rule}");
        let mut last: Option<Site> = None;
        for (site, action) in path.into_vec() {
            println!("    {} {}", site.now(), site.describe());
            if let Some(action) = action {
                println!("  - {action:?}");
            }
            last = Some(site);
        }
        if let Some(site) = last
            && let Some(verdict) = checker.model().verdict(&site)
        {
            if site.broken.is_none() {
                println!("  - everything is healed");
                let mut before = String::new();
                for later in checker.model().future(&site) {
                    let text = later.describe();
                    if text != before {
                        println!("    {} {text}", later.now());
                    }
                    before = text;
                }
            }
            println!("    {}", verdict.text);
        }
        broken.push(rule.to_owned());
    }
    let fixpoint = broken.is_empty() && !checker.model().gave_up();
    let outcome = Outcome {
        name: configuration.name,
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        seconds,
        fixpoint,
        slowest_recovery_ticks: checker.model().slowest_recovery_ticks(),
        broken,
    };
    println!(
        "  {} states, {} transitions, depth {}, {:.1} s, {}; slowest recovery {} s",
        outcome.states,
        outcome.transitions,
        outcome.depth,
        outcome.seconds,
        if fixpoint { "fixpoint" } else { "NO FIXPOINT" },
        outcome.slowest_recovery_ticks,
    );
    outcome
}
