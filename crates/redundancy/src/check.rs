//! The invariants that are visible in one node's state, checked after every turn of every test and
//! of the simulation.

use wire::heartbeat::State;
use wire::supervision::Activity;

use crate::active::Mode;
use crate::alone::Grant;
use crate::core::Core;
use crate::phase::Phase;

/// An invariant that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// V1.
    #[error(
        "V1: acts under an epoch that is not its own, or below one it has seen or that is promised"
    )]
    ForeignEpoch,
    /// V3.
    #[error("V3: services are told to act by a node that does not lead")]
    ActsWithoutLeading,
    /// E2.
    #[error("E2: an epoch is used that is not durable")]
    EpochNotDurable,
    /// A1.
    #[error("A1: a grant stands beside the alone mark")]
    GrantWhileAlone,
    /// T1.
    #[error("T1: a standby is called stable without a valid reservation")]
    StableWithoutReservation,
    /// A heartbeat grants what the core does not.
    #[error("A1: the heartbeat grants what has not been given")]
    GrantNotGiven,
}

impl Core {
    /// Checks this node's invariants. To be called when the outputs of a turn are drained.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn check(&self) -> Result<(), Violation> {
        let ctx = &self.ctx;
        if let Some(epoch) = self.acting() {
            let Phase::Active(active) = &self.phase else {
                return Err(Violation::ActsWithoutLeading);
            };
            let own = (epoch.node, epoch.incarnation) == (ctx.node, ctx.incarnation);
            let promised = active.mode == Mode::Acting && ctx.promised > epoch;
            if epoch != active.epoch || !own || ctx.seen > epoch || promised {
                return Err(Violation::ForeignEpoch);
            }
            if ctx.durable_epoch() < epoch {
                return Err(Violation::EpochNotDurable);
            }
        }
        if let Phase::Active(active) = &self.phase
            && active.leave.grant == Grant::Given
            && ctx.record.alone
        {
            return Err(Violation::GrantWhileAlone);
        }
        let Some(said) = &ctx.said else { return Ok(()) };
        if said.state == State::Standby && said.reserved.is_none_or(|epoch| epoch <= ctx.seen) {
            return Err(Violation::StableWithoutReservation);
        }
        let given = match &self.phase {
            Phase::Active(active) => active.leave.given(),
            Phase::Resetting(resetting) => resetting.grant,
            Phase::Booting(_) | Phase::Activating(_) | Phase::Standby(_) => false,
        };
        if said.grant && !given {
            return Err(Violation::GrantNotGiven);
        }
        let tells_act = ctx.told.map(|told| told.activity);
        if matches!(tells_act, Some(Activity::Active(_))) && !matches!(self.phase, Phase::Active(_))
        {
            return Err(Violation::ActsWithoutLeading);
        }
        Ok(())
    }
}
