//! The services of a node, each a pure value.
//!
//! | module | service |
//! |---|---|
//! | [`vem_mgr`] | speaks with the host agents |

mod outbox;
pub mod vem_mgr;
