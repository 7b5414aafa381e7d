//! The service supervisor: starts a node's services, watches them, and says what their state
//! means for the node.

mod input;
mod output;

pub use input::{ExitStatus, Input, PostureChange, Start};
pub use output::{Health, Output};
