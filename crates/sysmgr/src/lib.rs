//! The service supervisor: starts a node's services, watches them, and says what their state
//! means for the node.

pub mod catalogue;
mod core;
mod input;
mod output;
mod state;

pub use crate::core::{Core, Row};
pub use input::{ExitStatus, Input, PostureChange, Start};
pub use output::{Health, Output};
pub use state::State;
