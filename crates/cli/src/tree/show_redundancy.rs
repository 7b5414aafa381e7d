//! `show redundancy`.

use super::show::leaf;
use super::{Node, keyword, number};
use crate::command::{Command, Show};

/// Largest number of a conflict: they count up and are never given twice.
pub(super) const CONFLICT_NUMBER_MAX: u32 = 999_999;

pub(super) fn commands() -> Node {
    keyword("redundancy", "The pair").then_all([
        conflicts(),
        leaf("heartbeat", "Heartbeats on each link", |_| {
            Ok(Command::Show(Show::RedundancyHeartbeat))
        }),
        leaf(
            "identity",
            "Who this node is, whom it trusts, and who is here besides",
            |_| Ok(Command::Show(Show::RedundancyIdentity)),
        ),
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

fn conflicts() -> Node {
    leaf("conflicts", "What nodes had that lost a conflict", |_| {
        Ok(Command::Show(Show::RedundancyConflicts))
    })
    .then(
        number("number", 1, CONFLICT_NUMBER_MAX, "One of them, in full")
            .ends(|words| {
                let number = words.number("number")?;
                Ok(Command::Show(Show::RedundancyConflict(number)))
            })
            .then(
                keyword("diff", "What differs in the running configuration").ends(|words| {
                    let number = words.number("number")?;
                    Ok(Command::Show(Show::RedundancyConflictDiff(number)))
                }),
            ),
    )
}
