//! The supervisor of services.
//!
//! Invariants:
//! - M1 a native service is started once; its death makes the health `Failed` in the same turn;
//! - M2 `Failed` is final: only a reset of the node ends it;
//! - M3 no service is restarted more often than its entry allows within the window;
//! - M4 every service that has shaken hands has been sent the newest posture;
//! - M5 `Ready` is said only while every service is handshaked and has applied a posture since its
//!   start.
//!
//! Not done here: an orderly stop (a reset ends every process in the kernel), CPU and memory
//! limits (the shell), stateless restart (a service decides by what it finds in `pss`).

use core::time::Duration;
use std::collections::VecDeque;

use model::{ServiceKind, ServiceName, Slot, Time};
use wire::log::LogRecord;
use wire::supervision::{Activity, Posture, ToService};

use crate::catalogue::{
    CATALOGUE, Entry, HANDSHAKE_DEADLINE, HEARTBEAT_DEADLINE, HEARTBEAT_MISSES,
    HEARTBEAT_PERIOD_MS, RESTART_DELAY_STEP, RESTART_WINDOW,
};
use crate::input::{ExitStatus, Input, PostureChange, Start};
use crate::output::{Health, Output};
use crate::state::State;

/// Lateness of a turn above which the whole node is taken to have been paused: services could not
/// beat then, so they are given their time anew. Far above scheduling noise.
const PAUSE: Duration = Duration::from_millis(250);
const PERIOD: Duration = Duration::from_millis(HEARTBEAT_PERIOD_MS as u64);

#[derive(Clone, Debug)]
struct Supervised {
    entry: &'static Entry,
    state: State,
    /// Times started.
    starts: u32,
    /// Crashes within the window, oldest first; at most `restarts_max + 1`.
    crashes: VecDeque<Time>,
}

/// One row of `show processes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which service.
    pub service: ServiceName,
    /// Where it stands.
    pub state: State,
    /// Times started.
    pub start_count: u32,
}

/// Starts and watches the services of one node.
#[derive(Clone, Debug)]
pub struct Core {
    start: Start,
    services: Vec<Supervised>,
    posture: PostureChange,
    /// Newest posture reported as applied by all.
    posture_applied: u64,
    health: Health,
    last_turn: Time,
    expected: Option<Time>,
    outputs: VecDeque<Output>,
}

impl Core {
    /// A supervisor whose services are not started yet: the first [`Input::Tick`] starts them.
    #[must_use]
    pub fn new(start: Start) -> Self {
        let services = CATALOGUE.iter().map(|entry| Supervised {
            entry,
            state: State::WaitSpawnCondition,
            starts: 0,
            crashes: VecDeque::new(),
        });
        Self {
            start,
            services: services.collect(),
            posture: PostureChange {
                sequence: 0,
                activity: Activity::Idle,
                peer_connected: false,
                redundant: false,
                slot: start.slot,
            },
            posture_applied: 0,
            health: Health::Starting,
            last_turn: Time(0),
            expected: None,
            outputs: VecDeque::new(),
        }
    }

    /// Tells it what happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.forgive_a_pause(now);
        self.last_turn = now;
        match input {
            Input::Tick => {}
            Input::Spawned { service, pid } => self.spawned(now, service, pid),
            Input::SpawnFailed { service, error } => self.spawn_failed(now, service, &error),
            Input::Exited {
                service,
                pid,
                status,
            } => self.exited(now, service, pid, status),
            Input::Handshake { service } => self.handshake(now, service),
            Input::Heartbeat { service, turns } => self.heartbeat(now, service, turns),
            Input::Applied { service, sequence } => self.applied(service, sequence),
            Input::SetPosture(change) => self.set_posture(change),
        }
        self.act_on_deadlines(now);
        self.spawn_what_may_start();
        self.report();
        self.expected = self.next_deadline();
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When a service's deadline passes; at least once per heartbeat period, so that a pause of
    /// the node is seen for what it is.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let deadline = self
            .services
            .iter()
            .filter_map(|service| service.state.deadline())
            .min()?;
        Some(deadline.min(self.last_turn + PERIOD))
    }

    /// The services' state, as last reported.
    #[must_use]
    pub const fn health(&self) -> Health {
        self.health
    }

    /// One row for each service, in the order of the catalogue.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.services.iter().map(|service| Row {
            service: service.entry.service,
            state: service.state,
            start_count: service.starts,
        })
    }

    fn service(&mut self, name: ServiceName) -> &mut Supervised {
        self.services
            .iter_mut()
            .find(|service| service.entry.service == name)
            .expect("the catalogue names every service, proven by a test")
    }

    fn forgive_a_pause(&mut self, now: Time) {
        let Some(expected) = self.expected else {
            return;
        };
        let late = now.since(expected);
        if late < PAUSE {
            return;
        }
        for service in &mut self.services {
            match &mut service.state {
                State::Started { deadline, .. } => *deadline = now + HANDSHAKE_DEADLINE,
                State::Handshaked { alive, .. } => *alive = now,
                State::WaitSpawnCondition
                | State::Spawning
                | State::Killing { .. }
                | State::Restarting { .. }
                | State::HapFailed => {}
            }
        }
    }

    fn spawned(&mut self, now: Time, name: ServiceName, pid: u32) {
        let service = self.service(name);
        if service.state == State::Spawning {
            service.starts += 1;
            service.state = State::Started {
                pid,
                deadline: now + HANDSHAKE_DEADLINE,
            };
        }
    }

    fn spawn_failed(&mut self, now: Time, name: ServiceName, error: &str) {
        if self.service(name).state == State::Spawning {
            self.log(
                2,
                "SERVICE_SPAWN_FAILED",
                format!("Service \"{name}\" could not be started: {error}."),
            );
            self.crashed(now, name);
        }
    }

    fn exited(&mut self, now: Time, name: ServiceName, pid: u32, status: ExitStatus) {
        if self.service(name).state.pid() != Some(pid) {
            return;
        }
        match status {
            ExitStatus::Signal(signal) => {
                let core = if signal == 9 {
                    "no core"
                } else {
                    "core will be saved"
                };
                self.log(
                    2,
                    "SERVICE_CRASHED",
                    format!(
                        "Service \"{name}\" (PID {pid}) hasn't caught signal {signal} ({core})."
                    ),
                );
            }
            ExitStatus::Code(code) => self.log(
                2,
                "SERVICE_TERMINATED",
                format!("Service \"{name}\" (PID {pid}) has finished with error code {code}."),
            ),
        }
        self.crashed(now, name);
    }

    fn crashed(&mut self, now: Time, name: ServiceName) {
        let service = self.service(name);
        while service
            .crashes
            .front()
            .is_some_and(|at| now.since(*at) > RESTART_WINDOW)
        {
            service.crashes.pop_front();
        }
        service.crashes.push_back(now);
        let crashes = service.crashes.len() as u32;
        let gives_up = match service.entry.kind {
            ServiceKind::Native => true,
            ServiceKind::Borrowed => crashes > u32::from(service.entry.restarts_max),
        };
        if gives_up {
            service.state = State::HapFailed;
            self.log(
                2,
                "HAP_FAILURE_SUP_RESET",
                format!("System reset due to service \"{name}\" in vdc 1 has had a hap failure"),
            );
        } else {
            service.state = State::Restarting {
                at: now + RESTART_DELAY_STEP * (crashes - 1),
            };
        }
    }

    fn handshake(&mut self, now: Time, name: ServiceName) {
        let posture = self.posture();
        let service = self.service(name);
        if let State::Started { pid, .. } = service.state {
            service.state = State::Handshaked {
                pid,
                turns: 0,
                alive: now,
                applied: None,
            };
            let message = ToService::Posture(posture);
            self.outputs.push_back(Output::ToService {
                service: name,
                message,
            });
        }
    }

    fn heartbeat(&mut self, now: Time, name: ServiceName, count: u64) {
        if let State::Handshaked { turns, alive, .. } = &mut self.service(name).state
            && count > *turns
        {
            *turns = count;
            *alive = now;
        }
    }

    fn applied(&mut self, name: ServiceName, sequence: u64) {
        let newest = self.posture.sequence;
        if let State::Handshaked { applied, .. } = &mut self.service(name).state
            && sequence <= newest
        {
            *applied = (*applied).max(Some(sequence));
        }
    }

    fn set_posture(&mut self, change: PostureChange) {
        if change.sequence <= self.posture.sequence {
            return;
        }
        self.posture = change;
        let message = ToService::Posture(self.posture());
        let running = self
            .services
            .iter()
            .filter(|service| service.state.is_handshaked());
        let mut receivers: Vec<_> = running.map(|service| service.entry.service).collect();
        // To act, the ground first; to stop, those who speak with the outside first.
        if !matches!(change.activity, Activity::Active(_)) {
            receivers.reverse();
        }
        self.outputs
            .extend(receivers.into_iter().map(|service| Output::ToService {
                service,
                message: message.clone(),
            }));
    }

    fn posture(&self) -> Posture {
        Posture {
            sequence: self.posture.sequence,
            activity: self.posture.activity,
            incarnation: self.start.incarnation,
            slot: self.posture.slot,
            peer_connected: self.posture.peer_connected,
            redundant: self.posture.redundant,
        }
    }

    fn act_on_deadlines(&mut self, now: Time) {
        for index in 0..self.services.len() {
            let state = self.services[index].state;
            let name = self.services[index].entry.service;
            if state.deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            match state {
                State::Restarting { .. } => self.spawn(index),
                State::Started { pid, .. } => self.kill_stuck(index, pid, {
                    let seconds = HANDSHAKE_DEADLINE.as_secs();
                    format!("Service \"{name}\" has not shaken hands within {seconds} secs.")
                }),
                State::Handshaked { pid, .. } => self.kill_stuck(index, pid, {
                    let seconds = HEARTBEAT_DEADLINE.as_secs();
                    format!(
                        "Service \"{name}\" sent SIGKILL for not setting heartbeat for last \
                         {HEARTBEAT_MISSES} periods. Last heartbeat {seconds} secs ago."
                    )
                }),
                State::WaitSpawnCondition
                | State::Spawning
                | State::Killing { .. }
                | State::HapFailed => {}
            }
        }
    }

    fn kill_stuck(&mut self, index: usize, pid: u32, text: String) {
        self.services[index].state = State::Killing { pid };
        let service = self.services[index].entry.service;
        self.log(2, "HEARTBEAT_FAILURE", text);
        self.outputs.push_back(Output::Kill { service });
    }

    fn spawn(&mut self, index: usize) {
        self.services[index].state = State::Spawning;
        let service = self.services[index].entry.service;
        self.outputs.push_back(Output::Spawn { service });
    }

    fn spawn_what_may_start(&mut self) {
        if self
            .services
            .iter()
            .any(|service| service.state == State::HapFailed)
        {
            return;
        }
        for index in 0..self.services.len() {
            let service = &self.services[index];
            let up = |name: &ServiceName| {
                self.services
                    .iter()
                    .any(|other| other.entry.service == *name && other.state.is_handshaked())
            };
            if service.state == State::WaitSpawnCondition && service.entry.after.iter().all(up) {
                self.spawn(index);
            }
        }
    }

    /// Health first: a death must be known before anything else of this turn.
    fn report(&mut self) {
        let states = || self.services.iter().map(|service| service.state);
        let native_dying = self.services.iter().any(|service| {
            service.entry.kind == ServiceKind::Native
                && matches!(service.state, State::Killing { .. })
        });
        let health = if native_dying || states().any(|state| state == State::HapFailed) {
            Health::Failed
        } else if states().all(State::is_hot) {
            Health::Ready
        } else {
            Health::Starting
        };
        if health != self.health && self.health != Health::Failed {
            self.health = health;
            self.outputs.push_front(Output::Health(health));
        }
        let mut applied = states().filter_map(State::applied);
        let sequence = self.posture.sequence;
        if self.posture_applied < sequence && applied.all(|applied| applied >= Some(sequence)) {
            self.posture_applied = sequence;
            self.outputs.push_back(Output::PostureApplied { sequence });
        }
    }

    fn log(&mut self, severity: u8, mnemonic: &str, text: String) {
        self.outputs.push_back(Output::Log(LogRecord {
            facility: "SYSMGR".to_owned(),
            severity,
            mnemonic: mnemonic.to_owned(),
            text,
            service: None,
        }));
    }

    /// Checks the invariants that are visible in the state.
    ///
    /// # Errors
    /// The name of the invariant that does not hold.
    pub fn check(&self) -> Result<(), &'static str> {
        for service in &self.services {
            let native = service.entry.kind == ServiceKind::Native;
            if native && service.starts > 1 {
                return Err("M1: a native service was started twice");
            }
            if service.crashes.len() > usize::from(service.entry.restarts_max) + 1 {
                return Err("M3: restarted too often");
            }
            if service.state == State::HapFailed && self.health != Health::Failed {
                return Err("M1: a failed service and a node that is not");
            }
        }
        let all_hot = self.services.iter().all(|service| service.state.is_hot());
        if self.health == Health::Ready && !all_hot {
            return Err("M5: ready without all services");
        }
        Ok(())
    }

    /// This node's place, told to services from the next posture on.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        self.posture.slot
    }
}

impl State {
    const fn is_handshaked(self) -> bool {
        matches!(self, Self::Handshaked { .. })
    }

    const fn is_hot(self) -> bool {
        matches!(
            self,
            Self::Handshaked {
                applied: Some(_),
                ..
            }
        )
    }

    /// For a service that runs: the posture it has applied.
    const fn applied(self) -> Option<Option<u64>> {
        match self {
            Self::Handshaked { applied, .. } => Some(applied),
            Self::WaitSpawnCondition
            | Self::Spawning
            | Self::Started { .. }
            | Self::Killing { .. }
            | Self::Restarting { .. }
            | Self::HapFailed => None,
        }
    }
}

#[cfg(test)]
mod tests;
