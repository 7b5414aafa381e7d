//! `sim`: runs many seeds, or replays one readably.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use sim::report::Report;
use sim::world::{Options, run};

/// Simulates the pair with its hosts on virtual time under random faults.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this seed.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print every step.
    #[arg(long)]
    trace: bool,
    /// Virtual seconds of faults in each run.
    #[arg(long, default_value_t = 600)]
    chaos_s: u64,
    /// Mean pause between two faults, in milliseconds.
    #[arg(long, default_value_t = 12_000)]
    pause_ms: u64,
    /// Hosts of the site.
    #[arg(long, default_value_t = 2)]
    hosts: usize,
    /// Threads; by default as many as there are processors.
    #[arg(long)]
    jobs: Option<u64>,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// A core's own check panics, and release builds abort upon that: the seed must be told before.
fn tell_seed_on_panic() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let seed = SEED.get();
        println!("seed {seed} FAILED by a panic");
        println!("  replay: cargo xtask sim --from {seed} --seeds 1 --trace");
        hook(info);
    }));
}

fn run_some(arguments: &Arguments, first: u64, step: u64, end: u64) -> Report {
    let options = Options {
        chaos_s: arguments.chaos_s,
        hosts: arguments.hosts,
        pause_ms: arguments.pause_ms,
        readable: arguments.trace,
    };
    let mut report = Report::default();
    let mut seed = first;
    while seed < end {
        SEED.set(seed);
        let outcome = run(seed, options);
        if let Some(what) = &outcome.failure {
            println!("seed {seed} FAILED {what}");
            println!("  replay: cargo xtask sim --from {seed} --seeds 1 --trace");
        }
        report.add(&outcome);
        seed += step;
    }
    report
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    tell_seed_on_panic();
    let (from, seeds) = arguments
        .seed
        .map_or((arguments.from, arguments.seeds), |s| (s, 1));
    let began = Instant::now();
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    // A trace is read line by line: one run at a time.
    let jobs = if arguments.trace {
        1
    } else {
        arguments.jobs.unwrap_or(processors).clamp(1, 64)
    };
    let end = from + seeds;
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let arguments = &arguments;
        let start = |job| scope.spawn(move || run_some(arguments, from + job, jobs, end));
        let threads: Vec<_> = (0..jobs).map(start).collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    anyhow::ensure!(reports.len() as u64 == jobs, "a thread panicked");
    let mut report = Report::default();
    reports.into_iter().for_each(|part| report.merge(part));
    report.seconds = began.elapsed().as_secs_f64();
    // A run is what its seed makes it: one of them is made twice.
    if seeds > 1 && report.failed == 0 {
        let options = Options {
            chaos_s: 120,
            hosts: arguments.hosts,
            pause_ms: arguments.pause_ms,
            readable: false,
        };
        let (first, second) = (run(from, options), run(from, options));
        anyhow::ensure!(first == second, "seed {from} gave two different runs");
    }
    println!(
        "{} seeds, {} failed, {:.1} simulated hours, {} role changes, {} faults ({} partitions), \
         {} replicated changes, {} flows decided, {:.1} s",
        report.seeds,
        report.failed,
        report.simulated_hours,
        report.role_changes,
        report.faults,
        report.partitions,
        report.replicated_changes,
        report.flows_decided,
        report.seconds
    );
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if report.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
