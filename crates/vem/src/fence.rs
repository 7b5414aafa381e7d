//! The epoch fence.
//!
//! It holds the highest epoch obeyed and the highest promised to a candidate; the *floor* is the
//! higher of both, and nothing below it is obeyed.
//!
//! Invariants:
//! - what is durable is not above what is held;
//! - neither ever decreases.

use model::Epoch;
use serde::{Deserialize, Serialize};
use wire::vem::Fenced;

/// What is held, and what of it is durable.
///
/// | state | claim above the floor | claim of the floor | claim below, or a clone | promise of it or above | promise below, or a clone | persisted |
/// |---|---|---|---|---|---|---|
/// | settled (the floor is durable) | raise, → writing | obey | refuse | promise, → writing if above | refuse | – |
/// | writing | raise, → writing | await | refuse | promise, → writing | refuse | → settled if it is the floor |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    durable: Fenced,
    held: Fenced,
}

/// What a claim's epoch means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is the floor, and durable.
    Obey,
    /// It is the floor, and its write is under way.
    Await,
    /// It is the floor from now on, and has to be written.
    Raise,
    /// It is below the floor.
    Refuse,
    /// It is a known epoch's counter and node under another incarnation.
    RefuseClone,
}

impl Fence {
    /// Starts from what is durable.
    #[must_use]
    pub const fn new(durable: Fenced) -> Self {
        Self {
            durable,
            held: durable,
        }
    }

    /// Judges the epoch of a claim. One that is obeyed, or will be, is noted as such: that it was
    /// promised before makes it no less a claim.
    pub fn judge(&mut self, epoch: Epoch) -> Ruling {
        if self.knows_a_clone_of(epoch) {
            return Ruling::RefuseClone;
        }
        match epoch.cmp(&self.floor()) {
            core::cmp::Ordering::Less => Ruling::Refuse,
            core::cmp::Ordering::Equal => {
                self.held.obeyed = epoch;
                if self.is_durable() {
                    Ruling::Obey
                } else {
                    Ruling::Await
                }
            }
            core::cmp::Ordering::Greater => {
                self.held.obeyed = epoch;
                Ruling::Raise
            }
        }
    }

    /// Promises to obey nothing below `candidate`. False if something higher is held, or a clone
    /// of it.
    pub fn promise(&mut self, candidate: Epoch) -> bool {
        let may = candidate >= self.floor() && !self.knows_a_clone_of(candidate);
        if may {
            self.held.promised = candidate;
        }
        may
    }

    fn knows_a_clone_of(&self, epoch: Epoch) -> bool {
        let Fenced { obeyed, promised } = self.held;
        epoch.is_clone_of(obeyed) || epoch.is_clone_of(promised)
    }

    /// `fenced` is durable.
    pub fn persisted(&mut self, fenced: Fenced) {
        let durable = self.durable.max(fenced);
        self.durable = Fenced {
            obeyed: durable.obeyed.min(self.held.obeyed),
            promised: durable.promised.min(self.held.promised),
        };
    }

    /// What is held.
    #[must_use]
    pub const fn held(&self) -> Fenced {
        self.held
    }

    /// Nothing below it is obeyed.
    #[must_use]
    pub fn floor(&self) -> Epoch {
        self.held.floor()
    }

    /// The floor that survives a crash.
    #[must_use]
    pub fn durable(&self) -> Epoch {
        self.durable.floor()
    }

    /// Whether the floor is durable.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable.floor() == self.held.floor()
    }

    /// Whether all that is held is durable.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.durable == self.held
    }

    pub(crate) fn check(&self) {
        assert!(
            self.durable.obeyed <= self.held.obeyed && self.durable.promised <= self.held.promised,
            "durable above what is held"
        );
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

    fn obeyed(obeyed: Epoch) -> Fenced {
        Fenced {
            obeyed,
            promised: Epoch::default(),
        }
    }

    #[test]
    fn every_claim_and_promise_in_every_state() {
        let (low, base, high) = (epoch(4, 1, 9), epoch(5, 1, 9), epoch(6, 1, 9));
        let clone = epoch(5, 1, 10);
        let settled = Fence::new(obeyed(base));
        let mut writing = Fence::new(obeyed(low));
        assert_eq!(writing.judge(base), Ruling::Raise);
        let promised = Fence::new(Fenced {
            obeyed: low,
            promised: base,
        });
        let mut promising = Fence::new(obeyed(low));
        assert!(promising.promise(base));
        for (fence, claim, expected, may) in [
            (&settled, low, Ruling::Refuse, false),
            (&settled, base, Ruling::Obey, true),
            (&settled, high, Ruling::Raise, true),
            (&settled, clone, Ruling::RefuseClone, false),
            (&writing, low, Ruling::Refuse, false),
            (&writing, base, Ruling::Await, true),
            (&writing, high, Ruling::Raise, true),
            (&writing, clone, Ruling::RefuseClone, false),
            (&promised, low, Ruling::Refuse, false),
            (&promised, base, Ruling::Obey, true),
            (&promised, high, Ruling::Raise, true),
            (&promised, clone, Ruling::RefuseClone, false),
            (&promising, low, Ruling::Refuse, false),
            (&promising, base, Ruling::Await, true),
            (&promising, high, Ruling::Raise, true),
            (&promising, clone, Ruling::RefuseClone, false),
        ] {
            let mut claimed = fence.clone();
            assert_eq!(claimed.judge(claim), expected, "{fence:?} {claim}");
            claimed.check();
            let mut candidate = fence.clone();
            assert_eq!(candidate.promise(claim), may, "{fence:?} {claim}");
            candidate.check();
            for after in [claimed, candidate] {
                assert!(after.floor() >= fence.floor(), "{fence:?} {claim}");
                assert!(after.floor() == fence.floor() || !after.is_durable());
            }
        }
    }

    #[test]
    fn a_promise_kept_is_told_from_one_that_was_not() {
        let (low, high) = (epoch(5, 1, 9), epoch(6, 2, 9));
        let mut fence = Fence::new(obeyed(low));
        assert!(fence.promise(high));
        fence.persisted(fence.held());
        let promise = Fenced {
            obeyed: low,
            promised: high,
        };
        assert_eq!(Fence::new(promise), fence, "as after a restart");
        assert_eq!(fence.judge(high), Ruling::Obey, "it waits for no disk");
        assert!(fence.is_durable() && !fence.is_written());
        assert_eq!(fence.held().obeyed, high);
    }

    #[test]
    fn same_counter_of_another_node_is_ordered_not_a_clone() {
        let mut fence = Fence::new(obeyed(epoch(5, 1, 9)));
        assert_eq!(fence.judge(epoch(5, 2, 1)), Ruling::Raise);
        assert_eq!(fence.judge(epoch(5, 1, 9)), Ruling::Refuse);
    }

    #[test]
    fn write_of_an_older_epoch_does_not_settle_a_newer() {
        let mut fence = Fence::new(Fenced::default());
        fence.judge(epoch(1, 1, 1));
        fence.judge(epoch(2, 1, 1));
        fence.persisted(obeyed(epoch(1, 1, 1)));
        assert!(!fence.is_durable());
        fence.persisted(obeyed(epoch(2, 1, 1)));
        assert!(fence.is_durable());
    }
}
