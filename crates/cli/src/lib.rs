//! The command line as values: a line becomes a typed [`Command`], a typed [`Answer`] becomes
//! text or JSON. Nothing here runs a command; the shell daemon does.
//!
//! | module | holds |
//! |---|---|
//! | [`command`] | what an operator can ask for, typed |
//! | [`mode`] | where a session stands: exec, config and its sub-modes; the prompt |
//! | [`tree`] | the command tree, as data: tokens, help, privilege, where each is allowed |
//! | [`mod@parse`] | words against the tree: abbreviations, errors with the caret, `?`, completion |
//! | [`pipe`] | `\| include`, `exclude`, `begin`, `count`, `json`, `no-more` |
//! | [`answer`] | one struct for each `show`, with its text layout and its JSON |
//!
//! Invariants:
//! - a line parses to one command or to one error, never to a guess: an abbreviation that fits
//!   two keywords is an error, unless it is one of them in full;
//! - the first words that a mode knows are looked up in that mode first, then in `config`, then
//!   in exec, so that leaving a sub-mode needs no `exit`;
//! - on a standby a command that it does not allow does not exist (`% Invalid command`).

pub mod answer;
pub mod command;
pub mod mode;
pub mod parse;
pub mod pipe;
pub mod tree;

#[cfg(test)]
mod tests;

pub use answer::Answer;
pub use command::{
    Command, ConditionsLine, GroupLine, HeartbeatSetting, Object, ObjectKind, PairingCommand,
    PolicyLine, ProfileLine, RuleLine, Show, Statement, TypedCode,
};
pub use mode::{Mode, Standing};
pub use parse::{Invocation, ParseError, ParseErrorKind, parse};
pub use pipe::Filter;
