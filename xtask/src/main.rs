//! `cargo xtask`: every chore of this repository, as one command each.
//!
//! | verb | does | writes |
//! |---|---|---|
//! | `demo` | the failover story, measured | only under the target folder |
//! | `test` | everything CI runs | only under the target folder |
//! | `lab …` | builds release and hands over to `vsg-lab` | what the lab makes |
//! | `sim …` | builds release and hands over to the simulation | nothing |
//! | `soak` | hours of faults under traffic, the invariants checked from outside | only under the target folder |
//! | `fuzz …` | builds with coverage counters, gives decoders what they do not expect | only under the target folder |
//! | `model-check …` | builds release and checks the redundancy protocol as a model | nothing |
//! | `mutants` | breaks the product on purpose; a named check must find each | only under the target folder |
//! | `fix` | formats and applies the linter's suggestions | the sources |
//!
//! `fix` is the only verb that changes a file of the clone.

mod checks;
mod demo;
mod fuzz;
mod mutants;
mod packages;
mod process;
mod progress;
mod soak;
mod stage;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Every chore of this repository, as one command each"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Brings a pair up, breaks it under real traffic, prints what was measured.
    Demo(demo::Options),
    /// Formats the sources and applies the linter's suggestions: the only verb that writes them.
    Fix,
    /// Gives every decoder what it does not expect, guided by coverage.
    Fuzz(fuzz::Options),
    /// Builds release and runs `vsg-lab` with the words that follow.
    #[command(disable_help_flag = true)]
    Lab {
        /// The words for `vsg-lab`; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Builds release and checks the redundancy protocol as a model, with the words that follow.
    #[command(disable_help_flag = true)]
    ModelCheck {
        /// The words for the model check; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Breaks the product on purpose, one rule at a time; a named check must find each.
    Mutants(mutants::Options),
    /// Builds release and runs the simulation with the words that follow.
    #[command(disable_help_flag = true)]
    Sim {
        /// The words for the simulation; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Breaks a pair again and again under traffic, and checks from outside what must hold.
    Soak(soak::Options),
    /// Runs everything CI runs; with names, only those checks.
    Test {
        /// The checks to run, in the order of the list; none means all.
        #[arg(value_enum)]
        only: Vec<stage::Stage>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    let workspace = Workspace::discover()?;
    match verb {
        Verb::Demo(options) => demo::run(&workspace, &options),
        Verb::Fix => checks::fix(&workspace),
        Verb::Fuzz(options) => fuzz::run(&workspace, &options),
        Verb::Lab { words } => {
            packages::require_kernel()?;
            packages::require(packages::LAB)?;
            workspace.build_release(&workspace::PRODUCT)?;
            workspace.hand_over("vsg-lab", &words)
        }
        Verb::ModelCheck { words } => {
            workspace.build_release(&["model-check"])?;
            workspace.hand_over("model-check", &words)
        }
        Verb::Mutants(options) => mutants::run(&workspace, &options),
        Verb::Sim { words } => {
            workspace.build_release(&["sim"])?;
            workspace.hand_over("sim", &words)
        }
        Verb::Soak(options) => soak::run(&workspace, &options),
        Verb::Test { only } => checks::test(&workspace, &only),
    }
}
