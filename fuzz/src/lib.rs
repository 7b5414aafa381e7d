//! Fuzzing of everything that reads bytes from elsewhere: one [`Target`] for each decoder.
//!
//! A target makes valid inputs by itself ([`Target::seed`]), is given these, mutations of them and
//! of the committed corpus, and panics when a property of its decoder does not hold: whatever
//! comes, no panic, no allocation beyond [`Target::memory_bytes`], and what is accepted is encoded
//! and decoded again to the same value.
//!
//! | module | what it is |
//! |---|---|
//! | [`mod@targets`] | the targets |
//! | [`generate`] | valid values of any type that can be deserialized |
//! | [`mutate`] | small changes of an input |
//! | [`run`] | one input under watch; a campaign over many |
//! | [`memory`] | how much one input made the process allocate |
//! | [`corpus`] | inputs in files |
//! | [`coverage`] | what code one input reached, where the build counts it |
//!
//! Ordinary tests run each target some thousand times (`tests/short.rs`). `cargo xtask fuzz` builds
//! with the compiler's coverage counters, which stable Rust passes through to LLVM, and keeps
//! inputs that reach something new.

pub mod corpus;
pub mod coverage;
pub mod generate;
pub mod memory;
pub mod mutate;
pub mod run;
pub mod targets;

pub use targets::{Target, targets};

/// Every target allocates through it, so that each input's share is known.
#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;
