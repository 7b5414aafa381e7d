//! Flows: packets that wait, requests, verdicts, and what is told of them.

use model::{Epoch, Generation, Time, Verdict};
use wire::vem::{BATCH_MAX, Decision, DecisionRequest, FlowEvent, FlowReport, FromVem};

use super::Vem;
use crate::input::{EntryState, KernelReport, KernelReportKind, SettleOutcome, StaleFlow};
use crate::output::Output;
use crate::revalidation::WALK_ENTRIES;
use crate::types::{FailMode, Flow, FlowId, PortIndex, SlotId};
use crate::waiting::{Freed, HOLD_LIMIT, Holding};

impl Vem {
    pub(super) fn held(
        &mut self,
        now: Time,
        slot: SlotId,
        flow: Flow,
        entry: EntryState,
        bytes: u32,
    ) {
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
    pub(super) fn forget_other_life(&mut self, now: Time, flow: Flow) {
        let Some(old) = self.waiting.life(flow.id).filter(|old| *old != flow) else {
            return;
        };
        match self.waiting.decide(now, flow.id, None) {
            Some(freed) => freed
                .slots
                .into_iter()
                .for_each(|slot| self.discard_stray(slot)),
            None => {
                let gone = SettleOutcome::Gone;
                self.waiting.settled(now, old, gone, false);
            }
        }
    }

    pub(super) fn discard_stray(&mut self, slot: SlotId) {
        self.counters.held_stray += 1;
        self.effects.push_back(Output::Discard(slot));
    }

    pub(super) fn ask(&mut self, now: Time, flow: Flow) {
        let request = self.take_request();
        self.waiting.asked(now, flow.id, request);
        self.send_request(request, flow, false);
    }

    pub(super) fn take_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    /// Requests of one turn share a message.
    pub(super) fn send_request(&mut self, request: u64, flow: Flow, revalidation: bool) {
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

    pub(super) fn decided(&mut self, now: Time, epoch: Epoch, decision: Decision) {
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

    pub(super) fn permit(
        &mut self,
        now: Time,
        flow: Flow,
        generation: Generation,
        epoch_counter: u64,
    ) {
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

    pub(super) fn deny(
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

    pub(super) fn follow_fail_mode(&mut self, now: Time, flow: Flow) {
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

    pub(super) fn fail_mode(&self, port: PortIndex) -> FailMode {
        self.settings
            .ports
            .get(usize::from(port.0))
            .map_or(FailMode::Close, |port| port.fail_mode)
    }

    pub(super) fn aim(&mut self, now: Time) {
        if let Some(obeyed) = self.gateways.obeyed() {
            self.revalidation.aim(now, obeyed.generation);
        }
    }

    pub(super) fn walked(&mut self, now: Time, stale: &[StaleFlow], next: Option<FlowId>) {
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

    pub(super) fn reported(&mut self, now: Time, report: KernelReport) {
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

    pub(super) fn report(
        &mut self,
        now: Time,
        flow: Flow,
        event: FlowEvent,
        packets: u64,
        bytes: u64,
    ) {
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
}
