//! Operators' commands, but for those that only one phase knows.

use model::{ConflictPolicy, PairId, Role, Time};
use wire::control::ControlMessage;

use crate::context::Context;
use crate::heartbeat::{INTERVAL_MS, MISSES};
use crate::output::Output;

/// What an operator is told when a role takes effect later (behaviour §3).
pub(crate) const NEXT_RELOAD: &str = "Setting will be activated on next reload.";

/// `system redundancy role`. Standalone → primary takes effect at once, all else at the next
/// reload (chapter, "Changing the Cisco VSG Role").
pub(crate) fn set_role(now: Time, ctx: &mut Context, command: u64, role: Role) {
    if ctx.record.role == role {
        return ctx.done(command, Ok(String::new()));
    }
    ctx.record.role = role;
    let note = if ctx.role == role {
        // Back to the role in force: nothing is pending any more.
        String::new()
    } else if (ctx.role, role) == (Role::Standalone, Role::Primary) {
        ctx.role = role;
        String::new()
    } else {
        NEXT_RELOAD.to_owned()
    };
    let note = match role_clash(now, ctx, role) {
        Some(warning) => {
            ctx.log(4, "ROLE_CLASH", warning.clone());
            [note, warning]
                .into_iter()
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
                .join("\n")
        }
        None => note,
    };
    ctx.persist_for(now, command, note);
}

/// A warning if the other supervisor has this role. No refusal: exchanging the roles of a pair is
/// two such commands before two reloads, and the first of them is always a clash.
fn role_clash(now: Time, ctx: &Context, role: Role) -> Option<String> {
    let theirs = ctx.peer_says(now).or_else(|| ctx.stranger_says(now))?.role;
    (role != Role::Standalone && theirs == role).then(|| {
        format!(
            "Warning: the other supervisor has the role {theirs} too. Two of them are no pair: \
             change its role before this supervisor reloads."
        )
    })
}

/// What an operator is told who gives one node of a live pair another pair ID.
pub(crate) const OTHER_PAIR_ID: &str = "The other supervisor has another pair ID: the pair is not \
                                        redundant until both are equal.";

/// `ha-pair id`. On a live pair it ends redundancy until the other node is given the same.
pub(crate) fn set_pair_id(now: Time, ctx: &mut Context, command: u64, pair: PairId) {
    ctx.record.pair = Some(pair);
    let other = ctx
        .stranger_says(now)
        .is_some_and(|content| content.pair != Some(pair));
    let note = if other {
        ctx.log(4, "PAIR_ID", OTHER_PAIR_ID.to_owned());
        OTHER_PAIR_ID
    } else {
        ""
    };
    ctx.peer
        .judge_by_heartbeat(now, (ctx.role, ctx.record.pair));
    ctx.persist_for(now, command, note.to_owned());
}

/// `system redundancy heartbeat`. `leads`: the peer is told to do the same.
pub(crate) fn set_heartbeat(
    now: Time,
    ctx: &mut Context,
    command: u64,
    (interval_ms, misses): (u32, u8),
    leads: bool,
) {
    let ranges = (INTERVAL_MS.0..=INTERVAL_MS.1, MISSES.0..=MISSES.1);
    if !ranges.0.contains(&interval_ms) || !ranges.1.contains(&misses) {
        let text = format!(
            "interval must be {} to {} ms, misses {} to {}",
            INTERVAL_MS.0, INTERVAL_MS.1, MISSES.0, MISSES.1
        );
        return ctx.done(command, Err(text));
    }
    adopt_timing(ctx, interval_ms, misses);
    if leads {
        ctx.outputs
            .push_back(Output::Control(ControlMessage::Timing {
                interval_ms,
                misses,
            }));
    }
    ctx.persist_for(now, command, String::new());
}

/// `system redundancy split-brain`. `leads`: the peer is told to do the same. Where the two differ
/// all the same, the chapter's rule decides.
pub(crate) fn set_conflict_policy(
    now: Time,
    ctx: &mut Context,
    command: u64,
    policy: ConflictPolicy,
    leads: bool,
) {
    ctx.record.conflict_policy = policy;
    if leads {
        let message = ControlMessage::ConflictPolicy(policy);
        ctx.outputs.push_back(Output::Control(message));
    }
    ctx.persist_for(now, command, String::new());
}

/// Limits of the wait that an operator can set (seconds): a shorter one would end before a machine
/// has started, a longer one is no limit.
const BOOT_WAIT_S: (u32, u32) = (10, 86_400);

/// `system redundancy boot-wait`.
pub(crate) fn set_boot_wait(now: Time, ctx: &mut Context, command: u64, seconds: Option<u32>) {
    let range = BOOT_WAIT_S.0..=BOOT_WAIT_S.1;
    if seconds.is_some_and(|seconds| !range.contains(&seconds)) {
        let text = format!("the wait must be {} to {} s", BOOT_WAIT_S.0, BOOT_WAIT_S.1);
        return ctx.done(command, Err(text));
    }
    ctx.record.boot_wait_s = seconds;
    ctx.persist_for(now, command, String::new());
}

/// Makes a timing ours, without writing it.
pub(crate) fn adopt_timing(ctx: &mut Context, interval_ms: u32, misses: u8) {
    ctx.record.interval_ms = interval_ms;
    ctx.record.misses = misses;
    let timing = ctx.timing();
    ctx.outputs.push_back(Output::HeartbeatTiming {
        interval_ms: timing.interval_ms,
        misses: timing.misses,
    });
}
