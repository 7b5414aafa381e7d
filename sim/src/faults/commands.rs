//! What operators do, and load.

use rand::Rng;

use super::{Undo, lasting, say};
use crate::world::{Event, MS, S, World};

/// Flows of a burst: more than the policy engine puts into one commit, many times.
const BURST: u64 = 600;

/// Types lines at the acting gateway, if no one is typing there.
pub(super) fn type_in(world: &mut World, lines: &[&str]) -> Option<u64> {
    let node = (0..2).find(|node| world.acts_now(*node))?;
    world.type_at(node, lines).then_some(0)
}

pub(super) fn change_interval(world: &mut World) -> Option<u64> {
    let interval = [10, 20, 50, 100, 200, 500, 1000, 2000][world.rng.random_range(0..8)];
    let misses = world.rng.random_range(2..5_u32);
    let line = format!("system redundancy heartbeat interval {interval} misses {misses}");
    type_in(world, &[&line])
}

/// The active's role is changed, and it is reloaded; some time later the change is taken back.
pub(super) fn change_role(world: &mut World) -> Option<u64> {
    let node = (0..2).find(|node| world.acts_now(*node))?;
    let role = ["standalone", "primary", "secondary"][world.rng.random_range(0..3)];
    let line = format!("system redundancy role {role}");
    let lines: &[&str] = if world.rng.random_bool(0.7) {
        &[&line, "reload", "y"]
    } else {
        &[&line]
    };
    if !world.type_at(node, lines) {
        return None;
    }
    let length = lasting(world) + 2 * S;
    world.after(length, Event::FaultEnds(Undo::Role { node }));
    Some(length)
}

pub(super) fn change_pair_id(world: &mut World) -> Option<u64> {
    let node = (0..2).find(|node| world.acts_now(*node))?;
    if !world.type_at(node, &["configure", "ha-pair id 9"]) {
        return None;
    }
    let length = lasting(world);
    world.after(length, Event::FaultEnds(Undo::Role { node }));
    Some(length)
}

/// At a gateway that waits.
pub(super) fn force_active(world: &mut World, node: usize) -> Option<u64> {
    if world.acts_now(node) || !world.machines[node].is_awake() {
        return None;
    }
    // It may lead with less than what the other has.
    world.watch.s5.may_fork();
    world
        .type_at(node, &["system redundancy force-active"])
        .then_some(0)
}

pub(super) fn change_policy(world: &mut World) -> Option<u64> {
    let policy = ["primary-resets", "newest-config", "most-vems"][world.rng.random_range(0..3)];
    let line = format!("system redundancy split-brain {policy}");
    type_in(world, &[&line])
}

/// New flows faster than they are replicated.
pub(super) fn overload(world: &mut World) -> Option<u64> {
    let host = world.rng.random_range(0..world.hosts.len());
    say(world, format_args!("{BURST} flows at once at host {host}"));
    for index in 0..BURST {
        world.after(index * MS / 2, Event::NewFlow { host, again: false });
    }
    Some(BURST * MS / 2)
}
