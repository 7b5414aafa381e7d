//! The fencing token.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeKey;

/// Drawn anew at each start of a node's System Manager; two processes that claim the same
/// identity (a clone, a restored snapshot) differ in it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

/// The term under which one node is active. At most one node is ever active in an epoch.
///
/// Ordered by (counter, node, incarnation), so two nodes that reserve the same counter still
/// hold different epochs. Every claim, configuration push and verdict carries one; whoever has
/// seen a higher one refuses the lower.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch {
    /// Grows with every takeover; 0 is the epoch before any.
    pub counter: u64,
    /// The node that owns this epoch.
    pub node: NodeKey,
    /// The start of that node which took it.
    pub incarnation: Incarnation,
}

impl Epoch {
    /// The lowest epoch of `node` that is above `self`.
    #[must_use]
    pub const fn above(self, node: NodeKey, incarnation: Incarnation) -> Self {
        Self {
            // Not reached by one takeover after another; who tells such an epoch is not believed.
            counter: self.counter.saturating_add(1),
            node,
            incarnation,
        }
    }

    /// True when `self` and `other` are one node's same epoch under two incarnations: only a
    /// clone or a restored snapshot can make such a pair.
    #[must_use]
    pub fn is_clone_of(self, other: Self) -> bool {
        self.counter == other.counter
            && self.node == other.node
            && self.incarnation != other.incarnation
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:?}.{:x}",
            self.counter,
            self.node,
            self.incarnation.0 & 0xffff
        )
    }
}
