//! One target for as long as wanted, or one input again. `cargo xtask fuzz` builds this with
//! coverage counters and runs it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use fuzz::coverage::Coverage;
use fuzz::run::{Campaign, Outcome, Until, try_input};
use fuzz::{corpus, targets};

/// One input that takes longer is a failure: the slowest take some milliseconds.
const INPUT_LIMIT: Duration = Duration::from_secs(10);

#[derive(Parser)]
#[command(about = "Gives decoders what they do not expect")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Prints the targets' names.
    List,
    /// Runs one target.
    Run {
        /// Its name.
        target: String,
        /// How long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// What chance begins with.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Folder for new corpus files (in `corpus`) and inputs that fail (in `failures`).
        #[arg(long)]
        out: PathBuf,
    },
    /// Tries one input again.
    Replay {
        /// The target.
        target: String,
        /// The input.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::List => {
            for target in targets() {
                println!("{}", target.name);
            }
            ExitCode::SUCCESS
        }
        Verb::Run {
            target,
            seconds,
            seed,
            out,
        } => done(run(&target, Duration::from_secs(seconds), seed, &out)),
        Verb::Replay { target, file } => done(replay(&target, &file)),
    }
}

fn done(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> Result<fuzz::Target, String> {
    targets::find(name).ok_or_else(|| format!("there is no target {name:?}; `list` shows them"))
}

fn in_file<T>(path: &Path, result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{}: {error}", path.display()))
}

fn run(name: &str, time: Duration, seed: u64, out: &Path) -> Result<(), String> {
    let target = find(name)?;
    let (grown, failures) = (out.join("corpus").join(name), out.join("failures"));
    in_file(&grown, fs::create_dir_all(&grown))?;
    in_file(&failures, fs::create_dir_all(&failures))?;
    let mut known = in_file(&corpus::folder(name), corpus::read(&corpus::folder(name)))?;
    known.extend(in_file(&grown, corpus::read(&grown))?);
    // Written before each input, so that one that ends the process is found all the same.
    let current_path = failures.join(format!("{name}.current"));
    let current = in_file(&current_path, File::create(&current_path))?;
    let progress = AtomicU64::new(0);
    let mut campaign = Campaign::new(&target, known, seed);
    let result = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch_progress(&progress, name, &current_path));
        let result = campaign.run(
            Until::Passed(time),
            |input| {
                progress.fetch_add(1, Ordering::Relaxed);
                let written = current.write_all_at(input, 0);
                let _ = written.and_then(|()| current.set_len(input.len() as u64));
            },
            |input| {
                let path = grown.join(corpus::file_name(input));
                let _ = fs::write(path, input);
            },
        );
        progress.store(u64::MAX, Ordering::Relaxed);
        watch.thread().unpark();
        result
    });
    let _ = fs::remove_file(&current_path);
    match result {
        Ok(sum) => {
            let guided = if Coverage::is_counted() {
                format!("{} edges reached", sum.edges)
            } else {
                "not guided by coverage".to_owned()
            };
            println!(
                "{name}: {} inputs, {} accepted, {guided}",
                sum.inputs, sum.accepted
            );
            Ok(())
        }
        Err(failure) => {
            let path = failures.join(format!("{name}-{}", corpus::file_name(&failure.input)));
            in_file(&path, fs::write(&path, &failure.input))?;
            Err(format!(
                "{name}: {}\n{}",
                failure.said,
                corpus::replay_command(name, &path)
            ))
        }
    }
}

/// Ends the process when one input takes too long; its input is in the file `current`.
fn watch_progress(progress: &AtomicU64, name: &str, current: &Path) {
    let mut before = progress.load(Ordering::Relaxed);
    loop {
        std::thread::park_timeout(INPUT_LIMIT);
        let now = progress.load(Ordering::Relaxed);
        if now == u64::MAX {
            return;
        }
        if now == before {
            eprintln!(
                "{name}: an input took longer than {INPUT_LIMIT:?}\n{}",
                corpus::replay_command(name, current)
            );
            std::process::exit(1);
        }
        before = now;
    }
}

fn replay(name: &str, file: &Path) -> Result<(), String> {
    let target = find(name)?;
    let input = in_file(file, fs::read(file))?;
    match try_input(&target, &input) {
        Outcome::Refused => println!("{name}: refused"),
        Outcome::Accepted => println!("{name}: accepted"),
        Outcome::Failed(said) => return Err(format!("{name}: {said}")),
    }
    Ok(())
}
