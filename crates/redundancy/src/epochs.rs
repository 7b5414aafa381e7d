//! Epochs: which have been seen, which is reserved, which comes next.
//!
//! Invariants:
//! - E1 the highest epoch seen never decreases;
//! - E2 an epoch that is to be used is durable before;
//! - E3 none is used twice: each next one is above every one seen and every one this node ever
//!   reserved, and bears this start's incarnation.

use model::{Epoch, Incarnation, NodeKey};

use crate::record::NodeRecord;

/// The epoch after all that `record` remembers and `seen`.
pub(crate) fn next(
    record: &NodeRecord,
    seen: Epoch,
    node: NodeKey,
    incarnation: Incarnation,
) -> Epoch {
    seen.max(record.highest_epoch)
        .max(record.reserved_epoch)
        .above(node, incarnation)
}

/// A standby's next epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Reservation {
    /// None, or void.
    #[default]
    None,
    /// Being made durable by this write.
    Writing(Epoch, u64),
    /// Durable.
    Durable(Epoch),
}

impl Reservation {
    /// The reserved epoch, if it is durable, above `seen`, and not below what VEMs have `promised`
    /// (to this very epoch, if it is equal).
    pub(crate) fn valid(self, seen: Epoch, promised: Epoch) -> Option<Epoch> {
        match self {
            Self::Durable(epoch) if !is_void(epoch, seen, promised) => Some(epoch),
            Self::None | Self::Writing(..) | Self::Durable(_) => None,
        }
    }

    /// True if a new one must be made.
    pub(crate) fn needed(self, seen: Epoch, promised: Epoch) -> bool {
        match self {
            Self::None => true,
            Self::Writing(epoch, _) | Self::Durable(epoch) => is_void(epoch, seen, promised),
        }
    }
}

fn is_void(reserved: Epoch, seen: Epoch, promised: Epoch) -> bool {
    reserved <= seen || reserved < promised
}
