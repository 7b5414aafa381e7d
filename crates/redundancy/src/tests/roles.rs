//! The 3 × 3 table of role changes. docs/roles.md is generated from the core and checked.

use std::fmt::Write as _;

use model::Role;

use super::pair::{A, Pair};
use crate::Command;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/roles.md");
const ROLES: [Role; 3] = [Role::Standalone, Role::Primary, Role::Secondary];

/// One change on a node that leads alone: (message, in force at once, pending).
fn change(from: Role, to: Role) -> (String, bool, bool) {
    let mut pair = Pair::new(1);
    pair.sides[A].durable.role = from;
    pair.boot(A);
    pair.run_until("it leads", 30_000, |pair| pair.actives() == [A]);
    pair.run(100);
    let epoch = pair.sides[A].acting();
    let command = pair.command(A, Command::SetRole(to));
    pair.run(10);
    let message = pair
        .result(A, command)
        .expect("answered")
        .expect("not refused");
    assert_eq!(pair.sides[A].acting(), epoch, "{from} to {to}: it acts on");
    assert_eq!(pair.sides[A].durable.role, to, "durable");
    let status = pair.core(A).status(pair.now);
    assert_eq!(status.administrative_role, to);
    let pending = status.administrative_role != status.operational_role;
    let at_once = !pending && from != to;
    if pending {
        assert_eq!(status.operational_role, from);
        // Taken back, nothing is pending any more.
        let command = pair.command(A, Command::SetRole(from));
        pair.run(10);
        assert_eq!(pair.result(A, command), Some(Ok(String::new())));
        let status = pair.core(A).status(pair.now);
        assert_eq!(status.administrative_role, status.operational_role);
        pair.command(A, Command::SetRole(to));
        pair.run(10);
    }
    pair.command(A, Command::Reload);
    pair.run_until("it starts afresh", 30_000, |pair| {
        !pair.sides[A].resets.is_empty() && pair.sides[A].core.is_some()
    });
    assert_eq!(pair.core(A).role(), to, "after the reload");
    (message, at_once, pending)
}

#[test]
fn the_table_of_role_changes_is_as_documented() {
    let mut table = String::from(
        "# Role changes\n\n\
         `system redundancy role {standalone|primary|secondary}`. Generated from the core and \
         checked by `cargo test -p redundancy` (set `BLESS=1` to write it anew).\n\n\
         A change never interrupts a node that acts: it is durable when the command is answered, \
         and in force at once or after the next `reload`. Until then `show redundancy status` \
         shows the new role as administrative and the old one as operational. A node whose peer \
         has the same role forms no pair with it; both say so.\n\n\
         | from | to | in force | message |\n|---|---|---|---|\n",
    );
    for from in ROLES {
        for to in ROLES {
            let (message, at_once, pending) = change(from, to);
            let force = match (at_once, pending) {
                (true, false) => "at once",
                (false, true) => "after `reload`",
                (false, false) => "already",
                (true, true) => unreachable!("one or the other"),
            };
            let message = if message.is_empty() { "none" } else { &message };
            writeln!(table, "| {from} | {to} | {force} | {message} |").expect("a String grows");
            assert_eq!(
                at_once,
                (from, to) == (Role::Standalone, Role::Primary),
                "the chapter: only standalone to primary is at once"
            );
        }
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(PATH, &table).expect("docs can be written");
    }
    let documented = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(
        documented == table,
        "docs/roles.md is out of date: run with BLESS=1"
    );
}
