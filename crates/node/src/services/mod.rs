//! The services of a node, each a pure value.
//!
//! | module | service |
//! |---|---|
//! | [`cfgmgr`] | holds the configuration |
//! | [`policy_engine`] | decides first packets |
//! | [`pss`] | the checkpoint store |
//! | [`vem_mgr`] | speaks with the host agents |
//! | [`vshd`] | serves operators' shells |
//! | [`configuration`] | the configuration as stored, and the copy that services keep of it |

pub mod cfgmgr;
pub mod configuration;
mod outbox;
pub mod policy_engine;
pub mod pss;
pub mod vem_mgr;
pub mod vshd;

#[cfg(test)]
mod tests;
