//! redundancy.
