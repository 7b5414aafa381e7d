//! The configuration: text in the original's grammar, held as a typed model.
//!
//! A change is made on a [`Candidate`], line by line; it is validated as a whole and then either
//! replaces the running configuration or is thrown away. The canonical text of a configuration is
//! what is stored, replicated, compared and shown.
//!
//! | module | holds |
//! |---|---|
//! | [`configuration`] | the model, its text, its hash |
//! | [`candidate`] | lines applied to a copy, with the original's errors |
//! | [`diff`] | `show running-config diff` |
//!
//! Invariants:
//! - equal configurations have equal text, and so equal hashes, however they were entered;
//! - the text of a configuration, loaded, is that configuration;
//! - after each applied line every name that is referred to exists;
//! - a line that fails changes nothing.

pub mod candidate;
pub mod configuration;
pub mod diff;

#[cfg(test)]
mod tests;

pub use candidate::{Candidate, LineError, LineErrorKind, StatementError};
pub use configuration::{ConfigHash, Configuration, DEFAULT_HOSTNAME, Header};
pub use diff::{context_diff, lines_that_differ, named_diff};
