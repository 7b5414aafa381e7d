//! What a command answers: typed, with a text layout and a JSON form of the same value.
//!
//! The layouts are the original's where one is known; each type says so.

mod conflict;
mod connection;
mod heartbeat;
mod identity;
mod module;
mod policy;
mod process;
mod redundancy;
mod traffic;
mod uptime;
mod version;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use conflict::{Conflict, ConflictCount, Conflicts};
pub use connection::{ConnectionRow, Connections};
pub use heartbeat::{HeartbeatStatus, LinkHeartbeat};
pub use identity::{
    CodeState, FoundNode, IdentityReport, PairingCode, PairingPurpose, PeerIdentity,
};
pub use module::{ModuleRow, ModuleStatus, Modules};
pub use policy::{PolicyStats, PolicyStatsRow, RuleStatsRow};
pub use process::{ProcessRow, ProcessState, Processes};
pub use redundancy::{
    InternalState, OtherSupervisor, RedundancyMode, RedundancyState, RedundancyStatus, Supervisor,
    SupervisorState,
};
pub use traffic::{LinkTraffic, Traffic};
pub use uptime::{RedundancyReport, Uptime};
pub use version::Version;

/// Said when a switchover is refused because the standby is not stable (chapter, "Manually
/// Switching").
pub const SWITCHOVER_REFUSED: &str =
    "Failed to switchover (standby not ready to takeover in vdc 1)";

/// Printed before [`RELOAD_QUESTION`] when running and startup configuration differ.
pub const UNSAVED_WARNING: &str = "!!!WARNING! there is unsaved configuration!!!";

/// Asked by `reload`; the default is no.
pub const RELOAD_QUESTION: &str = "This command will reboot the system. (y/n)?  [n] ";

/// Asked by `reload module N` of the standby; the default is no.
pub const RELOAD_STANDBY_QUESTION: &str =
    "This command will reboot standby supervisor module. (y/n)?  [n] ";

/// Said when the standby is told to restart.
pub const RELOAD_STANDBY_NOTICE: &str = "about to reset standby sup";

/// Asked by `reload module N` of a host's agent; the default is no.
#[must_use]
pub fn reload_module_question(module: model::ModuleNumber) -> String {
    format!(
        "This command will reload module {}. Proceed[y/n]?  [n] ",
        module.0
    )
}

/// Said when a host's agent is told to restart.
#[must_use]
pub fn reload_module_notice(module: model::ModuleNumber) -> String {
    format!("reloading module {} ...", module.0)
}
/// Printed before [`remove_vem_question`].
pub const REMOVE_VEM_WARNING: &str = "The host agent will not be trusted any more. Its established \
     connections go on; new ones follow the fail mode of their port.";

/// Asked by `vem remove N`; the default is no.
#[must_use]
pub fn remove_vem_question(module: model::ModuleNumber) -> String {
    format!("Remove module {}? (y/n)?  [n] ", module.0)
}

/// Printed before [`UNPAIR_QUESTION`].
pub const UNPAIR_WARNING: &str = "The other supervisor will not be trusted any more, nor trust this \
     one. The active goes on alone; the standby stops and waits.";

/// Asked by `redundancy unpair`; the default is no.
pub const UNPAIR_QUESTION: &str = "Unpair? (y/n)?  [n] ";

/// Said when a role change waits for the next reload (chapter: primary to secondary).
pub const ROLE_ON_RELOAD: &str = "Setting will be activated on next reload.";

/// Said by `system redundancy force-active`.
pub const FORCE_ACTIVE_WARNING: &str =
    "Warning: this supervisor leads now, although it may lack the newest state.";

/// Said of what is durable on one node of a pair only.
const LOCAL_NOTICE: &str =
    "Committed on this node only (local): the standby has not confirmed it.\n";

/// Hashes of a full progress bar.
const PROGRESS_HASHES: usize = 40;

/// Printed by `attach module N` before the session begins.
#[must_use]
pub fn attach_banner(module: model::ModuleNumber) -> String {
    format!(
        "Attaching to module {} ...\nTo exit type 'exit', to abort type '$.'\n",
        module.0
    )
}

/// True if `answer` to a `(y/n)` question means yes; an empty line is the default, no.
#[must_use]
pub fn is_yes(answer: &str) -> bool {
    matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES")
}

/// How far a configuration change got before it was acknowledged (design §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitLevel {
    /// Durable on this node only.
    Local,
    /// Durable on both nodes.
    Replicated,
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A configuration line took effect.
    Committed {
        /// How far it got.
        level: CommitLevel,
    },
    /// `show running-config`, `show startup-config`: the rendered text.
    Configuration {
        /// With its header, one line after the other.
        text: String,
    },
    /// `show redundancy conflicts`.
    Conflicts(Conflicts),
    /// `show running-config diff`: a context diff; empty if nothing differs.
    ConfigurationDiff {
        /// The diff.
        text: String,
    },
    /// `show service-path connection`.
    Connections(Connections),
    /// `copy running-config startup-config` has finished.
    Copied,
    /// The same, without the other node of the pair.
    CopiedLocally,
    /// Done, nothing to say.
    Done,
    /// `show redundancy heartbeat`.
    Heartbeat(HeartbeatStatus),
    /// `show redundancy identity`.
    Identity(IdentityReport),
    /// `show logging`: the newest lines, oldest of them first.
    Log {
        /// Whole lines, without their line ends.
        lines: Vec<String>,
    },
    /// A sentence for the operator.
    Message {
        /// The sentence.
        text: String,
    },
    /// `show module`.
    Modules(Modules),
    /// `redundancy pair`, `vem enroll`.
    PairingCode(PairingCode),
    /// `show policy-engine stats`.
    PolicyStats(PolicyStats),
    /// `show processes`.
    Processes(Processes),
    /// `show redundancy status`.
    RedundancyReport(RedundancyReport),
    /// `show system redundancy status`.
    SystemRedundancyStatus(RedundancyStatus),
    /// `show system uptime`.
    SystemUptime(Uptime),
    /// `show redundancy traffic`.
    Traffic(Traffic),
    /// `show version`.
    Version(Version),
}

impl Answer {
    /// The text an operator sees; each line ends with a line feed.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Committed {
                level: CommitLevel::Replicated,
            }
            | Self::Done => String::new(),
            Self::Committed {
                level: CommitLevel::Local,
            } => LOCAL_NOTICE.to_owned(),
            Self::Configuration { text } | Self::ConfigurationDiff { text } => with_end(text),
            Self::Conflicts(answer) => answer.text(),
            Self::Connections(answer) => answer.text(),
            Self::Copied => progress_bar(100) + "\n",
            Self::CopiedLocally => progress_bar(100) + "\n" + LOCAL_NOTICE,
            Self::Heartbeat(answer) => answer.text(),
            Self::Identity(answer) => answer.text(),
            Self::PairingCode(answer) => answer.text(),
            Self::Log { lines } => lines.iter().map(|line| format!("{line}\n")).collect(),
            Self::Message { text } => with_end(text),
            Self::Modules(answer) => answer.text(),
            Self::PolicyStats(answer) => answer.text(),
            Self::Processes(answer) => answer.text(),
            Self::RedundancyReport(answer) => answer.text(),
            Self::SystemRedundancyStatus(answer) => answer.text(),
            Self::SystemUptime(answer) => answer.text(),
            Self::Traffic(answer) => answer.text(),
            Self::Version(answer) => answer.text(),
        }
    }

    /// The same value as JSON, indented: `{"system_redundancy_status": {…}}`.
    #[must_use]
    pub fn json(&self) -> String {
        let json = serde_json::to_string_pretty(self);
        json.expect("invariant: answers hold only strings, numbers and lists of them") + "\n"
    }

    /// What is printed: text or JSON, through the filters.
    #[must_use]
    pub fn render(&self, filters: &[crate::Filter]) -> String {
        let json = filters.contains(&crate::Filter::Json);
        let whole = if json { self.json() } else { self.text() };
        crate::pipe::apply(filters, &whole)
    }
}

/// `[####…] 40%`: the progress bar of `copy`, without line end. The original redraws it in place.
#[must_use]
pub fn progress_bar(percent: u8) -> String {
    let percent = usize::from(percent.min(100));
    let hashes = PROGRESS_HASHES * percent / 100;
    format!("[{:<PROGRESS_HASHES$}] {percent:>3}%", "#".repeat(hashes))
}

fn with_end(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') {
        text.to_owned()
    } else {
        format!("{text}\n")
    }
}

/// A heading and its rule of as many dashes.
fn heading(text: &str) -> String {
    format!("{text}\n{}\n", "-".repeat(text.len()))
}
