//! `show redundancy traffic`. No text of the original is known; the counters' names follow its
//! `show system internal redundancy info`.

use std::collections::BTreeMap;

use model::{DropReason, PortTraffic};
use serde::{Deserialize, Serialize};

use super::heading;

/// What one port has counted since the node's start or `clear redundancy traffic`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTraffic {
    /// `heartbeat`, `control`, `bulk`, `service`, `console` or `broker`.
    pub port: String,
    /// The HA link; empty where there is one port of this kind.
    pub link: String,
    /// Datagrams or messages taken.
    pub rx_frames: u64,
    /// Datagrams or messages sent.
    pub tx_frames: u64,
    /// What was not taken, by reason: `malformed`, `truncated`, `oversized` … Every reason is
    /// there, also those that never occurred.
    pub rx_drops: BTreeMap<String, u64>,
}

impl From<&PortTraffic> for LinkTraffic {
    fn from(counted: &PortTraffic) -> Self {
        Self {
            port: counted.port.to_string(),
            link: counted.link.clone(),
            rx_frames: counted.received,
            tx_frames: counted.sent,
            rx_drops: DropReason::ALL
                .into_iter()
                .map(|reason| (reason.to_string(), counted.dropped(reason)))
                .collect(),
        }
    }
}

/// The answer to `show redundancy traffic`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Ports that have counted anything.
    pub ports: Vec<LinkTraffic>,
}

impl Traffic {
    /// Own layout: a line for each port, then the drops that occurred.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = heading("Redundancy traffic");
        text += "Port       Link            rx_frames     tx_frames      rx_drops\n";
        text += "---------  ------------  ------------  ------------  ------------\n";
        for port in &self.ports {
            let drops: u64 = port.rx_drops.values().sum();
            text += &format!(
                "{:<9}  {:<12}  {:>12}  {:>12}  {drops:>12}\n",
                port.port,
                if port.link.is_empty() {
                    "-"
                } else {
                    &port.link
                },
                port.rx_frames,
                port.tx_frames,
            );
        }
        for port in &self.ports {
            // In the order of the reasons, not of their names.
            let occurred: Vec<_> = DropReason::ALL
                .into_iter()
                .map(|reason| (reason, port.rx_drops.get(reason.as_str())))
                .filter_map(|(reason, count)| Some((reason, *count?)))
                .filter(|(_, count)| *count > 0)
                .collect();
            if occurred.is_empty() {
                continue;
            }
            text += &format!(
                "\n{}\n",
                format!("Port {} {}:", port.port, port.link).replace(" :", ":")
            );
            for (reason, count) in occurred {
                let name = format!("rx_drops_{reason}:");
                text += &format!("  {name:<28}{count:>12}\n");
            }
        }
        text
    }
}
