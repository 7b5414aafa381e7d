//! `attach module`, `reload`: one supervisor or host agent among the others.

use model::ModuleNumber;

use super::{Node, keyword, number};
use crate::command::Command;

pub(super) fn attach() -> Node {
    keyword("attach", "Attach to another supervisor's console")
        .administrator()
        .active_only()
        .then(
            keyword("module", "By its module number").then(
                number("module", 1, 2, "Number of the supervisor")
                    .ends(|words| Ok(Command::AttachModule(ModuleNumber(words.number("module")?)))),
            ),
        )
}

pub(super) fn reload() -> Node {
    keyword("reload", "Restart this node")
        .administrator()
        .ends(|_| Ok(Command::Reload))
}
