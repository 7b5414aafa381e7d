//! What must hold, one file for each, by the names of the product's invariants.

pub mod liveness;
pub mod s1_one_active_per_epoch;
pub mod s2_epochs_never_decrease;
pub mod s3_vem_obeys_the_highest;
pub mod s4_one_active_when_healthy;
pub mod s5_replicated_survives;
pub mod s7_only_stable_takes_over;
pub mod s8_no_switchover_without_standby;
