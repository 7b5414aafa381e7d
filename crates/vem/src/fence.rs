//! The epoch fence.
//!
//! Invariants:
//! - `durable <= highest`.
//! - Neither ever decreases.

use model::Epoch;
use serde::{Deserialize, Serialize};

/// The highest epoch seen, and what of it is durable.
///
/// | state | claim above highest | claim equal | claim below, or a clone | persisted |
/// |---|---|---|---|---|
/// | settled (`durable = highest`) | raise, → writing | obey | refuse | – |
/// | writing (`durable < highest`) | raise, → writing | await | refuse | → settled if it is the highest |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    durable: Epoch,
    highest: Epoch,
}

/// What a claim's epoch means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is the highest, and durable.
    Obey,
    /// It is the highest, and its write is under way.
    Await,
    /// It is the highest from now on, and has to be written.
    Raise,
    /// It is below the highest.
    Refuse,
    /// It is the highest epoch's counter and node under another incarnation.
    RefuseClone,
}

impl Fence {
    /// Starts from what is durable.
    #[must_use]
    pub const fn new(durable: Epoch) -> Self {
        Self {
            durable,
            highest: durable,
        }
    }

    /// Judges the epoch of a claim.
    pub fn judge(&mut self, epoch: Epoch) -> Ruling {
        if epoch.is_clone_of(self.highest) {
            return Ruling::RefuseClone;
        }
        match epoch.cmp(&self.highest) {
            core::cmp::Ordering::Less => Ruling::Refuse,
            core::cmp::Ordering::Equal if self.is_durable() => Ruling::Obey,
            core::cmp::Ordering::Equal => Ruling::Await,
            core::cmp::Ordering::Greater => {
                self.highest = epoch;
                Ruling::Raise
            }
        }
    }

    /// `epoch` is durable.
    pub fn persisted(&mut self, epoch: Epoch) {
        self.durable = self.durable.max(epoch).min(self.highest);
    }

    /// The highest epoch seen.
    #[must_use]
    pub const fn highest(&self) -> Epoch {
        self.highest
    }

    /// The highest epoch that survives a crash.
    #[must_use]
    pub const fn durable(&self) -> Epoch {
        self.durable
    }

    /// Whether they are the same.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable == self.highest
    }

    pub(crate) fn check(&self) {
        assert!(self.durable <= self.highest, "durable above highest");
    }
}

#[cfg(test)]
mod tests {
    use model::{Incarnation, NodeKey};

    use super::*;

    fn epoch(counter: u64, node: u8, incarnation: u64) -> Epoch {
        Epoch {
            counter,
            node: NodeKey([node; 32]),
            incarnation: Incarnation(incarnation),
        }
    }

    #[test]
    fn every_claim_in_every_state() {
        let (low, base, high) = (epoch(4, 1, 9), epoch(5, 1, 9), epoch(6, 1, 9));
        let clone = epoch(5, 1, 10);
        let settled = Fence::new(base);
        let mut writing = Fence::new(low);
        assert_eq!(writing.judge(base), Ruling::Raise);
        for (fence, claim, expected) in [
            (&settled, low, Ruling::Refuse),
            (&settled, base, Ruling::Obey),
            (&settled, high, Ruling::Raise),
            (&settled, clone, Ruling::RefuseClone),
            (&writing, low, Ruling::Refuse),
            (&writing, base, Ruling::Await),
            (&writing, high, Ruling::Raise),
            (&writing, clone, Ruling::RefuseClone),
        ] {
            let mut fence = fence.clone();
            assert_eq!(fence.judge(claim), expected, "{fence:?} {claim}");
            fence.check();
        }
    }

    #[test]
    fn same_counter_of_another_node_is_ordered_not_a_clone() {
        let mut fence = Fence::new(epoch(5, 1, 9));
        assert_eq!(fence.judge(epoch(5, 2, 1)), Ruling::Raise);
        assert_eq!(fence.judge(epoch(5, 1, 9)), Ruling::Refuse);
    }

    #[test]
    fn write_of_an_older_epoch_does_not_settle_a_newer() {
        let mut fence = Fence::new(Epoch::default());
        fence.judge(epoch(1, 1, 1));
        fence.judge(epoch(2, 1, 1));
        fence.persisted(epoch(1, 1, 1));
        assert!(!fence.is_durable());
        fence.persisted(epoch(2, 1, 1));
        assert!(fence.is_durable());
    }
}
