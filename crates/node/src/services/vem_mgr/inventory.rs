//! The registered VEMs, as stored in `pss`, so that a module has one number on both nodes.
//!
//! Invariants: a number and an identity belong to each other one to one; numbers start at 3.

use std::collections::BTreeMap;

use model::{ModuleNumber, NodeKey, ServiceName};
use serde::{Deserialize, Serialize};
use wire::broker::{decode_body, encode_body};
use wire::checkpoint::{Durability, Namespace, Operation, Scope};

/// Where it is stored: the key is the number (big endian), the value a [`Registered`].
pub const INVENTORY: Namespace = Namespace {
    owner: ServiceName::VemMgr,
    scope: Scope::SharedGlobal,
    durability: Durability::Persistent,
};

/// Most VEMs of one pair; the original stops at 64, hundreds are asked for here, and the rows of
/// all must fit one answer to `show module` (128 KiB). A further one is not registered.
pub const MODULES_MAX: usize = 512;

const FIRST_MODULE: u16 = 3;

/// One registered VEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Its pinned identity.
    pub key: NodeKey,
    /// Its host's name when it was registered.
    pub host: String,
}

#[derive(Debug, Default)]
pub(super) struct Inventory {
    modules: BTreeMap<ModuleNumber, Registered>,
    by_key: BTreeMap<NodeKey, ModuleNumber>,
}

impl Inventory {
    pub(super) fn clear(&mut self) {
        self.modules.clear();
        self.by_key.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.modules.len()
    }

    pub(super) fn module(&self, key: NodeKey) -> Option<ModuleNumber> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ModuleNumber, &Registered)> {
        self.modules
            .iter()
            .map(|(module, registered)| (*module, registered))
    }

    /// Applies what was stored. A record that cannot be read is skipped: its VEM registers anew.
    pub(super) fn apply(&mut self, operations: &[Operation]) {
        for operation in operations {
            match operation {
                Operation::Put { key, value, .. } => {
                    let module = key.as_slice().try_into().map(u16::from_be_bytes);
                    if let (Ok(module), Ok(registered)) = (module, decode_body(value)) {
                        self.insert(ModuleNumber(module), registered);
                    }
                }
                Operation::Delete { key, .. } => {
                    if let Ok(module) = key.as_slice().try_into().map(u16::from_be_bytes) {
                        self.remove(ModuleNumber(module));
                    }
                }
            }
        }
    }

    /// Operations that register `newcomers` under the lowest free numbers, as many as there is
    /// room for.
    pub(super) fn register<'a>(
        &self,
        newcomers: impl Iterator<Item = (NodeKey, &'a str)>,
    ) -> Vec<Operation> {
        let room = MODULES_MAX.saturating_sub(self.modules.len());
        let free = (FIRST_MODULE..)
            .map(ModuleNumber)
            .filter(|m| !self.modules.contains_key(m));
        newcomers
            .take(room)
            .zip(free)
            .map(|((key, host), module)| Operation::Put {
                namespace: INVENTORY,
                key: module.0.to_be_bytes().to_vec(),
                value: encode_body(&Registered {
                    key,
                    host: host.to_owned(),
                }),
            })
            .collect()
    }

    fn insert(&mut self, module: ModuleNumber, registered: Registered) {
        self.remove(module);
        if let Some(old) = self.by_key.insert(registered.key, module) {
            self.modules.remove(&old);
        }
        self.modules.insert(module, registered);
    }

    fn remove(&mut self, module: ModuleNumber) {
        if let Some(registered) = self.modules.remove(&module) {
            self.by_key.remove(&registered.key);
        }
    }

    pub(super) fn check(&self) {
        assert_eq!(
            self.modules.len(),
            self.by_key.len(),
            "numbers and identities"
        );
        for (module, registered) in &self.modules {
            assert_eq!(self.by_key.get(&registered.key), Some(module));
        }
    }
}
