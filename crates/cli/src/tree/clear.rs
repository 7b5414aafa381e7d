//! `clear`.

use super::show_redundancy::CONFLICT_NUMBER_MAX;
use super::{Node, keyword, number};
use crate::command::Command;

pub(super) fn commands() -> Node {
    keyword("clear", "Begin counters anew, remove what was kept")
        .administrator()
        .then(
            keyword("redundancy", "The pair").then_all([
                keyword("conflicts", "What a node had that lost a conflict")
                    .active_only()
                    .then(
                        number("number", 1, CONFLICT_NUMBER_MAX, "Number of the conflict")
                            .ends(|words| Ok(Command::ClearConflict(words.number("number")?))),
                    ),
                keyword("traffic", "Counters of each port").ends(|_| Ok(Command::ClearTraffic)),
            ]),
        )
}
