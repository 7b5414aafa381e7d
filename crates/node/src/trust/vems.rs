//! Which host agents are trusted, on both nodes of a pair.
//!
//! Invariants:
//! - T1 of two statements about one agent the one of the higher version holds, and of two of the
//!   same version the one that trusts: so both nodes come to the same list, in whatever order they
//!   hear, and an agent that was removed while a node was away does not come back with it;
//! - T2 at most [`VEMS_MAX`] agents are trusted, and at most [`VEM_PINS_MAX`] remembered: the
//!   removals of the lowest versions are forgotten first.

use model::NodeKey;
use wire::control::{VEM_PINS_MAX, VemPin};

/// Most host agents that are trusted: hundreds of hosts per pair (design).
pub const VEMS_MAX: usize = 1000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vems(Vec<VemPin>);

impl Vems {
    pub(super) const fn new(pins: Vec<VemPin>) -> Self {
        Self(pins)
    }

    pub(super) fn pins(&self) -> &[VemPin] {
        &self.0
    }

    /// Those that are trusted.
    pub(super) fn trusted(&self) -> Vec<NodeKey> {
        let trusted = self.0.iter().filter(|pin| pin.pinned);
        trusted.map(|pin| pin.key).collect()
    }

    pub(super) fn trusts(&self, key: &NodeKey) -> bool {
        self.0.iter().any(|pin| pin.pinned && pin.key == *key)
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.iter().filter(|pin| pin.pinned).count() >= VEMS_MAX
    }

    /// Trusts an agent from now on, or no more.
    pub(super) fn set(&mut self, key: NodeKey, pinned: bool) {
        let version = 1 + self.0.iter().map(|pin| pin.version).max().unwrap_or(0);
        self.merge(&[VemPin {
            key,
            version,
            pinned,
        }]);
    }

    /// Takes over what the other node knows. True if that changed anything.
    pub(super) fn merge(&mut self, theirs: &[VemPin]) -> bool {
        let before = self.clone();
        for pin in theirs.iter().take(VEM_PINS_MAX) {
            let full = pin.pinned && self.is_full() && !self.trusts(&pin.key);
            match self.0.iter_mut().find(|known| known.key == pin.key) {
                _ if full => {}
                Some(known) if (pin.version, pin.pinned) > (known.version, known.pinned) => {
                    *known = *pin;
                }
                Some(_) => {}
                None => self.0.push(*pin),
            }
        }
        while self.0.len() > VEM_PINS_MAX {
            let removed = self.0.iter().enumerate().filter(|(_, pin)| !pin.pinned);
            let oldest = removed.min_by_key(|(_, pin)| pin.version);
            let Some(index) = oldest.map(|(index, _)| index) else {
                break;
            };
            self.0.remove(index);
        }
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use model::NodeKey;
    use wire::control::{VEM_PINS_MAX, VemPin};

    use super::{VEMS_MAX, Vems};

    const fn key(number: u8) -> NodeKey {
        NodeKey([number; 32])
    }

    fn meet(one: &mut Vems, two: &mut Vems) {
        let theirs = two.pins().to_vec();
        two.merge(one.pins());
        one.merge(&theirs);
        let sorted = |vems: &Vems| {
            let mut trusted = vems.trusted();
            trusted.sort();
            trusted
        };
        assert_eq!(sorted(one), sorted(two));
    }

    #[test]
    fn a_removal_while_one_node_was_away_holds_until_the_agent_is_enrolled_again() {
        let (mut one, mut two) = (Vems::default(), Vems::default());
        one.set(key(1), true);
        one.set(key(2), true);
        meet(&mut one, &mut two);
        one.set(key(1), false);
        meet(&mut one, &mut two);
        assert_eq!(two.trusted(), [key(2)]);
        // The first goes away; the second enrols it anew.
        two.set(key(1), true);
        meet(&mut one, &mut two);
        assert!(one.trusts(&key(1)));
        assert!(!one.merge(two.pins()), "nothing more to learn");
    }

    #[test]
    fn the_list_is_bounded_and_forgets_old_removals_first() {
        let mut vems = Vems::default();
        let number = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(number as u64).to_le_bytes());
            NodeKey(key)
        };
        for index in 0..VEM_PINS_MAX + 10 {
            vems.set(number(index), true);
            vems.set(number(index), false);
        }
        assert_eq!(vems.pins().len(), VEM_PINS_MAX);
        assert!(vems.pins().iter().all(|pin| pin.key != number(0)));
        let flood: Vec<_> = (0..5_000)
            .map(|index| VemPin {
                key: number(index),
                version: 1_000_000,
                pinned: true,
            })
            .collect();
        vems.merge(&flood);
        assert!(vems.trusted().len() <= VEMS_MAX && vems.pins().len() <= VEM_PINS_MAX);
    }
}
