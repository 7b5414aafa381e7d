//! Questions on their way to `policy_engine`, verdicts and generations on their way back.

use model::{Epoch, Generation, ServiceName, Time};
use wire::service::ToPolicyEngine;
use wire::supervision::Activity;
use wire::vem::{
    BATCH_MAX, Decision, DecisionRequest, FlowReport, PORT_MAX_BYTES, PROFILE_MAX_BYTES, ToVem,
};

use super::asking::Batch;
use super::{LOST_LOG_INTERVAL, VemConnection, VemMgr};
use crate::service::ServiceOutput;

impl VemMgr {
    pub(super) fn decide(&mut self, now: Time, id: VemConnection, requests: Vec<DecisionRequest>) {
        let module = self
            .connections
            .entry(id)
            .and_then(|connection| connection.module);
        let (Some(module), Some(_)) = (module, self.acting()) else {
            return;
        };
        let too_long = |request: &DecisionRequest| {
            request.port.len() > PORT_MAX_BYTES
                || request.attributes.profile.len() > PROFILE_MAX_BYTES
        };
        if requests.len() > BATCH_MAX || requests.iter().any(too_long) {
            self.cut_off(now, id, "it asked beyond the limits of the protocol");
            return;
        }
        if requests.is_empty() || !self.asking.has_room() {
            self.asking.dropped += u64::from(!requests.is_empty());
            return;
        }
        self.ask(
            now,
            Batch {
                connection: id,
                module,
                requests,
                since: now,
            },
        );
    }

    /// Ends the connection of a host agent that breaks the protocol. What it sent is not passed on:
    /// the broker would take it for our fault.
    fn cut_off(&mut self, now: Time, id: VemConnection, why: &str) {
        self.asking.forget(id);
        if let Some(connection) = self.connections.close(id) {
            self.refused(now, &connection.address, why);
        }
        self.out.push(ServiceOutput::CloseVem(id));
        self.settle(now);
    }

    pub(super) fn ask(&mut self, now: Time, batch: Batch) {
        if !self.broker {
            self.asking.wait(now, batch);
            return;
        }
        let Batch {
            connection,
            module,
            requests,
            since,
        } = batch;
        let question = ToPolicyEngine::Decide { module, requests };
        let correlation = self.out.request(ServiceName::PolicyEngine, &question);
        if let ToPolicyEngine::Decide { requests, .. } = question {
            let batch = Batch {
                connection,
                module,
                requests,
                since,
            };
            self.asking.asked(now, correlation, batch);
        }
    }

    pub(super) fn ask_again(&mut self, now: Time, ready: bool) {
        if self.broker && self.acting().is_some() {
            for batch in self.asking.due(now, ready) {
                self.ask(now, batch);
            }
        }
    }

    pub(super) fn flows(
        &mut self,
        now: Time,
        id: VemConnection,
        flows: Vec<FlowReport>,
        lost: u64,
    ) {
        let module = self
            .connections
            .entry(id)
            .and_then(|connection| connection.module);
        let (Some(module), Some(_)) = (module, self.acting()) else {
            return;
        };
        self.lost_reports += lost;
        if self.lost_reports > 0 && now >= self.lost_log_at {
            let text = format!(
                "{} flow reports were lost by host agents",
                self.lost_reports
            );
            self.out.log("VEM_MGR", 4, "FLOW_REPORTS_LOST", text);
            self.lost_reports = 0;
            self.lost_log_at = now + LOST_LOG_INTERVAL;
        }
        if flows.len() > BATCH_MAX || flows.iter().any(|flow| flow.port.len() > PORT_MAX_BYTES) {
            self.cut_off(now, id, "it reported beyond the limits of the protocol");
        } else if !flows.is_empty() {
            let report = ToPolicyEngine::Report { module, flows };
            self.out.notify(ServiceName::PolicyEngine, &report);
        }
    }

    pub(super) fn decided(
        &mut self,
        now: Time,
        correlation: u64,
        epoch: Epoch,
        decisions: Vec<Decision>,
    ) {
        let Some(batch) = self.asking.answered(correlation) else {
            return;
        };
        let may = match self.activity() {
            Activity::Active(ours) | Activity::Quiesce(ours) => ours == epoch,
            Activity::Idle | Activity::Standby => false,
        };
        if may && !decisions.is_empty() {
            self.send(now, batch.connection, ToVem::Decided { epoch, decisions });
        } else if self.acting().is_some() {
            // It has not heard of our posture yet.
            self.asking.wait(now, batch);
        }
        self.apply_posture(now);
    }

    pub(super) fn generation(&mut self, now: Time, generation: Generation) {
        if self.generation != Some(generation) {
            let known = self.generation.replace(generation).is_some();
            if let (Some(epoch), true) = (self.acting(), known) {
                let claimed = self.connections.iter();
                let claimed: Vec<VemConnection> = claimed
                    .filter(|(_, c)| c.claimed == Some(epoch))
                    .map(|(id, _)| id)
                    .collect();
                for connection in claimed {
                    self.send(now, connection, ToVem::Generation { epoch, generation });
                }
            }
            self.settle(now);
        }
        self.ask_again(now, true);
    }
}
