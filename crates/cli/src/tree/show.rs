//! `show`, but for what stands below `show redundancy`.

use super::{Build, Node, keyword, number, show_redundancy};
use crate::command::{Command, Show};

/// Largest number of log lines to show at once: the daemon keeps no more at hand.
const LOG_LINES_MAX: u32 = 10_000;

pub(super) fn leaf(word: &'static str, help: &'static str, build: Build) -> Node {
    keyword(word, help).ends(build)
}

pub(super) fn commands() -> Node {
    keyword("show", "Show what the system knows").then_all([
        keyword("logging", "The newest lines of the log")
            .ends(|_| Ok(Command::Show(Show::Logging { last: None })))
            .then(keyword("last", "Only so many").then(
                number("last", 1, LOG_LINES_MAX, "How many lines").ends(|words| {
                    Ok(Command::Show(Show::Logging {
                        last: Some(words.number("last")?),
                    }))
                }),
            )),
        leaf("module", "Supervisors and VEMs", |_| {
            Ok(Command::Show(Show::Module))
        }),
        keyword("policy-engine", "The policy engine").then(leaf(
            "stats",
            "How often each rule matched",
            |_| Ok(Command::Show(Show::PolicyEngineStats)),
        )),
        leaf("processes", "Processes of this node", |_| {
            Ok(Command::Show(Show::Processes))
        }),
        show_redundancy::commands(),
        leaf("running-config", "The configuration in force", |_| {
            Ok(Command::Show(Show::RunningConfig))
        })
        .then(leaf(
            "diff",
            "What differs from the startup configuration",
            |_| Ok(Command::Show(Show::RunningConfigDiff)),
        )),
        keyword("service-path", "The service path").then(leaf(
            "connection",
            "Connections that were decided",
            |_| Ok(Command::Show(Show::ServicePathConnection)),
        )),
        leaf(
            "startup-config",
            "The configuration of the next start",
            |_| Ok(Command::Show(Show::StartupConfig)),
        ),
        keyword("system", "The system").then_all([
            keyword("redundancy", "The pair").then(leaf(
                "status",
                "State of both supervisors",
                |_| Ok(Command::Show(Show::SystemRedundancyStatus)),
            )),
            leaf("uptime", "Times since the starts", |_| {
                Ok(Command::Show(Show::SystemUptime))
            }),
        ]),
        leaf("version", "Versions of the software", |_| {
            Ok(Command::Show(Show::Version))
        }),
    ])
}
