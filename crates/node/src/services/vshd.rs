//! `vshd`: serves operators' shells. Parses a line, asks those who know, renders the answer.
//!
//! It decides nothing: whether a change is allowed is judged by the service that makes it. What
//! the System Manager answers comes over the supervision socket, so that redundancy can be seen
//! and commanded while the broker is dead.
//!
//! Invariants (see [`Vshd::check`]):
//! - a session works on one line at a time, and each line ends with one prompt, a question or the
//!   end of the session;
//! - at most [`SESSIONS_MAX`] sessions, each with at most [`LINES_MAX`] waiting lines;
//! - whatever does not answer in its time is named to the operator.

mod asking;
mod attach;
mod conflicts;
mod dispatch;
mod pairing;
mod prompts;
mod session;
mod show;
mod system;
mod wall;

use std::collections::BTreeMap;

use cli::answer::is_yes;
use cli::tree::Grammar;
use cli::{Command, Invocation, Mode, Standing};
use model::{ServiceName, Time};
use wire::broker::{Kind, Message, decode_body};
use wire::conflict::{HELD, KEPT};
use wire::console::{FromShell, LINE_MAX_BYTES, ToShell};
use wire::supervision::{Activity, FromService, Posture};

use super::configuration::{CONFIGURATION, ConfigurationMirror};
use super::outbox::Outbox;
use crate::checkpoint_client::{CheckpointClient, CheckpointEvent};
use crate::service::{Service, ServiceInput, ServiceOutput, SessionId, ShellEvent};
use attach::CARRIED;
use conflicts::Archives;
use dispatch::{Known, Outcome, Plan};
use session::{Asked, Fetch, Reply, Session, State};
use system::{SYSTEM, SystemStart};

pub use session::{IDLE_LIMIT, LINES_MAX};

/// Most sessions: as many as the original's `line vty` has. A further one is told so and closed.
pub const SESSIONS_MAX: usize = 32;

/// What `vshd` knows of its node from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Name while the configuration sets none.
    pub hostname: String,
    /// The software's release.
    pub version: String,
    /// The machine's kernel release.
    pub kernel: String,
    /// When the node's System Manager started.
    pub started: Time,
}

/// See the module.
pub struct Vshd {
    out: Outbox,
    checkpoint: CheckpointClient,
    facts: Facts,
    grammar: Grammar,
    posture: Option<Posture>,
    applied: bool,
    active_since: Option<Time>,
    unix_s: (u64, Time),
    mirror: ConfigurationMirror,
    archives: Archives,
    system: SystemStart,
    hostname: String,
    sessions: BTreeMap<SessionId, Session>,
    peer_broker: bool,
}

impl core::fmt::Debug for Vshd {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Vshd")
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

impl Vshd {
    /// A `vshd` started at `now`.
    #[must_use]
    pub fn new(now: Time, facts: Facts) -> Self {
        let mut checkpoint = CheckpointClient::new(ServiceName::Vshd, now);
        checkpoint.watch(now, CONFIGURATION);
        checkpoint.watch(now, HELD);
        checkpoint.watch(now, KEPT);
        checkpoint.watch(now, SYSTEM);
        Self {
            out: Outbox::new(ServiceName::Vshd, now),
            checkpoint,
            hostname: facts.hostname.clone(),
            facts,
            grammar: Grammar::new(),
            posture: None,
            applied: true,
            active_since: None,
            unix_s: (0, now),
            mirror: ConfigurationMirror::default(),
            archives: Archives::default(),
            system: SystemStart::default(),
            sessions: BTreeMap::new(),
            peer_broker: false,
        }
    }

    /// Panics if an invariant does not hold.
    pub fn check(&self) {
        self.checkpoint.check();
        assert!(self.sessions.len() <= SESSIONS_MAX, "sessions");
        for session in self.sessions.values() {
            assert!(session.lines.len() <= LINES_MAX, "waiting lines");
            match &session.state {
                State::Ready => assert!(session.lines.is_empty(), "a line waits for nothing"),
                State::Busy(pending) => assert!(!pending.fetches.is_empty(), "busy with nothing"),
                State::Asking(_) | State::Attached(_) => {}
            }
        }
    }

    fn standing(&self) -> Standing {
        match self.posture.as_ref().map(|posture| posture.activity) {
            Some(Activity::Active(_) | Activity::Quiesce(_)) => Standing::Active,
            Some(Activity::Idle | Activity::Standby) | None => Standing::Standby,
        }
    }

    fn known(&self, now: Time) -> Known<'_> {
        Known {
            facts: &self.facts,
            hostname: &self.hostname,
            now,
            unix_s: self.unix_s.0 + now.since(self.unix_s.1).as_secs(),
            active_since: self.active_since,
            slot: self.posture.as_ref().map(|posture| posture.slot),
            running: &self.mirror.running,
            archives: &self.archives,
            system_s: self.system.age_s(now),
        }
    }

    /// To the operator, who may sit at the other node.
    fn tell(&mut self, session: SessionId, message: ToShell) {
        if session.0 & CARRIED == 0 {
            self.out.push(ServiceOutput::Shell { session, message });
        } else {
            self.tell_carried(session, message);
        }
    }

    fn posture(&mut self, now: Time, posture: Posture) {
        let active = matches!(posture.activity, Activity::Active(_));
        if active && self.active_since.is_none() {
            self.active_since = Some(now);
        } else if !active && !matches!(posture.activity, Activity::Quiesce(_)) {
            self.active_since = None;
            self.leave_configuration();
        }
        let first = self.posture.replace(posture).is_none();
        self.applied = false;
        self.system.asked = false;
        if first {
            // Sessions opened before it wait for a prompt that tells what the node is.
            let waiting: Vec<SessionId> = self.sessions.keys().copied().collect();
            for id in waiting {
                self.prompt(id, false);
            }
        }
        self.refresh_prompts();
        self.activated(now);
    }

    fn apply_posture(&mut self) {
        let Some(posture) = self.posture.as_ref().filter(|_| !self.applied) else {
            return;
        };
        self.applied = true;
        self.out.supervise(FromService::Applied {
            sequence: posture.sequence,
        });
    }

    fn shell(&mut self, now: Time, id: SessionId, event: ShellEvent) {
        match event {
            ShellEvent::Opened { user } => {
                if self.sessions.len() >= SESSIONS_MAX {
                    let text = format!("% {SESSIONS_MAX} sessions are open already\n");
                    self.tell(id, ToShell::Output(text));
                    self.close(id);
                    return;
                }
                self.sessions.insert(id, Session::new(now, user));
                if self.posture.is_some() {
                    self.prompt(id, false);
                }
            }
            ShellEvent::Closed => {
                self.leave(id);
                self.sessions.remove(&id);
            }
            ShellEvent::Message(message) => self.shell_message(now, id, message),
        }
    }

    fn shell_message(&mut self, now: Time, id: SessionId, message: FromShell) {
        let standing = self.standing();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.last_input = now;
        if let State::Attached(number) = session.state {
            self.relay(id, number, message);
            return;
        }
        match message {
            FromShell::Line(text) | FromShell::Help(text) | FromShell::Complete(text)
                if text.len() > LINE_MAX_BYTES =>
            {
                self.tell(id, ToShell::Output("% Command too long\n".to_owned()));
                self.prompt(id, true);
            }
            FromShell::Line(line) => {
                if session.lines.len() >= LINES_MAX {
                    self.end(id, "% Too many lines at once");
                    return;
                }
                session.lines.push_back(line);
                self.work(now, id);
            }
            FromShell::Help(text) => {
                let lines = cli::parse::help(&self.grammar, &text, &session.mode, standing);
                self.tell(id, ToShell::Output(cli::parse::render_help(&lines)));
                self.prompt(id, false);
            }
            FromShell::Complete(text) => {
                let words = cli::parse::complete(&self.grammar, &text, &session.mode, standing);
                self.tell(id, ToShell::Completions(words));
            }
        }
    }

    /// Works on waiting lines until one needs an answer from elsewhere.
    fn work(&mut self, now: Time, id: SessionId) {
        loop {
            let Some(session) = self.sessions.get_mut(&id) else {
                return;
            };
            if matches!(session.state, State::Busy(_) | State::Attached(_)) {
                return;
            }
            let Some(line) = session.lines.pop_front() else {
                return;
            };
            match core::mem::replace(&mut session.state, State::Ready) {
                State::Asking(asked) if is_yes(&line) => self.confirmed(now, id, *asked, line),
                State::Asking(_) => self.prompt(id, false),
                State::Ready | State::Busy(_) | State::Attached(_) => self.line(now, id, line),
            }
        }
    }

    fn line(&mut self, now: Time, id: SessionId, line: String) {
        let standing = self.standing();
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let invocation = match cli::parse(&self.grammar, &line, &session.mode, standing) {
            Ok(invocation) => invocation,
            Err(error) => {
                let text = error.render(session.prompt_columns);
                self.tell(id, ToShell::Output(text));
                self.prompt(id, true);
                return;
            }
        };
        if let Command::AttachModule(module) = invocation.command {
            if let Err(why) = self.attach(id, module) {
                self.tell(id, ToShell::Output(why));
                self.prompt(id, true);
            }
            return;
        }
        let plan = dispatch::plan(
            &invocation.command,
            &invocation.context,
            &line,
            session.entered.as_ref(),
            &session.user,
            &self.known(now),
        );
        match plan {
            Plan::Now(outcome) => self.outcome(now, id, &invocation, &line, outcome),
            Plan::Fetch(fetches, limit) => {
                self.begin(now, id, invocation, line, fetches, limit);
            }
        }
    }

    fn outcome(
        &mut self,
        now: Time,
        id: SessionId,
        invocation: &Invocation,
        line: &str,
        outcome: Outcome,
    ) {
        let _ = now;
        match outcome {
            Outcome::Answer(answer) => {
                let text = answer.render(&invocation.filters);
                if !text.is_empty() {
                    self.tell(id, ToShell::Output(text));
                }
                self.succeeded(id, invocation, line);
            }
            Outcome::Failed(text) => {
                self.tell(id, ToShell::Output(text));
                self.prompt(id, true);
            }
            Outcome::Confirm(question) => {
                if !question.warning.is_empty() {
                    self.tell(id, ToShell::Output(format!("{}\n", question.warning)));
                }
                self.tell(id, ToShell::Question(question.text));
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.state = State::Asking(Box::new(Asked {
                        invocation: invocation.clone(),
                        then: question.then,
                        notice: question.notice,
                    }));
                }
            }
        }
    }

    /// The line took effect: moves the session to the mode after it.
    fn succeeded(&mut self, id: SessionId, invocation: &Invocation, line: &str) {
        let default = self.facts.hostname.clone();
        if let Some(name) = dispatch::new_hostname(&invocation.command, &default) {
            self.hostname = name.to_owned();
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(after) = session.mode.after(invocation) else {
            self.end(id, "");
            return;
        };
        if after != session.mode {
            session.entered = after.object().is_some().then(|| line.to_owned());
        }
        session.configured |= matches!(invocation.command, Command::Statement(_));
        let left = after == Mode::Exec && session.configured;
        session.mode = after;
        if left {
            session.configured = false;
            let text = format!("Configured from vty by {}", session.user);
            self.out.log("VSHD", 5, "VSHD_SYSLOG_CONFIG_I", text);
        }
        self.prompt(id, false);
    }

    fn end(&mut self, id: SessionId, why: &str) {
        if !why.is_empty() {
            self.tell(id, ToShell::Output(format!("{why}\n")));
        }
        self.close(id);
        self.sessions.remove(&id);
    }

    fn close(&mut self, id: SessionId) {
        self.tell(id, ToShell::Bye);
        if id.0 & CARRIED == 0 {
            self.out.push(ServiceOutput::CloseShell(id));
        }
    }

    fn message(&mut self, now: Time, message: Message) {
        let vshd = ServiceName::Vshd.sap();
        if message.source == vshd {
            self.peer_message(now, &message);
            return;
        }
        if message.from_peer {
            return;
        }
        match message.kind {
            Kind::Undeliverable => {
                if let Some(id) = self.waiting(message.correlation) {
                    self.failed(now, id, "is not available");
                }
            }
            Kind::Response => {
                let from = message.source;
                let reply = if from == ServiceName::Cfgmgr.sap() {
                    decode_body(&message.body).map(Reply::Cfgmgr)
                } else if from == ServiceName::Pss.sap() {
                    decode_body(&message.body).map(Reply::Pss)
                } else if from == ServiceName::PolicyEngine.sap() {
                    decode_body(&message.body).map(Reply::PolicyEngine)
                } else {
                    decode_body(&message.body).map(Reply::VemMgr)
                };
                if let Ok(reply) = reply {
                    self.reply(now, message.correlation, reply);
                }
            }
            Kind::Notification | Kind::Request => {}
        }
    }

    fn checkpoint_events(&mut self, now: Time) {
        let mut learned = false;
        while let Some(event) = self.checkpoint.poll_event() {
            match event {
                CheckpointEvent::Reset(CONFIGURATION) => {
                    self.mirror = ConfigurationMirror::default();
                }
                CheckpointEvent::Operations(CONFIGURATION, operations) => {
                    self.mirror.apply(&operations);
                    learned = true;
                }
                CheckpointEvent::Loaded(CONFIGURATION) => learned = true,
                CheckpointEvent::Reset(SYSTEM) => self.system = SystemStart::default(),
                CheckpointEvent::Operations(SYSTEM, operations) => {
                    let unix_s = self.unix_s.0 + now.since(self.unix_s.1).as_secs();
                    let unix_s = if self.unix_s.0 == 0 { 0 } else { unix_s };
                    self.system.apply(now, unix_s, &operations);
                }
                CheckpointEvent::Reset(namespace) => self.archives.reset(namespace),
                CheckpointEvent::Operations(_, operations) => self.archives.apply(operations),
                CheckpointEvent::Loaded(_) => {}
                CheckpointEvent::Committed { .. }
                | CheckpointEvent::CommitRefused { .. }
                | CheckpointEvent::CommitUnknown { .. } => {}
            }
        }
        if learned && self.checkpoint.is_loaded(CONFIGURATION) {
            let configured = self.mirror.running.lines();
            let configured = configured
                .filter_map(|line| line.strip_prefix("hostname "))
                .next();
            self.hostname = configured.unwrap_or(&self.facts.hostname).trim().to_owned();
            self.refresh_prompts();
        }
    }

    fn tick(&mut self, now: Time) {
        self.checkpoint.tick(now);
        let due: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.deadline() <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            match self.sessions.get(&id).map(|session| &session.state) {
                Some(State::Busy(pending)) => {
                    let why = pending.fetches.front().map_or("", Fetch::overdue);
                    self.failed(now, id, why);
                }
                Some(State::Ready | State::Asking(_) | State::Attached(_)) => {
                    self.leave(id);
                    self.end(id, "% Idle for too long");
                }
                None => {}
            }
        }
    }
}

impl Service for Vshd {
    fn name(&self) -> ServiceName {
        ServiceName::Vshd
    }

    fn handle(&mut self, now: Time, input: ServiceInput) {
        match input {
            ServiceInput::Start | ServiceInput::Tick => self.tick(now),
            ServiceInput::Posture(posture) => self.posture(now, posture),
            ServiceInput::Answer { question, answer } => {
                self.reply(now, question, Reply::Manager(answer));
            }
            ServiceInput::Console(line) => {
                let open: Vec<SessionId> = self.sessions.keys().copied().collect();
                for id in open {
                    self.tell(id, ToShell::Console(line.clone()));
                }
            }
            ServiceInput::BrokerConnected => {
                self.checkpoint.broker_connected(now);
                self.ask_again();
            }
            ServiceInput::BrokerLost => {
                self.checkpoint.broker_lost();
                self.peer_broker = false;
                self.peer_lost();
            }
            ServiceInput::Message(message) => {
                if let Some(message) = self.checkpoint.message(now, message) {
                    self.message(now, message);
                }
                self.checkpoint_events(now);
            }
            ServiceInput::Shell { session, event } => self.shell(now, session, event),
            ServiceInput::WallClock { unix_s } => {
                self.unix_s = (unix_s, now);
                self.system.wall_clock(now, unix_s);
            }
            ServiceInput::PeerBroker(connected) => {
                self.peer_broker = connected;
                if !connected {
                    self.peer_lost();
                }
            }
            ServiceInput::Vem { .. }
            | ServiceInput::AskVotes { .. }
            | ServiceInput::Archive { .. }
            | ServiceInput::Resync { .. }
            | ServiceInput::Trust(_)
            | ServiceInput::Stop => {}
        }
        self.write_down_system_start(now);
        self.apply_posture();
        while let Some(message) = self.checkpoint.poll_message() {
            self.out.push(ServiceOutput::Send(message));
        }
    }

    fn poll_output(&mut self) -> Option<ServiceOutput> {
        self.out.pop()
    }

    fn next_deadline(&self) -> Option<Time> {
        let sessions = self.sessions.values().map(Session::deadline).min();
        self.checkpoint
            .next_deadline()
            .into_iter()
            .chain(sessions)
            .min()
    }
}
