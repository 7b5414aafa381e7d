//! All that the host agent can ask for.

use core::fmt;

use model::{Epoch, Generation, NodeKey, Verdict};
use serde::{Deserialize, Serialize};
use wire::vem::{Fenced, FromVem};

use crate::types::{Flow, FlowId, GatewayId, SlotId};

/// One effect. To be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Send to a gateway; if the connection is gone, drop it (`Disconnected` is on its way).
    Send {
        /// To whom.
        gateway: GatewayId,
        /// What.
        message: FromVem,
    },
    /// Trust these gateways and no others, durably, then answer the gateway with
    /// [`FromVem::GatewaysPinned`].
    Trust {
        /// Who said so: the one that is obeyed.
        gateway: GatewayId,
        /// Their identities.
        keys: Vec<NodeKey>,
    },
    /// Make this what the fence holds, durably, then say [`crate::Input::Persisted`]. A barrier if
    /// it raises the floor: no [`Output::Send`] follows until then. Packets do not wait for it.
    Persist(Fenced),
    /// Pending → draining, with a permit.
    Drain {
        /// The flow.
        flow: Flow,
        /// The policy that decided; 0 for fail-open.
        generation: Generation,
        /// Counter of the epoch that decided; 0 for fail-open.
        epoch_counter: u64,
        /// Packets of the flow that were discarded, and will not come back.
        discarded: u32,
    },
    /// Pending → dropped. Its packets have been discarded.
    Deny {
        /// The flow.
        flow: Flow,
        /// [`Verdict::Drop`] or [`Verdict::Reset`].
        verdict: Verdict,
        /// The policy that decided.
        generation: Generation,
        /// Counter of the epoch that decided.
        epoch_counter: u64,
    },
    /// Pending or dropped → gone: a later packet asks anew.
    Forget(Flow),
    /// Draining → settled, if nothing is queued or by force; answered by
    /// [`crate::Input::Settled`].
    Settle {
        /// The flow.
        flow: Flow,
        /// Even if the kernel still counts packets on their way: they were lost in the tap.
        force: bool,
    },
    /// Confirm or turn the verdict of a settled flow.
    Revalidate {
        /// The flow.
        flow: Flow,
        /// The verdict.
        verdict: Verdict,
        /// The policy that decided.
        generation: Generation,
        /// Counter of the epoch that decided.
        epoch_counter: u64,
    },
    /// Write the packet back to its port's tap, then free the slot.
    Write(SlotId),
    /// Free the slot.
    Discard(SlotId),
    /// Look for settled flows older than a generation; answered by [`crate::Input::Walked`].
    Walk {
        /// Flows of a lower one are wanted.
        older_than: Generation,
        /// Go on behind this flow; `None` to begin.
        after: Option<FlowId>,
        /// Most entries to look at.
        limit: u32,
    },
    /// Tell the operator.
    Log(Event),
    /// End the process, to be started anew: an operator asked for it.
    Restart,
}

/// What is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A gateway is obeyed from now on.
    Obeying {
        /// Which.
        gateway: GatewayId,
        /// Its epoch.
        epoch: Epoch,
        /// Flows that wait and are asked for again.
        waiting: u32,
    },
    /// Nobody is obeyed: the active released its claim, or its connection broke.
    NobodyObeyed {
        /// Whom we obeyed.
        gateway: GatewayId,
    },
    /// A claim was below the highest epoch.
    ClaimRefused {
        /// Whose.
        gateway: GatewayId,
        /// Its epoch.
        epoch: Epoch,
        /// The highest.
        highest: Epoch,
    },
    /// Two incarnations of one node claim the same counter.
    Clone {
        /// The later one.
        gateway: GatewayId,
        /// Its epoch.
        epoch: Epoch,
        /// The one obeyed before.
        highest: Epoch,
    },
    /// The fence's floor, this, could not be made durable; nobody is obeyed until it is.
    PersistFailed(Epoch),
    /// The active did not answer in time: epochs below the candidate's are refused from now on.
    Promised {
        /// The standby that asked.
        gateway: GatewayId,
        /// Its epoch if it takes over.
        candidate: Epoch,
    },
    /// The active orders a restart, for an operator.
    Restarted {
        /// Which.
        gateway: GatewayId,
    },
    /// No gateway for the hold limit: new flows follow the fail mode.
    FailModeBegan,
    /// All flows have a verdict of the current policy.
    Revalidated {
        /// The policy.
        generation: Generation,
        /// Flows asked for again.
        asked: u64,
        /// Of them, turned from permit to drop.
        turned: u64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Obeying {
                gateway,
                epoch,
                waiting,
            } => {
                write!(f, "obeying gateway {} under epoch {epoch}", gateway.0 + 1)?;
                write!(f, ", {waiting} flows waiting")
            }
            Self::NobodyObeyed { gateway } => {
                write!(
                    f,
                    "no active gateway: gateway {} released us or is gone",
                    gateway.0 + 1
                )
            }
            Self::ClaimRefused {
                gateway,
                epoch,
                highest,
            } => write!(
                f,
                "refused the claim of gateway {} under epoch {epoch}: {highest} is higher",
                gateway.0 + 1
            ),
            Self::Clone {
                gateway,
                epoch,
                highest,
            } => write!(
                f,
                "gateway {} claims epoch {epoch}, obeyed already as {highest}: a clone, refused",
                gateway.0 + 1
            ),
            Self::PersistFailed(epoch) => {
                write!(
                    f,
                    "epoch {epoch} cannot be made durable: nobody is obeyed until it is"
                )
            }
            Self::Promised { gateway, candidate } => write!(
                f,
                "the active is silent: promised gateway {} to obey nothing below epoch {candidate}",
                gateway.0 + 1
            ),
            Self::Restarted { gateway } => write!(
                f,
                "restarting: ordered by an operator at gateway {}",
                gateway.0 + 1
            ),
            Self::FailModeBegan => f.write_str("no active gateway: new flows follow the fail mode"),
            Self::Revalidated {
                generation,
                asked,
                turned,
            } => write!(
                f,
                "policy generation {}: {asked} flows asked for again, {turned} of them dropped",
                generation.0
            ),
        }
    }
}
