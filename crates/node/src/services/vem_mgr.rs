//! `vem_mgr`: speaks with the host agents.
//!
//! On the active it claims every VEM at once, relays their questions to `policy_engine` and the
//! answers back, and tells them of new policies. On the standby it accepts and greets them, so
//! that a takeover finds every connection standing. It reports what they know of epochs.
//!
//! Invariants (see [`VemMgr::check`], and those of its parts):
//! - nothing but `Welcome`, `Probe` and `Vote` leaves while the node is not active, except answers
//!   that were in flight, and the release, while it quiesces;
//! - every claim, answer and generation bears the epoch of the posture in force;
//! - a VEM is claimed once for each epoch, after its `Welcome`.
//!
//! | posture | claims | questions | `Applied` when |
//! |---|---|---|---|
//! | idle | – | dropped | at once |
//! | standby | – | dropped | the inventory is loaded |
//! | active | all, and newcomers | relayed | the claims are out |
//! | quiesce | – | dropped | answers in flight and the release are out |
//!
mod asking;
mod claims;
mod connections;
mod inventory;
mod relay;
mod trusting;
mod votes;

use core::time::Duration;

use model::{Epoch, Generation, NodeKey, ServiceName, Time};
use wire::broker::{Kind, Message, decode_body};
use wire::service::{FromPolicyEngine, FromVemMgr, Module, ToPolicyEngine, ToVemMgr};
use wire::supervision::{Activity, FromService, Posture, Tally, VemReport};
use wire::vem::{Fenced, FromVem, ToVem};

use crate::checkpoint_client::{CheckpointClient, CheckpointEvent};
use crate::service::{Service, ServiceInput, ServiceOutput, VemConnection, VemEvent};
use crate::services::outbox::Outbox;
use asking::Asking;
use connections::{Connections, Greeting};
use inventory::Inventory;
use trusting::Removal;

pub use asking::BATCHES_MAX;
pub use connections::CONNECTIONS_MAX;
pub use inventory::{INVENTORY, MODULES_MAX, Registered};

/// How often a canary passes the decision path of the active: three within the default hold time.
const CANARY_INTERVAL: Duration = Duration::from_millis(100);
/// How often `policy_engine` is asked for its generation while none is known.
const GENERATION_INTERVAL: Duration = Duration::from_millis(20);
/// A VEM hears its active at least this often; it counts it as unheard after 300 ms.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// How long a switchover waits for answers in flight; they take below a millisecond, and a VEM
/// whose answer is lost asks the new active.
const DRAIN_LIMIT: Duration = Duration::from_millis(20);
/// Pause after a refused registration.
const REGISTER_RETRY: Duration = Duration::from_millis(200);
/// Longest host name kept, in bytes: Linux allows 64 (`HOST_NAME_MAX`). A longer one is cut.
const HOST_MAX_BYTES: usize = 64;
/// Refused connections are logged at most this often.
const REFUSED_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Lost flow reports are logged at most this often.
const LOST_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct VemMgr {
    out: Outbox,
    checkpoint: CheckpointClient,
    posture: Option<Posture>,
    applied: bool,
    broker: bool,
    generation: Option<Generation>,
    connections: Connections,
    inventory: Inventory,
    asking: Asking,
    registering: Option<Vec<wire::checkpoint::Operation>>,
    register_at: Time,
    reported: Option<VemReport>,
    fenced: Fenced,
    clone_seen: bool,
    canary_at: Time,
    canaries: u64,
    probe_at: Time,
    probes: u64,
    /// The probe sent when the newest posture `Idle` came, and that posture.
    idled: (u64, u64),
    asked: u64,
    tally: Tally,
    /// What host agents are to trust, and how far they were last said to be with it.
    gateways: Vec<NodeKey>,
    gateways_reported: Option<(Vec<NodeKey>, u16)>,
    removals: Vec<Removal>,
    drain_until: Option<Time>,
    lost_reports: u64,
    lost_log_at: Time,
    refused: u64,
    refused_log_at: Time,
}

impl VemMgr {
    /// A `vem_mgr` started at `now`.
    #[must_use]
    pub fn new(now: Time) -> Self {
        let mut checkpoint = CheckpointClient::new(ServiceName::VemMgr, now);
        checkpoint.watch(now, INVENTORY);
        Self {
            out: Outbox::new(ServiceName::VemMgr, now),
            checkpoint,
            posture: None,
            applied: true,
            broker: false,
            generation: None,
            connections: Connections::default(),
            inventory: Inventory::default(),
            asking: Asking::default(),
            registering: None,
            register_at: now,
            reported: None,
            fenced: Fenced::default(),
            clone_seen: false,
            canary_at: now,
            canaries: 0,
            probe_at: now,
            probes: 0,
            idled: (0, 0),
            asked: 0,
            tally: Tally::default(),
            gateways: Vec::new(),
            gateways_reported: None,
            removals: Vec::new(),
            drain_until: None,
            lost_reports: 0,
            lost_log_at: now,
            refused: 0,
            refused_log_at: now,
        }
    }

    /// Panics if an invariant does not hold.
    pub fn check(&self) {
        self.connections.check();
        self.inventory.check();
        self.asking.check();
        self.checkpoint.check();
        if self.activity() == Activity::Idle || self.activity() == Activity::Standby {
            assert!(
                self.asking.is_drained(),
                "a question is in flight on a standby"
            );
        }
    }

    fn activity(&self) -> Activity {
        self.posture
            .as_ref()
            .map_or(Activity::Idle, |posture| posture.activity)
    }

    /// The epoch to act under, if this node is active.
    fn acting(&self) -> Option<Epoch> {
        match self.activity() {
            Activity::Active(epoch) => Some(epoch),
            Activity::Idle | Activity::Standby | Activity::Quiesce(_) => None,
        }
    }

    fn send(&mut self, now: Time, connection: VemConnection, message: ToVem) {
        if let Some(entry) = self.connections.entry(connection) {
            entry.last_sent = now;
            self.out.push(ServiceOutput::Vem {
                connection,
                message,
            });
        }
    }

    fn report(&mut self) {
        let (probe, posture) = self.idled;
        if self.connections.all_answered(probe) {
            self.asked = posture;
        }
        let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let report = VemReport {
            registered: count(self.inventory.len()),
            connected: count(self.voters().count()),
            highest_epoch: self.fenced.obeyed,
            promised_epoch: self.fenced.promised,
            obeying: count(self.connections.obeying(self.acting())),
            clone_seen: self.clone_seen,
            tally: self.tally(),
            asked: self.asked,
        };
        if self.reported != Some(report) {
            self.reported = Some(report);
            self.out.supervise(FromService::Vems(report));
        }
    }

    /// Logged, but no flood of them: whoever knocks decides how often.
    fn refused(&mut self, now: Time, address: &str, reason: &str) {
        self.refused += 1;
        if now >= self.refused_log_at {
            self.refused_log_at = now + REFUSED_LOG_INTERVAL;
            let count = core::mem::take(&mut self.refused);
            let text = format!(
                "A host agent at {address} was refused: {reason} ({count} refused since the last \
                 line)"
            );
            self.out.log("VEM_MGR", 4, "VEM_REFUSED", text);
        }
    }

    fn learn(&mut self, fenced: Fenced) {
        let known = self.fenced.max(fenced);
        if known != self.fenced {
            self.fenced = known;
            self.report();
        }
    }

    fn vem(&mut self, now: Time, id: VemConnection, event: VemEvent) {
        match event {
            VemEvent::Connected { key, address } => {
                if let Some(close) = self.connections.open(id, key, address) {
                    self.asking.forget(close);
                    self.out.push(ServiceOutput::CloseVem(close));
                }
            }
            VemEvent::Message(message) => self.vem_message(now, id, message),
            VemEvent::Refused { address, reason } => self.refused(now, &address, &reason),
            VemEvent::Closed => {
                self.asking.forget(id);
                if let Some(connection) = self.connections.close(id) {
                    if let (Some(module), true) = (connection.module, self.acting().is_some()) {
                        let text = format!("Module {} is offline", module.0);
                        self.out.log("VEM_MGR", 2, "MOD_OFFLINE", text);
                    }
                    self.settle(now);
                }
            }
        }
    }

    fn vem_message(&mut self, now: Time, id: VemConnection, message: FromVem) {
        let Some(connection) = self.connections.entry(id) else {
            return;
        };
        match message {
            FromVem::Hello {
                mut host,
                fenced,
                ports,
            } => {
                let cut = host.floor_char_boundary(HOST_MAX_BYTES);
                host.truncate(cut);
                let ports = u16::try_from(ports.len()).unwrap_or(u16::MAX);
                connection.greeting = Some(Greeting { host, ports });
                self.learn(fenced);
                self.settle(now);
            }
            FromVem::ClaimAccepted { epoch } => {
                connection.accepted = Some(epoch);
                let online = connection.claimed == Some(epoch);
                if let (Some(module), Some(greeting), true) =
                    (connection.module, &connection.greeting, online)
                {
                    let text = format!("Host {} is module {}, online", greeting.host, module.0);
                    self.out.log("VEM_MGR", 5, "MOD_ONLINE", text);
                }
                let obeyed = epoch;
                self.learn(Fenced {
                    obeyed,
                    ..Fenced::default()
                });
                self.tell_gateways(now);
            }
            FromVem::ClaimRefused {
                epoch: _,
                fenced,
                clone,
            } => {
                connection.accepted = None;
                if clone && !self.clone_seen {
                    self.clone_seen = true;
                    self.report();
                }
                self.learn(fenced);
            }
            FromVem::Decide(requests) => self.decide(now, id, requests),
            FromVem::Report { flows, lost } => self.flows(now, id, flows, lost),
            FromVem::Alive {
                fenced, sequence, ..
            } => {
                connection.probed = sequence;
                self.learn(fenced);
                self.report();
            }
            FromVem::Raised(fenced) => self.learn(fenced),
            FromVem::GatewaysPinned { keys } => self.gateways_pinned(id, keys),
            FromVem::Inquire { question } => self.inquired(now, id, question),
            FromVem::Ballot {
                vote,
                candidate,
                ballot,
                fenced,
            } => {
                self.count(id, (vote, candidate), ballot);
                self.learn(fenced);
            }
        }
    }

    fn message(&mut self, now: Time, message: Message) {
        if message.from_peer {
            return;
        }
        match message.kind {
            Kind::Notification => {
                if message.source == ServiceName::PolicyEngine.sap()
                    && let Ok(ToVemMgr::PolicyEngine(FromPolicyEngine::Generation(generation))) =
                        decode_body(&message.body)
                {
                    self.generation(now, generation);
                }
            }
            Kind::Request => self.request(now, &message),
            Kind::Response => match decode_body(&message.body) {
                Ok(FromPolicyEngine::Decided { epoch, decisions }) => {
                    self.decided(now, message.correlation, epoch, decisions);
                }
                // All the way: from here through the broker and the engine, and back.
                Ok(FromPolicyEngine::Canary { .. }) => self.out.supervise(FromService::Canary),
                Ok(
                    FromPolicyEngine::Generation(_)
                    | FromPolicyEngine::Stats { .. }
                    | FromPolicyEngine::Connections { .. },
                )
                | Err(_) => {}
            },
            Kind::Undeliverable => {
                if let Some(batch) = self.asking.answered(message.correlation) {
                    self.asking.wait(now, batch);
                }
            }
        }
    }

    fn request(&mut self, now: Time, message: &Message) {
        let answer = match decode_body(&message.body) {
            Ok(ToVemMgr::Modules) => FromVemMgr::Modules(self.modules()),
            Ok(ToVemMgr::Restart { module }) => self.restart(now, message, module),
            Ok(ToVemMgr::Remove { module }) => match self.remove(message, module) {
                Some(answer) => answer,
                None => return,
            },
            Ok(ToVemMgr::PolicyEngine(_)) | Err(_) => return,
        };
        self.out.respond(message, &answer);
    }

    /// `reload module`: the agent of that host restarts; what it has decided stays in its kernel.
    fn restart(&mut self, now: Time, message: &Message, module: model::ModuleNumber) -> FromVemMgr {
        let refused = |why: &str| FromVemMgr::Refused(format!("Module {} {why}", module.0));
        if message.source != ServiceName::Vshd.sap() {
            return refused("is restarted from the shell only");
        }
        let Some(epoch) = self.acting() else {
            return refused("obeys the other supervisor");
        };
        let obeys = |accepted: Option<Epoch>| accepted == Some(epoch);
        match self.connections.with_module(module) {
            Some((id, connection)) if obeys(connection.accepted) => {
                self.send(now, id, ToVem::Restart { epoch });
                let text = format!(
                    "Manual restart of Module {} from Command Line Interface",
                    module.0
                );
                self.out.log("PLATFORM", 2, "PFM_MODULE_RESET", text);
                FromVemMgr::Restarting
            }
            Some(_) | None => refused("is offline"),
        }
    }

    fn modules(&self) -> Vec<Module> {
        let row = |(module, registered): (model::ModuleNumber, &Registered)| {
            let connection = self.connections.of_module(module);
            let greeting = connection.and_then(|connection| connection.greeting.as_ref());
            Module {
                module,
                host: greeting
                    .map_or(&registered.host, |greeting| &greeting.host)
                    .clone(),
                ports: greeting.map_or(0, |greeting| greeting.ports),
                status: if connection.is_some() { "ok" } else { "absent" }.to_owned(),
                address: connection.map(|c| c.address.clone()).unwrap_or_default(),
                fingerprint: registered.key.to_string(),
            }
        };
        self.inventory.iter().map(row).collect()
    }

    fn checkpoint_events(&mut self, now: Time) {
        let mut learned = false;
        while let Some(event) = self.checkpoint.poll_event() {
            learned = true;
            match event {
                CheckpointEvent::Reset(_) => self.inventory.clear(),
                CheckpointEvent::Operations(_, operations) => self.inventory.apply(&operations),
                CheckpointEvent::Loaded(_) => {}
                CheckpointEvent::Committed { .. } => {
                    let operations = self.registering.take().unwrap_or_default();
                    self.inventory.apply(&operations);
                }
                CheckpointEvent::CommitRefused { reason, .. }
                | CheckpointEvent::CommitUnknown { reason, .. } => {
                    self.registering = None;
                    self.register_at = now + REGISTER_RETRY;
                    let text = format!("A host agent could not be registered: {reason}");
                    self.out.log("VEM_MGR", 3, "REGISTER_FAILED", text);
                }
            }
        }
        if learned {
            self.settle(now);
        }
    }

    fn probe_all(&mut self, now: Time, idle: Duration) {
        self.probes += 1;
        let sequence = self.probes;
        let idle: Vec<VemConnection> = self
            .connections
            .iter()
            .filter(|(_, c)| c.greeting.is_some() && now.since(c.last_sent) >= idle)
            .map(|(id, _)| id)
            .collect();
        for connection in idle {
            self.send(now, connection, ToVem::Probe { sequence });
        }
    }

    fn tick(&mut self, now: Time) {
        self.checkpoint.tick(now);
        self.ask_again(now, false);
        if self.acting().is_some() && now >= self.probe_at {
            self.probe_at = now + PROBE_INTERVAL;
            self.probe_all(now, PROBE_INTERVAL / 2);
        }
        if self.wants_canary() && now >= self.canary_at {
            self.canaries += 1;
            let canary = ToPolicyEngine::Canary {
                sequence: self.canaries,
            };
            self.out.request(ServiceName::PolicyEngine, &canary);
            let known = self.generation.is_some();
            self.canary_at = now
                + if known {
                    CANARY_INTERVAL
                } else {
                    GENERATION_INTERVAL
                };
        }
        if self.drain_until.is_some() {
            self.apply_posture(now);
        }
        self.forget_removed(now);
        self.register(now);
    }

    fn wants_canary(&self) -> bool {
        self.broker && (self.acting().is_some() || self.generation.is_none())
    }

    fn flush_checkpoint(&mut self) {
        while let Some(message) = self.checkpoint.poll_message() {
            self.out.push(ServiceOutput::Send(message));
        }
    }
}

impl Service for VemMgr {
    fn name(&self) -> ServiceName {
        ServiceName::VemMgr
    }

    fn handle(&mut self, now: Time, input: ServiceInput) {
        match input {
            ServiceInput::Start | ServiceInput::Tick => self.tick(now),
            ServiceInput::Posture(posture) => {
                self.posture(now, posture);
                self.settle(now);
            }
            ServiceInput::Trust(trust) => self.trust(now, trust),
            ServiceInput::BrokerConnected => {
                self.broker = true;
                self.checkpoint.broker_connected(now);
                self.ask_again(now, true);
                self.canary_at = now;
            }
            ServiceInput::BrokerLost => {
                self.broker = false;
                self.checkpoint.broker_lost();
                self.asking.all_wait(now);
                self.apply_posture(now);
            }
            ServiceInput::Message(message) => {
                if let Some(message) = self.checkpoint.message(now, message) {
                    self.message(now, message);
                }
                self.checkpoint_events(now);
            }
            ServiceInput::Vem { connection, event } => self.vem(now, connection, event),
            ServiceInput::AskVotes {
                vote,
                candidate,
                within_ms,
            } => self.ask_votes(now, vote, candidate, within_ms),
            ServiceInput::Answer { .. }
            | ServiceInput::Console(_)
            | ServiceInput::PeerBroker(_)
            | ServiceInput::Shell { .. }
            | ServiceInput::Archive { .. }
            | ServiceInput::Resync { .. }
            | ServiceInput::Stop
            | ServiceInput::WallClock { .. } => {}
        }
        self.flush_checkpoint();
    }

    fn poll_output(&mut self) -> Option<ServiceOutput> {
        self.out.pop()
    }

    fn next_deadline(&self) -> Option<Time> {
        let acting = self.acting().is_some();
        let asking = self
            .asking
            .next_deadline()
            .filter(|_| self.broker && acting);
        let register = (acting && self.unregistered() && !self.checkpoint.commit_in_flight())
            .then_some(self.register_at)
            .filter(|_| self.checkpoint.is_loaded(INVENTORY) && self.registering.is_none());
        [
            self.checkpoint.next_deadline(),
            asking,
            acting.then_some(self.probe_at),
            self.wants_canary().then_some(self.canary_at),
            self.drain_until,
            register,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

#[cfg(test)]
mod tests;
