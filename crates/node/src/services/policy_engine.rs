//! `policy_engine`: decides first packets. Native: its death fails the node over.
//!
//! It follows the running configuration in `pss` and compiles it, on the standby as on the
//! active, so that a takeover finds it hot. It decides only while the node is active, and stamps
//! what it decides with the epoch of the posture in force.
//!
//! | posture | decisions | connections | `Applied` when |
//! |---|---|---|---|
//! | idle | empty | followed | at once |
//! | standby | empty | followed | policy and connections are loaded |
//! | active | made, under the epoch | noted, stored in batches | the policy is loaded |
//! | quiesce | empty | stored to the end | nothing is left to store, or [`DRAIN_LIMIT`] |
//!
//! Invariants (see [`PolicyEngine::check`]):
//! - an answer is empty or bears the epoch of an active posture;
//! - a policy that does not compile leaves the one before in force (`cfgmgr` compiles before it
//!   commits, so only a damaged store brings one);
//! - what is decided does not depend on `pss` or `cfgmgr` being there.

mod flows;

use core::net::Ipv4Addr;
use core::time::Duration;

use model::{
    Direction, Epoch, FlowAttributes, FlowKey, Generation, ModuleNumber, Protocol, ServiceName,
    Time, Verdict,
};
use policy::flow_table::{Connection as Decided, ConnectionKey};
use policy::{Classifier, EventLimiter, MatchStats, lookup_event};
use wire::broker::{Kind, Message, decode_body};
use wire::checkpoint::Acknowledgement;
use wire::service::{
    CONNECTIONS_SHOWN_MAX, Connection, FromPolicyEngine, PolicyLookups, RuleHits, ToPolicyEngine,
    ToVemMgr,
};
use wire::supervision::{Activity, FromService, Posture};
use wire::vem::{Decision, DecisionRequest, FlowEvent, FlowReport};

use super::configuration::{CONFIGURATION, ConfigurationMirror};
use super::outbox::Outbox;
use crate::checkpoint_client::{CheckpointClient, CheckpointEvent};
use crate::service::{Service, ServiceInput, ServiceOutput};
use flows::Flows;

pub use flows::{BATCH_MAX, CONNECTIONS, DIRTY_MAX, FlowLag};

/// How long a switchover waits for the last connections to be stored. What is not is known to
/// its host all the same, and shown again when it reports.
const DRAIN_LIMIT: Duration = Duration::from_millis(20);
/// How long suppressed lookup events are gathered before a line says how many they were.
const SUPPRESSED_DELAY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct PolicyEngine {
    out: Outbox,
    checkpoint: CheckpointClient,
    posture: Option<Posture>,
    applied: bool,
    broker: bool,
    mirror: ConfigurationMirror,
    classifier: Option<Classifier>,
    stats: MatchStats,
    limiter: EventLimiter,
    suppressed_at: Option<Time>,
    flows: Flows,
    drain_until: Option<Time>,
}

impl PolicyEngine {
    /// A `policy_engine` started at `now`.
    #[must_use]
    pub fn new(now: Time) -> Self {
        let mut checkpoint = CheckpointClient::new(ServiceName::PolicyEngine, now);
        checkpoint.watch(now, CONFIGURATION);
        checkpoint.watch(now, CONNECTIONS);
        Self {
            out: Outbox::new(ServiceName::PolicyEngine, now),
            checkpoint,
            posture: None,
            applied: true,
            broker: false,
            mirror: ConfigurationMirror::default(),
            classifier: None,
            stats: MatchStats::default(),
            limiter: EventLimiter::new(now),
            suppressed_at: None,
            flows: Flows::new(),
            drain_until: None,
        }
    }

    /// How far the stored connections are behind.
    #[must_use]
    pub fn lag(&self) -> FlowLag {
        self.flows.lag()
    }

    /// Number of open connections known.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.flows.table().len()
    }

    /// Panics if an invariant does not hold.
    pub fn check(&self) {
        self.checkpoint.check();
        self.flows.check();
        self.stats.check();
    }

    fn activity(&self) -> Activity {
        self.posture
            .as_ref()
            .map_or(Activity::Idle, |posture| posture.activity)
    }

    fn acting(&self) -> Option<Epoch> {
        match self.activity() {
            Activity::Active(epoch) => Some(epoch),
            Activity::Idle | Activity::Standby | Activity::Quiesce(_) => None,
        }
    }

    /// Whether what is stored of connections is this node's doing.
    fn owns_flows(&self) -> bool {
        matches!(self.activity(), Activity::Active(_) | Activity::Quiesce(_))
    }

    fn posture(&mut self, now: Time, posture: Posture) {
        let before = self.activity();
        let after = posture.activity;
        self.posture = Some(posture);
        self.applied = false;
        self.drain_until = None;
        match after {
            Activity::Active(epoch) => {
                self.flows.begin_epoch(epoch);
                if before != after {
                    self.tell_generation();
                }
            }
            Activity::Quiesce(_) => self.drain_until = Some(now + DRAIN_LIMIT),
            Activity::Idle | Activity::Standby => self.flows.end_epoch(),
        }
    }

    fn apply_posture(&mut self, now: Time) {
        let Some(posture) = self.posture.as_ref().filter(|_| !self.applied) else {
            return;
        };
        let ready = match posture.activity {
            Activity::Idle => true,
            Activity::Standby => {
                self.classifier.is_some() && self.checkpoint.is_loaded(CONNECTIONS)
            }
            Activity::Active(_) => self.classifier.is_some(),
            Activity::Quiesce(_) => {
                self.flows.lag().pending == 0 || self.drain_until.is_none_or(|at| now >= at)
            }
        };
        if ready {
            self.applied = true;
            self.drain_until = None;
            self.out.supervise(FromService::Applied {
                sequence: posture.sequence,
            });
        }
    }

    fn tell_generation(&mut self) {
        if let Some(classifier) = &self.classifier {
            let generation = FromPolicyEngine::Generation(classifier.generation());
            self.out
                .notify(ServiceName::VemMgr, &ToVemMgr::PolicyEngine(generation));
        }
    }

    fn message(&mut self, now: Time, message: Message) {
        let from = message.source;
        let Ok(body) = decode_body::<ToPolicyEngine>(&message.body) else {
            return;
        };
        match (message.kind, body) {
            (Kind::Request, ToPolicyEngine::Decide { module, requests }) => {
                let answer = self.decide(now, module, requests);
                self.out.respond(&message, &answer);
            }
            (Kind::Notification, ToPolicyEngine::Report { module, flows }) => {
                if self.owns_flows() && from == ServiceName::VemMgr.sap() {
                    self.report(now, module, flows);
                }
            }
            (Kind::Request, ToPolicyEngine::Stats) => {
                let stats = self.show_stats();
                self.out.respond(&message, &stats);
            }
            (Kind::Request, ToPolicyEngine::Connections) => {
                let connections = self.show_connections(now);
                self.out.respond(&message, &connections);
            }
            (Kind::Request, ToPolicyEngine::Canary { sequence }) => {
                if let Some(classifier) = &self.classifier {
                    // Through the classifier like any packet; not counted as one.
                    let _ = classifier.classify(&canary());
                    self.out
                        .respond(&message, &FromPolicyEngine::Canary { sequence });
                }
                self.tell_generation();
            }
            (Kind::Request | Kind::Notification | Kind::Response | Kind::Undeliverable, _) => {}
        }
    }

    fn decide(
        &mut self,
        now: Time,
        module: ModuleNumber,
        requests: Vec<DecisionRequest>,
    ) -> FromPolicyEngine {
        let (Some(epoch), Some(classifier)) = (self.acting(), &self.classifier) else {
            let epoch = self.acting().unwrap_or_default();
            return FromPolicyEngine::Decided {
                epoch,
                decisions: Vec::new(),
            };
        };
        let generation = classifier.generation();
        let mut decisions = Vec::with_capacity(requests.len());
        for DecisionRequest {
            request,
            port,
            attributes,
            ..
        } in requests
        {
            let decision = classifier.classify(&attributes);
            self.stats.record(&decision);
            if decision.log && self.limiter.admit(now) {
                let text = lookup_event(&decision, &attributes);
                let mnemonic = policy::event::LOOKUP_MNEMONIC;
                let severity = policy::event::LOOKUP_SEVERITY;
                self.out
                    .log(policy::event::FACILITY, severity, mnemonic, text);
            } else if decision.log {
                self.suppressed_at.get_or_insert(now + SUPPRESSED_DELAY);
            }
            let verdict = decision.verdict;
            let key = ConnectionKey {
                module,
                port,
                flow: attributes.flow,
            };
            if verdict == Verdict::Permit {
                let connection = Decided {
                    direction: attributes.direction,
                    verdict,
                    policy: decision.policy.clone(),
                    rule: decision.rule.cloned(),
                    generation,
                };
                self.flows.permit(now, key, connection);
            } else {
                self.flows.close(now, &key);
            }
            decisions.push(Decision {
                request,
                verdict,
                generation,
            });
        }
        FromPolicyEngine::Decided { epoch, decisions }
    }

    fn report(&mut self, now: Time, module: ModuleNumber, flows: Vec<FlowReport>) {
        for FlowReport {
            port, flow, event, ..
        } in flows
        {
            let key = ConnectionKey { module, port, flow };
            match event {
                FlowEvent::Installed => self.flows.touch(now, &key),
                FlowEvent::Closed | FlowEvent::Idle => self.flows.close(now, &key),
            }
        }
    }

    fn show_stats(&self) -> FromPolicyEngine {
        let lines = self
            .classifier
            .as_ref()
            .map(|classifier| self.stats.lines(classifier));
        let policies = lines
            .unwrap_or_default()
            .into_iter()
            .map(|lines| PolicyLookups {
                policy: lines.policy,
                lookups: lines.lookups,
                rules: lines
                    .rules
                    .into_iter()
                    .map(|rule| RuleHits {
                        rule: rule.rule,
                        hits: rule.hits,
                        actions: rule.actions,
                    })
                    .collect(),
            })
            .collect();
        FromPolicyEngine::Stats {
            policies,
            log_suppressed: self.limiter.suppressed_total(),
        }
    }

    fn show_connections(&self, now: Time) -> FromPolicyEngine {
        let table = self.flows.table();
        let connections = table
            .connections()
            .take(CONNECTIONS_SHOWN_MAX)
            .map(|shown| Connection {
                module: shown.key.module,
                port: shown.key.port.clone(),
                direction: shown.connection.direction,
                flow: shown.key.flow,
                verdict: shown.connection.verdict,
                rule: shown
                    .connection
                    .rule
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                generation: shown.connection.generation,
                age_s: now.since(shown.decided).as_secs(),
            })
            .collect();
        let (total, capacity) = (table.len() as u64, table.capacity() as u64);
        FromPolicyEngine::Connections {
            connections,
            total,
            capacity,
        }
    }

    fn checkpoint_events(&mut self, now: Time) {
        let active = self.owns_flows();
        let mut configured = false;
        while let Some(event) = self.checkpoint.poll_event() {
            match event {
                CheckpointEvent::Reset(CONFIGURATION) => {
                    self.mirror = ConfigurationMirror::default();
                }
                CheckpointEvent::Operations(CONFIGURATION, operations) => {
                    self.mirror.apply(&operations);
                    configured = true;
                }
                CheckpointEvent::Loaded(CONFIGURATION) => configured = true,
                CheckpointEvent::Reset(_) => self.flows.reset(),
                CheckpointEvent::Operations(_, operations) => {
                    self.flows.operations(now, operations, active);
                }
                CheckpointEvent::Loaded(_) => self.flows.loaded(now, active),
                CheckpointEvent::Committed { .. } => self.flows.committed(),
                CheckpointEvent::CommitRefused { .. } | CheckpointEvent::CommitUnknown { .. } => {
                    self.flows.refused(now);
                }
            }
        }
        if configured && self.checkpoint.is_loaded(CONFIGURATION) {
            self.compile();
        }
    }

    fn compile(&mut self) {
        let generation = self.mirror.generation;
        let current = self.classifier.as_ref().map(Classifier::generation);
        if current == Some(generation) {
            return;
        }
        match compile(&self.mirror.running, generation) {
            Ok(classifier) => {
                self.classifier = Some(classifier);
                if self.acting().is_some() && current.is_some() {
                    let text = "Commit operation SUCCESSFUL".to_owned();
                    self.out
                        .log(policy::event::FACILITY, 5, "POLICY_COMMIT_EVENT", text);
                }
                self.tell_generation();
            }
            Err(reason) => {
                let text = format!("Commit operation FAILED: {reason}");
                self.out
                    .log(policy::event::FACILITY, 2, "POLICY_COMMIT_EVENT", text);
            }
        }
    }

    /// Stores what has changed, if it is due.
    fn store(&mut self, now: Time) {
        if !self.owns_flows() {
            return;
        }
        if self.flows.take_overflow() {
            self.checkpoint.watch(now, CONNECTIONS);
        }
        if self.checkpoint.commit_in_flight() || !self.checkpoint.is_loaded(CONNECTIONS) {
            return;
        }
        let operations = self.flows.batch(now, self.drain_until.is_some());
        if !operations.is_empty()
            && self
                .checkpoint
                .commit(now, operations, Acknowledgement::Volatile)
                .is_err()
        {
            self.flows.refused(now);
        }
    }

    fn tick(&mut self, now: Time) {
        self.checkpoint.tick(now);
        if self.owns_flows() {
            self.flows.expire(now);
        }
        if self.suppressed_at.is_some_and(|at| at <= now) {
            self.suppressed_at = None;
            let count = self.limiter.take_suppressed();
            let text = format!("{count} lookup events were not logged: too many");
            self.out
                .log(policy::event::FACILITY, 5, "POLICY_LOOKUP_SUPPRESSED", text);
        }
    }
}

/// Text to classifier.
///
/// # Errors
/// In words, when the text is not a valid configuration.
fn compile(running: &str, generation: Generation) -> Result<Classifier, String> {
    let configuration = super::configuration::parse(running)?;
    policy::compile(&configuration.policy, generation).map_err(|error| error.to_string())
}

/// A packet that nobody sent.
fn canary() -> FlowAttributes {
    FlowAttributes {
        profile: String::new(),
        direction: Direction::Ingress,
        flow: FlowKey {
            src_ip: Ipv4Addr::UNSPECIFIED,
            dst_ip: Ipv4Addr::UNSPECIFIED,
            src_port: 0,
            dst_port: 0,
            protocol: Protocol::TCP,
        },
        ethertype: 0x0800,
    }
}

impl Service for PolicyEngine {
    fn name(&self) -> ServiceName {
        ServiceName::PolicyEngine
    }

    fn handle(&mut self, now: Time, input: ServiceInput) {
        match input {
            ServiceInput::Start | ServiceInput::Tick => self.tick(now),
            ServiceInput::Posture(posture) => self.posture(now, posture),
            ServiceInput::BrokerConnected => {
                self.broker = true;
                self.checkpoint.broker_connected(now);
                self.tell_generation();
            }
            ServiceInput::BrokerLost => {
                self.broker = false;
                self.checkpoint.broker_lost();
            }
            ServiceInput::Message(message) => {
                if let Some(message) = self.checkpoint.message(now, message)
                    && !message.from_peer
                {
                    self.message(now, message);
                }
                self.checkpoint_events(now);
            }
            ServiceInput::Answer { .. }
            | ServiceInput::Console(_)
            | ServiceInput::AskVotes { .. }
            | ServiceInput::Archive { .. }
            | ServiceInput::Resync { .. }
            | ServiceInput::PeerBroker(_)
            | ServiceInput::Shell { .. }
            | ServiceInput::Vem { .. }
            | ServiceInput::Trust(_)
            | ServiceInput::Stop
            | ServiceInput::WallClock { .. } => {}
        }
        self.store(now);
        self.apply_posture(now);
        while let Some(message) = self.checkpoint.poll_message() {
            self.out.push(ServiceOutput::Send(message));
        }
    }

    fn poll_output(&mut self) -> Option<ServiceOutput> {
        self.out.pop()
    }

    fn next_deadline(&self) -> Option<Time> {
        let may_store = self.owns_flows()
            && self.checkpoint.is_loaded(CONNECTIONS)
            && !self.checkpoint.commit_in_flight();
        [
            self.checkpoint.next_deadline(),
            self.suppressed_at,
            self.drain_until,
            self.flows.batch_at().filter(|_| may_store),
            self.flows
                .table()
                .next_deadline()
                .filter(|_| self.owns_flows()),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

#[cfg(test)]
mod tests;
