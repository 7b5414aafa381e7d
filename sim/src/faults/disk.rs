//! Disks and clocks.

use node::node::NodeInput;
use rand::Rng;

use super::{Undo, lasting, say};
use crate::clock::TRUE_RATE;
use crate::world::{Event, MS, S, World};

/// A flipped bit is looked for among so many of the log's.
const BITS: usize = 1 << 20;

pub(super) fn full(world: &mut World, node: usize) -> Option<u64> {
    let room = world.rng.random_range(0..20_000_usize);
    let length = lasting(world);
    say(
        world,
        format_args!("disk of {node} has room for {room} bytes"),
    );
    world.machines[node].damaged = true;
    world.machines[node]
        .platters
        .persistent
        .set_room(Some(room));
    world.after(length, Event::FaultEnds(Undo::Disk { node }));
    Some(length)
}

pub(super) fn fails(world: &mut World, node: usize) -> Option<u64> {
    let length = lasting(world);
    say(world, format_args!("flushes of {node}'s disk fail"));
    world.machines[node].damaged = true;
    world.machines[node]
        .platters
        .persistent
        .set_flushes_fail(true);
    world.after(length, Event::FaultEnds(Undo::Disk { node }));
    Some(length)
}

pub(super) fn stalls(world: &mut World, node: usize) -> Option<u64> {
    let exponent = world.rng.random_range(0.0..1.0_f64);
    let slow = (5.0 * MS as f64 * 4000.0_f64.powf(exponent)) as u64;
    say(world, format_args!("disk of {node} takes {} ms", slow / MS));
    world.machines[node].disk_ns = slow;
    let length = lasting(world);
    world.after(length, Event::FaultEnds(Undo::Disk { node }));
    Some(length + slow)
}

/// Writes of the node file fail for a while; the store's disk is another one.
pub(super) fn node_file_fails(world: &mut World, node: usize) -> Option<u64> {
    say(world, format_args!("node file of {node} cannot be written"));
    world.machines[node].node_file_fails = true;
    let length = lasting(world);
    world.after(length, Event::FaultEnds(Undo::Disk { node }));
    Some(length)
}

/// A bit of the store's log rots; the machine loses power so that somebody reads it.
pub(super) fn flip(world: &mut World, node: usize) -> Option<u64> {
    world.machines[node].node.as_ref()?;
    let bytes = world.machines[node].platters.persistent.log_bytes();
    if bytes == 0 {
        return None;
    }
    world.power_off(node);
    let bit = world.rng.random_range(0..BITS) % (bytes * 8);
    say(world, format_args!("bit {bit} of node {node}'s log flips"));
    world.machines[node].damaged = true;
    world.lost_disk(node);
    world.machines[node].platters.persistent.flip(bit);
    let off = lasting(world);
    world.after(off, Event::NodeBoot { node });
    Some(off)
}

pub(super) fn mend(world: &mut World, node: usize) {
    let machine = &mut world.machines[node];
    machine.disk_ns = MS;
    machine.node_file_fails = false;
    machine.platters.persistent.set_room(None);
    machine.platters.persistent.set_flushes_fail(false);
}

/// A clock runs at half to twice the rate of the world's.
pub(super) fn drift(world: &mut World) -> Option<u64> {
    let choices = 2 + world.hosts.len();
    let chosen = world.rng.random_range(0..choices);
    let whose = if chosen < 2 { chosen } else { chosen + 1 };
    let rate = world.random(TRUE_RATE / 2, TRUE_RATE * 2);
    let length = lasting(world);
    say(
        world,
        format_args!("clock {whose} runs at {rate} millionths"),
    );
    set_rate(world, whose, rate);
    world.after(length, Event::FaultEnds(Undo::Clock { whose }));
    Some(length)
}

pub(super) fn set_rate(world: &mut World, whose: usize, rate: u64) {
    let now = world.now;
    if whose < 3 {
        world.machines[whose].clock.set_rate(now, rate);
        world.machines[whose].tick_at = None;
        world.schedule_tick(whose);
    } else {
        world.hosts[whose - 3].clock.set_rate(now, rate);
        world.hosts[whose - 3].tick_at = None;
        world.schedule_host_tick(whose - 3);
    }
}

/// Ten years forth or back: for display only.
pub(super) fn wall_clock_jumps(world: &mut World, node: usize) -> Option<u64> {
    let jump = world.rng.random_range(0..315_360_000_u64);
    let forth = world.rng.random_bool(0.5);
    let machine = &mut world.machines[node];
    machine.wall_s = if forth {
        machine.wall_s + jump
    } else {
        machine.wall_s.saturating_sub(jump)
    };
    say(world, format_args!("wall clock of node {node} jumps"));
    if world.machines[node].is_awake() {
        let unix_s = world.machines[node].wall_s + world.now / S;
        world.feed(node, NodeInput::WallClock { unix_s });
    }
    Some(0)
}
