//! Two nodes' services with a broker of a few lines between them.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use model::{
    Direction, Epoch, FlowAttributes, FlowKey, Incarnation, NodeKey, PairId, Protocol, Role,
    ServiceName, Slot, Time,
};
use pss::storage::{MemoryDisk, MemoryStorage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::broker::{Destination, Kind, Message, decode_body, encode_body};
use wire::console::{FromShell, ToShell};
use wire::supervision::{
    Activity, Answer, Ask, FromService, Posture, RedundancyStatus, SupervisorStatus,
};
use wire::vem::{DecisionRequest, FromVem, Port, ToVem};

use crate::service::{
    Service, ServiceInput, ServiceOutput, SessionId, ShellEvent, VemConnection, VemEvent,
};
use crate::services::cfgmgr::Cfgmgr;
use crate::services::policy_engine::PolicyEngine;
use crate::services::pss::Pss;
use crate::services::vem_mgr::VemMgr;
use crate::services::vshd::{Facts, Vshd};

const SERVICES: [ServiceName; 4] = [
    ServiceName::PolicyEngine,
    ServiceName::VemMgr,
    ServiceName::Cfgmgr,
    ServiceName::Vshd,
];
/// Far above what any test needs: more is a loop that does not end.
const STEPS_MAX: usize = 200_000;
const SESSION: SessionId = SessionId(1);

pub(super) fn epoch(counter: u64) -> Epoch {
    Epoch {
        counter,
        node: NodeKey([counter as u8; 32]),
        incarnation: Incarnation(counter),
    }
}

pub(super) fn port_80() -> String {
    "web-1".to_owned()
}

pub(super) fn flow_to(port: u16) -> FlowKey {
    FlowKey {
        src_ip: Ipv4Addr::new(10, 0, 0, 1),
        dst_ip: Ipv4Addr::new(10, 0, 0, 2),
        src_port: 40_000,
        dst_port: port,
        protocol: Protocol::TCP,
    }
}

pub(super) fn question(port: u16) -> FromVem {
    FromVem::Decide(vec![DecisionRequest {
        request: u64::from(port),
        port: port_80(),
        attributes: FlowAttributes {
            profile: "web@root".to_owned(),
            direction: Direction::Ingress,
            flow: flow_to(port),
            ethertype: 0x0800,
        },
        revalidation: false,
    }])
}

struct Node {
    services: BTreeMap<ServiceName, Box<dyn Service>>,
    pss: Option<Pss>,
    persistent: MemoryDisk,
    volatile: MemoryDisk,
    posture: Option<Posture>,
    applied: BTreeMap<ServiceName, u64>,
    vem: Vec<ToVem>,
    connection: VemConnection,
    shell: Vec<ToShell>,
    answers: Vec<Message>,
}

pub(super) struct Pair {
    nodes: [Node; 2],
    now: Time,
    queue: VecDeque<(usize, Message)>,
    connected: bool,
    sequence: u64,
    asked: u64,
    pub(super) reloads: usize,
    /// The nodes are told to be no pair.
    pub(super) standalone: bool,
}

fn start(service: ServiceName, now: Time) -> Box<dyn Service> {
    match service {
        ServiceName::PolicyEngine => Box::new(PolicyEngine::new(now)),
        ServiceName::VemMgr => Box::new(VemMgr::new(now)),
        ServiceName::Cfgmgr => Box::new(Cfgmgr::new(now)),
        ServiceName::Vshd => {
            let facts = Facts {
                hostname: "vsg".to_owned(),
                version: "0".to_owned(),
                kernel: "6".to_owned(),
                started: now,
            };
            Box::new(Vshd::new(now, facts))
        }
        ServiceName::Mts | ServiceName::Pss => unreachable!("not a boxed service here"),
    }
}

fn node(now: Time) -> Node {
    let (persistent, volatile) = (MemoryDisk::new(), MemoryDisk::new());
    Node {
        services: SERVICES
            .into_iter()
            .map(|name| (name, start(name, now)))
            .collect(),
        pss: Some(open(&persistent, &volatile)),
        persistent,
        volatile,
        posture: None,
        applied: BTreeMap::new(),
        vem: Vec::new(),
        connection: VemConnection(0),
        shell: Vec::new(),
        answers: Vec::new(),
    }
}

fn open(persistent: &MemoryDisk, volatile: &MemoryDisk) -> Pss {
    let (persistent, volatile) = (
        MemoryStorage::open(persistent),
        MemoryStorage::open(volatile),
    );
    let (pss, _) = Pss::open(Box::new(persistent), Box::new(volatile)).expect("memory opens");
    pss
}

impl Pair {
    pub(super) fn new() -> Self {
        let now = Time::from_ms(1_000);
        let mut pair = Self {
            nodes: [node(now), node(now)],
            now,
            queue: VecDeque::new(),
            connected: true,
            sequence: 0,
            asked: 1 << 40,
            reloads: 0,
            standalone: false,
        };
        for node in 0..2 {
            for service in SERVICES.into_iter().chain([ServiceName::Pss]) {
                pair.begin(node, service);
            }
        }
        pair.run();
        pair
    }

    fn begin(&mut self, node: usize, service: ServiceName) {
        self.input(node, service, ServiceInput::Start);
        self.input(node, service, ServiceInput::BrokerConnected);
        self.input(node, service, ServiceInput::PeerBroker(self.connected));
        if let Some(posture) = self.nodes[node].posture.clone() {
            self.input(node, service, ServiceInput::Posture(posture));
        }
    }

    pub(super) fn kill(&mut self, node: usize, service: ServiceName) {
        self.nodes[node].services.remove(&service);
    }

    /// Ends a service and starts it anew, as the System Manager does.
    pub(super) fn restart(&mut self, node: usize, service: ServiceName) {
        match service {
            ServiceName::Mts => {
                for service in SERVICES.into_iter().chain([ServiceName::Pss]) {
                    self.input(node, service, ServiceInput::BrokerLost);
                }
                self.queue.retain(|(at, _)| *at != node);
                for service in SERVICES.into_iter().chain([ServiceName::Pss]) {
                    self.input(node, service, ServiceInput::BrokerConnected);
                    self.input(node, service, ServiceInput::PeerBroker(self.connected));
                }
                return;
            }
            ServiceName::Pss => {
                let at = &mut self.nodes[node];
                at.pss = None;
                at.pss = Some(open(&at.persistent, &at.volatile));
            }
            _ => {
                let started = start(service, self.now);
                self.nodes[node].services.insert(service, started);
            }
        }
        self.begin(node, service);
    }

    pub(super) fn wall_clock(&mut self, node: usize, unix_s: u64) {
        let input = ServiceInput::WallClock { unix_s };
        self.input(node, ServiceName::Vshd, input);
        self.run();
    }

    /// The System Manager tells `pss` that its node has lost a conflict.
    pub(super) fn archive(&mut self, node: usize) {
        let input = ServiceInput::Archive {
            number: 1,
            rival: epoch(9),
            reason: "both were active".to_owned(),
        };
        self.input(node, ServiceName::Pss, input);
        self.run();
    }

    pub(super) fn posture(&mut self, node: usize, activity: Activity, redundant: bool) {
        self.sequence += 1;
        let posture = Posture {
            sequence: self.sequence,
            activity,
            incarnation: Incarnation(node as u64 + 1),
            slot: if node == 0 { Slot::Sup1 } else { Slot::Sup2 },
            peer_connected: self.connected,
            redundant,
        };
        self.nodes[node].posture = Some(posture.clone());
        for service in SERVICES.into_iter().chain([ServiceName::Pss]) {
            self.input(node, service, ServiceInput::Posture(posture.clone()));
        }
        self.run();
    }

    /// The link between the nodes is gone.
    pub(super) fn cut(&mut self) {
        self.link(false);
    }

    /// It is back.
    pub(super) fn join(&mut self) {
        self.link(true);
    }

    fn link(&mut self, connected: bool) {
        self.connected = connected;
        for node in 0..2 {
            for service in SERVICES.into_iter().chain([ServiceName::Pss]) {
                self.input(node, service, ServiceInput::PeerBroker(connected));
            }
        }
        self.run();
    }

    pub(super) fn unapplied(&self, node: usize) -> Vec<ServiceName> {
        let at = &self.nodes[node];
        let sequence = at.posture.as_ref().map_or(0, |posture| posture.sequence);
        let late = |service: &ServiceName| at.applied.get(service) != Some(&sequence);
        SERVICES
            .into_iter()
            .chain([ServiceName::Pss])
            .filter(late)
            .collect()
    }

    /// Lets time pass until every service has taken its posture.
    pub(super) fn settle(&mut self) {
        let limit = self.now + Duration::from_secs(5);
        while (0..2)
            .any(|node| self.nodes[node].posture.is_some() && !self.unapplied(node).is_empty())
        {
            assert!(
                self.now < limit,
                "unapplied: {:?} {:?}",
                self.unapplied(0),
                self.unapplied(1)
            );
            self.advance(Duration::from_millis(5));
        }
        self.advance(Duration::from_millis(20));
    }

    pub(super) fn connect_vem(&mut self, node: usize) {
        let connection = VemConnection(self.nodes[node].connection.0 + 1);
        self.nodes[node].connection = connection;
        let key = NodeKey([77; 32]);
        let event = VemEvent::Connected {
            key,
            address: "10.1.0.3".to_owned(),
        };
        self.input(
            node,
            ServiceName::VemMgr,
            ServiceInput::Vem { connection, event },
        );
        let ports = vec![Port {
            name: port_80(),
            profile: "web@root".to_owned(),
        }];
        let host = "host-1".to_owned();
        let hello = FromVem::Hello {
            host,
            fenced: wire::vem::Fenced::default(),
            ports,
        };
        let event = VemEvent::Message(hello);
        self.input(
            node,
            ServiceName::VemMgr,
            ServiceInput::Vem { connection, event },
        );
        self.run();
    }

    /// Tells a node's `vem_mgr`; gives all it said to the VEM since the last look.
    pub(super) fn vem(&mut self, node: usize, message: FromVem) -> Vec<ToVem> {
        let connection = self.nodes[node].connection;
        let event = VemEvent::Message(message);
        self.input(
            node,
            ServiceName::VemMgr,
            ServiceInput::Vem { connection, event },
        );
        self.run();
        core::mem::take(&mut self.nodes[node].vem)
    }

    pub(super) fn take_vem(&mut self, node: usize) -> Vec<ToVem> {
        core::mem::take(&mut self.nodes[node].vem)
    }

    pub(super) fn open_shell(&mut self, node: usize) {
        let event = ShellEvent::Opened {
            user: "admin".to_owned(),
        };
        self.input(
            node,
            ServiceName::Vshd,
            ServiceInput::Shell {
                session: SESSION,
                event,
            },
        );
        self.run();
        self.nodes[node].shell.clear();
    }

    /// Sends to a shell session and lets time pass until it has its prompt or its question.
    pub(super) fn shell(&mut self, node: usize, message: FromShell) -> Vec<ToShell> {
        self.enter(node, message);
        self.shell_answer(node)
    }

    /// Sends to a shell session.
    pub(super) fn enter(&mut self, node: usize, message: FromShell) {
        let event = ShellEvent::Message(message);
        self.input(
            node,
            ServiceName::Vshd,
            ServiceInput::Shell {
                session: SESSION,
                event,
            },
        );
        self.run();
    }

    /// Lets time pass until a shell session has its prompt or its question.
    pub(super) fn shell_answer(&mut self, node: usize) -> Vec<ToShell> {
        let limit = self.now + Duration::from_secs(20);
        let over = |output: &ToShell| {
            matches!(
                output,
                ToShell::Prompt { .. } | ToShell::Question(_) | ToShell::Bye
            )
        };
        while !self.nodes[node].shell.iter().any(over) {
            assert!(
                self.now < limit,
                "the shell waits: {:?}",
                self.nodes[node].shell
            );
            self.advance(Duration::from_millis(5));
        }
        core::mem::take(&mut self.nodes[node].shell)
    }

    /// Asks a service as some other service would.
    pub(super) fn ask<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        node: usize,
        service: ServiceName,
        body: &Q,
    ) -> A {
        let number = self.number();
        self.ask_numbered(node, service, body, number)
    }

    /// A number that no request has had.
    pub(super) fn number(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    pub(super) fn ask_numbered<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        node: usize,
        service: ServiceName,
        body: &Q,
        correlation: u64,
    ) -> A {
        self.queue.push_back((
            node,
            Message {
                source: ServiceName::Mts.sap(),
                from_peer: false,
                destination: Destination::Local,
                sap: service.sap(),
                kind: Kind::Request,
                correlation,
                body: encode_body(body),
            },
        ));
        let limit = self.now + Duration::from_secs(20);
        loop {
            self.run();
            let answers = &mut self.nodes[node].answers;
            if let Some(at) = answers.iter().position(|m| m.correlation == correlation) {
                let answer = answers.remove(at);
                return decode_body(&answer.body).expect("an answer of the right kind");
            }
            assert!(self.now < limit, "{service} does not answer");
            self.advance(Duration::from_millis(5));
        }
    }

    pub(super) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        self.run();
        for _ in 0..STEPS_MAX {
            let next = self
                .nodes
                .iter()
                .flat_map(|node| {
                    let pss = node.pss.as_ref().and_then(Service::next_deadline);
                    node.services
                        .values()
                        .filter_map(|s| s.next_deadline())
                        .chain(pss)
                })
                .min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            for node in 0..2 {
                for service in SERVICES.into_iter().chain([ServiceName::Pss]) {
                    let due = self
                        .deadline(node, service)
                        .is_some_and(|at| at <= self.now);
                    if due {
                        self.input(node, service, ServiceInput::Tick);
                    }
                }
            }
            self.run();
        }
        panic!("time does not pass: some deadline stays in the past");
    }

    fn deadline(&self, node: usize, service: ServiceName) -> Option<Time> {
        let at = &self.nodes[node];
        match service {
            ServiceName::Pss => at.pss.as_ref().and_then(Service::next_deadline),
            _ => at
                .services
                .get(&service)
                .and_then(|service| service.next_deadline()),
        }
    }

    /// Delivers messages until none is under way.
    pub(super) fn run(&mut self) {
        for _ in 0..STEPS_MAX {
            let Some((node, message)) = self.queue.pop_front() else {
                return;
            };
            self.deliver(node, message);
        }
        panic!("messages go round for ever");
    }

    /// Delivers at most so many messages; true if none is left.
    pub(super) fn run_some(&mut self, messages: usize) -> bool {
        for _ in 0..messages {
            let Some((node, message)) = self.queue.pop_front() else {
                return true;
            };
            self.deliver(node, message);
        }
        self.queue.is_empty()
    }

    /// A node loses power. What it has sent arrives, or does not.
    pub(super) fn die(&mut self, node: usize, sent_arrives: bool) {
        self.nodes[node].services.clear();
        self.nodes[node].pss = None;
        let peer = 1 - node;
        self.queue
            .retain(|(to, message)| *to == peer && (sent_arrives || !message.from_peer));
        self.run();
        self.queue.clear();
        self.cut();
    }

    /// What a shell was sent since it was last looked at.
    pub(super) fn take_shell(&mut self, node: usize) -> Vec<ToShell> {
        core::mem::take(&mut self.nodes[node].shell)
    }

    /// Sends to a shell session, and delivers nothing.
    pub(super) fn type_line(&mut self, node: usize, line: &str) {
        let event = ShellEvent::Message(FromShell::Line(line.to_owned()));
        let session = SESSION;
        let input = ServiceInput::Shell { session, event };
        self.input(node, ServiceName::Vshd, input);
    }

    fn deliver(&mut self, node: usize, message: Message) {
        if message.sap == ServiceName::Mts.sap() {
            self.nodes[node].answers.push(message);
            return;
        }
        let to = ServiceName::ALL
            .into_iter()
            .find(|service| service.sap() == message.sap);
        let to = to.expect("a known address");
        let there = match to {
            ServiceName::Pss => self.nodes[node].pss.is_some(),
            _ => self.nodes[node].services.contains_key(&to),
        };
        if there {
            self.input(node, to, ServiceInput::Message(message));
        } else if message.kind == Kind::Request {
            self.queue.push_back((
                node,
                Message {
                    source: message.sap,
                    sap: message.source,
                    kind: Kind::Undeliverable,
                    body: Vec::new(),
                    ..message
                },
            ));
        }
    }

    fn input(&mut self, node: usize, service: ServiceName, input: ServiceInput) {
        let now = self.now;
        let mut outputs = Vec::new();
        if service == ServiceName::Pss {
            if let Some(pss) = &mut self.nodes[node].pss {
                pss.handle(now, input);
                loop {
                    outputs.extend(core::iter::from_fn(|| pss.poll_output()));
                    let Some((number, work)) = pss.poll_work() else {
                        break;
                    };
                    let result = work.run().map_err(|error| error.to_string());
                    pss.work_done(now, number, result);
                }
                pss.store().check().expect("the store's invariants");
            }
        } else if let Some(known) = self.nodes[node].services.get_mut(&service) {
            known.handle(now, input);
            outputs.extend(core::iter::from_fn(|| known.poll_output()));
        }
        for output in outputs {
            self.output(node, service, output);
        }
    }

    fn output(&mut self, node: usize, service: ServiceName, output: ServiceOutput) {
        match output {
            ServiceOutput::Send(mut message) => {
                message.source = service.sap();
                message.from_peer = message.destination == Destination::Peer;
                let to = if message.from_peer { 1 - node } else { node };
                if to == node || self.connected {
                    self.queue.push_back((to, message));
                }
            }
            ServiceOutput::Supervision(message) => self.supervised(node, service, message),
            ServiceOutput::Vem {
                connection,
                message,
            } => {
                assert_eq!(connection, self.nodes[node].connection);
                self.nodes[node].vem.push(message);
            }
            ServiceOutput::Shell { message, .. } => self.nodes[node].shell.push(message),
            ServiceOutput::CloseVem(_) | ServiceOutput::CloseShell(_) => {}
        }
    }

    fn supervised(&mut self, node: usize, service: ServiceName, message: FromService) {
        match message {
            FromService::Applied { sequence } => {
                self.nodes[node].applied.insert(service, sequence);
            }
            FromService::Gateways { .. } | FromService::RemoveVem { .. } => {}
            FromService::AskAlone { question } => {
                let answer = Answer::Done;
                self.input(node, service, ServiceInput::Answer { question, answer });
            }
            FromService::Ask { question, ask } => {
                let answer = match ask {
                    Ask::RedundancyStatus => {
                        let mut status = status(node);
                        if self.standalone {
                            status.operational_role = Role::Standalone;
                        }
                        Answer::RedundancyStatus(Box::new(status))
                    }
                    // The posture that follows is the test's matter.
                    Ask::ForceActive if node == 1 => Answer::Done,
                    Ask::Reload | Ask::ReloadStandby => {
                        self.reloads += 1;
                        Answer::Done
                    }
                    Ask::SetPairId(_) => Answer::Noted("The other one has another.".to_owned()),
                    _ => Answer::Refused("not here".to_owned()),
                };
                self.input(node, service, ServiceInput::Answer { question, answer });
            }
            FromService::Handshake { .. }
            | FromService::Heartbeat { .. }
            | FromService::Sync(_)
            | FromService::Vems(_)
            | FromService::Archived { .. }
            | FromService::Traffic(_)
            | FromService::Canary => {}
            FromService::Log(record) => {
                let ordered = record.mnemonic == "PFM_MODULE_RESET";
                assert!(
                    ordered || record.severity > 3,
                    "{}: {}",
                    record.mnemonic,
                    record.text
                );
            }
        }
    }
}

fn status(node: usize) -> RedundancyStatus {
    let active = SupervisorStatus {
        redundancy_state: "Active".to_owned(),
        supervisor_state: "Active".to_owned(),
        internal_state: "Active with HA standby".to_owned(),
    };
    let standby = SupervisorStatus {
        redundancy_state: "Standby".to_owned(),
        supervisor_state: "HA standby".to_owned(),
        internal_state: "HA standby".to_owned(),
    };
    let (this, other) = if node == 0 {
        (active, standby)
    } else {
        (standby, active)
    };
    let role = if node == 0 {
        Role::Primary
    } else {
        Role::Secondary
    };
    RedundancyStatus {
        administrative_role: role,
        operational_role: role,
        mode_ha: true,
        slot: role.slot(),
        this,
        other: Some(other),
        epoch: epoch(1),
        reason: String::new(),
        pair: PairId::try_from(7).ok(),
        conflict_policy: model::ConflictPolicy::default(),
        boot_wait_s: None,
    }
}
