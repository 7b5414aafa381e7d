//! How many connections may be unauthenticated at once.
//!
//! Invariants:
//! - at most so many in all as the gate was made for, and at most [`PER_SOURCE_MAX`] from one
//!   address; a further one is closed at once, never queued: whoever is honest tries again, and
//!   whoever is not holds nothing of ours;
//! - sources that were named as expected (the peer's addresses) do not count among the others, so
//!   that strangers cannot keep the peer out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Unauthenticated connections from one address: the peer dials once on each link, a host agent
/// once, both with a few that have not yet been noticed to be dead.
pub const PER_SOURCE_MAX: usize = 8;

#[derive(Debug, Default)]
struct Inside {
    by_source: BTreeMap<IpAddr, usize>,
    strangers: usize,
}

#[derive(Debug)]
struct Door {
    strangers_max: usize,
    expected: Vec<IpAddr>,
    inside: Mutex<Inside>,
}

/// See the module; clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Door>);

/// A place inside; leaving is dropping it.
#[derive(Debug)]
pub struct Permit {
    door: Arc<Door>,
    source: IpAddr,
}

impl Gate {
    /// A gate for `strangers_max` connections, beside those from `expected` addresses.
    #[must_use]
    pub fn new(strangers_max: usize, expected: Vec<IpAddr>) -> Self {
        Self(Arc::new(Door {
            strangers_max,
            expected,
            inside: Mutex::new(Inside::default()),
        }))
    }

    /// Lets a connection from `source` in, or `None`: close it.
    #[must_use]
    pub fn enter(&self, source: IpAddr) -> Option<Permit> {
        let stranger = self.0.is_stranger(&source);
        let mut inside = self.0.inside();
        if stranger && inside.strangers >= self.0.strangers_max {
            return None;
        }
        let here = inside.by_source.entry(source).or_default();
        if *here >= PER_SOURCE_MAX {
            return None;
        }
        *here += 1;
        inside.strangers += usize::from(stranger);
        drop(inside);
        Some(Permit {
            door: Arc::clone(&self.0),
            source,
        })
    }

    /// Whether connections from `source` are expected.
    #[must_use]
    pub fn expects(&self, source: IpAddr) -> bool {
        !self.0.is_stranger(&source)
    }
}

impl Door {
    fn is_stranger(&self, source: &IpAddr) -> bool {
        !self.expected.contains(source)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let stranger = self.door.is_stranger(&self.source);
        let mut inside = self.door.inside();
        inside.strangers = inside.strangers.saturating_sub(usize::from(stranger));
        if let Some(here) = inside.by_source.get_mut(&self.source) {
            *here -= 1;
            if *here == 0 {
                inside.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{Gate, PER_SOURCE_MAX};

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn strangers_are_bounded_and_never_keep_the_peer_out() {
        let gate = Gate::new(PER_SOURCE_MAX + 1, vec![address(1)]);
        let mut inside: Vec<_> = (0..PER_SOURCE_MAX)
            .map(|_| gate.enter(address(9)).expect("room"))
            .collect();
        assert!(gate.enter(address(9)).is_none(), "one source");
        inside.push(gate.enter(address(8)).expect("room"));
        assert!(gate.enter(address(7)).is_none(), "all strangers");
        let peer = gate.enter(address(1)).expect("expected");
        drop((inside, peer));
        assert!(gate.enter(address(7)).is_some());
        assert_eq!(gate.0.inside().by_source.len(), 0);
        assert_eq!(gate.0.inside().strangers, 0);
    }
}
