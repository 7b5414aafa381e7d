//! Drives the product from outside, as an operator would: through `vsg-lab`, `vsh` and what `vemd
//! show` reads, and nothing else.
//!
//! | module | holds |
//! |---|---|
//! | [`lab`] | one lab: up, commands, faults, down |
//! | [`guard`] | takes a lab down even when its owner is killed |
//! | [`traffic`] | what was measured in a window of time |
//! | [`mod@bench`] | what every system test begins with |
//! | [`clock`] | the clock that everything is stamped with |
//! | [`soak`] | hours of faults, with the invariants checked all the time |
//! | [`agent`] | what a host agent says of itself |
//! | [`wait`] | waits for a state, with a deadline |
//! | [`site`] | what the tests know of the default topology and the sample policy |
//! | [`leftovers`] | what a lab could leave behind, compared before and after |
//!
//! The system tests, the demo and the soak are its users.

pub mod agent;
pub mod bench;
pub mod clock;
pub mod guard;
pub mod lab;
pub mod leftovers;
pub mod site;
pub mod soak;
pub mod traffic;
pub mod wait;

pub use lab::{Fault, Lab, Plan, Reply};
