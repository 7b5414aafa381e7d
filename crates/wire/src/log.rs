//! Log records, in the original's shape.

use model::ServiceName;
use serde::{Deserialize, Serialize};

/// Longest text of one record, in bytes; a longer one is cut by the writer.
pub const TEXT_MAX_BYTES: usize = 2048;

/// One line of the log before it gets its time and host name:
/// `%FACILITY-SEVERITY-MNEMONIC: text`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// `SYSMGR`, `POLICY_ENGINE` …
    pub facility: String,
    /// 0 (emergency) to 7 (debug).
    pub severity: u8,
    /// `HASWITCHOVER_START` …
    pub mnemonic: String,
    /// What happened, in a sentence.
    pub text: String,
    /// The service that said it; `None` is the System Manager.
    pub service: Option<ServiceName>,
}
