//! What becomes of a state once every fault is undone: liveness as bounded safety.
//!
//! From there on nothing but time happens, so there is one future. Futures run into each other:
//! each state in one is remembered, and a later future ends where it meets an earlier one.

use core::sync::atomic::{AtomicU16, Ordering};

use dashmap::DashMap;
use model::Role;

use crate::actions::Action;
use crate::coverage::Coverage;
use crate::rules::{Broken, Rule};
use crate::site::{A, B, Site};

/// Ticks until a healed pair is one active and a stable standby (L1): the longest wait of a boot
/// (a secondary that was never paired: 15 s), a conflict found and resolved after it (two hold
/// times), the loser's boot and its synchronisation.
pub(crate) const HEALED_TICKS_MAX: u16 = 30;

/// Ticks during which two may act after all is healed (S4): until each has heard the other, the
/// one has lost and the survivor acts again under its new epoch.
const SPLIT_TICKS_MAX: u16 = 3;

/// Ticks that a healthy pair is watched for changing nothing (L2).
const REST_TICKS: usize = 24;

/// A state's future.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Future {
    /// Good within so many ticks, and two act for the last time after so many.
    Good { within: u16, split: u16 },
    /// Not good.
    Bad(Broken),
}

/// Futures known.
#[derive(Debug, Default)]
pub(crate) struct Futures {
    known: DashMap<u64, Future>,
    slowest: AtomicU16,
}

impl Futures {
    pub(crate) fn slowest(&self) -> u16 {
        self.slowest.load(Ordering::Relaxed)
    }

    /// The rule that is broken in what becomes of `site`.
    pub(crate) fn judge(&self, site: &Site, coverage: &Coverage) -> Option<Broken> {
        if site.undone || !is_pair(site) {
            return None;
        }
        if let Some(known) = self.known.get(&site.fingerprint) {
            return verdict(&known);
        }
        let healed = site.healed(coverage);
        let future = self.follow(healed, coverage);
        self.known.insert(site.fingerprint, future.clone());
        if let Future::Good { within, .. } = future {
            self.slowest.fetch_max(within, Ordering::Relaxed);
        }
        verdict(&future)
    }

    fn follow(&self, mut site: Site, coverage: &Coverage) -> Future {
        // (fingerprint, whether two act)
        let mut way: Vec<(u64, bool)> = Vec::new();
        let end = loop {
            if let Some(broken) = site.broken.clone() {
                break Future::Bad(broken);
            }
            // The fingerprint of a healed state is not that of the same state with its faults to
            // come: budgets are zero in it.
            let key = site.fingerprint ^ HEALED;
            if let Some(known) = self.known.get(&key) {
                break known.clone();
            }
            way.push((key, site.is_split()));
            if site.is_good() {
                way.pop();
                let future = rests(&site, coverage);
                self.known.insert(key, future.clone());
                break future;
            }
            if way.len() > usize::from(HEALED_TICKS_MAX) * 3 {
                let text = format!("not healthy after {} ticks", way.len());
                break Future::Bad(Broken {
                    rule: Rule::HealsWithinBound,
                    text,
                });
            }
            site = site.after(Action::Tick, coverage);
        };
        let mut future = end;
        for (key, both) in way.into_iter().rev() {
            future = match future {
                Future::Good { within, split } => Future::Good {
                    within: within + 1,
                    split: if split > 0 {
                        split + 1
                    } else {
                        u16::from(both)
                    },
                },
                Future::Bad(broken) => Future::Bad(broken),
            };
            self.known.insert(key, future.clone());
        }
        future
    }
}

/// Tells futures of healed states from those of states to be healed.
const HEALED: u64 = 0x9E37_79B9_7F4A_7C15;

fn verdict(future: &Future) -> Option<Broken> {
    match future {
        Future::Bad(broken) => Some(broken.clone()),
        Future::Good { within, .. } if *within > HEALED_TICKS_MAX => Some(Broken {
            rule: Rule::HealsWithinBound,
            text: format!("healthy only after {within} ticks"),
        }),
        Future::Good { split, .. } if *split > SPLIT_TICKS_MAX => Some(Broken {
            rule: Rule::OneActiveWhenHealthy,
            text: format!("two act for {split} ticks after all is healed"),
        }),
        Future::Good { .. } => None,
    }
}

/// A good state stays as it is.
fn rests(site: &Site, coverage: &Coverage) -> Future {
    let leader = |site: &Site| [A, B].map(|node| site.nodes[node].acting());
    let before = leader(site);
    let mut next = site.clone();
    for tick in 1..=REST_TICKS {
        let fingerprint = next.fingerprint;
        next = next.after(Action::Tick, coverage);
        if let Some(broken) = next.broken {
            return Future::Bad(broken);
        }
        if !next.is_good() || leader(&next) != before {
            return Future::Bad(Broken {
                rule: Rule::HealthyPairRests,
                text: format!("a healthy pair changes after {tick} ticks"),
            });
        }
        if next.fingerprint == fingerprint {
            break;
        }
    }
    Future::Good {
        within: 0,
        split: 0,
    }
}

/// Whether the nodes are to form a pair at all, now and after their next start.
fn is_pair(site: &Site) -> bool {
    let roles = [Role::Primary, Role::Secondary];
    let now = |node: usize| {
        site.nodes[node]
            .core
            .as_ref()
            .is_none_or(|core| core.role() == roles[node])
    };
    let next = |node: usize| {
        let side = &site.nodes[node];
        let newest = side
            .core
            .as_ref()
            .map_or(side.durable.role, |core| core.record().role);
        newest == roles[node]
    };
    [A, B].into_iter().all(|node| now(node) && next(node))
}

/// The healed `site`, and what follows, until it is good or a rule is broken.
pub(crate) fn future(site: &Site, coverage: &Coverage) -> Vec<Site> {
    let mut way = vec![site.healed(coverage)];
    for _ in 0..=HEALED_TICKS_MAX {
        let last = &way[way.len() - 1];
        if last.is_good() || last.broken.is_some() {
            break;
        }
        let next = last.after(Action::Tick, coverage);
        way.push(next);
    }
    way
}

/// A pair that has come to be stable.
pub(crate) fn stable(site: Site, coverage: &Coverage) -> Site {
    let mut site = site.healed(coverage);
    for _ in 0..HEALED_TICKS_MAX {
        if site.is_good() || site.broken.is_some() {
            break;
        }
        site = site.after(Action::Tick, coverage);
    }
    // Until all that its beginning has left behind is old.
    for _ in 0..HEALED_TICKS_MAX {
        site = site.after(Action::Tick, coverage);
    }
    site
}
