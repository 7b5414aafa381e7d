//! `sim`: runs many seeds, or replays one readably.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use sim::invariants::s12_no_decision_by_wall_time;
use sim::report::Report;
use sim::world::{Options, run};

/// Simulates the pair with its hosts on virtual time under random faults.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run only this seed and print every step.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    replay: Option<u64>,
    /// Run this scripted schedule and print every step.
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "from", "replay"])]
    schedule: Option<usize>,
    /// Virtual seconds of faults in each run.
    #[arg(long, default_value_t = Options::default().chaos_s)]
    chaos_s: u64,
    /// Mean pause between two faults, in milliseconds.
    #[arg(long, default_value_t = Options::default().pause_ms)]
    pause_ms: u64,
    /// Hosts of the site.
    #[arg(long, default_value_t = Options::default().hosts)]
    hosts: usize,
    /// Threads; by default as many as there are processors.
    #[arg(long)]
    jobs: Option<u64>,
    /// Print which classes of faults each change of state has not met.
    #[arg(long)]
    unmet: bool,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Arguments {
    fn options(&self) -> Options {
        Options {
            chaos_s: self.chaos_s,
            hosts: self.hosts,
            pause_ms: self.pause_ms,
            readable: self.replay.is_some(),
            ..Options::default()
        }
    }

    /// What brings the run of a seed about again.
    fn replay_command(&self, seed: u64) -> String {
        use std::fmt::Write;
        let mut command = format!("cargo xtask sim --replay {seed}");
        let usual = Options::default();
        if self.chaos_s != usual.chaos_s {
            let _ = write!(command, " --chaos-s {}", self.chaos_s);
        }
        if self.pause_ms != usual.pause_ms {
            let _ = write!(command, " --pause-ms {}", self.pause_ms);
        }
        if self.hosts != usual.hosts {
            let _ = write!(command, " --hosts {}", self.hosts);
        }
        command
    }
}

thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// A core's own check panics, and release builds abort upon that: the seed must be told before.
fn tell_seed_on_panic(arguments: &Arguments) {
    let hook = std::panic::take_hook();
    let commands = arguments.clone();
    std::panic::set_hook(Box::new(move |info| {
        let seed = SEED.get();
        println!("seed {seed} FAILED by a panic");
        println!("  replay: {}", commands.replay_command(seed));
        hook(info);
    }));
}

fn run_some(arguments: &Arguments, first: u64, step: u64, end: u64) -> Report {
    let options = arguments.options();
    let mut report = Report::default();
    let mut seed = first;
    while seed < end {
        SEED.set(seed);
        let mut outcome = run(seed, options);
        // A run is what its seed makes it, and its wall clocks have no part in that.
        if seed.is_multiple_of(TWICE) && outcome.failure.is_none() {
            let wall_offset_s = YEARS_S;
            let again = run(
                seed,
                Options {
                    wall_offset_s,
                    ..options
                },
            );
            outcome.failure = s12_no_decision_by_wall_time::runs_are_equal(&outcome, &again).err();
        }
        if let Some(what) = &outcome.failure {
            println!("seed {seed} FAILED {what}");
            println!("  replay: {}", arguments.replay_command(seed));
        }
        report.add(&outcome);
        seed += step;
    }
    report
}

/// Every seed that is a multiple of this is run twice …
const TWICE: u64 = 50;
/// … the second time with all wall clocks this much later.
const YEARS_S: u64 = 10 * 365 * 86_400;

fn run_all(arguments: &Arguments) -> anyhow::Result<Report> {
    let (from, seeds) = arguments
        .replay
        .map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    // A trace is read line by line: one run at a time.
    let jobs = if arguments.replay.is_some() {
        1
    } else {
        arguments.jobs.unwrap_or(processors).clamp(1, 64)
    };
    let end = from + seeds;
    let reports: Vec<Report> = std::thread::scope(|scope| {
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
    Ok(report)
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    tell_seed_on_panic(&arguments);
    if let Some(number) = arguments.schedule {
        return run_schedule(number);
    }
    let began = Instant::now();
    let mut report = run_all(&arguments)?;
    report.seconds = began.elapsed().as_secs_f64();
    if arguments.unmet {
        report.unmet().iter().for_each(|line| println!("{line}"));
    }
    println!("{report}");
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report.figures())?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if report.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_schedule(number: usize) -> anyhow::Result<ExitCode> {
    let known = &sim::schedules::ALL;
    let schedule = known.iter().find(|schedule| schedule.number == number);
    let schedule = schedule.with_context(|| {
        let last = known.len();
        format!("there is no schedule {number}; they are numbered 1 to {last}")
    })?;
    println!("schedule {number}: {}", schedule.what);
    match schedule.run(true) {
        Ok(()) => {
            println!("schedule {number} came out right");
            Ok(ExitCode::SUCCESS)
        }
        Err(what) => {
            println!("schedule {number} FAILED {what}");
            Ok(ExitCode::FAILURE)
        }
    }
}
