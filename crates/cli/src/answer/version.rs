//! `show version`: the product's own text.

use serde::{Deserialize, Serialize};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The release.
    pub version: String,
    /// The node's name.
    pub hostname: String,
    /// Kernel release of the machine.
    pub kernel: String,
    /// Seconds since the node's System Manager started.
    pub uptime_s: u64,
    /// Why the node was last reset; `None` if that is not known, and then there is no line.
    pub last_reset: Option<String>,
}

impl Version {
    /// Own layout.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "Twinwall virtual security gateway\nLicensed under Apache-2.0\n\n\
             Software\n  gateway: version {}\n  kernel:  {}\n\n\
             Device name: {}\nUptime is {} day(s), {} hour(s), {} minute(s), {} second(s)\n{}",
            self.version,
            self.kernel,
            self.hostname,
            self.uptime_s / 86_400,
            self.uptime_s / 3_600 % 24,
            self.uptime_s / 60 % 60,
            self.uptime_s % 60,
            self.last_reset
                .as_ref()
                .map_or(String::new(), |why| format!("Last reset: {why}\n")),
        )
    }
}
