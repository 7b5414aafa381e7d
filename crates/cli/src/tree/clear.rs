//! `clear`.

use super::{Node, keyword};
use crate::command::Command;

pub(super) fn commands() -> Node {
    keyword("clear", "Begin counters anew, remove what was kept")
        .administrator()
        .then(
            keyword("redundancy", "The pair").then(
                keyword("traffic", "Counters of each port").ends(|_| Ok(Command::ClearTraffic)),
            ),
        )
}
