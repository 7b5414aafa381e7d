//! Machines that are not what they were: set back, cloned, replaced, set up wrongly.

use model::{PairId, Role};
use rand::Rng;
use redundancy::NodeRecord;

use super::{KEYS, Undo, lasting, say};
use crate::machine::{Machine, Platters};
use crate::world::{CLONE, Event, MS, S, World};

/// The role of a gateway's machine.
pub(crate) const fn role(slot: usize) -> Role {
    if slot == 0 {
        Role::Primary
    } else {
        Role::Secondary
    }
}

/// The number of the pair.
pub(crate) fn pair() -> Option<PairId> {
    PairId::try_from(7).ok()
}

/// An image of the machine's disks is taken now; later the machine is set back to it.
pub(super) fn roll_back(world: &mut World, node: usize) -> Option<u64> {
    if world.machines[node].image.is_some() {
        return None;
    }
    let machine = &world.machines[node];
    let image = (machine.record.clone(), machine.platters.after_power_loss());
    world.machines[node].image = Some(image);
    let length = world.random(S, 20 * S);
    say(world, format_args!("an image of node {node} is taken"));
    world.after(length, Event::FaultEnds(Undo::Rollback { node }));
    Some(length)
}

pub(super) fn rolled_back(world: &mut World, node: usize) {
    let Some((record, platters)) = world.machines[node].image.take() else {
        return;
    };
    if !world.chaos {
        return;
    }
    say(world, format_args!("node {node} is set back to its image"));
    world.power_off(node);
    world.lost_disk(node);
    let machine = &mut world.machines[node];
    (machine.record, machine.platters) = (record, platters);
    machine.acted = model::Epoch::default();
    world.after(500 * MS, Event::NodeBoot { node });
}

/// A copy of the machine's disks starts beside it, with its identity, and takes its addresses.
pub(super) fn clone(world: &mut World, node: usize) -> Option<u64> {
    if world.machines.len() > CLONE {
        return None;
    }
    let length = lasting(world) + S;
    say(world, format_args!("node {node} is cloned"));
    let original = &world.machines[node];
    let clock = original.clock;
    let mut copy = Machine::new(node, KEYS, original.record.clone(), clock);
    copy.platters = original.platters.after_power_loss();
    copy.disk_ns = MS;
    copy.damaged = original.damaged;
    copy.boot = original.boot + 1_000_000;
    world.machines.push(copy);
    world.watch.s5.may_fork();
    world.after(10 * MS, Event::NodeBoot { node: CLONE });
    world.after(length, Event::FaultEnds(Undo::Clone));
    let steals = world.random(0, S);
    world.after(steals, Event::Steal);
    Some(length)
}

/// The clone or its original goes; whoever stays has the addresses.
pub(crate) fn end_clone(world: &mut World) {
    if world.machines.len() <= CLONE {
        return;
    }
    let slot = world.machines[CLONE].slot;
    let clone_stays = world.rng.random_bool(0.3);
    world.give_addresses(slot, slot);
    world.power_off(CLONE);
    let Some(clone) = world.machines.pop() else {
        return;
    };
    if clone_stays {
        say(
            world,
            format_args!("the clone of node {slot} takes its place"),
        );
        world.power_off(slot);
        world.lost_disk(slot);
        let machine = &mut world.machines[slot];
        (machine.record, machine.platters) = (clone.record, clone.platters);
        machine.acted = model::Epoch::default();
        world.after(500 * MS, Event::NodeBoot { node: slot });
    } else {
        say(world, format_args!("the clone of node {slot} goes"));
        // The peer listens to the newer of two incarnations only, as it must: whoever finds a
        // clone starts the original afresh.
        if world.machines[slot].node.is_some() {
            world.restart(slot);
        }
    }
}

/// An empty machine with the old one's identity and pairing.
pub(super) fn replace_disk(world: &mut World, node: usize) -> Option<u64> {
    say(world, format_args!("node {node} gets an empty disk"));
    world.power_off(node);
    world.lost_disk(node);
    let machine = &mut world.machines[node];
    machine.platters = Platters::default();
    machine.acted = model::Epoch::default();
    machine.record = NodeRecord {
        role: role(node),
        pair: pair(),
        peer: Some(KEYS[1 - node]),
        interval_ms: machine.record.interval_ms,
        misses: machine.record.misses,
        ..NodeRecord::default()
    };
    let off = lasting(world);
    world.after(off, Event::NodeBoot { node });
    Some(off)
}

/// A machine comes back with its peer's role, or another pair's number.
pub(super) fn wrong_role(world: &mut World, node: usize) -> Option<u64> {
    let both_right = |machine: &Machine| {
        machine.record.role == role(machine.slot) && machine.record.pair == pair()
    };
    if !world.machines.iter().take(2).all(both_right) {
        return None;
    }
    world.power_off(node);
    if world.rng.random_bool(0.5) {
        world.machines[node].record.role = role(1 - node);
    } else {
        world.machines[node].record.pair = PairId::try_from(8).ok();
    }
    say(world, format_args!("node {node} has a wrong role or pair"));
    let length = lasting(world) + S;
    world.after(200 * MS, Event::NodeBoot { node });
    world.after(length, Event::FaultEnds(Undo::Role { node }));
    Some(length)
}

/// What an operator does who finds a role or pair wrong: the node file is set right, offline.
pub(super) fn right_role(world: &mut World, node: usize) {
    let record = world.machines[node]
        .node
        .as_ref()
        .map_or(&world.machines[node].record, |running| {
            running.supervisor().record()
        });
    let right = record.role == role(node) && record.pair == pair();
    let on_disk = &world.machines[node].record;
    if right && on_disk.role == role(node) && on_disk.pair == pair() {
        return;
    }
    world.power_off(node);
    say(
        world,
        format_args!("role and pair of node {node} are right again"),
    );
    world.machines[node].record.role = role(node);
    world.machines[node].record.pair = pair();
    world.after(500 * MS, Event::NodeBoot { node });
}
