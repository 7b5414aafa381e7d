//! From a command to what must be asked for it, and from the replies to its answer.

use core::time::Duration;
use std::collections::VecDeque;

use cli::answer::{
    CommitLevel, FORCE_ACTIVE_WARNING, RELOAD_QUESTION, RELOAD_STANDBY_NOTICE,
    RELOAD_STANDBY_QUESTION, ROLE_ON_RELOAD, RedundancyReport, SWITCHOVER_REFUSED, Uptime, Version,
    reload_module_notice, reload_module_question,
};
use cli::{Answer, Command, Mode, Show, Statement};
use config::{Configuration, Header, context_diff, named_diff};
use model::{ModuleNumber, PairId, Role, Slot, Time};
use wire::checkpoint::{Acknowledgement, Request, Response};
use wire::service::{FromCfgmgr, FromPolicyEngine, FromVemMgr, ToCfgmgr, ToPolicyEngine, ToVemMgr};
use wire::supervision::{self, Ask, LOG_LINES_MAX};

use super::conflicts::Archives;
use super::session::{Fetch, Pending, Reply};
use super::{Facts, pairing, show, wall};

/// What is shown must come soon.
pub(super) const SHOW_LIMIT: Duration = Duration::from_secs(2);
/// A commit may wait for the standby, then for leave to go on without it.
const COMMIT_LIMIT: Duration = Duration::from_secs(15);
/// Becoming active takes the services well below a second; on an overloaded host some.
const ACTIVATION_LIMIT: Duration = Duration::from_secs(5);

/// Whether a command is answered at once, or what it needs.
pub(super) enum Plan {
    Now(Outcome),
    Fetch(VecDeque<Fetch>, Duration),
}

/// What the operator gets.
pub(super) enum Outcome {
    Answer(Answer),
    /// Text, ready to print; the command has failed.
    Failed(String),
    /// The operator is asked first.
    Confirm(Question),
}

/// A question, and what follows a yes.
pub(super) struct Question {
    /// Stands above it.
    pub(super) warning: String,
    pub(super) text: String,
    pub(super) then: Fetch,
    /// Said once it is done.
    pub(super) notice: String,
}

/// What is known without asking.
pub(super) struct Known<'a> {
    pub(super) facts: &'a Facts,
    pub(super) hostname: &'a str,
    pub(super) now: Time,
    pub(super) unix_s: u64,
    pub(super) active_since: Option<Time>,
    pub(super) slot: Option<Slot>,
    pub(super) running: &'a str,
    pub(super) archives: &'a Archives,
    /// Age of the system, if it is known; else this node stands for it.
    pub(super) system_s: Option<u64>,
}

fn fetch<const N: usize>(fetches: [Fetch; N]) -> Plan {
    Plan::Fetch(fetches.into(), SHOW_LIMIT)
}

/// What `command`, typed as `line` inside the object that `entered` entered, needs.
pub(super) fn plan(
    command: &Command,
    context: &Mode,
    line: &str,
    entered: Option<&String>,
    user: &str,
    known: &Known<'_>,
) -> Plan {
    let manager = |ask| fetch([Fetch::Manager(ask)]);
    match command {
        // `attach` never comes here: the session moves, and nothing is fetched.
        Command::Empty | Command::Configure | Command::End | Command::AttachModule(_) => {
            Plan::Now(Outcome::Answer(Answer::Done))
        }
        // Whether it ends the session is known from the session's mode, not from where the word
        // was found: `exit` is a word of exec mode that every mode understands.
        Command::Exit => Plan::Now(Outcome::Answer(Answer::Done)),
        Command::ClearConflict(number) => {
            let request = Request::ClearConflict { number: *number };
            Plan::Fetch([Fetch::Pss(request)].into(), COMMIT_LIMIT)
        }
        Command::ReloadModule(module) => plan_reload_module(*module, known),
        Command::ClearTraffic => manager(Ask::ClearTraffic),
        Command::CopyRunningToStartup => plan_commit(ToCfgmgr::Save),
        Command::ForceActive => Plan::Fetch(
            [Fetch::Manager(Ask::ForceActive), Fetch::Activation].into(),
            ACTIVATION_LIMIT,
        ),
        Command::Pairing(command) => pairing::plan(command),
        Command::PairId(id) => manager(Ask::SetPairId(*id)),
        Command::Reload => fetch([
            Fetch::Cfgmgr(ToCfgmgr::Running),
            Fetch::Cfgmgr(ToCfgmgr::Startup),
        ]),
        Command::SetHeartbeat(setting) => manager(Ask::SetHeartbeat {
            interval_ms: setting.interval_ms(),
            misses: setting.misses(),
        }),
        Command::SetConflictPolicy(policy) => manager(Ask::SetConflictPolicy(*policy)),
        Command::SetBootWait(seconds) => manager(Ask::SetBootWait(*seconds)),
        Command::SetRole(role) => fetch([
            Fetch::Manager(Ask::SetRole(*role)),
            Fetch::Manager(Ask::RedundancyStatus),
        ]),
        Command::Switchover => manager(Ask::Switchover),
        Command::Show(show) => plan_show(*show, known),
        Command::Statement(_) => {
            // Each session line is a change of its own; inside an object, the line that enters
            // the object goes before it.
            let inside = context.object().is_some();
            let before = entered.filter(|_| inside).cloned();
            let lines = before.into_iter().chain([line.to_owned()]).collect();
            plan_commit(ToCfgmgr::Apply {
                lines,
                user: user.to_owned(),
            })
        }
    }
}

/// Whether the module is there decides what is asked.
fn plan_reload_module(module: ModuleNumber, known: &Known<'_>) -> Plan {
    match known.slot {
        Some(slot) if slot.module() == module => Plan::Now(Outcome::Failed(format!(
            "% Module {} is this supervisor: use reload\n",
            module.0
        ))),
        Some(slot) if slot.other().module() == module => {
            fetch([Fetch::Manager(Ask::RedundancyStatus)])
        }
        Some(_) | None => fetch([Fetch::VemMgr(ToVemMgr::Modules)]),
    }
}

/// A change, and before it, whether the node has another to confirm it.
fn plan_commit(change: ToCfgmgr) -> Plan {
    let role = Fetch::Manager(Ask::RedundancyStatus);
    Plan::Fetch([role, Fetch::Cfgmgr(change)].into(), COMMIT_LIMIT)
}

fn plan_show(show: Show, known: &Known<'_>) -> Plan {
    match show {
        Show::Logging { last } => {
            let lines = last.map_or(LOG_LINES_MAX, |last| {
                u16::try_from(last)
                    .unwrap_or(LOG_LINES_MAX)
                    .min(LOG_LINES_MAX)
            });
            fetch([Fetch::Manager(Ask::Logging { lines })])
        }
        Show::Module => fetch([
            Fetch::Manager(Ask::RedundancyStatus),
            Fetch::VemMgr(ToVemMgr::Modules),
        ]),
        Show::PolicyEngineStats => fetch([Fetch::PolicyEngine(ToPolicyEngine::Stats)]),
        Show::Processes => fetch([Fetch::Manager(Ask::Processes)]),
        Show::RedundancyConflicts => Plan::Now(Outcome::Answer(Answer::Conflicts(
            known.archives.list(known.running),
        ))),
        Show::RedundancyConflict(number) | Show::RedundancyConflictDiff(number) => {
            Plan::Now(conflict(show, number, known))
        }
        Show::RedundancyHeartbeat => fetch([Fetch::Manager(Ask::HeartbeatStatus)]),
        Show::RedundancyIdentity => fetch([Fetch::Manager(Ask::Identity)]),
        Show::RedundancyTraffic => fetch([Fetch::Manager(Ask::Traffic)]),
        Show::RedundancyStatus | Show::SystemRedundancyStatus => {
            fetch([Fetch::Manager(Ask::RedundancyStatus)])
        }
        Show::RunningConfig => fetch([
            Fetch::Cfgmgr(ToCfgmgr::Running),
            Fetch::Manager(Ask::RedundancyStatus),
        ]),
        Show::RunningConfigDiff => fetch([
            Fetch::Cfgmgr(ToCfgmgr::Startup),
            Fetch::Cfgmgr(ToCfgmgr::Running),
        ]),
        Show::ServicePathConnection => fetch([Fetch::PolicyEngine(ToPolicyEngine::Connections)]),
        Show::StartupConfig => fetch([
            Fetch::Cfgmgr(ToCfgmgr::Startup),
            Fetch::Manager(Ask::RedundancyStatus),
        ]),
        Show::SystemUptime => Plan::Now(Outcome::Answer(Answer::SystemUptime(uptime(known)))),
        Show::Version => Plan::Now(Outcome::Answer(Answer::Version(Version {
            version: known.facts.version.clone(),
            hostname: known.hostname.to_owned(),
            kernel: known.facts.kernel.clone(),
            uptime_s: known.now.since(known.facts.started).as_secs(),
            last_reset: None,
        }))),
    }
}

fn uptime(known: &Known<'_>) -> Uptime {
    let own_s = known.now.since(known.facts.started).as_secs();
    let system_s = known.system_s.unwrap_or(own_s);
    Uptime {
        start_time: wall::ctime(known.unix_s.saturating_sub(system_s)),
        system_s,
        kernel_s: known.now.since(Time::default()).as_secs(),
        active_supervisor_s: known
            .active_since
            .map(|since| known.now.since(since).as_secs()),
    }
}

/// The answer of a command whose replies are all there.
pub(super) fn finish(pending: &Pending, prompt_columns: usize, known: &Known<'_>) -> Outcome {
    for reply in &pending.replies {
        if let Some(refusal) = refusal(reply, pending, prompt_columns) {
            return Outcome::Failed(refusal);
        }
    }
    if let Some(notice) = pending.confirmed.as_ref().filter(|notice| {
        let noted = matches!(
            pending.replies.as_slice(),
            [Reply::Manager(supervision::Answer::Noted(_))]
        );
        !notice.is_empty() || !noted
    }) {
        return Outcome::Answer(Answer::Message {
            text: notice.clone(),
        });
    }
    let replies = pending.replies.as_slice();
    match (&pending.invocation.command, replies) {
        (Command::Reload, [Reply::Cfgmgr(running), Reply::Cfgmgr(startup)]) => {
            let saved = text_of(running) == text_of(startup);
            let warning = if saved {
                ""
            } else {
                cli::answer::UNSAVED_WARNING
            };
            Outcome::Confirm(Question {
                warning: warning.to_owned(),
                text: RELOAD_QUESTION.to_owned(),
                then: Fetch::Manager(Ask::Reload),
                notice: String::new(),
            })
        }
        (Command::ReloadModule(module), replies) => reload_module(*module, replies),
        (Command::SetRole(_), [Reply::Manager(supervision::Answer::Noted(note)), _]) => {
            Outcome::Answer(Answer::Message { text: note.clone() })
        }
        (
            Command::SetRole(_),
            [
                _,
                Reply::Manager(supervision::Answer::RedundancyStatus(status)),
            ],
        ) if status.administrative_role != status.operational_role => {
            Outcome::Answer(Answer::Message {
                text: ROLE_ON_RELOAD.to_owned(),
            })
        }
        (
            Command::PairId(_) | Command::Pairing(_),
            [Reply::Manager(supervision::Answer::Noted(note))],
        ) => Outcome::Answer(Answer::Message { text: note.clone() }),
        (Command::Pairing(_), [Reply::Manager(supervision::Answer::Code(code))]) => {
            Outcome::Answer(Answer::PairingCode(pairing::code(code)))
        }
        (Command::Show(show), replies) => show_answer(*show, replies, known),
        (Command::CopyRunningToStartup, replies) => Outcome::Answer(match level(replies) {
            Some(CommitLevel::Local) => Answer::CopiedLocally,
            Some(CommitLevel::Replicated) | None => Answer::Copied,
        }),
        (Command::Statement(_), replies) => Outcome::Answer(match level(replies) {
            Some(level) => Answer::Committed { level },
            None => Answer::Done,
        }),
        (Command::ForceActive, _) => Outcome::Answer(Answer::Message {
            text: FORCE_ACTIVE_WARNING.to_owned(),
        }),
        _ => Outcome::Answer(Answer::Done),
    }
}

/// What is asked before a module is restarted, if it is there.
fn reload_module(module: ModuleNumber, replies: &[Reply]) -> Outcome {
    use supervision::Answer as Manager;
    let (text, then, notice) = match replies {
        [Reply::Manager(Manager::RedundancyStatus(status))] if status.other.is_some() => (
            RELOAD_STANDBY_QUESTION.to_owned(),
            Fetch::Manager(Ask::ReloadStandby),
            RELOAD_STANDBY_NOTICE.to_owned(),
        ),
        [Reply::VemMgr(FromVemMgr::Modules(modules))]
            if modules.iter().any(|known| known.module == module) =>
        {
            (
                reload_module_question(module),
                Fetch::VemMgr(ToVemMgr::Restart { module }),
                reload_module_notice(module),
            )
        }
        _ => return Outcome::Failed(format!("% Module {} is not present\n", module.0)),
    };
    Outcome::Confirm(Question {
        warning: String::new(),
        text,
        then,
        notice,
    })
}

/// One archived configuration, or what differs from it.
fn conflict(show: Show, number: u32, known: &Known<'_>) -> Outcome {
    let Some(archived) = known.archives.find(number) else {
        return Outcome::Failed(format!("% There is no conflict {number}\n"));
    };
    match show {
        Show::RedundancyConflictDiff(_) => Outcome::Answer(Answer::ConfigurationDiff {
            text: named_diff(
                ("Archived-config", archived),
                ("Running-config", known.running),
            ),
        }),
        _ => {
            let command = format!("show redundancy conflicts {number}");
            shown(&command, archived, None, known)
        }
    }
}

/// How far a commit got, on a node of a pair: where there is no other node every commit is local,
/// and not worth a line.
fn level(replies: &[Reply]) -> Option<CommitLevel> {
    let [
        Reply::Manager(supervision::Answer::RedundancyStatus(status)),
        Reply::Cfgmgr(FromCfgmgr::Committed { reached }),
    ] = replies
    else {
        return None;
    };
    match (status.operational_role, reached) {
        (Role::Standalone, _) => None,
        (Role::Primary | Role::Secondary, Acknowledgement::Replicated) => {
            Some(CommitLevel::Replicated)
        }
        (Role::Primary | Role::Secondary, Acknowledgement::Local | Acknowledgement::Volatile) => {
            Some(CommitLevel::Local)
        }
    }
}

/// The text of a refusal, if the reply is one.
fn refusal(reply: &Reply, pending: &Pending, prompt_columns: usize) -> Option<String> {
    match reply {
        Reply::Manager(supervision::Answer::Refused(why)) if why.is_empty() => {
            Some(format!("{SWITCHOVER_REFUSED}\n"))
        }
        Reply::Manager(supervision::Answer::Refused(why)) => Some(format!("{why}\n")),
        Reply::Cfgmgr(FromCfgmgr::Refused {
            column, message, ..
        }) => {
            let statement = matches!(pending.invocation.command, Command::Statement(_));
            if statement && message.contains("'^' marker") {
                let blank = " ".repeat(prompt_columns + *column as usize);
                Some(format!("{blank}^\n{message}\n"))
            } else {
                Some(format!("{message}\n"))
            }
        }
        Reply::Pss(Response::Refused(why) | Response::Unknown(why)) => Some(format!("% {why}\n")),
        Reply::VemMgr(FromVemMgr::Refused(why)) => Some(format!("% {why}\n")),
        Reply::Manager(_)
        | Reply::Cfgmgr(_)
        | Reply::Pss(_)
        | Reply::PolicyEngine(_)
        | Reply::VemMgr(_)
        | Reply::Activated => None,
    }
}

fn text_of(reply: &FromCfgmgr) -> &str {
    match reply {
        FromCfgmgr::Text(text) => text,
        FromCfgmgr::Committed { .. } | FromCfgmgr::Refused { .. } => "",
    }
}

fn show_answer(show: Show, replies: &[Reply], known: &Known<'_>) -> Outcome {
    use supervision::Answer as Manager;
    let answer = match (show, replies) {
        (Show::Logging { .. }, [Reply::Manager(Manager::Logging(lines))]) => Answer::Log {
            lines: lines.clone(),
        },
        (
            Show::Module,
            [
                Reply::Manager(Manager::RedundancyStatus(status)),
                Reply::VemMgr(FromVemMgr::Modules(vems)),
            ],
        ) => Answer::Modules(show::modules(status, vems, &known.facts.version)),
        (
            Show::PolicyEngineStats,
            [
                Reply::PolicyEngine(FromPolicyEngine::Stats {
                    policies,
                    log_suppressed,
                }),
            ],
        ) => Answer::PolicyStats(show::policy_stats(policies, *log_suppressed)),
        (Show::Processes, [Reply::Manager(Manager::Processes(rows))]) => {
            Answer::Processes(show::processes(rows))
        }
        (Show::RedundancyHeartbeat, [Reply::Manager(Manager::HeartbeatStatus(status))]) => {
            Answer::Heartbeat(show::heartbeat(status))
        }
        (Show::RedundancyTraffic, [Reply::Manager(Manager::Traffic(ports))]) => {
            let ports = ports.iter().map(Into::into).collect();
            Answer::Traffic(cli::answer::Traffic { ports })
        }
        (Show::RedundancyIdentity, [Reply::Manager(Manager::Identity(status))]) => {
            Answer::Identity(pairing::identity(status))
        }
        (Show::RedundancyStatus, [Reply::Manager(Manager::RedundancyStatus(status))]) => {
            let status = show::redundancy(status);
            Answer::RedundancyReport(RedundancyReport {
                status,
                uptime: uptime(known),
            })
        }
        (Show::SystemRedundancyStatus, [Reply::Manager(Manager::RedundancyStatus(status))]) => {
            Answer::SystemRedundancyStatus(show::redundancy(status))
        }
        (
            Show::RunningConfig | Show::StartupConfig,
            [
                Reply::Cfgmgr(text),
                Reply::Manager(Manager::RedundancyStatus(status)),
            ],
        ) => return configuration(show, text_of(text), status.pair, known),
        (Show::RunningConfigDiff, [Reply::Cfgmgr(startup), Reply::Cfgmgr(running)]) => {
            let text = context_diff(text_of(startup), text_of(running));
            Answer::ConfigurationDiff { text }
        }
        (
            Show::ServicePathConnection,
            [
                Reply::PolicyEngine(FromPolicyEngine::Connections {
                    connections,
                    total,
                    capacity,
                }),
            ],
        ) => show::connections(connections, *total, *capacity),
        _ => return Outcome::Failed("% The answer was not understood\n".to_owned()),
    };
    Outcome::Answer(answer)
}

fn configuration(show: Show, text: &str, pair_id: Option<PairId>, known: &Known<'_>) -> Outcome {
    let command = match show {
        Show::StartupConfig => "show startup-config",
        _ => "show running-config",
    };
    shown(command, text, pair_id, known)
}

fn shown(command: &str, text: &str, pair_id: Option<PairId>, known: &Known<'_>) -> Outcome {
    let time = wall::ctime(known.unix_s);
    let header = Header {
        command,
        time: &time,
        version: &known.facts.version,
        pair_id,
    };
    match Configuration::load(text) {
        Ok(configuration) => Outcome::Answer(Answer::Configuration {
            text: configuration.shown(&header),
        }),
        Err(error) => Outcome::Failed(format!("% The stored configuration is damaged: {error}\n")),
    }
}

/// The name that a committed line gives the system, if it does.
pub(super) fn new_hostname<'a>(command: &'a Command, default: &'a str) -> Option<&'a str> {
    match command {
        Command::Statement(Statement::Hostname(name)) => Some(name),
        Command::Statement(Statement::NoHostname) => Some(default),
        _ => None,
    }
}
