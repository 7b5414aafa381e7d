//! Gateways: who is obeyed, and what follows when that changes.

use model::{Epoch, Time};
use wire::vem::{Fenced, FromVem, GATEWAY_KEYS_MAX, ToVem};

use super::Vem;
use crate::fence::Ruling;
use crate::gateways::Claimant;
use crate::output::{Event, Output};
use crate::types::{GatewayId, PortSettings};
use crate::waiting::HOLD_LIMIT;

impl Vem {
    pub(super) fn connected(&mut self, gateway: GatewayId) {
        if !self.gateways.connect(gateway) {
            return;
        }
        let port = |port: &PortSettings| wire::vem::Port {
            name: port.name.clone(),
            profile: port.profile.clone(),
        };
        let hello = FromVem::Hello {
            host: self.settings.host.clone(),
            fenced: self.fence.held(),
            ports: self.settings.ports.iter().map(port).collect(),
        };
        self.send(gateway, hello);
    }

    pub(super) fn disconnected(&mut self, now: Time, gateway: GatewayId) {
        let was_obeyed = self.gateways.disconnect(now, gateway);
        self.votes.lost(gateway);
        self.sends
            .retain(|send| !matches!(send, Output::Send { gateway: to, .. } if *to == gateway));
        if was_obeyed {
            self.nobody_obeyed(now, gateway);
        }
    }

    pub(super) fn received(&mut self, now: Time, gateway: GatewayId, message: ToVem) {
        if !self.gateways.is_connected(gateway) {
            return;
        }
        self.gateways.heard(now, gateway);
        self.votes.heard(gateway);
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
                let fenced = self.fence.held();
                self.send(
                    gateway,
                    FromVem::Alive {
                        sequence,
                        fenced,
                        active_heard,
                    },
                );
            }
            ToVem::Vote {
                vote,
                candidate,
                within_ms,
            } => self.asked_to_vote(now, gateway, vote, candidate, within_ms),
            ToVem::Acting {
                question,
                epoch,
                alone,
            } => self.acts(gateway, question, epoch, alone),
            ToVem::Gateways { epoch, keys } => {
                let sound = (1..=GATEWAY_KEYS_MAX).contains(&keys.len());
                if sound && self.gateways.obeyed_as(gateway, epoch).is_some() {
                    self.effects.push_back(Output::Trust { gateway, keys });
                }
            }
            ToVem::Restart { epoch } => {
                if self.gateways.obeyed_as(gateway, epoch).is_some() {
                    self.log(Event::Restarted { gateway });
                    self.effects.push_back(Output::Restart);
                }
            }
        }
    }

    pub(super) fn claimed(&mut self, now: Time, claim: Claimant) {
        let Claimant { gateway, epoch, .. } = claim;
        match self.fence.judge(epoch) {
            Ruling::Obey => self.obey(now, claim),
            Ruling::Await => self.gateways.await_claim(claim),
            Ruling::Raise => {
                self.floor_is_raised(now, gateway);
                self.gateways.await_claim(claim);
            }
            ruling @ (Ruling::Refuse | Ruling::RefuseClone) => {
                let highest = self.fence.floor();
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
                self.refuse(gateway, epoch, clone);
            }
        }
    }

    fn refuse(&mut self, gateway: GatewayId, epoch: Epoch, clone: bool) {
        let fenced = self.fence.held();
        self.send(
            gateway,
            FromVem::ClaimRefused {
                epoch,
                fenced,
                clone,
            },
        );
    }

    /// Whoever is obeyed, or waits for it, is below the floor from this moment on, for `by`. The
    /// others are told: an active that lives must not find out by what it is refused.
    pub(super) fn floor_is_raised(&mut self, now: Time, by: GatewayId) {
        if let Some(claimant) = self.gateways.drop_claimant() {
            self.refuse(claimant.gateway, claimant.epoch, false);
        }
        if self.gateways.obey_nobody(now) {
            self.stop_asking(now);
        }
        let fenced = self.fence.held();
        self.effects.push_back(Output::Persist(fenced));
        for other in self.gateways.connected_but(by) {
            self.send(other, FromVem::Raised(fenced));
        }
    }

    pub(super) fn persisted(&mut self, now: Time, fenced: Fenced) {
        self.fence.persisted(fenced);
        self.persist_again_at = None;
        if self.fence.is_durable()
            && let Some(claim) = self.gateways.take_claimant(self.fence.floor())
        {
            self.obey(now, claim);
        }
    }

    pub(super) fn obey(&mut self, now: Time, claim: Claimant) {
        self.gateways.obey(now, claim);
        let Claimant { gateway, epoch, .. } = claim;
        self.send(gateway, FromVem::ClaimAccepted { epoch });
        if !self.fence.is_written() {
            // It was promised, and is durable as such; that it is used, the others must know.
            let fenced = self.fence.held();
            self.effects.push_back(Output::Persist(fenced));
            for other in self.gateways.connected_but(gateway) {
                self.send(other, FromVem::Raised(fenced));
            }
        }
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

    pub(super) fn nobody_obeyed(&mut self, now: Time, gateway: GatewayId) {
        self.stop_asking(now);
        self.log(Event::NobodyObeyed { gateway });
    }

    pub(super) fn stop_asking(&mut self, now: Time) {
        self.waiting.unask_all(now + HOLD_LIMIT);
        self.revalidation.stop();
    }
}
