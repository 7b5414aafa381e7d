//! One gateway as its processes run it: the services as pure values, and the cores joined.
//!
//! | module | holds |
//! |---|---|
//! | [`node`] | a whole gateway in one value, for the simulation |
//! | [`service`] | the one shape of a service: inputs, outputs, deadlines |
//! | [`checkpoint_client`] | a service's book-keeping of its requests to `pss` |
//! | [`services`] | the services themselves |
//! | [`supervisor`] | the System Manager: redundancy and service supervision joined |

pub mod checkpoint_client;
pub mod node;
pub mod service;
pub mod services;
pub mod supervisor;
pub mod trust;
