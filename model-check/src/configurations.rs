//! The bounds that are checked. Each reaches its fixpoint.

use crate::actions::{Budget, Death, Order, Scope};

/// A model with a name.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// Begins with both nodes down that never ran.
    pub cold: bool,
    /// What may happen.
    pub scope: Scope,
}

const NONE: Budget = Budget {
    crashes: 0,
    cuts: 0,
    vem_cuts: 0,
    pauses: 0,
    orders: 0,
    commits: 0,
    disks: 0,
    failures: 0,
    stalls: 0,
};

const BOTH_WAYS: &[[bool; 2]] = &[[false, false]];
const EACH_WAY: &[[bool; 2]] = &[[false, false], [true, false], [false, true]];

/// Every configuration, in the order in which they run.
#[must_use]
pub fn all() -> Vec<Configuration> {
    vec![
        Configuration {
            name: "everything",
            about: "two crashes, two partitions, a pause, an operator; any two at once",
            cold: false,
            scope: Scope {
                budget: Budget {
                    crashes: 2,
                    cuts: 2,
                    pauses: 1,
                    orders: 1,
                    ..NONE
                },
                deaths: &[Death::Silent],
                cuts: BOTH_WAYS,
                vem_cuts: &[],
                orders: &[Order::Switchover],
                at_once: 2,
            },
        },
        Configuration {
            name: "partitions",
            about: "one-way and whole partitions, VEMs out of reach, a crash, a commit; any three at once",
            cold: false,
            scope: Scope {
                budget: Budget {
                    crashes: 1,
                    cuts: 1,
                    vem_cuts: 1,
                    commits: 1,
                    ..NONE
                },
                deaths: &[Death::Silent],
                cuts: EACH_WAY,
                vem_cuts: &[1, 2],
                orders: &[],
                at_once: 3,
            },
        },
        Configuration {
            name: "cuts",
            about: "two partitions, one-way or whole, while VEMs are out of reach twice; any two at once",
            cold: false,
            scope: Scope {
                budget: Budget {
                    cuts: 2,
                    vem_cuts: 2,
                    ..NONE
                },
                deaths: &[Death::Silent],
                cuts: EACH_WAY,
                vem_cuts: &[1, 2],
                orders: &[],
                at_once: 2,
            },
        },
        Configuration {
            name: "crashes",
            about: "a death between any two effects, a slow disk, a partition, a commit; any three at once",
            cold: false,
            scope: Scope {
                budget: Budget {
                    crashes: 1,
                    cuts: 1,
                    disks: 1,
                    commits: 1,
                    ..NONE
                },
                deaths: &[
                    Death::Silent,
                    Death::Processes,
                    Death::After(1),
                    Death::After(2),
                    Death::After(3),
                    Death::After(5),
                ],
                cuts: BOTH_WAYS,
                vem_cuts: &[],
                orders: &[],
                at_once: 3,
            },
        },
        Configuration {
            name: "operator",
            about: "two commands at any moment, late control messages, a crash; any two at once",
            cold: false,
            scope: Scope {
                budget: Budget {
                    crashes: 1,
                    orders: 2,
                    stalls: 1,
                    ..NONE
                },
                deaths: &[Death::Silent, Death::Processes],
                cuts: BOTH_WAYS,
                vem_cuts: &[],
                orders: &[Order::Switchover, Order::Reload, Order::ForceActive],
                at_once: 2,
            },
        },
        Configuration {
            name: "services",
            about: "services that fail or restart, a partition, a commit; any three at once",
            cold: false,
            scope: Scope {
                budget: Budget {
                    cuts: 1,
                    failures: 2,
                    commits: 1,
                    ..NONE
                },
                deaths: &[Death::Silent],
                cuts: BOTH_WAYS,
                vem_cuts: &[],
                orders: &[],
                at_once: 3,
            },
        },
        Configuration {
            name: "three",
            about: "a crash, a partition and a pause at once",
            cold: false,
            scope: Scope {
                budget: Budget {
                    crashes: 1,
                    cuts: 1,
                    pauses: 1,
                    ..NONE
                },
                deaths: &[Death::Silent],
                cuts: BOTH_WAYS,
                vem_cuts: &[],
                orders: &[],
                at_once: 3,
            },
        },
        Configuration {
            name: "cold",
            about: "two nodes that never ran, started in any order, with cuts and crashes",
            cold: true,
            scope: Scope {
                budget: Budget {
                    crashes: 1,
                    cuts: 1,
                    orders: 1,
                    ..NONE
                },
                deaths: &[Death::Silent],
                cuts: EACH_WAY,
                vem_cuts: &[],
                orders: &[Order::ForceActive],
                at_once: 2,
            },
        },
    ]
}
