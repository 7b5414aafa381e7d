//! The rules of the architecture that a machine can check.
//!
//! | module | rule |
//! |---|---|
//! | [`graph`] | who may depend on whom, ours and others' |
//! | [`mutants`] | every deliberate fault applies to the sources |
//! | [`purity`] | pure crates do no I/O, read no clock, draw no randomness, spawn nothing |
//! | [`tidy`] | file length, leftovers, lint tables, the bans of each `clippy.toml` |
//!
//! A rule that turns out wrong is changed here, with the reason in `docs/adr/`.

mod graph;
mod mutants;
mod purity;
mod sources;
mod tidy;
