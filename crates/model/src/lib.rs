//! The nouns every part of Twinwall shares, one module per family.
//!
//! Nothing here does anything: these are values with their order, their limits and their
//! spelling. Time is monotonic and passed in; wall time has no type here on purpose.

mod condition;
mod epoch;
mod flow;
mod identity;
mod place;
mod service;
mod time;
mod traffic;

pub use condition::{
    Action, Attribute, Condition, ConditionError, Field, InspectedProtocol, MatchCriteria,
    OBJECT_NAME_MAX_BYTES, ObjectName, ObjectNameError, Side, Test, Value,
};
pub use epoch::{Epoch, Incarnation};
pub use flow::{Direction, FlowAttributes, FlowKey, Generation, Protocol, Verdict};
pub use identity::{NodeKey, ParseNodeKeyError};
pub use place::{ConflictPolicy, InvalidPairId, LinkId, ModuleNumber, PairId, Role, Slot};
pub use service::{Sap, ServiceKind, ServiceName, UnknownService};
pub use time::Time;
pub use traffic::{DropReason, PortKind, PortTraffic};

use serde::{Deserialize, Serialize};

/// Log sequence number: the position of a commit in the checkpoint log. Gapless, from 1;
/// 0 means "nothing yet".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
