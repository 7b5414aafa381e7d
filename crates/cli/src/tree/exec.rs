//! Commands of exec mode; they work in every mode, behind the mode's own.

use super::{Node, clear, keyword, module, pairing, show, system_redundancy};
use crate::command::Command;

pub(super) fn commands() -> Vec<Node> {
    vec![
        module::attach(),
        clear::commands(),
        keyword("configure", "Enter configuration mode")
            .administrator()
            .active_only()
            .ends(|_| Ok(Command::Configure))
            .then(keyword("terminal", "From this terminal").ends(|_| Ok(Command::Configure))),
        keyword("copy", "Copy from one place to another")
            .administrator()
            .active_only()
            .then(
                keyword("running-config", "From the running configuration").then(
                    keyword("startup-config", "To the startup configuration")
                        .ends(|_| Ok(Command::CopyRunningToStartup)),
                ),
            ),
        keyword("end", "Go to exec mode").ends(|_| Ok(Command::End)),
        keyword("exit", "Leave this mode, or the session").ends(|_| Ok(Command::Exit)),
        pairing::redundancy(),
        module::reload(),
        show::commands(),
        system(),
        pairing::vem(),
    ]
}

fn system() -> Node {
    keyword("system", "Act on the system")
        .administrator()
        .then_all([
            system_redundancy::commands(),
            keyword("switchover", "Make the standby active")
                .active_only()
                .ends(|_| Ok(Command::Switchover)),
        ])
}
