//! The redundancy core.

mod heartbeat;
mod input;
mod output;
mod record;

pub use heartbeat::{
    DEFAULT_INTERVAL_MS, DEFAULT_MISSES, GASP_PACE_MS, GASPS_MAX, HeartbeatPath, INTERVAL_MS,
    LINKS_MAX, LinkMonitor, MISSES, Received, Timing,
};
pub use input::{Command, Input, ServicesHealth, Start};
pub use output::Output;
pub use record::{NodeRecord, RESET_REASONS_MAX};
