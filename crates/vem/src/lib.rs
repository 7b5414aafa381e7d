//! vem.
