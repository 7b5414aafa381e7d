//! One operator's session.

use core::time::Duration;
use std::collections::VecDeque;

use cli::{Invocation, Mode};
use model::Time;
use wire::checkpoint::{Request, Response};
use wire::service::{FromCfgmgr, FromPolicyEngine, FromVemMgr, ToCfgmgr, ToPolicyEngine, ToVemMgr};
use wire::supervision::{Answer, Ask};

/// Lines that wait for the one being worked on; a shell sends the next when it has its prompt,
/// so that more than this many are a flood, and end the session.
pub const LINES_MAX: usize = 64;
/// A session in which nothing is entered for so long ends (the original's `exec-timeout` of a
/// console is off; a forgotten root shell should not stay for ever).
pub const IDLE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Something a command must be told by another part of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fetch {
    Manager(Ask),
    Cfgmgr(ToCfgmgr),
    Pss(Request),
    PolicyEngine(ToPolicyEngine),
    VemMgr(ToVemMgr),
    /// Nobody is asked: told when this node is active.
    Activation,
}

impl Fetch {
    /// Who is asked, for the operator.
    pub(super) const fn whom(&self) -> &'static str {
        match self {
            Self::Manager(_) => "the System Manager",
            Self::Cfgmgr(_) => "cfgmgr",
            Self::Pss(_) => "pss",
            Self::PolicyEngine(_) => "policy_engine",
            Self::VemMgr(_) => "vem_mgr",
            Self::Activation => "this supervisor",
        }
    }

    /// What is wrong when the answer has not come in time.
    pub(super) const fn overdue(&self) -> &'static str {
        match self {
            Self::Cfgmgr(ToCfgmgr::Apply { .. } | ToCfgmgr::Save) => {
                "does not answer. It is not known whether the change was made: see show \
                 running-config on the active supervisor"
            }
            Self::Manager(_)
            | Self::Cfgmgr(ToCfgmgr::Running | ToCfgmgr::Startup)
            | Self::Pss(_)
            | Self::PolicyEngine(_)
            | Self::VemMgr(_) => "does not answer",
            Self::Activation => "is not active yet: see show system redundancy status",
        }
    }
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Manager(Answer),
    Cfgmgr(FromCfgmgr),
    Pss(Response),
    PolicyEngine(FromPolicyEngine),
    VemMgr(FromVemMgr),
    /// This node is active.
    Activated,
}

/// A command that waits.
///
/// Invariant: `number` is that of the question or request that `fetches[0]` went out as.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) invocation: Invocation,
    pub(super) line: String,
    pub(super) fetches: VecDeque<Fetch>,
    pub(super) replies: Vec<Reply>,
    pub(super) number: u64,
    pub(super) deadline: Time,
    /// The operator has confirmed it; to be said when it is done.
    pub(super) confirmed: Option<String>,
}

/// A command that the operator is to confirm.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) invocation: Invocation,
    /// What is done upon yes.
    pub(super) then: Fetch,
    /// What is said once it is done.
    pub(super) notice: String,
}

/// What a session does.
///
/// ```text
///           line                    last reply
///   Ready ────────▶ Busy(Pending) ──────────────▶ Ready
///     ▲              │    ▲ yes
///     │ no           ▼    │
///     ├────────── Asking (y/n)
///     │ exit, or the peer is gone
///     └────────── Attached ◀── attach module
/// ```
#[derive(Debug)]
pub(super) enum State {
    Ready,
    Busy(Box<Pending>),
    Asking(Box<Asked>),
    /// On the other supervisor, under this number.
    Attached(u64),
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) user: String,
    pub(super) mode: Mode,
    /// The line that entered the sub-mode, to be said again before each line in it.
    pub(super) entered: Option<String>,
    pub(super) lines: VecDeque<String>,
    pub(super) state: State,
    pub(super) prompt_columns: usize,
    /// As the operator sees it.
    pub(super) prompt: String,
    /// Something was committed since configuration mode was entered.
    pub(super) configured: bool,
    pub(super) last_input: Time,
}

impl Session {
    pub(super) fn new(now: Time, user: String) -> Self {
        Self {
            user,
            mode: Mode::Exec,
            entered: None,
            lines: VecDeque::new(),
            state: State::Ready,
            prompt_columns: 0,
            prompt: String::new(),
            configured: false,
            last_input: now,
        }
    }

    /// When it wants attention.
    pub(super) fn deadline(&self) -> Time {
        match &self.state {
            State::Busy(pending) => pending.deadline,
            State::Ready | State::Asking(_) | State::Attached(_) => self.last_input + IDLE_LIMIT,
        }
    }
}
