//! The System Manager of a node: the redundancy and the service core, joined.
//!
//! A [`Supervisor`] is driven like every core: `handle(now, SupervisorInput)`, then drain
//! `poll_output()`, then sleep until `next_deadline()`. The heartbeat thread (or the simulation)
//! owns a [`redundancy::HeartbeatPath`] beside it and stamps it after each turn.
//!
//! The two cores meet only here: postures and health pass between them, in an order that keeps
//! *stop acting* before *say so*. What a service says is believed only if it is that service's to
//! say.

mod input;
mod output;
mod traffic;

mod trusting;
mod writes;

use std::collections::{BTreeMap, VecDeque};

use model::{Epoch, NodeKey, PortTraffic, ServiceName, Time};
use redundancy::{Command, NodeRecord, ServicesHealth};
use sysmgr::Health;
use wire::control::ControlMessage;
use wire::log::LogRecord;
use wire::supervision::{Answer, Ask, FromService, RedundancyStatus, ToService};

use crate::trust::Trust;
use traffic::Traffic;
use writes::{Writer, Writes};

pub use crate::trust::{TrustEvent, TrustOrder};
pub use input::SupervisorInput;
pub use output::SupervisorOutput;
pub use redundancy::Start;
pub use sysmgr::Row;

/// Services without which nothing is synchronised, in the order of who needs whom.
const SYNC_SERVICES: [ServiceName; 3] = [ServiceName::Mts, ServiceName::Pss, ServiceName::Cfgmgr];
/// Operator commands under way; more are refused. One operator has one at a time.
const COMMANDS_MAX: usize = 64;
/// Outputs of one turn that pass between the cores. A turn comes to rest after a handful; more
/// would be a loop between them, and is a bug.
const EXCHANGES_MAX: usize = 10_000;

/// The System Manager of one node.
#[derive(Clone, Debug)]
pub struct Supervisor {
    redundancy: redundancy::Core,
    services: sysmgr::Core,
    trust: Trust,
    writes: Writes,
    /// Host agents in the inventory, and connected, as `vem_mgr` last said.
    vems: (u16, u16),
    /// Who waits for the end of which command.
    commands: BTreeMap<u64, (ServiceName, u64)>,
    commands_so_far: u64,
    /// A service that synchronisation needs and that does not run.
    down: Option<ServiceName>,
    outputs: VecDeque<SupervisorOutput>,
    traffic: Traffic,
    /// Canaries that have come back.
    canaries: u64,
    started: bool,
}

impl Supervisor {
    /// A node that has just started; the first input of any kind begins.
    #[must_use]
    pub fn new(start: Start) -> Self {
        let services = sysmgr::Core::new(sysmgr::Start {
            incarnation: start.incarnation,
            slot: start.record.role.slot(),
        });
        Self {
            trust: Trust::new(start.node, &start.record),
            writes: Writes::default(),
            vems: (0, 0),
            redundancy: redundancy::Core::new(start),
            services,
            commands: BTreeMap::new(),
            commands_so_far: 0,
            down: None,
            outputs: VecDeque::new(),
            traffic: Traffic::default(),
            canaries: 0,
            started: false,
        }
    }

    /// Who this node is to others: the fingerprint of its identity, and its name.
    #[must_use]
    pub fn introduced(mut self, identity: NodeKey, name: &str) -> Self {
        self.trust.introduce(identity, name.to_owned());
        self
    }

    /// Tells it what happened.
    pub fn handle(&mut self, now: Time, input: SupervisorInput) {
        if !self.started {
            self.started = true;
            self.tell_services(now, sysmgr::Input::Tick);
            self.tell_redundancy(now, redundancy::Input::Tick);
            self.trust.hand_out_peer();
        }
        self.route(now, input);
        self.turn_trust(now);
        if self
            .services
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.tell_services(now, sysmgr::Input::Tick);
        }
        if self
            .redundancy
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.tell_redundancy(now, redundancy::Input::Tick);
        }
        if self.traffic.next_deadline().is_some_and(|at| at <= now) {
            let lines = self.traffic.tick(now);
            self.note_all(lines);
        }
    }

    /// What is to be done next, in order.
    pub fn poll_output(&mut self) -> Option<SupervisorOutput> {
        self.outputs.pop_front()
    }

    /// When it wants [`SupervisorInput::Tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.redundancy
            .next_deadline()
            .into_iter()
            .chain(self.services.next_deadline())
            .chain(self.traffic.next_deadline())
            .chain(self.trust.next_deadline())
            .min()
    }

    /// `show system redundancy status`.
    #[must_use]
    pub fn status(&self, now: Time) -> RedundancyStatus {
        self.redundancy.status(now)
    }

    /// The services' rows of `show processes`.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.services.rows()
    }

    /// The services' state.
    #[must_use]
    pub const fn health(&self) -> Health {
        self.services.health()
    }

    /// The epoch under which the node acts, if it does.
    #[must_use]
    pub fn acting(&self) -> Option<Epoch> {
        self.redundancy.acting()
    }

    /// True while the node could take over at once.
    #[must_use]
    pub fn is_stable_standby(&self) -> bool {
        self.redundancy.is_stable_standby()
    }

    /// The node's own state, as it is on disk or on its way there.
    #[must_use]
    pub const fn record(&self) -> &NodeRecord {
        self.redundancy.record()
    }

    /// Checks the invariants of the cores.
    ///
    /// # Errors
    /// The one that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        self.redundancy
            .check()
            .map_err(|violation| violation.to_string())?;
        self.services.check().map_err(str::to_owned)?;
        self.trust.check()
    }

    fn route(&mut self, now: Time, input: SupervisorInput) {
        let input = match input {
            SupervisorInput::Tick => redundancy::Input::Tick,
            SupervisorInput::Heartbeat {
                link,
                content,
                peer_hold_time,
                echo,
            } => redundancy::Input::Heartbeat {
                link,
                content,
                peer_hold_time,
                echo,
            },
            SupervisorInput::Gasp(gasp) => redundancy::Input::Gasp(gasp),
            SupervisorInput::GaspHeard(gasp) => redundancy::Input::GaspHeard(gasp),
            SupervisorInput::PeerConnected => {
                self.tell_redundancy(now, redundancy::Input::PeerConnected);
                return self.trust.peer_connected(true);
            }
            SupervisorInput::PeerDisconnected => {
                self.tell_redundancy(now, redundancy::Input::PeerDisconnected);
                return self.trust.peer_connected(false);
            }
            SupervisorInput::Control(ControlMessage::Trust(message)) => {
                return self.trust.message(message);
            }
            SupervisorInput::Control(message) => redundancy::Input::Control(message),
            SupervisorInput::Persisted { write } => return self.persisted(now, write),
            SupervisorInput::PersistFailed { write } => return self.persist_failed(now, write),
            SupervisorInput::Trust(event) => {
                let standing = self.standing();
                return self.trust.event(now, event, &standing);
            }
            SupervisorInput::WallClock { unix_s } => return self.trust.wall_clock(now, unix_s),
            SupervisorInput::Spawned { service, pid } => {
                return self.tell_services(now, sysmgr::Input::Spawned { service, pid });
            }
            SupervisorInput::SpawnFailed { service, error } => {
                return self.tell_services(now, sysmgr::Input::SpawnFailed { service, error });
            }
            SupervisorInput::Exited {
                service,
                pid,
                status,
            } => {
                self.commands.retain(|_, (asker, _)| *asker != service);
                return self.tell_services(
                    now,
                    sysmgr::Input::Exited {
                        service,
                        pid,
                        status,
                    },
                );
            }
            SupervisorInput::FromService { service, message } => {
                return self.hear_service(now, service, message);
            }
            SupervisorInput::Traffic(report) => return self.book(now, report),
        };
        self.tell_redundancy(now, input);
    }

    fn hear_service(&mut self, now: Time, service: ServiceName, message: FromService) {
        match message {
            FromService::Handshake { service: name } if name == service => {
                self.tell_services(now, sysmgr::Input::Handshake { service });
                self.tell_trusted(service);
            }
            FromService::Handshake { .. } => {}
            FromService::Heartbeat { turns } => {
                self.tell_services(now, sysmgr::Input::Heartbeat { service, turns });
            }
            FromService::Applied { sequence } => {
                self.tell_services(now, sysmgr::Input::Applied { service, sequence });
            }
            FromService::Sync(report) => {
                if service == ServiceName::Pss {
                    self.tell_redundancy(now, redundancy::Input::Sync(report));
                }
            }
            FromService::Vems(report) => {
                if service == ServiceName::VemMgr {
                    self.vems = (report.registered, report.connected);
                    self.tell_redundancy(now, redundancy::Input::Vems(report));
                }
            }
            FromService::Canary => {
                if service == ServiceName::VemMgr {
                    // Counted here, where a restart of the service does not begin anew.
                    self.canaries += 1;
                    let finished = self.canaries;
                    self.tell_redundancy(now, redundancy::Input::Canary { finished });
                }
            }
            FromService::Gateways { keys, pending } => {
                if service == ServiceName::VemMgr {
                    self.trust.vems_told(&keys, pending);
                }
            }
            FromService::RemoveVem { key } => {
                if service == ServiceName::VemMgr {
                    self.trust.remove_vem(key);
                }
            }
            FromService::AskAlone { question } => {
                if service == ServiceName::Pss {
                    self.tell_redundancy(now, redundancy::Input::AskAlone { question });
                }
            }
            FromService::Archived { number } => {
                if service == ServiceName::Pss {
                    self.tell_redundancy(now, redundancy::Input::Archived { number });
                }
            }
            FromService::Ask { question, ask } => self.ask(now, service, question, ask),
            FromService::Log(mut record) => {
                record.service = Some(service);
                self.outputs.push_back(SupervisorOutput::Log(record));
            }
            FromService::Traffic(report) => self.book(now, report),
        }
    }

    fn book(&mut self, now: Time, report: Vec<PortTraffic>) {
        let lines = self.traffic.book(now, report);
        self.note_all(lines);
    }

    fn note_all(&mut self, lines: Vec<LogRecord>) {
        self.outputs
            .extend(lines.into_iter().map(SupervisorOutput::Log));
    }

    fn ask(&mut self, now: Time, service: ServiceName, question: u64, ask: Ask) {
        let kind = match ask {
            Ask::RedundancyStatus => {
                let status = Box::new(self.redundancy.status(now));
                return self.answer(service, question, Answer::RedundancyStatus(status));
            }
            Ask::Traffic => {
                let answer = Answer::Traffic(self.traffic.show());
                return self.answer(service, question, answer);
            }
            Ask::ClearTraffic => {
                self.traffic.clear();
                return self.answer(service, question, Answer::Done);
            }
            ask @ (Ask::HeartbeatStatus | Ask::Processes | Ask::Logging { .. }) => {
                self.outputs.push_back(SupervisorOutput::Query {
                    service,
                    question,
                    ask,
                });
                return;
            }
            Ask::Pair(purpose) => {
                let standing = self.standing();
                return self
                    .trust
                    .offer(now, (service, question), purpose, &standing);
            }
            Ask::Join { address, code } => {
                let standing = self.standing();
                let asker = (service, question);
                return self.trust.join(asker, (address, code), &standing);
            }
            Ask::RotateIdentity { force } => {
                let standing = self.standing();
                return self
                    .trust
                    .rotate(now, (service, question), force, &standing);
            }
            Ask::Unpair => return self.trust.unpair(now, (service, question)),
            Ask::Identity => {
                let status = Box::new(self.trust.status(now));
                return self.answer(service, question, Answer::Identity(status));
            }
            Ask::Switchover => Command::Switchover,
            Ask::SetRole(role) => Command::SetRole(role),
            Ask::SetPairId(pair) => Command::SetPairId(pair),
            Ask::SetHeartbeat {
                interval_ms,
                misses,
            } => Command::SetHeartbeat {
                interval_ms,
                misses,
            },
            Ask::SetConflictPolicy(policy) => Command::SetConflictPolicy(policy),
            Ask::SetBootWait(seconds) => Command::SetBootWait(seconds),
            Ask::Reload => Command::Reload,
            Ask::ReloadStandby => Command::ReloadStandby,
            Ask::ForceActive => Command::ForceActive,
        };
        if self.commands.len() == COMMANDS_MAX {
            let refusal = Answer::Refused("too many commands are under way".to_owned());
            return self.answer(service, question, refusal);
        }
        self.commands_so_far += 1;
        let command = self.commands_so_far;
        self.commands.insert(command, (service, question));
        self.tell_redundancy(now, redundancy::Input::Command { command, kind });
    }

    fn answer(&mut self, service: ServiceName, question: u64, answer: Answer) {
        let message = ToService::Answer { question, answer };
        self.outputs
            .push_back(SupervisorOutput::ToService { service, message });
    }

    fn tell_redundancy(&mut self, now: Time, input: redundancy::Input) {
        self.redundancy.handle(now, input);
        self.exchange(now);
    }

    fn tell_services(&mut self, now: Time, input: sysmgr::Input) {
        self.services.handle(now, input);
        self.exchange(now);
        let down = SYNC_SERVICES.into_iter().find(|service| {
            let mut rows = self.services.rows();
            !rows.any(|row| row.service == *service && row.state.is_up())
        });
        if self.down != down {
            self.down = down;
            self.tell_redundancy(now, redundancy::Input::Down(down));
        }
    }

    /// Passes outputs on, one at a time: what a posture makes the service core send goes out
    /// before whatever the redundancy core said after it.
    fn exchange(&mut self, now: Time) {
        for _ in 0..EXCHANGES_MAX {
            if let Some(output) = self.services.poll_output() {
                self.of_services(now, output);
            } else if let Some(output) = self.redundancy.poll_output() {
                self.of_redundancy(now, output);
            } else {
                return;
            }
        }
        debug_assert!(false, "the cores do not come to rest");
    }

    fn of_services(&mut self, now: Time, output: sysmgr::Output) {
        let passed_on = match output {
            sysmgr::Output::Spawn { service } => SupervisorOutput::Spawn { service },
            sysmgr::Output::Kill { service } => SupervisorOutput::Kill { service },
            sysmgr::Output::ToService { service, message } => {
                SupervisorOutput::ToService { service, message }
            }
            sysmgr::Output::Log(record) => SupervisorOutput::Log(record),
            sysmgr::Output::Health(health) => {
                let health = match health {
                    Health::Starting => ServicesHealth::Starting,
                    Health::Ready => ServicesHealth::Ready,
                    Health::Failed => ServicesHealth::Failed,
                };
                return self
                    .redundancy
                    .handle(now, redundancy::Input::Services(health));
            }
            sysmgr::Output::PostureApplied { sequence } => {
                return self
                    .redundancy
                    .handle(now, redundancy::Input::PostureApplied { sequence });
            }
        };
        self.outputs.push_back(passed_on);
    }

    fn of_redundancy(&mut self, now: Time, output: redundancy::Output) {
        use redundancy::Output;
        let passed_on = match output {
            Output::Persist { write, record } => return self.persist(Writer::Core(write), record),
            Output::HeartbeatContent(content) => SupervisorOutput::HeartbeatContent(content),
            Output::HeartbeatTiming {
                interval_ms,
                misses,
            } => SupervisorOutput::HeartbeatTiming {
                interval_ms,
                misses,
            },
            Output::Control(message) => SupervisorOutput::Control(message),
            Output::Gasp(gasp) => SupervisorOutput::Gasp(gasp),
            Output::SealGasp(gasp) => SupervisorOutput::SealGasp(gasp),
            Output::Log(record) => SupervisorOutput::Log(record),
            Output::Reset { reason } => SupervisorOutput::Reset { reason },
            Output::Activated { epoch } => SupervisorOutput::Activated { epoch },
            Output::Posture {
                sequence,
                activity,
                redundant,
                peer_connected,
            } => {
                let slot = self.redundancy.role().slot();
                let change = sysmgr::PostureChange {
                    sequence,
                    activity,
                    peer_connected,
                    redundant,
                    slot,
                };
                return self.services.handle(now, sysmgr::Input::SetPosture(change));
            }
            Output::AskVotes {
                vote,
                candidate,
                within_ms,
            } => SupervisorOutput::ToService {
                service: ServiceName::VemMgr,
                message: ToService::AskVotes {
                    vote,
                    candidate,
                    within_ms,
                },
            },
            Output::Archive {
                number,
                rival,
                reason,
            } => SupervisorOutput::ToService {
                service: ServiceName::Pss,
                message: ToService::Archive {
                    number,
                    rival,
                    reason,
                },
            },
            Output::Resync { whole } => SupervisorOutput::ToService {
                service: ServiceName::Pss,
                message: ToService::Resync { whole },
            },
            Output::AloneGranted { question } => {
                return self.answer(ServiceName::Pss, question, Answer::Done);
            }
            Output::CommandDone { command, result } => {
                if let Some((service, question)) = self.commands.remove(&command) {
                    let answer = match result {
                        Ok(note) if note.is_empty() => Answer::Done,
                        Ok(note) => Answer::Noted(note),
                        Err(refusal) => Answer::Refused(refusal),
                    };
                    self.answer(service, question, answer);
                }
                return;
            }
        };
        self.outputs.push_back(passed_on);
    }
}

#[cfg(test)]
mod tests;
