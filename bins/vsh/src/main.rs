//! `vsh`: an operator's shell on a gateway. It speaks with `vshd` over the console socket; what a
//! command means is decided there.
//!
//! Exit status: 0 if every command succeeded, 1 if one failed, 2 if there is no gateway to speak
//! with or it went away.

mod connection;
mod interactive;
mod script;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::connection::Connection;

/// Where `vshd` listens unless the node's configuration says otherwise.
const DEFAULT_SOCKET: &str = "/run/twinwall/console.sock";

/// Exit status when the gateway cannot be spoken with.
const NO_GATEWAY: u8 = 2;

/// An operator's shell on a gateway.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The gateway's console socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Run this command; several run in one session, until one fails. After a question the next
    /// is the answer to it. Without any, commands are read from standard input.
    #[arg(short = 'c', value_name = "CMD", allow_hyphen_values = true)]
    commands: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vsh: {error:#}");
            ExitCode::from(NO_GATEWAY)
        }
    }
}

/// Runs the session; true if every command succeeded.
fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let connection = Connection::open(&arguments.socket)?;
    if !arguments.commands.is_empty() {
        return script::run(connection, arguments.commands.into_iter().map(Ok));
    }
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if terminal {
        interactive::run(connection)
    } else {
        script::run(connection, std::io::stdin().lines())
    }
}
