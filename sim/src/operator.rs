//! An operator who types at the active gateway: configuration changes and switchovers.

use std::collections::VecDeque;

use node::service::SessionId;
use wire::checkpoint::Acknowledgement;
use wire::console::ToShell;

use crate::world::{Event, MS, S, World};

/// What a session is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Setup,
    Change(u32),
    Other,
}

#[derive(Debug)]
struct Session {
    node: usize,
    session: SessionId,
    task: Task,
    lines: VecDeque<String>,
    output: String,
    failed: bool,
    since: u64,
    /// How far the last change went.
    reached: Option<Acknowledgement>,
}

/// A change that was typed.
#[derive(Clone, Copy, Debug)]
struct Typed {
    node: usize,
    boot: u64,
    change: u32,
    at: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Operator {
    session: Option<Session>,
    sessions: u64,
    changes: u32,
    set_up: bool,
    /// Changes typed and not answered, by the start of the node that they were typed at.
    unanswered: VecDeque<Typed>,
    last_read: String,
    last_reached: Option<Acknowledgement>,
}

/// Permits everything, so that verdicts differ from the fail mode's.
const SETUP: [&str; 12] = [
    "configure",
    "rule all",
    "action 10 permit",
    "exit",
    "policy web",
    "rule all order 10",
    "exit",
    "security-profile web",
    "policy web",
    "exit",
    "exit",
    "copy running-config startup-config",
];

impl Operator {
    /// The node's sessions have broken.
    pub fn session_gone(&mut self, node: usize) {
        if self
            .session
            .as_ref()
            .is_some_and(|session| session.node == node)
        {
            self.session = None;
        }
    }

    /// Since when a session is open, if one is.
    #[must_use]
    pub fn open_since(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.since)
    }

    /// A change at that node was answered. Gives the oldest that it may be: whatever holds for a
    /// later one holds for it.
    fn answered(&mut self, node: usize, boot: u64, reached: Acknowledgement) -> Option<Typed> {
        if let Some(session) = self.session.as_mut().filter(|open| open.node == node) {
            session.reached = Some(reached);
        }
        self.unanswered
            .retain(|typed| typed.node != node || typed.boot == boot);
        let oldest = self.unanswered.iter().position(|t| t.node == node)?;
        self.unanswered.remove(oldest)
    }

    fn begin(&mut self, now: u64, node: usize, task: Task, lines: &[&str]) -> SessionId {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        let output = String::new();
        self.session = Some(Session {
            node,
            session,
            task,
            lines,
            output,
            failed: false,
            since: now,
            reached: None,
        });
        session
    }
}

impl World {
    pub(crate) fn operate(&mut self) {
        if self.scripted {
            return;
        }
        let pause = self.random(500 * MS, 5 * S);
        self.after(pause, Event::Operate);
        if let Some(node) = (0..2).find(|node| self.acts_now(*node)) {
            self.set_up_or_change(node);
        }
    }

    /// One session at a time; it ends by its answers, or with its node.
    fn set_up_or_change(&mut self, node: usize) -> bool {
        if self.operator.session.is_some() {
            return false;
        }
        if !self.operator.set_up {
            return self.open_session(node, Task::Setup, &SETUP);
        }
        self.operator.changes += 1;
        let change = self.operator.changes;
        let line = format!("zone z{change}");
        self.open_session(node, Task::Change(change), &["configure", &line])
    }

    /// Types lines at a gateway; false if someone is typing already.
    pub(crate) fn type_at(&mut self, node: usize, lines: &[&str]) -> bool {
        self.open_session(node, Task::Other, lines)
    }

    fn open_session(&mut self, node: usize, task: Task, lines: &[&str]) -> bool {
        if self.operator.session.is_some() || self.machines[node].node.is_none() {
            return false;
        }
        let session = self.operator.begin(self.now, node, task, lines);
        let boot = self.machines[node].boot;
        let event = Event::ShellSays {
            node,
            boot,
            session,
            line: None,
        };
        self.after(MS, event);
        true
    }

    /// Somebody's session, if one is open.
    pub(crate) fn typing(&self) -> Option<u64> {
        self.operator.open_since()
    }

    /// What the last session that ended by itself read.
    pub(crate) fn last_read(&self) -> &str {
        &self.operator.last_read
    }

    /// How far the last session's change went.
    pub(crate) const fn last_reached(&self) -> Option<Acknowledgement> {
        self.operator.last_reached
    }

    /// Begins a change at a node; gives its number.
    pub(crate) fn commit_at(&mut self, node: usize) -> Option<u32> {
        self.operator.changes += 1;
        let change = self.operator.changes;
        let line = format!("zone z{change}");
        let lines = ["configure", &line];
        self.open_session(node, Task::Change(change), &lines)
            .then_some(change)
    }

    /// Sessions of operators end as soon as what they wait for is answered.
    pub(crate) fn nothing_more_to_type(&mut self) {
        if let Some(open) = &mut self.operator.session
            && open.task == Task::Other
        {
            open.lines.clear();
        }
    }

    /// What the archives of conflicts hold, on whichever node.
    pub(crate) fn archives(&self) -> Vec<String> {
        let running = self
            .machines
            .iter()
            .filter_map(|m| m.node.as_ref()?.store());
        running.flat_map(crate::machine::archived).collect()
    }

    /// The running configuration in a node's store.
    pub(crate) fn running(&self, node: usize) -> String {
        let running = self.machines[node].node.as_ref();
        let store = running.and_then(|running| running.store());
        let value = store.and_then(|store| store.value(pss::config_namespace(), b"running"));
        String::from_utf8(value.unwrap_or_default()).unwrap_or_default()
    }

    pub(crate) fn changed(&mut self, node: usize, reached: Acknowledgement) {
        let boot = self.machines[node].boot;
        let typed = self.operator.answered(node, boot, reached);
        let running = self.running(node);
        // A refused one is not in the configuration.
        let is_ours = |typed: &Typed| running.contains(&format!("zone z{}@root\n", typed.change));
        let Some(Typed { change, at, .. }) = typed.filter(is_ours) else {
            return;
        };
        let durable = self.machines[node].durable_running();
        let result = match reached {
            Acknowledgement::Replicated => {
                let slot = 1 - self.machines[node].slot;
                let of_slot = self.machines.iter().filter(|machine| machine.slot == slot);
                let peers: Vec<String> = of_slot.map(|m| m.durable_running()).collect();
                self.watch.s5.replicated(change, at, &durable, &peers)
            }
            Acknowledgement::Local => self.watch.s5.local(change, &durable),
            Acknowledgement::Volatile => Ok(()),
        };
        self.insist(result);
    }

    pub(crate) fn shell_says(&mut self, node: usize, session: SessionId, message: ToShell) {
        let Some(open) = &mut self.operator.session else {
            return;
        };
        if open.node != node || open.session != session {
            return;
        }
        let failed = match message {
            ToShell::Output(text) => {
                self.trace.line(
                    self.now,
                    format_args!("shell of node {node}: {}", text.trim()),
                );
                return open.output.push_str(&text);
            }
            ToShell::Question(_) => false,
            ToShell::Bye => {
                self.operator.session = None;
                return;
            }
            ToShell::Completions(_) | ToShell::Console(_) | ToShell::NewPrompt(_) => return,
            ToShell::Prompt { failed, .. } => failed,
        };
        open.failed |= failed;
        let boot = self.machines[node].boot;
        if let Some(line) = open.lines.pop_front() {
            if let Task::Change(change) = open.task
                && line.starts_with("zone ")
            {
                let at = self.now;
                self.operator.unanswered.push_back(Typed {
                    node,
                    boot,
                    change,
                    at,
                });
            }
            self.trace
                .line(self.now, format_args!("operator at node {node}: {line}"));
            self.after(
                MS,
                Event::ShellSays {
                    node,
                    boot,
                    session,
                    line: Some(line),
                },
            );
            return;
        }
        let Some(done) = self.operator.session.take() else {
            return;
        };
        let output = done.output.trim().replace('\n', " | ");
        self.trace.line(
            self.now,
            format_args!(
                "operator: {:?} {:?} {}: {output}",
                done.task,
                done.reached,
                if done.failed { "failed" } else { "done" }
            ),
        );
        (self.operator.last_read, self.operator.last_reached) = (done.output, done.reached);
        match done.task {
            Task::Setup => self.operator.set_up |= !done.failed,
            Task::Change(_) | Task::Other => {}
        }
    }
}
