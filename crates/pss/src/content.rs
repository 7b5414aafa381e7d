//! The namespaces in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use model::ServiceName;
use sha2::{Digest, Sha256};
use wire::checkpoint::{Cursor, Durability, Namespace, Operation, Scope};

use crate::limits::PAGE_BYTES;

/// One namespace's keys. Values are shared with frozen copies.
type Keys = BTreeMap<Vec<u8>, Arc<[u8]>>;

/// Some pairs of one namespace, in order.
pub(crate) type Page = Vec<(Vec<u8>, Vec<u8>)>;

/// The namespace whose hash two nodes compare.
#[must_use]
pub const fn config_namespace() -> Namespace {
    Namespace {
        owner: ServiceName::Cfgmgr,
        scope: Scope::SharedGlobal,
        durability: Durability::Persistent,
    }
}

/// The namespace an operation is about.
pub(crate) const fn namespace_of(operation: &Operation) -> Namespace {
    match operation {
        Operation::Put { namespace, .. } | Operation::Delete { namespace, .. } => *namespace,
    }
}

/// All namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    namespaces: BTreeMap<Namespace, Keys>,
    bytes: BTreeMap<ServiceName, usize>,
    config_hash: u64,
}

impl Content {
    pub(crate) fn new() -> Self {
        let mut content = Self::default();
        content.rehash();
        content
    }

    pub(crate) fn apply(&mut self, operations: &[Operation]) {
        let mut rehash = false;
        for operation in operations {
            match operation {
                Operation::Put {
                    namespace,
                    key,
                    value,
                } => {
                    self.put(*namespace, key.clone(), Arc::from(value.as_slice()));
                }
                Operation::Delete { namespace, key } => self.delete(*namespace, key),
            }
            rehash |= namespace_of(operation) == config_namespace();
        }
        if rehash {
            self.rehash();
        }
    }

    pub(crate) fn put(&mut self, namespace: Namespace, key: Vec<u8>, value: Arc<[u8]>) {
        let used = self.bytes.entry(namespace.owner).or_default();
        *used += key.len() + value.len();
        let key_bytes = key.len();
        if let Some(old) = self
            .namespaces
            .entry(namespace)
            .or_default()
            .insert(key, value)
        {
            *used -= key_bytes + old.len();
        }
    }

    pub(crate) fn delete(&mut self, namespace: Namespace, key: &[u8]) {
        let Some(keys) = self.namespaces.get_mut(&namespace) else {
            return;
        };
        if let Some(old) = keys.remove(key)
            && let Some(used) = self.bytes.get_mut(&namespace.owner)
        {
            *used -= key.len() + old.len();
        }
        if keys.is_empty() {
            self.namespaces.remove(&namespace);
        }
    }

    pub(crate) fn get(&self, namespace: Namespace, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.namespaces.get(&namespace)?.get(key)
    }

    /// The pairs of a namespace whose keys begin with `prefix`, in order.
    pub(crate) fn beginning<'a>(
        &'a self,
        namespace: Namespace,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a Arc<[u8]>)> + 'a {
        let range = (Bound::Included(prefix), Bound::Unbounded);
        self.namespaces
            .get(&namespace)
            .into_iter()
            .flat_map(move |keys| keys.range::<[u8], _>(range))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_slice(), value))
    }

    /// Bytes of keys and values of one service.
    pub(crate) fn bytes_of(&self, owner: ServiceName) -> usize {
        self.bytes.get(&owner).copied().unwrap_or_default()
    }

    /// Pairs after `after`, up to a page, and whether more follow.
    pub(crate) fn page(&self, namespace: Namespace, after: &[u8]) -> (Page, bool) {
        let Some(keys) = self.namespaces.get(&namespace) else {
            return (Vec::new(), false);
        };
        let start = if after.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(after)
        };
        let mut pairs = Vec::new();
        let mut bytes = 0;
        for (key, value) in keys.range::<[u8], _>((start, Bound::Unbounded)) {
            bytes += key.len() + value.len();
            if !pairs.is_empty() && bytes > PAGE_BYTES {
                return (pairs, true);
            }
            pairs.push((key.clone(), value.to_vec()));
        }
        (pairs, false)
    }

    /// All records of the namespaces that `wanted` picks, in order, after `cursor`.
    pub(crate) fn records<'a>(
        &'a self,
        cursor: Option<&'a Cursor>,
        wanted: impl Fn(Namespace) -> bool + 'a,
    ) -> impl Iterator<Item = (Namespace, &'a [u8], &'a Arc<[u8]>)> + 'a {
        let from = cursor.map(|cursor| (cursor.namespace, cursor.key.as_slice()));
        let first = from.map_or(Bound::Unbounded, |(namespace, _)| {
            Bound::Included(namespace)
        });
        self.namespaces
            .range((first, Bound::Unbounded))
            .filter(move |(namespace, _)| wanted(**namespace))
            .flat_map(move |(namespace, keys)| {
                let start = match from {
                    Some((at, key)) if at == *namespace => Bound::Excluded(key),
                    Some(_) | None => Bound::Unbounded,
                };
                keys.range::<[u8], _>((start, Bound::Unbounded))
                    .map(move |(key, value)| (*namespace, key.as_slice(), value))
            })
    }

    /// Takes over the namespaces of `other` that `wanted` picks.
    pub(crate) fn absorb(&mut self, other: &Self, wanted: impl Fn(Namespace) -> bool) {
        for (namespace, key, value) in other.records(None, wanted) {
            self.put(namespace, key.to_vec(), Arc::clone(value));
        }
        self.rehash();
    }

    /// First 64 bits of the SHA-256 over the configuration's pairs, each length-prefixed.
    pub(crate) const fn config_hash(&self) -> u64 {
        self.config_hash
    }

    pub(crate) fn rehash(&mut self) {
        let mut hasher = Sha256::new();
        for (key, value) in self
            .namespaces
            .get(&config_namespace())
            .into_iter()
            .flatten()
        {
            for part in [key.as_slice(), value] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        let digest = hasher.finalize();
        self.config_hash = digest
            .iter()
            .take(8)
            .fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    }

    /// Bytes of each service, counted anew (for checks).
    pub(crate) fn counted_bytes(&self) -> BTreeMap<ServiceName, usize> {
        let mut sums = BTreeMap::new();
        for (namespace, key, value) in self.records(None, |_| true) {
            *sums.entry(namespace.owner).or_default() += key.len() + value.len();
        }
        sums
    }
}

/// Whether a namespace is replicated.
pub(crate) fn is_shared(namespace: Namespace) -> bool {
    namespace.scope == Scope::SharedGlobal
}
