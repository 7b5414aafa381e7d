//! Commands of exec mode; they work in every mode, behind the mode's own.

use model::{ModuleNumber, Role};

use super::{BadWord, Node, Words, keyword, number};
use crate::command::{Command, HeartbeatSetting, Show};

/// Largest number of log lines to show at once: the daemon keeps no more at hand.
const LOG_LINES_MAX: u32 = 10_000;

pub(super) fn commands() -> Vec<Node> {
    vec![
        keyword("attach", "Attach to another supervisor's console")
            .administrator()
            .active_only()
            .then(
                keyword("module", "By its module number").then(
                    number("module", 1, 2, "Number of the supervisor").ends(|words| {
                        Ok(Command::AttachModule(ModuleNumber(words.number("module")?)))
                    }),
                ),
            ),
        keyword("configure", "Enter configuration mode")
            .administrator()
            .active_only()
            .ends(|_| Ok(Command::Configure))
            .then(keyword("terminal", "From this terminal").ends(|_| Ok(Command::Configure))),
        keyword("copy", "Copy from one place to another")
            .administrator()
            .active_only()
            .then(
                keyword("running-config", "From the running configuration").then(
                    keyword("startup-config", "To the startup configuration")
                        .ends(|_| Ok(Command::CopyRunningToStartup)),
                ),
            ),
        keyword("end", "Go to exec mode").ends(|_| Ok(Command::End)),
        keyword("exit", "Leave this mode, or the session").ends(|_| Ok(Command::Exit)),
        keyword("reload", "Restart this node")
            .administrator()
            .ends(|_| Ok(Command::Reload)),
        show(),
        system(),
    ]
}

fn show_leaf(word: &'static str, help: &'static str, build: super::Build) -> Node {
    keyword(word, help).ends(build)
}

fn show() -> Node {
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
        show_leaf("module", "Supervisors and VEMs", |_| {
            Ok(Command::Show(Show::Module))
        }),
        keyword("policy-engine", "The policy engine").then(show_leaf(
            "stats",
            "How often each rule matched",
            |_| Ok(Command::Show(Show::PolicyEngineStats)),
        )),
        show_leaf("processes", "Processes of this node", |_| {
            Ok(Command::Show(Show::Processes))
        }),
        keyword("redundancy", "The pair").then_all([
            show_leaf("heartbeat", "Heartbeats on each link", |_| {
                Ok(Command::Show(Show::RedundancyHeartbeat))
            }),
            show_leaf("status", "State of both supervisors, and uptimes", |_| {
                Ok(Command::Show(Show::RedundancyStatus))
            }),
        ]),
        show_leaf("running-config", "The configuration in force", |_| {
            Ok(Command::Show(Show::RunningConfig))
        })
        .then(show_leaf(
            "diff",
            "What differs from the startup configuration",
            |_| Ok(Command::Show(Show::RunningConfigDiff)),
        )),
        keyword("service-path", "The service path").then(show_leaf(
            "connection",
            "Connections that were decided",
            |_| Ok(Command::Show(Show::ServicePathConnection)),
        )),
        show_leaf(
            "startup-config",
            "The configuration of the next start",
            |_| Ok(Command::Show(Show::StartupConfig)),
        ),
        keyword("system", "The system").then_all([
            keyword("redundancy", "The pair").then(show_leaf(
                "status",
                "State of both supervisors",
                |_| Ok(Command::Show(Show::SystemRedundancyStatus)),
            )),
            show_leaf("uptime", "Times since the starts", |_| {
                Ok(Command::Show(Show::SystemUptime))
            }),
        ]),
        show_leaf("version", "Versions of the software", |_| {
            Ok(Command::Show(Show::Version))
        }),
    ])
}

fn system() -> Node {
    let redundancy = keyword("redundancy", "The pair").then_all([
        keyword(
            "force-active",
            "Lead, although this node may lack the newest state",
        )
        .ends(|_| Ok(Command::ForceActive)),
        heartbeat(),
        keyword("role", "Role of this node in the pair").then_all(
            [
                ("primary", "First of a pair"),
                ("secondary", "Second of a pair"),
                ("standalone", "Alone, ignores every other"),
            ]
            .map(|(word, help)| keyword(word, help).named("role").ends(role)),
        ),
    ]);
    keyword("system", "Act on the system")
        .administrator()
        .then_all([
            redundancy,
            keyword("switchover", "Make the standby active")
                .active_only()
                .ends(|_| Ok(Command::Switchover)),
        ])
}

fn role(words: &Words) -> Result<Command, BadWord> {
    match words.required("role")? {
        "primary" => Ok(Command::SetRole(Role::Primary)),
        "secondary" => Ok(Command::SetRole(Role::Secondary)),
        "standalone" => Ok(Command::SetRole(Role::Standalone)),
        _ => Err(BadWord {
            label: "role",
            message: "is not a role".to_owned(),
        }),
    }
}

fn heartbeat() -> Node {
    let explicit = |words: &Words| {
        Ok(Command::SetHeartbeat(HeartbeatSetting::Explicit {
            interval_ms: words.number("interval")?,
            misses: words.number("misses")?,
        }))
    };
    keyword("heartbeat", "How fast the peer's silence is noticed").then_all([
        keyword("default", "3 x 100 ms")
            .ends(|_| Ok(Command::SetHeartbeat(HeartbeatSetting::Default))),
        keyword("fast", "3 x 10 ms").ends(|_| Ok(Command::SetHeartbeat(HeartbeatSetting::Fast))),
        keyword("interval", "An interval of one's own").then(
            number("interval", 10, 10_000, "Milliseconds").then(
                keyword("misses", "How many may be missed")
                    .then(number("misses", 2, 20, "Misses until silence").ends(explicit)),
            ),
        ),
        keyword(
            "vm-safe",
            "3 x 1000 ms, for machines that are paused by snapshots",
        )
        .ends(|_| Ok(Command::SetHeartbeat(HeartbeatSetting::VmSafe))),
    ])
}
