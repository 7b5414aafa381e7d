//! The composition: which concern sees which input, and what follows.

use std::collections::VecDeque;

use model::{Epoch, Generation, Time, Verdict};
use serde::{Deserialize, Serialize};
use wire::vem::{BATCH_MAX, Decision, DecisionRequest, FlowEvent, FlowReport, FromVem, ToVem};

use crate::fence::{Fence, Ruling};
use crate::gateways::{Claimant, GatewayView, Gateways, Takeover};
use crate::input::{EntryState, Input, KernelReport, KernelReportKind, StaleFlow};
use crate::output::{Event, Output};
use crate::reports::Reports;
use crate::revalidation::{Revalidation, WALK_ENTRIES};
use crate::types::{FailMode, Flow, GatewayId, PortIndex, PortSettings, SlotId};
use crate::waiting::{Due, Freed, HOLD_LIMIT, Holding, Settling, Waiting};

/// A failed write of the epoch is tried again after this.
const PERSIST_AGAIN_AFTER: core::time::Duration = core::time::Duration::from_secs(1);
/// Messages kept while the barrier of [`Output::Persist`] holds them; only signs of life and
/// refusals arise then. Above it they are dropped and counted.
const BLOCKED_SENDS_MAX: usize = 256;

/// What the host agent is configured with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the host.
    pub host: String,
    /// Its protected ports; [`PortIndex`] counts here.
    pub ports: Vec<PortSettings>,
    /// How many gateways are configured; [`GatewayId`] counts to here.
    pub gateways: u8,
}

/// What has happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Flows asked for, repetitions not counted.
    pub asked: u64,
    /// Requests sent again because nobody answered.
    pub repeated: u64,
    /// Flows asked for again because another gateway is obeyed.
    pub asked_anew: u64,
    /// Verdicts of gateways: permit.
    pub permitted: u64,
    /// Verdicts of gateways: drop or reset.
    pub denied: u64,
    /// Flows permitted by the fail mode.
    pub failed_open: u64,
    /// Flows dropped by the fail mode.
    pub failed_closed: u64,
    /// Answers ignored: late, duplicate, of a foreign epoch, or of a gateway that is not obeyed.
    pub answers_ignored: u64,
    /// Claims refused.
    pub claims_refused: u64,
    /// Clones seen.
    pub clones: u64,
    /// Packets dropped because their flow or port held too much.
    pub held_full: u64,
    /// Packets dropped because their flow expired, was denied, or began anew meanwhile.
    pub held_stray: u64,
    /// Flows settled by force: packets were lost in a tap's queue.
    pub forced: u64,
    /// Verdicts asked for again under a newer policy.
    pub revalidated: u64,
    /// Messages dropped at the persist barrier.
    pub sends_lost: u64,
}

/// The host agent.
#[derive(Debug)]
pub struct Vem {
    settings: Settings,
    fence: Fence,
    persist_again_at: Option<Time>,
    gateways: Gateways,
    waiting: Waiting,
    revalidation: Revalidation,
    reports: Reports,
    counters: Counters,
    next_request: u64,
    fail_mode_said: bool,
    effects: VecDeque<Output>,
    sends: VecDeque<Output>,
}

impl Vem {
    /// Starts with the highest epoch that is durable. `first_request` must differ from run to run
    /// (the shell takes its clock), so that answers to an earlier run are not mistaken for ours.
    #[must_use]
    pub fn new(now: Time, settings: Settings, durable: Epoch, first_request: u64) -> Self {
        let (gateways, ports) = (usize::from(settings.gateways), settings.ports.len());
        Self {
            settings,
            fence: Fence::new(durable),
            persist_again_at: None,
            gateways: Gateways::new(now, gateways),
            waiting: Waiting::new(ports),
            revalidation: Revalidation::new(),
            reports: Reports::default(),
            counters: Counters::default(),
            next_request: first_request,
            fail_mode_said: false,
            effects: VecDeque::new(),
            sends: VecDeque::new(),
        }
    }

    /// Takes one event at `now`, which never goes back.
    pub fn handle(&mut self, now: Time, input: Input) {
        // Answers to effects do nothing that is due: a shell that is behind its deadlines would
        // be given new effects for ever, and never come to the packets they wait for.
        let is_answer = matches!(input, Input::Settled { .. } | Input::Walked { .. });
        match input {
            Input::Tick => {}
            Input::Connected(gateway) => self.connected(gateway),
            Input::Disconnected(gateway) => self.disconnected(now, gateway),
            Input::Received { gateway, message } => self.received(now, gateway, message),
            Input::Persisted(epoch) => self.persisted(now, epoch),
            Input::PersistFailed(epoch) => {
                self.persist_again_at = Some(now + PERSIST_AGAIN_AFTER);
                self.log(Event::PersistFailed(epoch));
            }
            Input::Held {
                slot,
                flow,
                entry,
                bytes,
            } => self.held(now, slot, flow, entry, bytes),
            Input::Settled {
                flow,
                outcome,
                tap_empty,
            } => match self.waiting.settled(now, flow, outcome, tap_empty) {
                Settling::Over | Settling::Later => {}
                Settling::Force => {
                    self.counters.forced += 1;
                    self.effects.push_back(Output::Settle { flow, force: true });
                }
            },
            Input::Walked { stale, next } => self.walked(now, &stale, next),
            Input::Reported(report) => self.reported(now, report),
        }
        if !is_answer {
            self.do_due(now);
        }
    }

    /// The next effect.
    pub fn poll_output(&mut self) -> Option<Output> {
        let effect = self.effects.pop_front();
        effect.or_else(|| {
            if self.fence.is_durable() {
                self.sends.pop_front()
            } else {
                None
            }
        })
    }

    /// When to call [`Self::handle`] with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let reports = self
            .gateways
            .obeyed()
            .is_some()
            .then(|| self.reports.next_deadline())
            .flatten();
        let others = [
            self.waiting.next_deadline(),
            self.revalidation.next_deadline(),
            reports,
        ];
        let fail_mode = self.gateways.lost_at().map(|at| at + HOLD_LIMIT);
        let fail_mode = fail_mode.filter(|_| !self.fail_mode_said);
        others
            .into_iter()
            .chain([self.persist_again_at, fail_mode])
            .flatten()
            .min()
    }

    /// What has happened.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The highest epoch seen.
    #[must_use]
    pub const fn highest_epoch(&self) -> Epoch {
        self.fence.highest()
    }

    /// The epoch obeyed now, and its policy.
    #[must_use]
    pub fn obeyed(&self) -> Option<(GatewayId, Epoch, Generation)> {
        self.gateways
            .obeyed()
            .map(|obeyed| (obeyed.gateway, obeyed.epoch, obeyed.generation))
    }

    /// When the newest claim was accepted, and its first verdict arrived.
    #[must_use]
    pub const fn takeover(&self) -> Takeover {
        self.gateways.takeover()
    }

    /// The gateways, in the order of the configuration.
    #[must_use]
    pub fn gateways(&self) -> Vec<GatewayView> {
        self.gateways.views()
    }

    /// Flows undecided or draining, and packets held.
    #[must_use]
    pub fn waiting(&self) -> (usize, u32) {
        (self.waiting.flows(), self.waiting.held())
    }

    /// Asserts the invariants of the crate.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        let somebody = self.gateways.obeyed().is_some();
        self.fence.check();
        self.gateways.check(self.fence.highest());
        self.waiting.check(somebody);
        self.revalidation.check(somebody);
        self.reports.check();
        assert!(
            !somebody || self.fence.is_durable(),
            "obeying an epoch that is not durable"
        );
    }

    // ---- gateways --------------------------------------------------------------------------

    fn connected(&mut self, gateway: GatewayId) {
        if !self.gateways.connect(gateway) {
            return;
        }
        let port = |port: &PortSettings| wire::vem::Port {
            name: port.name.clone(),
            profile: port.profile.clone(),
        };
        let hello = FromVem::Hello {
            host: self.settings.host.clone(),
            highest_epoch: self.fence.highest(),
            ports: self.settings.ports.iter().map(port).collect(),
        };
        self.send(gateway, hello);
    }

    fn disconnected(&mut self, now: Time, gateway: GatewayId) {
        let was_obeyed = self.gateways.disconnect(now, gateway);
        self.sends
            .retain(|send| !matches!(send, Output::Send { gateway: to, .. } if *to == gateway));
        if was_obeyed {
            self.nobody_obeyed(now, gateway);
        }
    }

    fn received(&mut self, now: Time, gateway: GatewayId, message: ToVem) {
        if !self.gateways.is_connected(gateway) {
            return;
        }
        self.gateways.heard(now, gateway);
        match message {
            ToVem::Welcome { module } => self.gateways.welcome(gateway, module),
            ToVem::Claim { epoch, generation } => {
                self.claimed(
                    now,
                    Claimant {
                        gateway,
                        epoch,
                        generation,
                    },
                );
            }
            ToVem::Release { epoch } => {
                if self.gateways.obeyed_as(gateway, epoch).is_some() {
                    self.gateways.obey_nobody(now);
                    self.nobody_obeyed(now, gateway);
                }
            }
            ToVem::Decided { epoch, decisions } => {
                if self.gateways.obeyed_as(gateway, epoch).is_none() {
                    self.counters.answers_ignored += decisions.len() as u64;
                    return;
                }
                self.gateways.decided(now);
                for decision in decisions {
                    self.decided(now, epoch, decision);
                }
            }
            ToVem::Generation { epoch, generation } => {
                if self.gateways.obeyed_as(gateway, epoch).is_some() {
                    self.gateways.raise_generation(generation);
                    self.aim(now);
                }
            }
            ToVem::Probe { sequence } => {
                let active_heard = self.gateways.active_heard(now);
                let highest_epoch = self.fence.highest();
                self.send(
                    gateway,
                    FromVem::Alive {
                        sequence,
                        highest_epoch,
                        active_heard,
                    },
                );
            }
        }
    }

    fn claimed(&mut self, now: Time, claim: Claimant) {
        let Claimant { gateway, epoch, .. } = claim;
        match self.fence.judge(epoch) {
            Ruling::Obey => self.obey(now, claim),
            Ruling::Await => self.gateways.await_claim(claim),
            Ruling::Raise => {
                // Whoever was obeyed is below the highest epoch from this moment on.
                let before = self.gateways.obeyed();
                if self.gateways.obey_nobody(now) {
                    let before = before.expect("invariant: somebody was obeyed");
                    self.stop_asking(now);
                    debug_assert!(before.epoch < epoch, "a claim that raises is higher");
                }
                self.gateways.await_claim(claim);
                self.effects.push_back(Output::Persist(epoch));
            }
            ruling @ (Ruling::Refuse | Ruling::RefuseClone) => {
                let highest = self.fence.highest();
                let clone = ruling == Ruling::RefuseClone;
                self.counters.claims_refused += 1;
                self.counters.clones += u64::from(clone);
                self.log(if clone {
                    Event::Clone {
                        gateway,
                        epoch,
                        highest,
                    }
                } else {
                    Event::ClaimRefused {
                        gateway,
                        epoch,
                        highest,
                    }
                });
                let highest_epoch = highest;
                self.send(
                    gateway,
                    FromVem::ClaimRefused {
                        epoch,
                        highest_epoch,
                        clone,
                    },
                );
            }
        }
    }

    fn persisted(&mut self, now: Time, epoch: Epoch) {
        self.fence.persisted(epoch);
        self.persist_again_at = None;
        if self.fence.is_durable()
            && let Some(claim) = self.gateways.take_claimant(epoch)
        {
            self.obey(now, claim);
        }
    }

    fn obey(&mut self, now: Time, claim: Claimant) {
        self.gateways.obey(now, claim);
        let Claimant { gateway, epoch, .. } = claim;
        self.send(gateway, FromVem::ClaimAccepted { epoch });
        let undecided = self.waiting.undecided();
        self.fail_mode_said = false;
        self.log(Event::Obeying {
            gateway,
            epoch,
            waiting: undecided.len() as u32,
        });
        for flow in undecided {
            self.counters.asked_anew += 1;
            self.ask(now, flow);
        }
        // Requests of the gateway obeyed before will not be answered.
        self.revalidation.stop();
        self.aim(now);
    }

    fn nobody_obeyed(&mut self, now: Time, gateway: GatewayId) {
        self.stop_asking(now);
        self.log(Event::NobodyObeyed { gateway });
    }

    fn stop_asking(&mut self, now: Time) {
        self.waiting.unask_all(now + HOLD_LIMIT);
        self.revalidation.stop();
    }

    // ---- undecided flows -------------------------------------------------------------------

    fn held(&mut self, now: Time, slot: SlotId, flow: Flow, entry: EntryState, bytes: u32) {
        if self
            .settings
            .ports
            .get(usize::from(flow.id.port.0))
            .is_none()
        {
            return self.discard_stray(slot);
        }
        match entry {
            // Passes by its entry, or is too late.
            EntryState::Permitted => return self.effects.push_back(Output::Write(slot)),
            EntryState::Absent | EntryState::Denied => return self.discard_stray(slot),
            EntryState::Pending | EntryState::Draining => {}
        }
        self.forget_other_life(now, flow);
        if entry == EntryState::Draining && self.waiting.life(flow.id).is_none() {
            self.waiting.resume_draining(now, flow);
        }
        let deadline = self
            .gateways
            .lost_at()
            .map_or(now, |lost_at| lost_at + HOLD_LIMIT);
        match self.waiting.hold(now, flow, slot, bytes, deadline) {
            Holding::Queued => {}
            Holding::WriteNow => self.effects.push_back(Output::Write(slot)),
            Holding::First => {
                if self.gateways.obeyed().is_some() {
                    self.counters.asked += 1;
                    self.ask(now, flow);
                }
            }
            Holding::Full { first } => {
                self.counters.held_full += 1;
                self.effects.push_back(Output::Discard(slot));
                if first {
                    self.effects.push_back(Output::Forget(flow));
                }
            }
        }
    }

    /// The kernel began a new life of the key: what waits of the old one is void.
    fn forget_other_life(&mut self, now: Time, flow: Flow) {
        let Some(old) = self.waiting.life(flow.id).filter(|old| *old != flow) else {
            return;
        };
        match self.waiting.decide(now, flow.id, None) {
            Some(freed) => freed
                .slots
                .into_iter()
                .for_each(|slot| self.discard_stray(slot)),
            None => {
                let gone = crate::input::SettleOutcome::Gone;
                self.waiting.settled(now, old, gone, false);
            }
        }
    }

    fn discard_stray(&mut self, slot: SlotId) {
        self.counters.held_stray += 1;
        self.effects.push_back(Output::Discard(slot));
    }

    fn ask(&mut self, now: Time, flow: Flow) {
        let request = self.take_request();
        self.waiting.asked(now, flow.id, request);
        self.send_request(request, flow, false);
    }

    fn take_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    /// Requests of one turn share a message.
    fn send_request(&mut self, request: u64, flow: Flow, revalidation: bool) {
        let Some(obeyed) = self.gateways.obeyed() else {
            return;
        };
        let port = &self.settings.ports[usize::from(flow.id.port.0)];
        let request = DecisionRequest {
            request,
            port: port.name.clone(),
            attributes: flow.attributes(&port.profile),
            revalidation,
        };
        if let Some(Output::Send {
            gateway,
            message: FromVem::Decide(batch),
        }) = self.sends.back_mut()
            && *gateway == obeyed.gateway
            && batch.len() < BATCH_MAX
        {
            batch.push(request);
        } else {
            self.send(obeyed.gateway, FromVem::Decide(vec![request]));
        }
    }

    fn decided(&mut self, now: Time, epoch: Epoch, decision: Decision) {
        let Decision {
            request,
            verdict,
            generation,
        } = decision;
        let permit = verdict == Verdict::Permit;
        let epoch_counter = epoch.counter;
        if let Some(flow) = self.waiting.answered(request) {
            if permit {
                self.counters.permitted += 1;
                self.permit(now, flow, generation, epoch_counter);
                self.report(now, flow, FlowEvent::Installed, 0, 0);
            } else {
                self.counters.denied += 1;
                self.deny(now, flow, verdict, generation, epoch_counter);
            }
        } else if let Some(flow) = self.revalidation.answered(now, request, permit) {
            self.counters.revalidated += 1;
            let turn = Output::Revalidate {
                flow,
                verdict,
                generation,
                epoch_counter,
            };
            self.effects.push_back(turn);
        } else {
            self.counters.answers_ignored += 1;
            return;
        }
        if self
            .gateways
            .obeyed()
            .is_some_and(|obeyed| generation < obeyed.generation)
        {
            self.revalidation.mark_stale();
            self.aim(now);
        }
    }

    fn permit(&mut self, now: Time, flow: Flow, generation: Generation, epoch_counter: u64) {
        let Some(freed) = self.waiting.decide(now, flow.id, Some(Verdict::Permit)) else {
            return;
        };
        let Freed {
            flow,
            slots,
            discarded,
        } = freed;
        self.effects.push_back(Output::Drain {
            flow,
            generation,
            epoch_counter,
            discarded,
        });
        self.effects.extend(slots.into_iter().map(Output::Write));
        self.effects
            .push_back(Output::Settle { flow, force: false });
    }

    fn deny(
        &mut self,
        now: Time,
        flow: Flow,
        verdict: Verdict,
        generation: Generation,
        epoch_counter: u64,
    ) {
        let Some(freed) = self.waiting.decide(now, flow.id, Some(verdict)) else {
            return;
        };
        self.effects.push_back(Output::Deny {
            flow,
            verdict,
            generation,
            epoch_counter,
        });
        self.effects
            .extend(freed.slots.into_iter().map(Output::Discard));
    }

    fn follow_fail_mode(&mut self, now: Time, flow: Flow) {
        match self.fail_mode(flow.id.port) {
            FailMode::Open => {
                self.counters.failed_open += 1;
                self.revalidation.mark_stale();
                self.permit(now, flow, Generation(0), 0);
                self.aim(now);
            }
            FailMode::Close => {
                self.counters.failed_closed += 1;
                if let Some(freed) = self.waiting.decide(now, flow.id, None) {
                    self.effects
                        .extend(freed.slots.into_iter().map(Output::Discard));
                    self.effects.push_back(Output::Forget(flow));
                }
            }
        }
    }

    fn fail_mode(&self, port: PortIndex) -> FailMode {
        self.settings
            .ports
            .get(usize::from(port.0))
            .map_or(FailMode::Close, |port| port.fail_mode)
    }

    // ---- revalidation and reports ----------------------------------------------------------

    fn aim(&mut self, now: Time) {
        if let Some(obeyed) = self.gateways.obeyed() {
            self.revalidation.aim(now, obeyed.generation);
        }
    }

    fn walked(&mut self, now: Time, stale: &[StaleFlow], next: Option<crate::FlowId>) {
        for found in stale.iter().take(WALK_ENTRIES as usize) {
            let flow = found.flow;
            let known = usize::from(flow.id.port.0) < self.settings.ports.len();
            if !known || self.gateways.obeyed().is_none() {
                continue;
            }
            match found.verdict {
                Verdict::Permit => {
                    let request = self.take_request();
                    self.revalidation.asked(request, flow);
                    self.send_request(request, flow, true);
                }
                // The next packet asks under the new policy.
                Verdict::Drop | Verdict::Reset => self.effects.push_back(Output::Forget(flow)),
            }
        }
        self.revalidation.walked(now, next);
    }

    fn reported(&mut self, now: Time, report: KernelReport) {
        let KernelReport {
            flow,
            kind,
            packets,
            bytes,
        } = report;
        match kind {
            KernelReportKind::Closed => self.report(now, flow, FlowEvent::Closed, packets, bytes),
            KernelReportKind::Idle => self.report(now, flow, FlowEvent::Idle, packets, bytes),
            // Nobody was told of it either.
            KernelReportKind::Undecided => {}
        }
    }

    fn report(&mut self, now: Time, flow: Flow, event: FlowEvent, packets: u64, bytes: u64) {
        if let Some(port) = self.settings.ports.get(usize::from(flow.id.port.0)) {
            let (port, flow) = (port.name.clone(), flow.key());
            self.reports.push(
                now,
                FlowReport {
                    port,
                    flow,
                    event,
                    packets,
                    bytes,
                },
            );
        }
    }

    // ---- time ------------------------------------------------------------------------------

    fn do_due(&mut self, now: Time) {
        while let Some(due) = self.waiting.due(now) {
            match due {
                Due::Repeat { request, flow } => {
                    self.counters.repeated += 1;
                    self.send_request(request, flow, false);
                }
                Due::Fail(flow) => self.follow_fail_mode(now, flow),
                Due::Settle(flow) => {
                    self.effects
                        .push_back(Output::Settle { flow, force: false });
                }
            }
        }
        if self.persist_again_at.is_some_and(|at| at <= now) {
            self.persist_again_at = None;
            self.effects
                .push_back(Output::Persist(self.fence.highest()));
        }
        let lost_long = self
            .gateways
            .lost_at()
            .is_some_and(|at| now.since(at) >= HOLD_LIMIT);
        if lost_long && !self.fail_mode_said {
            self.fail_mode_said = true;
            self.log(Event::FailModeBegan);
        }
        let Some(obeyed) = self.gateways.obeyed() else {
            return;
        };
        if let Some(step) = self.revalidation.due(now) {
            let (older_than, after) = (step.older_than, step.after);
            self.effects.push_back(Output::Walk {
                older_than,
                after,
                limit: WALK_ENTRIES,
            });
        }
        if let Some(done) = self.revalidation.take_done()
            && done.asked > 0
        {
            let (generation, asked, turned) = (done.generation, done.asked, done.turned);
            self.log(Event::Revalidated {
                generation,
                asked,
                turned,
            });
        }
        self.aim(now);
        while let Some(message) = self.reports.take(now) {
            self.send(obeyed.gateway, message);
        }
    }

    fn send(&mut self, gateway: GatewayId, message: FromVem) {
        if !self.fence.is_durable() && self.sends.len() >= BLOCKED_SENDS_MAX {
            self.counters.sends_lost += 1;
            return;
        }
        self.sends.push_back(Output::Send { gateway, message });
    }

    fn log(&mut self, event: Event) {
        self.effects.push_back(Output::Log(event));
    }
}
