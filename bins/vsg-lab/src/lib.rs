//! The lab: a whole Twinwall site from network namespaces on one machine.
//!
//! Two gateway nodes, hosts with protected VM ports, a switch that joins them,
//! measured traffic and real faults. The demo, the system tests and the
//! end-to-end benchmarks drive the `vsg-lab` binary; this library is its body.
//!
//! Invariants:
//! - L1: everything a lab makes carries the lab's name (namespaces
//!   `tw-<lab>-…`) or lives in its folder, so two labs never touch each other.
//! - L2: no bridge, veth or filter of a lab exists outside its namespaces.
//! - L3: after `down`, or a failed `up`, no namespace, process, mount or file
//!   of the lab is left, except the logs of a failed `up`.
//! - L4: every wait has a deadline and every external command a time limit.

pub mod cli;
pub mod clock;
pub mod fault;
pub mod manifest;
pub mod namespace;
pub mod network;
pub mod paths;
pub mod process;
mod product;
pub mod site;
pub mod status;
mod sys;
pub mod tool;
pub mod topology;
pub mod traffic;
