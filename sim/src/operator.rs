//! An operator who types at the active gateway: configuration changes and switchovers.

use std::collections::VecDeque;

use node::service::SessionId;
use rand::Rng;
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
    /// How far the last change went.
    reached: Option<Acknowledgement>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Operator {
    session: Option<Session>,
    sessions: u64,
    changes: u32,
    set_up: bool,
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

    /// A change at that node was answered. Gives its number if it is one that is followed.
    fn answered(&mut self, node: usize, reached: Acknowledgement) -> Option<u32> {
        let session = self.session.as_mut().filter(|open| open.node == node)?;
        session.reached = Some(reached);
        match session.task {
            Task::Change(change) => Some(change),
            Task::Setup | Task::Other => None,
        }
    }

    fn begin(&mut self, node: usize, task: Task, lines: &[&str]) -> SessionId {
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
            reached: None,
        });
        session
    }
}

impl World {
    pub(crate) fn operate(&mut self) {
        let pause = self.random(2 * S, 12 * S);
        self.after(pause, Event::Operate);
        let acting = |node: &usize| {
            let machine = &self.machines[*node];
            machine
                .node
                .as_ref()
                .is_some_and(|running| running.acting().is_some())
        };
        // One session at a time; it ends by its answers, or with its node.
        if self.operator.session.is_some() {
            return;
        }
        let Some(node) = (0..2).find(acting) else {
            return;
        };
        let draw: f64 = self.rng.random();
        let change = format!("zone z{}", self.operator.changes + 1);
        let session = if !self.operator.set_up {
            self.operator.begin(node, Task::Setup, &SETUP)
        } else if draw < 0.75 || !self.chaos {
            self.operator.changes += 1;
            let task = Task::Change(self.operator.changes);
            self.operator.begin(node, task, &["configure", &change])
        } else if draw < 0.78 {
            self.outcome.faults += 1;
            self.operator.begin(node, Task::Other, &["reload", "y"])
        } else if draw < 0.92 {
            self.outcome.faults += 1;
            self.operator
                .begin(node, Task::Other, &["system switchover"])
        } else {
            let line = ["interval 100", "interval 20", "interval 500"][self.rng.random_range(0..3)];
            let line = format!("system redundancy heartbeat {line}");
            self.operator
                .begin(node, Task::Other, &["configure", &line])
        };
        let boot = self.machines[node].boot;
        self.after(
            MS,
            Event::ShellSays {
                node,
                boot,
                session,
                line: None,
            },
        );
    }

    /// The running configuration in a node's store.
    pub(crate) fn running(&self, node: usize) -> String {
        let running = self.machines[node].node.as_ref();
        let store = running.and_then(|running| running.store());
        let value = store.and_then(|store| store.value(pss::config_namespace(), b"running"));
        String::from_utf8(value.unwrap_or_default()).unwrap_or_default()
    }

    pub(crate) fn changed(&mut self, node: usize, reached: Acknowledgement) {
        let change = self.operator.answered(node, reached);
        let running = self.running(node);
        // An answer that came too late for an earlier session is not this change's.
        let is_ours = |change: &u32| running.contains(&format!("zone z{change}@root\n"));
        let change = change.filter(|_| reached == Acknowledgement::Replicated);
        if let Some(change) = change.filter(is_ours) {
            let [first, second] = &self.machines;
            let (first, second) = (first.durable_running(), second.durable_running());
            let result = self.watch.s5.acknowledged(change, [&first, &second]);
            self.insist(result);
        }
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
            ToShell::Completions(_) | ToShell::Console(_) => return,
            ToShell::Prompt { failed, .. } => failed,
        };
        open.failed |= failed;
        let boot = self.machines[node].boot;
        if let Some(line) = open.lines.pop_front() {
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
        match done.task {
            Task::Setup => self.operator.set_up |= !done.failed,
            Task::Change(_) | Task::Other => {}
        }
    }
}
