//! The redundancy protocol, checked as a model: every order of a bounded number of faults.
//!
//! The state is a pair as it is shipped, [`redundancy::Core`] twice and [`vem::fence::Fence`]
//! twice, in a small world ([`site`]): a link that can be cut one way, a control connection, disks
//! that can be slow, host agents that can be out of reach, an operator. A step is one thing that
//! happens, with all that follows from it at the same instant; time passes in ticks of half a hold
//! time. Time and numbers are taken relative ([`canonical`]), so that the search ends by itself:
//! the *fixpoint*, when no step from any state met leads to one that was not.
//!
//! | module | holds |
//! |---|---|
//! | `site` | the state |
//! | `engine` | what follows at one instant, and the rules judged there |
//! | `services` | host agents and votes, stores and commits |
//! | `actions` | what may happen |
//! | `futures` | what becomes of a state once every fault is undone |
//! | `canonical` | when two states are the same |
//! | `probe` | every event of the transition table in every state met |
//! | `coverage` | rows of the transition table that were met |
//! | `configurations` | the bounds that are checked |
//!
//! Not in the model: packets, flows, the content of commits (a store is its newest position),
//! clones and wrong keys, more than one HA link, loss of single heartbeats (a cut of a tick is as
//! good), clocks of different speed. The simulation has them.

mod actions;
mod canonical;
pub mod configurations;
pub mod coverage;
mod engine;
mod futures;
mod probe;
mod rules;
mod services;
mod site;

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use stateright::{Model, Property};

pub use actions::{Action, Budget, Death, Order, Scope};
pub use rules::{Broken, Rule};
pub use site::{A, B, Node, Site, Vem};

use crate::coverage::Coverage;
use crate::futures::Futures;

/// One bounded model.
#[derive(Debug)]
pub struct Pair {
    /// What may happen.
    pub scope: Scope,
    /// Where it begins: both nodes down, or a stable pair.
    pub cold: bool,
    /// Rows met.
    pub coverage: Arc<Coverage>,
    futures: Futures,
    until: Instant,
    gave_up: AtomicBool,
}

impl Pair {
    /// A model within `scope`, given up at `until`.
    #[must_use]
    pub fn new(scope: Scope, cold: bool, coverage: Arc<Coverage>, until: Instant) -> Self {
        Self {
            scope,
            cold,
            coverage,
            until,
            gave_up: AtomicBool::new(false),
            futures: Futures::default(),
        }
    }

    /// The longest ticks to health that were met, once all was healed.
    #[must_use]
    pub fn slowest_recovery_ticks(&self) -> u16 {
        self.futures.slowest()
    }

    /// Time ran out before the fixpoint.
    #[must_use]
    pub fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// What becomes of `site` once it is healed, tick by tick.
    #[must_use]
    pub fn future(&self, site: &Site) -> Vec<Site> {
        futures::future(site, &self.coverage)
    }

    /// The rule that is broken in `site`, or in what becomes of it once it is healed.
    #[must_use]
    pub fn verdict(&self, site: &Site) -> Option<Broken> {
        site.broken
            .clone()
            .or_else(|| self.futures.judge(site, &self.coverage))
    }
}

impl Model for Pair {
    type State = Site;
    type Action = Action;

    fn init_states(&self) -> Vec<Site> {
        let mut site = Site::new(self.scope.budget);
        if !self.cold {
            site = futures::stable(site, &self.coverage);
            site.budget = self.scope.budget;
        }
        site.seal();
        vec![site]
    }

    fn actions(&self, site: &Site, into: &mut Vec<Action>) {
        actions::actions(&self.scope, site, into);
    }

    fn next_state(&self, site: &Site, action: Action) -> Option<Site> {
        Some(site.after(action, &self.coverage))
    }

    fn within_boundary(&self, _: &Site) -> bool {
        let within = Instant::now() < self.until;
        if !within {
            self.gave_up.store(true, Ordering::Relaxed);
        }
        within
    }

    fn properties(&self) -> Vec<Property<Self>> {
        /// One property for each rule: the checker takes plain functions.
        macro_rules! always {
            ($($rule:ident),*) => {
                vec![$(Property::always(Rule::$rule.name(), |model: &Self, site: &Site| {
                    model.verdict(site).is_none_or(|broken| broken.rule != Rule::$rule)
                })),*]
            };
        }
        always![
            EpochsUsedOnce,
            EpochDurableBeforeUse,
            VemNeverGoesBack,
            OneActiveWhenHealthy,
            OnlyStableTakesOver,
            NoSwitchoverWithoutStable,
            NewestHistoryLeads,
            NoGrantBesideMark,
            LeaveNeedsDurableMark,
            GrantOnlyToComplete,
            OwnHighestEpoch,
            StopsBeforeSaying,
            NoPreemption,
            LoserArchives,
            VotesForbid,
            ResetsBounded,
            ComesToRest,
            HealsWithinBound,
            HealthyPairRests
        ]
    }
}
