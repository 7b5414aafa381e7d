//! mts.
