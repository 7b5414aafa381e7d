//! The whole of it, as the supervisor drives it.
