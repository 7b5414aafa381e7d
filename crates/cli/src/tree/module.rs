//! `attach module`, `reload`: one supervisor or host agent among the others.

use model::ModuleNumber;

use super::{Node, keyword, number};
use crate::command::Command;

/// Highest module number that can be typed: more hosts than one pair is built for.
const MODULE_MAX: u32 = 1024;

pub(super) fn attach() -> Node {
    keyword("attach", "Attach to another supervisor's console")
        .administrator()
        .active_only()
        .then(
            keyword("module", "By its module number").then(
                number("module", 1, MODULE_MAX, "Its number, as in show module")
                    .ends(|words| Ok(Command::AttachModule(ModuleNumber(words.number("module")?)))),
            ),
        )
}

pub(super) fn reload() -> Node {
    keyword("reload", "Restart this node")
        .administrator()
        .ends(|_| Ok(Command::Reload))
        .then(
            keyword("module", "Restart the standby, or the agent of a host")
                .active_only()
                .then(
                    number("module", 1, MODULE_MAX, "Its number, as in show module").ends(
                        |words| {
                            let number = words.number("module")?;
                            Ok(Command::ReloadModule(ModuleNumber(number)))
                        },
                    ),
                ),
        )
}
