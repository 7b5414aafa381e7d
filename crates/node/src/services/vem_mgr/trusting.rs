//! What host agents are to trust, and host agents that are trusted no more.

use model::{Epoch, ModuleNumber, NodeKey, ServiceName, Time};
use wire::broker::Message;
use wire::checkpoint::{Acknowledgement, Operation};
use wire::service::FromVemMgr;
use wire::supervision::{FromService, Trust};
use wire::vem::ToVem;

use super::{INVENTORY, VemConnection, VemMgr};

/// Removals under way; operators remove one at a time.
const REMOVALS_MAX: usize = 16;

/// A host agent that an operator removed: first it is trusted no more, then its number is free.
#[derive(Debug)]
pub(super) struct Removal {
    key: NodeKey,
    module: ModuleNumber,
    request: Message,
    /// It is trusted no more.
    untrusted: bool,
}

impl VemMgr {
    /// The System Manager tells whom to trust.
    pub(super) fn trust(&mut self, now: Time, trust: Trust) {
        self.gateways = trust.gateways;
        self.tell_gateways(now);
        for removal in &mut self.removals {
            removal.untrusted |= !trust.vems.contains(&removal.key);
        }
        self.forget_removed(now);
    }

    /// Tells whoever obeys this node and has not been told.
    pub(super) fn tell_gateways(&mut self, now: Time) {
        let Some(epoch) = self.acting().filter(|_| !self.gateways.is_empty()) else {
            return;
        };
        let mut untold = Vec::new();
        for (id, connection) in self.connections.iter_mut() {
            if connection.accepted == Some(epoch) && connection.told != self.gateways {
                connection.told.clone_from(&self.gateways);
                untold.push(id);
            }
        }
        for id in untold {
            let keys = self.gateways.clone();
            self.send(now, id, ToVem::Gateways { epoch, keys });
        }
        self.report_gateways(epoch);
    }

    /// A host agent has pinned them.
    pub(super) fn gateways_pinned(&mut self, id: VemConnection, keys: Vec<NodeKey>) {
        if let Some(connection) = self.connections.entry(id) {
            connection.pinned = keys;
        }
        if let Some(epoch) = self.acting() {
            self.report_gateways(epoch);
        }
    }

    fn report_gateways(&mut self, epoch: Epoch) {
        let obeying = self.connections.iter();
        let pending = obeying
            .filter(|(_, c)| c.accepted == Some(epoch) && c.pinned != self.gateways)
            .count();
        let state = (
            self.gateways.clone(),
            u16::try_from(pending).unwrap_or(u16::MAX),
        );
        if self.gateways_reported.as_ref() != Some(&state) {
            self.gateways_reported = Some(state.clone());
            let (keys, pending) = state;
            self.out.supervise(FromService::Gateways { keys, pending });
        }
    }

    /// `vem remove`. `None` is an answer that comes later.
    pub(super) fn remove(&mut self, message: &Message, module: ModuleNumber) -> Option<FromVemMgr> {
        let refused = |why: &str| Some(FromVemMgr::Refused(format!("Module {} {why}", module.0)));
        if message.source != ServiceName::Vshd.sap() {
            return refused("is removed from the shell only");
        }
        if self.acting().is_none() {
            return refused("is removed at the active supervisor");
        }
        if self.removals.len() >= REMOVALS_MAX {
            return refused("waits for other removals");
        }
        let found = self.inventory.iter().find(|(number, _)| *number == module);
        let Some(key) = found.map(|(_, registered)| registered.key) else {
            return refused("is not registered");
        };
        self.out.supervise(FromService::RemoveVem { key });
        self.removals.push(Removal {
            key,
            module,
            request: message.clone(),
            untrusted: false,
        });
        None
    }

    /// Frees the number of one that is trusted no more; the next when that is stored.
    pub(super) fn forget_removed(&mut self, now: Time) {
        let Some(index) = self.removals.iter().position(|removal| removal.untrusted) else {
            return;
        };
        if self.checkpoint.commit_in_flight() || self.acting().is_none() {
            return;
        }
        let removal = self.removals.remove(index);
        let operations = vec![Operation::Delete {
            namespace: INVENTORY,
            key: removal.module.0.to_be_bytes().to_vec(),
        }];
        // Durable here is enough: a node that did not hear of it shows a module that never comes.
        if self
            .checkpoint
            .commit(now, operations.clone(), Acknowledgement::Local)
            .is_ok()
        {
            self.registering = Some(operations);
            let text = format!("Module {} was removed", removal.module.0);
            self.out.log("VEM_MGR", 5, "MOD_REMOVED", text);
            self.out.respond(&removal.request, &FromVemMgr::Removed);
        }
    }
}
