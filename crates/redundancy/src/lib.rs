//! The redundancy core.

mod input;
mod output;
mod record;

pub use input::{Command, Input, ServicesHealth, Start};
pub use output::Output;
pub use record::{NodeRecord, RESET_REASONS_MAX};
