//! Whom this node claims, welcomes and releases, and when a posture is in force.

use core::time::Duration;

use model::{Epoch, Time};
use wire::checkpoint::{Acknowledgement, OPERATIONS_MAX};
use wire::supervision::{Activity, FromService, Posture};
use wire::vem::ToVem;

use super::{DRAIN_LIMIT, INVENTORY, PROBE_INTERVAL, REGISTER_RETRY, VemConnection, VemMgr};

impl VemMgr {
    pub(super) fn posture(&mut self, now: Time, posture: Posture) {
        let before = self.activity();
        let (after, sequence) = (posture.activity, posture.sequence);
        self.posture = Some(posture);
        self.applied = false;
        self.drain_until = None;
        match (before, after) {
            (Activity::Active(epoch), Activity::Quiesce(to)) if epoch == to => {
                self.asking.stop_waiting();
                self.drain_until = Some(now + DRAIN_LIMIT);
            }
            (Activity::Active(epoch), Activity::Active(to)) if epoch == to => {}
            (
                Activity::Active(epoch) | Activity::Quiesce(epoch),
                Activity::Idle | Activity::Standby | Activity::Active(_) | Activity::Quiesce(_),
            ) => {
                self.asking.clear();
                self.release(now, epoch);
            }
            (Activity::Idle | Activity::Standby, _) => {}
        }
        if after == Activity::Idle {
            // The System Manager wants to know what the VEMs have seen meanwhile.
            self.probe_all(now, Duration::ZERO);
            self.idled = (self.probes, sequence);
            self.reported = None;
        }
        self.answer_inquiries(now);
        self.probe_at = now + PROBE_INTERVAL;
        self.canary_at = now;
    }

    pub(super) fn release(&mut self, now: Time, epoch: Epoch) {
        let claimed: Vec<VemConnection> = self
            .connections
            .iter_mut()
            .filter_map(|(id, connection)| {
                let ours = connection.claimed == Some(epoch);
                connection.claimed = connection.claimed.filter(|_| !ours);
                connection.accepted = None;
                ours.then_some(id)
            })
            .collect();
        for connection in claimed {
            self.send(now, connection, ToVem::Release { epoch });
        }
    }

    /// Welcomes and claims whoever can be, registers whoever must be.
    pub(super) fn settle(&mut self, now: Time) {
        let claim = self.acting().zip(self.generation);
        let mut messages = Vec::new();
        for (id, connection) in self.connections.iter_mut() {
            if connection.greeting.is_none() {
                continue;
            }
            if connection.module.is_none()
                && let Some(module) = self.inventory.module(connection.key)
            {
                connection.module = Some(module);
                messages.push((id, ToVem::Welcome { module }));
            }
            if connection.module.is_some()
                && let Some((epoch, generation)) = claim
                && connection.claimed != Some(epoch)
            {
                connection.claimed = Some(epoch);
                messages.push((id, ToVem::Claim { epoch, generation }));
            }
        }
        for (id, message) in messages {
            self.send(now, id, message);
        }
        self.register(now);
        self.apply_posture(now);
        self.report();
    }

    pub(super) fn register(&mut self, now: Time) {
        let may = self.acting().is_some()
            && self.checkpoint.is_loaded(INVENTORY)
            && !self.checkpoint.commit_in_flight()
            && now >= self.register_at;
        if !may {
            return;
        }
        let newcomers = self.connections.iter().filter(|(_, c)| c.module.is_none());
        let newcomers = newcomers
            .filter_map(|(_, c)| c.greeting.as_ref().map(|greeting| (c.key, &*greeting.host)));
        let mut operations = self.inventory.register(newcomers);
        operations.truncate(OPERATIONS_MAX);
        if operations.is_empty() {
            if self.unregistered() {
                // The inventory is full: look again now and then, it is not worth a busy loop.
                self.register_at = now + REGISTER_RETRY;
            }
            return;
        }
        // Durable here is enough: a number that was lost with both nodes is given anew.
        if self
            .checkpoint
            .commit(now, operations.clone(), Acknowledgement::Local)
            .is_ok()
        {
            self.registering = Some(operations);
        }
    }

    pub(super) fn unregistered(&self) -> bool {
        self.connections
            .iter()
            .any(|(_, c)| c.greeting.is_some() && c.module.is_none())
    }

    pub(super) fn apply_posture(&mut self, now: Time) {
        let Some(posture) = self.posture.as_ref().filter(|_| !self.applied) else {
            return;
        };
        let sequence = posture.sequence;
        match posture.activity {
            Activity::Idle => {}
            Activity::Standby => {
                if !self.checkpoint.is_loaded(INVENTORY) {
                    return;
                }
            }
            Activity::Active(_) => {
                if self.generation.is_none() {
                    return;
                }
            }
            Activity::Quiesce(epoch) => {
                let late = self.drain_until.is_none_or(|until| now >= until);
                if !late && !self.asking.is_drained() {
                    return;
                }
                self.asking.clear();
                self.release(now, epoch);
                self.drain_until = None;
            }
        }
        self.applied = true;
        self.out.supervise(FromService::Applied { sequence });
    }
}
