//! The services of a node, each a pure value.
