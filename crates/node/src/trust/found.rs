//! Nodes that are here and not paired: who knocked with an identity that is not pinned.
//!
//! Invariant: at most [`FOUND_MAX`] are remembered; a further one takes the place of the one that
//! was seen longest ago, so that whoever knocks under ever new identities costs no memory.

use core::time::Duration;
use std::collections::BTreeMap;

use model::{NodeKey, Time};
use wire::supervision::FoundNode;

/// Nodes remembered. One or two are there when an operator looks; the rest is slack for a network
/// with several pairs on it.
pub const FOUND_MAX: usize = 16;
/// Log lines about one of them are this far apart: a node that waits to be paired knocks for hours.
pub(super) const LOG_PERIOD: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Seen {
    address: String,
    count: u64,
    first: Time,
    last: Time,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    nodes: BTreeMap<NodeKey, Seen>,
    told: Option<Time>,
}

impl Found {
    /// Somebody was found. True if it is to be logged: at most one line per [`LOG_PERIOD`].
    pub(super) fn see(&mut self, now: Time, key: NodeKey, address: String) -> bool {
        if !self.nodes.contains_key(&key) && self.nodes.len() >= FOUND_MAX {
            let oldest = self.nodes.iter().min_by_key(|(_, seen)| seen.last);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.nodes.remove(&oldest);
            }
        }
        let seen = self.nodes.entry(key).or_insert_with(|| Seen {
            address: String::new(),
            count: 0,
            first: now,
            last: now,
        });
        seen.count += 1;
        seen.last = now;
        seen.address = address;
        let due = self.told.is_none_or(|told| now.since(told) >= LOG_PERIOD);
        if due {
            self.told = Some(now);
        }
        due
    }

    /// It is paired now.
    pub(super) fn forget(&mut self, key: &NodeKey) {
        self.nodes.remove(key);
    }

    /// Those seen last first.
    pub(super) fn rows(&self, now: Time) -> Vec<FoundNode> {
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        nodes.sort_by_key(|(_, seen)| core::cmp::Reverse(seen.last));
        nodes
            .into_iter()
            .map(|(key, seen)| FoundNode {
                fingerprint: *key,
                address: seen.address.clone(),
                count: seen.count,
                first_s: now.since(seen.first).as_secs(),
                last_s: now.since(seen.last).as_secs(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use model::{NodeKey, Time};

    use super::{FOUND_MAX, Found, LOG_PERIOD};

    #[test]
    fn ever_new_identities_cost_no_memory_and_no_log() {
        let mut found = Found::default();
        let logged = (0..200_u8)
            .filter(|number| {
                found.see(Time(u64::from(*number)), NodeKey([*number; 32]), "a".into())
            })
            .count();
        assert_eq!(logged, 1);
        let rows = found.rows(Time(200));
        assert_eq!(rows.len(), FOUND_MAX);
        assert_eq!(rows[0].fingerprint, NodeKey([199; 32]));
        assert!(found.see(Time(0) + LOG_PERIOD, NodeKey([1; 32]), "b".into()));
        found.forget(&NodeKey([1; 32]));
        assert!(
            found
                .rows(Time(0))
                .iter()
                .all(|row| row.fingerprint != NodeKey([1; 32]))
        );
    }
}
