//! A pair of gateways and their hosts in one process on virtual time.
//!
//! The gateways are [`node::node::Node`] and the agents [`vem::Vem`]: the values that `vsgd` and
//! `vemd` run, never a model of them. What is modelled is everything around: network, disks,
//! clocks, the starting and stopping of processes, the kernel's flow table.
//!
//! | module | holds |
//! |---|---|
//! | [`world`] | the queue of events, and a whole run |
//! | [`clock`] | clocks that start anywhere and drift |
//! | [`coverage`] | which faults have met which changes of state |
//! | [`wire_path`] | what protects datagrams, as shipped |
//! | [`machine`] | a gateway's machine: disks, clock, guardian |
//! | [`host`] | a host: kernel, pool, the agent's file |
//! | [`network`] | links and connections |
//! | [`faults`] | what goes wrong, at random |
//! | [`operator`] | who types commands |
//! | [`invariants`] | what must hold, one file for each |
//! | [`script`], [`schedules`] | scripted runs |
//! | [`report`] | the figures of many runs |

pub mod clock;
pub mod coverage;
pub mod faults;
pub mod host;
pub mod invariants;
pub mod machine;
pub mod network;
pub mod operator;
pub mod report;
pub mod schedules;
pub mod script;
pub mod trace;
pub mod wire_path;
pub mod world;
