//! `show system uptime`, and `show redundancy status`, which ends with the same lines.

use serde::{Deserialize, Serialize};

use super::redundancy::RedundancyStatus;

/// The answer to `show system uptime`. The system's own uptime survives a switchover; the active
/// supervisor's does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uptime {
    /// Wall time of the system's start, for display: `Sat May 19 02:52:21 2018`.
    pub start_time: String,
    /// Seconds since the first active supervisor booted.
    pub system_s: u64,
    /// Seconds since this machine's kernel booted.
    pub kernel_s: u64,
    /// Seconds since the present active supervisor became active; `None` while there is none.
    pub active_supervisor_s: Option<u64>,
}

impl Uptime {
    /// The original's lines.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "System start time:          {}\n\nSystem uptime:              {}\nKernel uptime:              {}\n",
            self.start_time,
            spelled(self.system_s),
            spelled(self.kernel_s),
        );
        if let Some(seconds) = self.active_supervisor_s {
            text += &format!("Active supervisor uptime:   {}\n", spelled(seconds));
        }
        text
    }
}

/// The answer to `show redundancy status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedundancyReport {
    /// As in `show system redundancy status`.
    pub status: RedundancyStatus,
    /// As in `show system uptime`.
    pub uptime: Uptime,
}

impl RedundancyReport {
    /// The original's layout, with its empty line in the other supervisor's block.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.status.layout("\n") + "\n" + &self.uptime.text();
        let policy = self.status.conflict_policy;
        text += &format!("{:<28}{policy}\n", "Split-brain policy:");
        let wait = self.status.boot_wait_s.map_or_else(
            || "until the other is there".to_owned(),
            |seconds| format!("{seconds} s"),
        );
        text += &format!("{:<28}{wait}\n", "Wait when booting alone:");
        for notice in &self.status.notices {
            text += &format!("\nNotice: {notice}\n");
        }
        text
    }
}

fn spelled(seconds: u64) -> String {
    format!(
        "{} days, {} hours, {} minutes, {} seconds",
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}
