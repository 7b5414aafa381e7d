//! Which faults have met which changes of state.
//!
//! A gateway's state is what its heartbeats say, or that it is off. [`TRANSITIONS`] lists every
//! change that may happen; one that is not listed fails the run. A change is *met* by a class of
//! faults if one of that class has been injected at most [`RECENT_NS`] before, or lasts still.

use std::collections::{BTreeSet, VecDeque};

use wire::heartbeat::State;

use crate::faults::FaultClass;
use crate::world::S;

/// How long after its end a fault counts as the company of a change: a boot and a bulk sync.
pub const RECENT_NS: u64 = 3 * S;
/// Faults remembered at once; the oldest make room.
const RECENT_MAX: usize = 64;

/// A gateway as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// No process of it runs.
    Off,
    /// What its heartbeats say.
    Says(State),
}

use Shown::{Off, Says};
use State::{Active, Initializing, Paused, Resetting, Standby, Synchronizing, Yielded};

/// Every change of state that may happen, in the order of a gateway's life.
pub const TRANSITIONS: [(Shown, Shown); 31] = [
    (Off, Says(Initializing)),
    (Says(Initializing), Says(Synchronizing)),
    (Says(Initializing), Says(Active)),
    (Says(Initializing), Says(Resetting)),
    (Says(Initializing), Off),
    (Says(Synchronizing), Says(Standby)),
    (Says(Synchronizing), Says(Initializing)),
    (Says(Synchronizing), Says(Active)),
    (Says(Synchronizing), Says(Resetting)),
    (Says(Synchronizing), Off),
    (Says(Standby), Says(Synchronizing)),
    (Says(Standby), Says(Initializing)),
    (Says(Standby), Says(Active)),
    (Says(Standby), Says(Resetting)),
    (Says(Standby), Off),
    (Says(Active), Says(Paused)),
    (Says(Active), Says(Yielded)),
    (Says(Active), Says(Initializing)),
    (Says(Active), Says(Resetting)),
    (Says(Active), Off),
    (Says(Paused), Says(Active)),
    (Says(Paused), Says(Yielded)),
    (Says(Paused), Says(Initializing)),
    (Says(Paused), Says(Resetting)),
    (Says(Paused), Off),
    (Says(Yielded), Says(Active)),
    (Says(Yielded), Says(Initializing)),
    (Says(Yielded), Says(Resetting)),
    (Says(Yielded), Off),
    (Says(Resetting), Off),
    // A standalone node, which says nothing, becomes primary at once.
    (Off, Says(Active)),
];

/// Pairs of a change (of the primary's or the secondary's machine) and a class of faults.
#[must_use]
pub const fn universe() -> usize {
    2 * TRANSITIONS.len() * FaultClass::ALL.len()
}

/// See the module.
#[derive(Debug, Default)]
pub struct Coverage {
    recent: VecDeque<(u64, FaultClass)>,
    /// Machine, index of the change, index of the class.
    pub met: BTreeSet<(u8, u8, u8)>,
}

impl Coverage {
    /// A fault is injected, and lasts so long.
    pub fn injected(&mut self, now: u64, class: FaultClass, lasts_ns: u64) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        let until = now.saturating_add(lasts_ns).saturating_add(RECENT_NS);
        self.recent.push_back((until, class));
    }

    /// A gateway's state has changed.
    ///
    /// # Errors
    /// If that change is not in [`TRANSITIONS`].
    pub fn changed(&mut self, now: u64, slot: usize, from: Shown, to: Shown) -> Result<(), String> {
        let index = TRANSITIONS.iter().position(|known| *known == (from, to));
        let Some(index) = index else {
            return Err(format!("node {slot} went from {from:?} to {to:?}"));
        };
        self.recent.retain(|(until, _)| *until >= now);
        for (_, class) in &self.recent {
            self.met.insert((slot as u8, index as u8, *class as u8));
        }
        Ok(())
    }
}
