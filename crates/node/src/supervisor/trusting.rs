//! [`crate::trust`] joined to the cores: its writes, its messages, what it tells whom.

use model::{Role, ServiceName, Time};
use redundancy::NodeRecord;
use wire::control::ControlMessage;
use wire::supervision::ToService;

use super::writes::Writer;
use super::{Supervisor, SupervisorOutput};
use crate::trust::{Standing, TrustOutput};

impl Supervisor {
    pub(super) fn standing(&self) -> Standing {
        Standing {
            role: self.redundancy.role(),
            pair: self.redundancy.record().pair,
            acting: self.redundancy.acting().is_some(),
            highest_epoch: self.redundancy.highest_epoch(),
            vems: self.vems.0,
            vems_connected: self.vems.1,
        }
    }

    /// Carries out what trust asks for. Once a turn, after what happened has been routed.
    pub(super) fn turn_trust(&mut self, now: Time) {
        self.trust
            .set_sociable(self.redundancy.role() != Role::Standalone);
        self.trust.tick(now);
        while let Some(output) = self.trust.poll_output() {
            match output {
                TrustOutput::Order(order) => self.outputs.push_back(SupervisorOutput::Trust(order)),
                TrustOutput::Send(message) => self
                    .outputs
                    .push_back(SupervisorOutput::Control(ControlMessage::Trust(message))),
                TrustOutput::Persist(write) => {
                    let record = self.redundancy.record().clone();
                    self.persist(Writer::Trust(write), record);
                }
                TrustOutput::Services => {
                    self.tell_trusted(ServiceName::Mts);
                    self.tell_trusted(ServiceName::VemMgr);
                }
                TrustOutput::PeerPinned { gives_way, above } => {
                    self.tell_redundancy(now, redundancy::Input::PeerPinned { gives_way, above });
                }
                TrustOutput::PeerUnpinned => {
                    self.tell_redundancy(now, redundancy::Input::PeerUnpinned);
                }
                TrustOutput::Answer((service, question), answer) => {
                    self.answer(service, question, answer);
                }
                TrustOutput::Log(record) => self.outputs.push_back(SupervisorOutput::Log(record)),
            }
        }
    }

    /// Tells a service with connections to the outside whom to trust; others need not know.
    pub(super) fn tell_trusted(&mut self, service: ServiceName) {
        if matches!(service, ServiceName::Mts | ServiceName::VemMgr) {
            let message = ToService::Trust(self.trust.trusted());
            self.outputs
                .push_back(SupervisorOutput::ToService { service, message });
        }
    }

    /// Has a record written, with what is trusted in it.
    pub(super) fn persist(&mut self, writer: Writer, mut record: NodeRecord) {
        self.trust.stamp(&mut record);
        let write = self.writes.issue(writer);
        self.outputs
            .push_back(SupervisorOutput::Persist { write, record });
    }

    pub(super) fn persisted(&mut self, now: Time, write: u64) {
        for writer in self.writes.durable(write) {
            match writer {
                Writer::Core(write) => {
                    self.tell_redundancy(now, redundancy::Input::Persisted { write });
                }
                Writer::Trust(write) => {
                    let standing = self.standing();
                    self.trust.durable(now, write, &standing);
                }
            }
        }
    }

    pub(super) fn persist_failed(&mut self, now: Time, write: u64) {
        match self.writes.failed(write) {
            Some(Writer::Core(write)) => {
                self.tell_redundancy(now, redundancy::Input::PersistFailed { write });
            }
            Some(Writer::Trust(write)) => self.trust.not_durable(now, write),
            None => {}
        }
    }
}
