//! The host agent: guards the ports of a host's VMs, and asks the active gateway what may pass.

mod datapath;
mod enrolment;
mod epochs;
mod gateways;
mod guardian;
mod journal;
mod keys;
mod packet;
mod pool;
mod realtime;
mod settings;
mod show;
mod tap;
mod worker;

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use model::NodeKey;
use wire::pairing::Code;

use crate::settings::Settings;

/// Exit code for a configuration that cannot be used.
const EXIT_CONFIG: u8 = 2;

/// Guards the ports of a host's VMs. Without a verb: runs.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = false)]
struct Arguments {
    /// Configuration file.
    #[arg(long, global = true, default_value = "/etc/twinwall/vemd.toml")]
    config: PathBuf,
    /// On a clean stop, leave the datapath in the kernel.
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes the identity, and prints its fingerprint.
    Init,
    /// Trusts gateways.
    Pin {
        /// Fingerprint (`SHA256:…`); may be repeated.
        #[arg(long = "gateway", required = true)]
        gateways: Vec<NodeKey>,
    },
    /// Pairs with the gateways by a code that one of them printed (`vem enroll` there).
    Enroll {
        /// Address of the node, and its port if it is not the usual one.
        #[arg(long, value_name = "ADDRESS", value_parser = enrolment::node_address)]
        node: SocketAddr,
        /// The code.
        #[arg(value_parser = enrolment::code)]
        code: Code,
    },
    /// Shows flows, ports, counters or the state of the agent.
    Show {
        /// What to show.
        topic: show::Topic,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Started by the guardian.
    #[command(hide = true)]
    Worker {
        /// The pool's descriptor.
        #[arg(long)]
        pool: RawFd,
        /// The taps' descriptors, in the order of the ports.
        #[arg(long = "tap")]
        taps: Vec<RawFd>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = match Settings::load(&arguments.config) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("vemd: {error:#}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match run(&arguments, &settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vemd: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, each said once: many say their cause themselves.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

fn run(arguments: &Arguments, settings: &Settings) -> Result<()> {
    match &arguments.verb {
        None => guardian::run(&arguments.config, arguments.keep),
        Some(Verb::Init) => {
            println!("{}", keys::init(&settings.state_dir)?);
            Ok(())
        }
        Some(Verb::Pin { gateways }) => keys::pin(&settings.state_dir, gateways).context("pinning"),
        Some(Verb::Enroll { node, code }) => enrolment::run(settings, *node, code),
        Some(Verb::Show { topic, json }) => show::run(settings, *topic, *json),
        Some(Verb::Worker { pool, taps }) => worker::run(&arguments.config, *pool, taps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = keys::identity(folder.path()).expect_err("no identity");
        let line = one_line(&error);
        assert!(line.contains("vemd init"), "{line}");
        assert_eq!(line.matches("os error 2").count(), 1, "{line}");
    }
}
