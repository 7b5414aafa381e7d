//! `vsg-lab`: builds, breaks, measures and removes a Twinwall site.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = vsg_lab::cli::Arguments::parse();
    match vsg_lab::cli::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            // One line: the chain of causes, outermost first.
            eprintln!("vsg-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
