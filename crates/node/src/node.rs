//! One gateway in one value: the System Manager, the broker, the store and the services, their
//! outputs routed to each other's inputs as the processes do it.
//!
//! The same types as `vsgd` runs, without its sockets: what takes time in reality (a disk, a
//! network, the start of a process) is an output here, answered by an input. What passes between
//! two processes of a node passes at once and in order. A process that dies loses its value; its
//! sockets close, and what was in flight to it is gone. The broker's and the store's own
//! acknowledgement windows work as in reality.
//!
//! A process that is stopped by a signal gets what was sent to it when it goes on, as if its
//! sockets had endless buffers; if it dies first, that is lost.
//!
//! Not modelled: the guardian (its gasp is the driver's), partial reads, and the threads beside a
//! process's loop.

mod input;
mod output;
mod process;
mod routes;

use std::collections::{BTreeMap, VecDeque};

use model::{Epoch, LinkId, ServiceName, Time};
use mts::{ClientId, Input as BrokerInput};
use pss::{Storage, StorageError};
use redundancy::HeartbeatPath;
use sysmgr::ExitStatus;
use wire::broker::BrokerFrame;
use wire::heartbeat::Datagram;
use wire::supervision::{Activity, FromService, Posture, RedundancyStatus, ToService};

use crate::service::ServiceInput;
use crate::services::pss::Pss;
use crate::supervisor::{Start, Supervisor, SupervisorInput};

pub use input::NodeInput;
pub use output::NodeOutput;
use process::{Body, Process};

/// Steps of one turn: a turn that takes more is a loop between services, and a bug.
const STEPS_MAX: u32 = 1_000_000;

/// The durable storage and the volatile one.
pub type Storages = (Box<dyn Storage>, Box<dyn Storage>);

/// Where a node's store lives: opened anew for each process of `pss`.
pub trait Disks: core::fmt::Debug + Send {
    /// Opens both storages.
    ///
    /// # Errors
    /// When they cannot be opened; the process of `pss` then ends.
    fn open(&mut self) -> Result<Storages, StorageError>;
}

/// Something that happens inside the node.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are heartbeats, and few are kept"
)]
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time is moved, and heartbeats are what most of them are"
)]
enum Step {
    Supervisor(SupervisorInput),
    Service(ServiceName, ServiceInput),
    Broker(BrokerInput),
    /// The System Manager's message to a service.
    Tell(ServiceName, ToService),
    /// The disk's answer to a process of `pss`.
    RunWork(u32, u64),
    Exit(ServiceName, ExitStatus),
}

impl Step {
    /// The process that takes it.
    const fn process(&self) -> Option<ServiceName> {
        match self {
            Self::Service(service, _) | Self::Tell(service, _) => Some(*service),
            Self::Broker(_) => Some(ServiceName::Mts),
            Self::RunWork(..) => Some(ServiceName::Pss),
            Self::Supervisor(_) | Self::Exit(..) => None,
        }
    }
}

/// A gateway. See the module.
#[derive(Debug)]
pub struct Node {
    supervisor: Supervisor,
    path: HeartbeatPath,
    disks: Box<dyn Disks>,
    name: String,
    processes: BTreeMap<ServiceName, Process>,
    /// Processes that are stopped, and what waits for them.
    stopped: BTreeMap<ServiceName, VecDeque<Step>>,
    bulk_connected: bool,
    steps: VecDeque<Step>,
    outputs: VecDeque<NodeOutput>,
    posture: Option<Posture>,
}

impl Node {
    /// A node whose System Manager has just started.
    #[must_use]
    pub fn new(now: Time, start: Start, disks: Box<dyn Disks>) -> Self {
        let path = HeartbeatPath::new(now, start.links);
        let name = start.record.role.slot().to_string();
        Self {
            supervisor: Supervisor::new(start),
            path,
            disks,
            name,
            processes: BTreeMap::new(),
            stopped: BTreeMap::new(),
            bulk_connected: false,
            steps: VecDeque::new(),
            outputs: VecDeque::new(),
            posture: None,
        }
    }

    /// Tells it what happened.
    pub fn handle(&mut self, now: Time, input: NodeInput) {
        self.take(now, input);
        self.ticks(now);
        let mut steps = 0;
        while let Some(step) = self.steps.pop_front() {
            steps += 1;
            assert!(
                steps < STEPS_MAX,
                "the services of a node keep each other busy for ever"
            );
            self.step(now, step);
        }
        self.path.main_loop_turned(now);
        while let Some((link, datagram)) = self.path.poll_send(now) {
            self.outputs
                .push_back(NodeOutput::Datagram { link, datagram });
        }
    }

    /// What is to be done next, in order.
    pub fn poll_output(&mut self) -> Option<NodeOutput> {
        self.outputs.pop_front()
    }

    /// When it wants [`NodeInput::Tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        let processes = self
            .processes
            .iter()
            .filter(|(service, _)| !self.stopped.contains_key(service))
            .filter_map(|(_, process)| process.next_deadline());
        let supervisor = self.supervisor.next_deadline();
        processes
            .chain(supervisor)
            .fold(self.path.next_deadline(), Ord::min)
    }

    /// The epoch under which it acts, if it does.
    #[must_use]
    pub fn acting(&self) -> Option<Epoch> {
        self.supervisor.acting()
    }

    /// True while it could take over at once.
    #[must_use]
    pub fn is_stable_standby(&self) -> bool {
        self.supervisor.is_stable_standby()
    }

    /// `show system redundancy status`.
    #[must_use]
    pub fn status(&self, now: Time) -> RedundancyStatus {
        self.supervisor.status(now)
    }

    /// The System Manager, to look at.
    #[must_use]
    pub const fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// The store, while its process runs.
    #[must_use]
    pub fn store(&self) -> Option<&pss::Store> {
        match &self.processes.get(&ServiceName::Pss)?.body {
            Body::Pss(pss) => Some(pss.store()),
            Body::Mts(_) | Body::Service(_) => None,
        }
    }

    /// Whether a service's process runs.
    #[must_use]
    pub fn runs(&self, service: ServiceName) -> bool {
        self.processes.contains_key(&service)
    }

    /// Checks the invariants of everything in it.
    ///
    /// # Errors
    /// The first that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        self.supervisor.check()?;
        self.processes
            .values()
            .try_for_each(|process| match &process.body {
                Body::Mts(broker) => broker.check(),
                Body::Pss(pss) => pss.store().check(),
                Body::Service(_) => Ok(()),
            })
    }

    // ---- from outside

    fn take(&mut self, now: Time, input: NodeInput) {
        match input {
            NodeInput::Tick => {}
            NodeInput::Datagram { link, datagram } => self.datagram(now, link, datagram),
            NodeInput::ControlConnected => self.supervise(SupervisorInput::PeerConnected),
            NodeInput::ControlGone => self.supervise(SupervisorInput::PeerDisconnected),
            NodeInput::Control(message) => self.supervise(SupervisorInput::Control(message)),
            NodeInput::BulkConnected => {
                self.bulk_connected = self.runs(ServiceName::Mts);
                self.steps
                    .push_back(Step::Broker(BrokerInput::PeerConnected));
            }
            NodeInput::BulkGone => {
                self.bulk_connected = false;
                self.steps.push_back(Step::Broker(BrokerInput::PeerGone));
            }
            NodeInput::Bulk(frame) => {
                self.steps
                    .push_back(Step::Broker(BrokerInput::PeerFrame(frame)));
            }
            NodeInput::Persisted { write } => self.supervise(SupervisorInput::Persisted { write }),
            NodeInput::PersistFailed { write } => {
                self.supervise(SupervisorInput::PersistFailed { write });
            }
            NodeInput::Spawned { service, pid } => self.spawned(now, service, pid),
            NodeInput::SpawnFailed { service, error } => {
                self.supervise(SupervisorInput::SpawnFailed { service, error });
            }
            NodeInput::Kill { service } => {
                self.steps
                    .push_back(Step::Exit(service, ExitStatus::Signal(9)));
            }
            NodeInput::Stop { service } => {
                if self.runs(service) {
                    self.stopped.entry(service).or_default();
                }
            }
            NodeInput::Continue { service } => {
                let waiting = self.stopped.remove(&service).unwrap_or_default();
                self.steps.extend(waiting);
            }
            NodeInput::WallClock { unix_s } => {
                for service in [ServiceName::Vshd, ServiceName::Pss] {
                    let input = ServiceInput::WallClock { unix_s };
                    self.steps.push_back(Step::Service(service, input));
                }
            }
            NodeInput::RunWork { pid, work } => self.steps.push_back(Step::RunWork(pid, work)),
            NodeInput::Vem { connection, event } => {
                let input = ServiceInput::Vem { connection, event };
                self.steps
                    .push_back(Step::Service(ServiceName::VemMgr, input));
            }
            NodeInput::Shell { session, event } => {
                let input = ServiceInput::Shell { session, event };
                self.steps
                    .push_back(Step::Service(ServiceName::Vshd, input));
            }
        }
    }

    fn supervise(&mut self, input: SupervisorInput) {
        self.steps.push_back(Step::Supervisor(input));
    }

    fn datagram(&mut self, now: Time, link: LinkId, datagram: Datagram) {
        match datagram {
            Datagram::Heartbeat(frame) => {
                let Some(received) = self.path.received(now, link, &frame) else {
                    return;
                };
                self.supervise(SupervisorInput::Heartbeat {
                    link,
                    content: frame.content,
                    peer_hold_time: received.peer_hold_time,
                    echo: received.echo,
                });
            }
            Datagram::Gasp(gasp) => {
                let datagram = Datagram::GaspHeard(gasp.clone());
                self.outputs
                    .push_back(NodeOutput::Datagram { link, datagram });
                self.supervise(SupervisorInput::Gasp(gasp));
            }
            Datagram::GaspHeard(gasp) => {
                if self.path.gasp_heard(&gasp) {
                    self.supervise(SupervisorInput::GaspHeard(gasp));
                }
            }
        }
    }

    fn spawned(&mut self, now: Time, service: ServiceName, pid: u32) {
        let body = match service {
            ServiceName::Mts => Ok(Body::broker()),
            ServiceName::Pss => self
                .disks
                .open()
                .and_then(|(persistent, volatile)| Pss::open(persistent, volatile))
                .map(|(pss, _)| Body::Pss(Box::new(pss))),
            ServiceName::PolicyEngine
            | ServiceName::VemMgr
            | ServiceName::Cfgmgr
            | ServiceName::Vshd => Ok(Body::service(now, service, &self.name)),
        };
        self.supervise(SupervisorInput::Spawned { service, pid });
        self.processes.remove(&service);
        match body {
            Ok(body) => {
                self.processes.insert(service, Process::new(now, pid, body));
            }
            Err(_) => {
                let status = ExitStatus::Code(1);
                self.supervise(SupervisorInput::Exited {
                    service,
                    pid,
                    status,
                });
                return;
            }
        }
        let message = FromService::Handshake { service };
        self.supervise(SupervisorInput::FromService { service, message });
        self.steps
            .push_back(Step::Service(service, ServiceInput::Start));
        if service == ServiceName::VemMgr {
            self.outputs.push_back(NodeOutput::VemsListen(true));
        }
        if service == ServiceName::Mts {
            self.outputs.push_back(NodeOutput::BulkListens(true));
            let others: Vec<ServiceName> = self.processes.keys().copied().collect();
            others
                .into_iter()
                .for_each(|other| self.connect_to_broker(other));
        } else {
            self.connect_to_broker(service);
        }
    }

    fn connect_to_broker(&mut self, service: ServiceName) {
        if service == ServiceName::Mts || !self.runs(ServiceName::Mts) {
            return;
        }
        let Some(process) = self.processes.get(&service) else {
            return;
        };
        let client = process.client();
        let frame = BrokerFrame::Bind(service);
        self.steps
            .push_back(Step::Broker(BrokerInput::ClientConnected { client }));
        self.steps
            .push_back(Step::Broker(BrokerInput::ClientFrame { client, frame }));
        self.steps
            .push_back(Step::Service(service, ServiceInput::BrokerConnected));
    }

    fn run_work(&mut self, now: Time, pid: u32, work: u64) {
        let Some(process) = self.processes.get_mut(&ServiceName::Pss) else {
            return;
        };
        if process.pid != pid {
            return; // Its process has died; whether the disk got it is the disk's secret.
        }
        let Some(taken) = process.works.remove(&work) else {
            return;
        };
        let result = taken.run().map_err(|error| error.to_string());
        if let Body::Pss(pss) = &mut process.body {
            pss.work_done(now, work, result);
        }
        self.drain_service(ServiceName::Pss);
    }

    fn ticks(&mut self, now: Time) {
        if self.supervisor.next_deadline().is_some_and(|at| at <= now) {
            self.supervise(SupervisorInput::Tick);
        }
        for (service, process) in &mut self.processes {
            if self.stopped.contains_key(service) {
                continue;
            }
            if let Some(turns) = process.beat(now) {
                let service = *service;
                let message = FromService::Heartbeat { turns };
                let input = SupervisorInput::FromService { service, message };
                self.steps.push_back(Step::Supervisor(input));
            }
            if process.is_due(now) {
                self.steps.push_back(match &process.body {
                    Body::Mts(_) => Step::Broker(BrokerInput::Tick),
                    Body::Pss(_) | Body::Service(_) => Step::Service(*service, ServiceInput::Tick),
                });
            }
        }
    }

    // ---- inside

    fn step(&mut self, now: Time, step: Step) {
        let process = step.process();
        if let Some(waiting) = process.and_then(|process| self.stopped.get_mut(&process)) {
            waiting.push_back(step);
            return;
        }
        match step {
            Step::Supervisor(input) => {
                self.supervisor.handle(now, input);
                while let Some(output) = self.supervisor.poll_output() {
                    self.carry_out(now, output);
                }
            }
            Step::Service(service, input) => {
                let Some(process) = self.processes.get_mut(&service) else {
                    return;
                };
                process.handle(now, input);
                self.drain_service(service);
            }
            Step::Broker(input) => {
                let Some(process) = self.processes.get_mut(&ServiceName::Mts) else {
                    return;
                };
                let Body::Mts(broker) = &mut process.body else {
                    return;
                };
                broker.handle(now, input);
                let mut outputs = Vec::new();
                while let Some(output) = broker.poll_output() {
                    outputs.push(output);
                }
                process.turned();
                outputs.into_iter().for_each(|output| self.deliver(output));
            }
            Step::Tell(service, message) => self.tell_service(service, message),
            Step::RunWork(pid, work) => self.run_work(now, pid, work),
            Step::Exit(service, status) => self.exited(service, status),
        }
    }

    fn exited(&mut self, service: ServiceName, status: ExitStatus) {
        let Some(process) = self.processes.remove(&service) else {
            return;
        };
        self.stopped.remove(&service);
        let pid = process.pid;
        self.supervise(SupervisorInput::Exited {
            service,
            pid,
            status,
        });
        match service {
            ServiceName::Mts => {
                self.bulk_connected = false;
                self.outputs.push_back(NodeOutput::BulkListens(false));
                for other in self.processes.keys() {
                    self.steps
                        .push_back(Step::Service(*other, ServiceInput::BrokerLost));
                }
            }
            ServiceName::VemMgr => self.outputs.push_back(NodeOutput::VemsListen(false)),
            ServiceName::Vshd => self.outputs.push_back(NodeOutput::ShellsGone),
            ServiceName::Pss | ServiceName::PolicyEngine | ServiceName::Cfgmgr => {}
        }
        let client = ClientId(u64::from(pid));
        self.steps
            .push_back(Step::Broker(BrokerInput::ClientGone { client }));
    }

    /// What its services were last told to do.
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.posture
            .as_ref()
            .map_or(Activity::Idle, |posture| posture.activity)
    }
}
