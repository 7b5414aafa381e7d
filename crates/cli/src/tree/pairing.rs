//! `redundancy pair`, `join`, `unpair`; `vem enroll`: whom this node trusts.

use model::ModuleNumber;

use super::{BadWord, Node, Token, Words, address, keyword, number};
use crate::command::{Command, PairingCommand, TypedCode};

/// Longest code that is read: nine symbols, with as many separators as somebody may type.
const CODE_MAX_BYTES: usize = 32;

pub(super) fn redundancy() -> Node {
    let code = Node::new(
        Token::Word {
            max_bytes: CODE_MAX_BYTES,
        },
        "The code that it printed",
    );
    keyword("redundancy", "The other node of the pair")
        .administrator()
        .then_all([
            keyword("identity", "The key by which others know this node").then(
                keyword("rotate", "Make a new one, and have the others trust it")
                    .ends(|_| rotate(false))
                    .then(keyword("force", "Even if host agents are away").ends(|_| rotate(true))),
            ),
            keyword("join", "Pair with the node that printed a code").then(
                address("address", "Its address on an HA link").then(
                    code.named("code").ends(join).then(
                        keyword("port", "If it listens on another port than the usual one")
                            .then(number("port", 1, 65_535, "TCP port").ends(join)),
                    ),
                ),
            ),
            keyword(
                "pair",
                "Print a one-time code, to be typed on the other node",
            )
            .ends(|_| Ok(Command::Pairing(PairingCommand::Pair))),
            keyword("unpair", "Forget the other node")
                .ends(|_| Ok(Command::Pairing(PairingCommand::Unpair))),
        ])
}

pub(super) fn vem() -> Node {
    keyword("vem", "Host agents")
        .administrator()
        .active_only()
        .then_all([
            keyword("enroll", "Print a one-time code, to be typed on a host")
                .ends(|_| Ok(Command::Pairing(PairingCommand::EnrollVem))),
            keyword("remove", "Trust a host agent no more, and free its number").then(
                number("module", 3, 65_535, "Number of its module").ends(|words| {
                    let module = ModuleNumber(words.number("module")?);
                    Ok(Command::Pairing(PairingCommand::RemoveVem(module)))
                }),
            ),
        ])
}

fn rotate(force: bool) -> Result<Command, BadWord> {
    Ok(Command::Pairing(PairingCommand::RotateIdentity { force }))
}

fn join(words: &Words) -> Result<Command, BadWord> {
    let port = match words.text("port") {
        Some(_) => Some(words.number("port")?),
        None => None,
    };
    Ok(Command::Pairing(PairingCommand::Join {
        address: (words.address("address")?, port),
        code: TypedCode(words.required("code")?.to_owned()),
    }))
}
