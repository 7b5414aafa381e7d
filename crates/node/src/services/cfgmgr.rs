//! `cfgmgr`: holds the configuration. Candidate → validate → commit → replicate.
//!
//! The running configuration is what `pss` holds under [`CONFIGURATION`]; it is persistent and
//! replicated, so a reload keeps it, unsaved changes included, and they stay unsaved: `startup`
//! changes only by `copy running-config startup-config`.
//!
//! | posture | changes | `Applied` when |
//! |---|---|---|
//! | idle | refused | at once |
//! | standby | refused: they are made on the active | the configuration is loaded |
//! | active | one after the other | at once |
//! | quiesce | refused | none is in flight |
//!
//! Invariants (see [`Cfgmgr::check`]):
//! - a session's lines are committed all or none, and only if the result is valid and compiles;
//! - a change is answered after its commit, with the level that it reached: `replicated` is
//!   waited for while the pair is redundant;
//! - one change at a time: each is applied to the result of the one before;
//! - at most [`QUEUE_MAX`] requests wait, for the change in flight or for the configuration to be
//!   loaded;
//! - a change that is asked for again under the same number is made once and answered again.

use std::collections::VecDeque;

use config::{Candidate, Configuration};
use model::{Epoch, Sap, ServiceName, Time};
use wire::broker::{Kind, Message, decode_body};
use wire::checkpoint::{Acknowledgement, Operation, VALUE_MAX_BYTES};
use wire::service::{FromCfgmgr, ToCfgmgr};
use wire::supervision::{Activity, FromService, Posture};

use super::configuration::{
    CONFIGURATION, ConfigurationMirror, next_generation, parse, put_running, put_startup,
};
use super::outbox::Outbox;
use crate::checkpoint_client::{CheckpointClient, CheckpointEvent};
use crate::service::{Service, ServiceInput, ServiceOutput};

/// Requests that wait: one for each of the operators' sessions. One more is refused.
pub const QUEUE_MAX: usize = 32;

/// Answers to changes that are remembered, because a requester whose broker was lost asks again
/// under the same number: one for each session, and as many before.
const ANSWERED_MAX: usize = 64;

/// Said of a change whose answer was lost with the lead, or with `cfgmgr`.
pub(crate) const OUTCOME_UNKNOWN: &str = "It is not known whether the change was made: see show \
     running-config on the active supervisor";

/// A change that is being committed.
#[derive(Debug)]
struct InFlight {
    request: Message,
    operations: Vec<Operation>,
    save: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Cfgmgr {
    out: Outbox,
    checkpoint: CheckpointClient,
    posture: Option<Posture>,
    applied: bool,
    mirror: ConfigurationMirror,
    /// A text and what it means: that of the running configuration, or of the one in flight.
    parsed: Option<(String, Configuration)>,
    queue: VecDeque<(Message, ToCfgmgr)>,
    in_flight: Option<InFlight>,
    answered: VecDeque<(Sap, u64, FromCfgmgr)>,
}

impl Cfgmgr {
    /// A `cfgmgr` started at `now`.
    #[must_use]
    pub fn new(now: Time) -> Self {
        let mut checkpoint = CheckpointClient::new(ServiceName::Cfgmgr, now);
        checkpoint.watch(now, CONFIGURATION);
        Self {
            out: Outbox::new(ServiceName::Cfgmgr, now),
            checkpoint,
            posture: None,
            applied: true,
            mirror: ConfigurationMirror::default(),
            parsed: None,
            queue: VecDeque::new(),
            in_flight: None,
            answered: VecDeque::new(),
        }
    }

    /// Panics if an invariant does not hold.
    pub fn check(&self) {
        self.checkpoint.check();
        assert!(self.queue.len() <= QUEUE_MAX, "waiting changes");
        assert_eq!(
            self.in_flight.is_some(),
            self.checkpoint.commit_in_flight(),
            "one change"
        );
    }

    fn activity(&self) -> Activity {
        self.posture
            .as_ref()
            .map_or(Activity::Idle, |posture| posture.activity)
    }

    fn message(&mut self, message: Message) {
        if message.kind != Kind::Request || message.from_peer {
            return;
        }
        match decode_body::<ToCfgmgr>(&message.body) {
            Ok(show @ (ToCfgmgr::Running | ToCfgmgr::Startup)) => {
                if self.checkpoint.is_loaded(CONFIGURATION) {
                    self.show(&message, &show);
                } else {
                    // A moment after a start; the requester's patience is the limit.
                    self.wait(message, show);
                }
            }
            Ok(change @ (ToCfgmgr::Apply { .. } | ToCfgmgr::Save)) => self.change(message, change),
            Err(_) => self.refuse(&message, "% Not understood"),
        }
    }

    fn wait(&mut self, message: Message, request: ToCfgmgr) {
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back((message, request));
        } else {
            self.refuse(&message, "% Too many requests are waiting");
        }
    }

    fn change(&mut self, message: Message, change: ToCfgmgr) {
        let (source, number) = (message.source, message.correlation);
        let known = self
            .answered
            .iter()
            .find(|(s, n, _)| (*s, *n) == (source, number));
        if let Some((_, _, answer)) = known {
            let answer = answer.clone();
            self.out.respond(&message, &answer);
            return;
        }
        let same = |other: &Message| (other.source, other.correlation) == (source, number);
        let under_way = self
            .in_flight
            .as_ref()
            .is_some_and(|in_flight| same(&in_flight.request))
            || self.queue.iter().any(|(waiting, _)| same(waiting));
        if under_way {
            return;
        }
        self.wait(message, change);
    }

    /// Answers a change, and remembers it.
    fn answer(&mut self, request: &Message, answer: FromCfgmgr) {
        self.out.respond(request, &answer);
        self.answered
            .push_back((request.source, request.correlation, answer));
        if self.answered.len() > ANSWERED_MAX {
            self.answered.pop_front();
        }
    }

    fn show(&mut self, request: &Message, which: &ToCfgmgr) {
        let text = match which {
            ToCfgmgr::Startup => &self.mirror.startup,
            ToCfgmgr::Running | ToCfgmgr::Apply { .. } | ToCfgmgr::Save => &self.mirror.running,
        };
        let text = if text.is_empty() {
            Configuration::default().text()
        } else {
            text.clone()
        };
        self.out.respond(request, &FromCfgmgr::Text(text));
    }

    fn refuse(&mut self, request: &Message, message: &str) {
        let message = message.to_owned();
        self.out.respond(
            request,
            &FromCfgmgr::Refused {
                line: 0,
                column: 0,
                message,
            },
        );
    }

    /// Works on what waits, until a change is in flight or nothing waits.
    fn work(&mut self, now: Time) {
        while self.in_flight.is_none() {
            let loaded = self.checkpoint.is_loaded(CONFIGURATION);
            let refusal = match self.activity() {
                Activity::Active(_) => None,
                Activity::Quiesce(_) => Some("% A switchover is in progress"),
                Activity::Standby => Some("% Configuration is not allowed on the standby"),
                Activity::Idle => Some("% Configuration is not allowed before a role is taken"),
            };
            let Some((_, request)) = self.queue.front() else {
                return;
            };
            let show = matches!(request, ToCfgmgr::Running | ToCfgmgr::Startup);
            // A moment after a start: what the node does is not known yet, or the configuration.
            let unknown = !show && self.posture.is_none();
            if unknown || (!loaded && (show || refusal.is_none())) {
                return;
            }
            let Some((message, request)) = self.queue.pop_front() else {
                return;
            };
            match (self.activity(), refusal) {
                _ if show => self.show(&message, &request),
                (Activity::Active(epoch), None) => self.begin(now, epoch, message, request),
                (_, Some(why)) => self.refuse(&message, why),
                (_, None) => {}
            }
        }
    }

    fn begin(&mut self, now: Time, epoch: Epoch, request: Message, change: ToCfgmgr) {
        let save = change == ToCfgmgr::Save;
        let operations = match change {
            ToCfgmgr::Apply { lines, .. } => self.candidate(epoch, &lines),
            ToCfgmgr::Save => Ok(self.save()),
            ToCfgmgr::Running | ToCfgmgr::Startup => return,
        };
        match operations {
            Err(refused) => self.answer(&request, refused),
            Ok(operations) if operations.is_empty() => {
                let reached = self.level();
                self.answer(&request, FromCfgmgr::Committed { reached });
            }
            Ok(operations) => {
                let level = self.level();
                match self.checkpoint.commit(now, operations.clone(), level) {
                    Ok(_) => {
                        self.in_flight = Some(InFlight {
                            request,
                            operations,
                            save,
                        })
                    }
                    Err(error) => self.refuse(&request, &format!("% {error}")),
                }
            }
        }
    }

    /// The level that a commit waits for.
    fn level(&self) -> Acknowledgement {
        let redundant = self
            .posture
            .as_ref()
            .is_some_and(|posture| posture.redundant);
        if redundant {
            Acknowledgement::Replicated
        } else {
            Acknowledgement::Local
        }
    }

    /// The running configuration with `lines` applied, as a transaction; empty if they change
    /// nothing.
    fn candidate(&mut self, epoch: Epoch, lines: &[String]) -> Result<Vec<Operation>, FromCfgmgr> {
        let refused = |message: String| FromCfgmgr::Refused {
            line: 0,
            column: 0,
            message,
        };
        let known = self
            .parsed
            .take_if(|(text, _)| *text == self.mirror.running);
        let running = match known {
            Some((_, running)) => running,
            None => parse(&self.mirror.running).map_err(|error| {
                refused(format!("% The stored configuration is damaged: {error}"))
            })?,
        };
        let outcome = self.changed(epoch, lines, &running);
        if !matches!(&outcome, Ok(operations) if !operations.is_empty()) {
            self.parsed = Some((self.mirror.running.clone(), running));
        }
        outcome
    }

    /// `running` with `lines` applied, as a transaction; remembers what its text means.
    fn changed(
        &mut self,
        epoch: Epoch,
        lines: &[String],
        running: &Configuration,
    ) -> Result<Vec<Operation>, FromCfgmgr> {
        let refused = |message: String| FromCfgmgr::Refused {
            line: 0,
            column: 0,
            message,
        };
        let mut candidate = Candidate::new(running);
        candidate
            .apply_lines(lines.iter().map(String::as_str))
            .map_err(line_refused)?;
        let changed = candidate.commit().map_err(line_refused)?;
        if changed == *running {
            return Ok(Vec::new());
        }
        // A new number makes every host ask again for its flows: only a new policy is worth it.
        let current = self.mirror.generation;
        let same_policy = changed.policy == running.policy;
        let generation = if same_policy {
            current
        } else {
            next_generation(current, epoch)
        };
        policy::compile(&changed.policy, generation)
            .map_err(|error| refused(format!("% {error}")))?;
        let text = changed.text();
        if text.len() > VALUE_MAX_BYTES {
            return Err(refused(format!(
                "% The configuration would have {} bytes, {VALUE_MAX_BYTES} are allowed",
                text.len()
            )));
        }
        let operations = put_running(&text, generation);
        self.parsed = Some((text, changed));
        Ok(operations)
    }

    fn save(&self) -> Vec<Operation> {
        let running = if self.mirror.running.is_empty() {
            Configuration::default().text()
        } else {
            self.mirror.running.clone()
        };
        if running == self.mirror.startup {
            Vec::new()
        } else {
            put_startup(&running)
        }
    }

    fn checkpoint_events(&mut self) {
        while let Some(event) = self.checkpoint.poll_event() {
            match event {
                CheckpointEvent::Reset(_) => {
                    self.mirror = ConfigurationMirror::default();
                }
                CheckpointEvent::Operations(_, operations) => self.mirror.apply(&operations),
                CheckpointEvent::Loaded(_) => {}
                CheckpointEvent::Committed { reached, .. } => {
                    let Some(done) = self.in_flight.take() else {
                        continue;
                    };
                    self.mirror.apply(&done.operations);
                    self.answer(&done.request, FromCfgmgr::Committed { reached });
                    if done.save {
                        let text = "Configuration copy successful.".to_owned();
                        self.out.log("SYSMGR", 5, "CFGWRITE_DONE", text);
                    }
                }
                CheckpointEvent::CommitRefused { reason, .. } => {
                    self.not_committed(format!("% Not committed: {reason}"));
                }
                CheckpointEvent::CommitUnknown { reason, .. } => {
                    self.not_committed(format!("% {OUTCOME_UNKNOWN} ({reason})"));
                }
            }
        }
    }

    fn not_committed(&mut self, message: String) {
        let Some(done) = self.in_flight.take() else {
            return;
        };
        let refused = FromCfgmgr::Refused {
            line: 0,
            column: 0,
            message,
        };
        self.answer(&done.request, refused);
    }

    fn apply_posture(&mut self) {
        let Some(posture) = self.posture.as_ref().filter(|_| !self.applied) else {
            return;
        };
        let ready = match posture.activity {
            Activity::Idle | Activity::Active(_) => true,
            Activity::Standby => self.checkpoint.is_loaded(CONFIGURATION),
            Activity::Quiesce(_) => self.in_flight.is_none(),
        };
        if ready {
            self.applied = true;
            self.out.supervise(FromService::Applied {
                sequence: posture.sequence,
            });
        }
    }
}

fn line_refused(error: config::candidate::LineError) -> FromCfgmgr {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    FromCfgmgr::Refused {
        line: number(error.line),
        column: number(error.column),
        message: error.kind.to_string(),
    }
}

impl Service for Cfgmgr {
    fn name(&self) -> ServiceName {
        ServiceName::Cfgmgr
    }

    fn handle(&mut self, now: Time, input: ServiceInput) {
        match input {
            ServiceInput::Start | ServiceInput::Tick => self.checkpoint.tick(now),
            ServiceInput::Posture(posture) => {
                self.posture = Some(posture);
                self.applied = false;
            }
            ServiceInput::BrokerConnected => self.checkpoint.broker_connected(now),
            ServiceInput::BrokerLost => self.checkpoint.broker_lost(),
            ServiceInput::Message(message) => {
                if let Some(message) = self.checkpoint.message(now, message) {
                    self.message(message);
                }
                self.checkpoint_events();
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
        self.work(now);
        self.apply_posture();
        while let Some(message) = self.checkpoint.poll_message() {
            self.out.push(ServiceOutput::Send(message));
        }
    }

    fn poll_output(&mut self) -> Option<ServiceOutput> {
        self.out.pop()
    }

    fn next_deadline(&self) -> Option<Time> {
        self.checkpoint.next_deadline()
    }
}
