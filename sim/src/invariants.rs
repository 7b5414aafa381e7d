//! What must hold, one file for each, by the names of the product's invariants.
//!
//! Safety (`s…`) is looked at in every step of a run, whatever goes wrong. Liveness (`l…`) is
//! looked at after all faults have ended: each must come to hold within a bound, all of them
//! together, and go on holding.

pub mod l1_one_active_with_standby;
pub mod l2_equal_configuration;
pub mod l3_no_lag;
pub mod l4_few_role_changes;
pub mod l5_the_active_is_announced;
pub mod l6_commands_end;
pub mod l7_traffic_is_decided;
pub mod s11_strangers_change_nothing;
pub mod s12_no_decision_by_wall_time;
pub mod s13_established_flows_need_no_gateway;
pub mod s1_one_active_per_epoch;
pub mod s2_epochs_never_decrease;
pub mod s3_vem_obeys_the_highest;
pub mod s4_one_active_when_healthy;
pub mod s5_commits_survive;
pub mod s6_flows_survive;
pub mod s7_only_stable_takes_over;
pub mod s8_no_switchover_without_standby;
