//! The faults of the story, and how each is made and mended.

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use system_tests::lab::Fault;
use system_tests::{Lab, clock, site};

/// A fault of the story, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Step {
    /// `system switchover`.
    Switchover,
    /// `kill -9` of `policy_engine` on the active.
    ServiceCrash,
    /// The active vanishes from the network and all its processes are killed; 3 × 100 ms.
    NodeKillDefault,
    /// The same at 3 × 10 ms.
    NodeKillFast,
    /// Every process of the active is stopped for a second, and goes on.
    #[serde(rename = "pause_1s")]
    #[value(name = "pause_1s")]
    Pause,
    /// `kill -9` of the `vemd` of the host that all new connections come from.
    VemdCrash,
}

impl Step {
    /// What the progress line and the table say.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Switchover => "system switchover",
            Self::ServiceCrash => "kill -9 policy_engine",
            Self::NodeKillDefault => "kill node, 3 x 100 ms",
            Self::NodeKillFast => "kill node, 3 x 10 ms",
            Self::Pause => "stop the active for 1 s",
            Self::VemdCrash => "kill -9 vemd",
        }
    }

    /// The heartbeat profile it runs at.
    pub(crate) const fn profile(self) -> &'static str {
        match self {
            Self::NodeKillFast => "fast",
            Self::Switchover
            | Self::ServiceCrash
            | Self::NodeKillDefault
            | Self::Pause
            | Self::VemdCrash => "default",
        }
    }

    /// Whether the other node is to lead afterwards.
    pub(crate) const fn moves_the_active(self) -> bool {
        !matches!(self, Self::VemdCrash)
    }

    /// Makes the fault; returns the moment just before it took effect.
    pub(crate) fn strike(self, lab: &Lab, active: &str) -> Result<u64> {
        let fault = match self {
            Self::Switchover => return switch_over(lab, active),
            Self::ServiceCrash => lab.fault(&["kill-service", active, "policy_engine"])?,
            Self::NodeKillDefault | Self::NodeKillFast => lab.fault(&["kill-node", active])?,
            Self::Pause => lab.fault(&["pause", active, "--for", "1s"])?,
            Self::VemdCrash => lab.fault(&["kill-vemd", site::CLIENT_HOST])?,
        };
        Ok(fault.at_ns)
    }

    /// Undoes what does not mend by itself.
    pub(crate) fn mend(self, lab: &Lab, was_active: &str) -> Result<Option<Fault>> {
        match self {
            Self::NodeKillDefault | Self::NodeKillFast => {
                lab.fault(&["start-node", was_active]).map(Some)
            }
            Self::Switchover | Self::ServiceCrash | Self::Pause | Self::VemdCrash => Ok(None),
        }
    }
}

/// The operator's switchover. The session may end with the node's role, so only a refusal counts
/// as an error.
fn switch_over(lab: &Lab, active: &str) -> Result<u64> {
    let at_ns = clock::now_ns();
    let reply = lab.shell(active, &["system switchover"])?;
    if reply.text.contains("Failed to switchover") {
        anyhow::bail!("{active} refused the switchover: {}", reply.text.trim());
    }
    Ok(at_ns)
}
