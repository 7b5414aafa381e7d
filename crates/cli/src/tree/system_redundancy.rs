//! `system redundancy`: what this node is in the pair, and how the pair decides.

use model::{ConflictPolicy, Role};

use super::{BadWord, Node, Words, keyword, number};
use crate::command::{Command, HeartbeatSetting};

pub(super) fn commands() -> Node {
    keyword("redundancy", "The pair").then_all([
        keyword(
            "boot-wait",
            "How long a node that boots alone waits for the other one",
        )
        .then_all([
            number("seconds", 10, 86_400, "Seconds, then it leads")
                .ends(|words: &Words| Ok(Command::SetBootWait(Some(words.number("seconds")?)))),
            keyword("never", "It waits until the other one is there")
                .ends(|_| Ok(Command::SetBootWait(None))),
        ]),
        keyword(
            "force-active",
            "Lead, although this node may lack the newest state",
        )
        .ends(|_| Ok(Command::ForceActive)),
        heartbeat(),
        keyword("role", "Role of this node in the pair").then_all(
            [
                ("primary", "First of a pair"),
                ("secondary", "Second of a pair"),
                ("standalone", "Alone, ignores every other"),
            ]
            .map(|(word, help)| keyword(word, help).named("role").ends(role)),
        ),
        keyword("split-brain", "Who resets if both nodes were active").then_all(
            [
                ("most-vems", "The one that fewer VEMs obey"),
                (
                    "newest-config",
                    "The one whose configuration was changed longer ago",
                ),
                ("primary-resets", "The primary"),
            ]
            .map(|(word, help)| keyword(word, help).named("policy").ends(policy)),
        ),
    ])
}

fn role(words: &Words) -> Result<Command, BadWord> {
    match words.required("role")? {
        "primary" => Ok(Command::SetRole(Role::Primary)),
        "secondary" => Ok(Command::SetRole(Role::Secondary)),
        "standalone" => Ok(Command::SetRole(Role::Standalone)),
        _ => Err(BadWord {
            label: "role",
            message: "is not a role".to_owned(),
        }),
    }
}

fn policy(words: &Words) -> Result<Command, BadWord> {
    match words.required("policy")? {
        "most-vems" => Ok(Command::SetConflictPolicy(ConflictPolicy::MostVems)),
        "newest-config" => Ok(Command::SetConflictPolicy(ConflictPolicy::NewestConfig)),
        "primary-resets" => Ok(Command::SetConflictPolicy(ConflictPolicy::PrimaryResets)),
        _ => Err(BadWord {
            label: "policy",
            message: "is not a policy".to_owned(),
        }),
    }
}

fn heartbeat() -> Node {
    let explicit = |words: &Words| {
        Ok(Command::SetHeartbeat(HeartbeatSetting::Explicit {
            interval_ms: words.number("interval")?,
            misses: words.number("misses")?,
        }))
    };
    keyword("heartbeat", "How fast the peer's silence is noticed").then_all([
        keyword("default", "3 x 100 ms")
            .ends(|_| Ok(Command::SetHeartbeat(HeartbeatSetting::Default))),
        keyword("fast", "3 x 10 ms").ends(|_| Ok(Command::SetHeartbeat(HeartbeatSetting::Fast))),
        keyword("interval", "An interval of one's own").then(
            number("interval", 10, 10_000, "Milliseconds").then(
                keyword("misses", "How many may be missed")
                    .then(number("misses", 2, 20, "Misses until silence").ends(explicit)),
            ),
        ),
        keyword(
            "vm-safe",
            "3 x 1000 ms, for machines that are paused by snapshots",
        )
        .ends(|_| Ok(Command::SetHeartbeat(HeartbeatSetting::VmSafe))),
    ])
}
