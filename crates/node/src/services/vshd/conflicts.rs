//! `vshd`'s copy of what was archived of nodes that lost a conflict: the heads, and of each the
//! running configuration.

use std::collections::BTreeMap;

use cli::answer::{Conflict, ConflictCount, Conflicts};
use config::lines_that_differ;
use wire::checkpoint::{Durability, Namespace, Operation};
use wire::conflict::{ConflictHead, ConflictId, KEPT, RECORD_PREFIX, decode_head, is_head};

use super::wall;
use crate::services::configuration::{CONFIGURATION, RUNNING};

/// See the module. Both maps are keyed as the store is.
#[derive(Clone, Debug, Default)]
pub(super) struct Archives {
    heads: BTreeMap<(Namespace, Vec<u8>), ConflictHead>,
    running: BTreeMap<(Namespace, Vec<u8>), String>,
}

fn is_running(key: &[u8]) -> bool {
    let sample = ConflictId::default().record_key(CONFIGURATION, RUNNING);
    let tail = &sample[ConflictId::default().record_prefix().len()..];
    key.len() == sample.len() && key.starts_with(RECORD_PREFIX) && key.ends_with(tail)
}

impl Archives {
    /// Forgets one namespace.
    pub(super) fn reset(&mut self, namespace: Namespace) {
        self.heads.retain(|(within, _), _| *within != namespace);
        self.running.retain(|(within, _), _| *within != namespace);
    }

    pub(super) fn apply(&mut self, operations: Vec<Operation>) {
        for operation in operations {
            match operation {
                Operation::Put {
                    namespace,
                    key,
                    value,
                } => {
                    if is_head(&key) {
                        let head = decode_head(&value);
                        self.heads.extend(head.map(|head| ((namespace, key), head)));
                    } else if is_running(&key) {
                        let text = String::from_utf8_lossy(&value).into_owned();
                        self.running.insert((namespace, key), text);
                    }
                }
                Operation::Delete { namespace, key } => {
                    let place = (namespace, key);
                    self.heads.remove(&place);
                    self.running.remove(&place);
                }
            }
        }
    }

    fn running_of(&self, namespace: Namespace, id: ConflictId) -> &str {
        let place = (namespace, id.record_key(CONFIGURATION, RUNNING));
        self.running.get(&place).map_or("", String::as_str)
    }

    /// The archived running configuration of a conflict; empty if it had none.
    pub(super) fn find(&self, number: u32) -> Option<&str> {
        let ((namespace, _), head) = self
            .heads
            .iter()
            .find(|((namespace, _), head)| *namespace == KEPT && head.number == number)?;
        Some(self.running_of(*namespace, head.id))
    }

    /// All of them, against the running configuration.
    pub(super) fn list(&self, running: &str) -> Conflicts {
        let kept = |id: ConflictId| self.heads.contains_key(&(KEPT, id.head_key()));
        let mut conflicts: Vec<Conflict> = self
            .heads
            .iter()
            .filter(|((namespace, _), head)| *namespace == KEPT || !kept(head.id))
            .map(|((namespace, _), head)| self.conflict(*namespace, head, running))
            .collect();
        conflicts.sort_by_key(|conflict| conflict.number.unwrap_or(u32::MAX));
        Conflicts { conflicts }
    }

    fn conflict(&self, namespace: Namespace, head: &ConflictHead, running: &str) -> Conflict {
        let (lines_lost, lines_gained) =
            lines_that_differ(self.running_of(namespace, head.id), running);
        let when = match head.taken_unix_s {
            0 => String::new(),
            unix_s => wall::ctime(unix_s),
        };
        Conflict {
            number: (namespace == KEPT).then_some(head.number),
            when,
            node: head.slot,
            epoch: head.id.epoch.to_string(),
            lsn: head.id.lsn.0,
            prevailed: head.rival.to_string(),
            reason: head.reason.clone(),
            commits: head.commits,
            lines_lost,
            lines_gained,
            counts: head.counts.iter().map(count).collect(),
            left_out: head.left_out,
        }
    }
}

fn count((namespace, records): &(Namespace, u32)) -> ConflictCount {
    ConflictCount {
        service: namespace.owner.to_string(),
        records: *records,
        archived: namespace.durability == Durability::Persistent,
    }
}
