//! `show redundancy`.

use super::show::leaf;
use super::{Node, keyword};
use crate::command::{Command, Show};

pub(super) fn commands() -> Node {
    keyword("redundancy", "The pair").then_all([
        leaf("heartbeat", "Heartbeats on each link", |_| {
            Ok(Command::Show(Show::RedundancyHeartbeat))
        }),
        leaf("status", "State of both supervisors, and uptimes", |_| {
            Ok(Command::Show(Show::RedundancyStatus))
        }),
        leaf(
            "traffic",
            "What came in on each port, and what was not taken",
            |_| Ok(Command::Show(Show::RedundancyTraffic)),
        ),
    ])
}
