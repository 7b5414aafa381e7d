//! Processes and machines that die, stop or are slow.

use model::ServiceName;
use node::node::NodeInput;
use rand::Rng;

use super::{Undo, lasting, say};
use crate::world::{Event, MS, S, World};

pub(super) fn kill_service(world: &mut World, node: usize) -> Option<u64> {
    let service = ServiceName::ALL[world.rng.random_range(0..ServiceName::ALL.len())];
    if !world.machines[node].is_awake() {
        return None;
    }
    say(world, format_args!("{service} of node {node} killed"));
    world.feed(node, NodeInput::Kill { service });
    Some(0)
}

/// One process gets `SIGSTOP`, or spins without a turn of its loop.
pub(super) fn stop_service(world: &mut World, node: usize) -> Option<u64> {
    let service = ServiceName::ALL[world.rng.random_range(0..ServiceName::ALL.len())];
    if !world.machines[node].is_awake() {
        return None;
    }
    let length = lasting(world);
    say(
        world,
        format_args!("{service} of node {node} stopped for {} ms", length / MS),
    );
    world.feed(node, NodeInput::Stop { service });
    let boot = world.machines[node].boot;
    let undo = Undo::Service1 {
        node,
        boot,
        service,
    };
    world.after(length, Event::FaultEnds(undo));
    Some(length)
}

pub(super) fn go_on(world: &mut World, node: usize, boot: u64, service: ServiceName) {
    let machine = &world.machines[node];
    if machine.boot != boot || machine.node.is_none() {
        return;
    }
    if let Some(until) = machine.paused_until.filter(|until| *until > world.now) {
        let undo = Undo::Service1 {
            node,
            boot,
            service,
        };
        return world.schedule(until, Event::FaultEnds(undo));
    }
    world.feed(node, NodeInput::Continue { service });
}

pub(super) fn slow_start(world: &mut World, node: usize) -> Option<u64> {
    let length = lasting(world);
    let slow = world.random(200 * MS, 12 * S);
    say(
        world,
        format_args!("processes of node {node} take {} ms to start", slow / MS),
    );
    world.machines[node].slow_start_ns = slow;
    world.after(length, Event::FaultEnds(Undo::Start { node }));
    // So that something starts.
    if world.machines[node].is_awake() && world.rng.random_bool(0.5) {
        kill_service(world, node);
    }
    Some(length)
}

pub(super) fn kill_manager(world: &mut World, node: usize) -> Option<u64> {
    if !world.machines[node].is_awake() {
        return None;
    }
    say(world, format_args!("System Manager of {node} killed"));
    world.kill_system_manager(node);
    Some(0)
}

/// From 10 ms to 60 s, short ones as likely as long ones.
fn pausing(world: &mut World) -> u64 {
    let exponent = world.rng.random_range(0.0..1.0_f64);
    (10.0 * MS as f64 * 6000.0_f64.powf(exponent)) as u64
}

pub(crate) fn pause(world: &mut World, node: usize, length: u64) -> bool {
    let machine = &mut world.machines[node];
    if !machine.is_awake() {
        return false;
    }
    let until = world.now + length;
    machine.paused_until = Some(until);
    let boot = machine.boot;
    say(
        world,
        format_args!("node {node} stopped for {} ms", length / MS),
    );
    world.schedule(until, Event::Resume { node, boot });
    true
}

pub(super) fn pause_one(world: &mut World, node: usize) -> Option<u64> {
    let length = pausing(world);
    pause(world, node, length).then_some(length)
}

/// The whole host stalls.
pub(super) fn pause_both(world: &mut World) -> Option<u64> {
    let length = pausing(world);
    let more = world.random(0, 50 * MS);
    let first = pause(world, 0, length);
    let second = pause(world, 1, length + more);
    (first || second).then_some(length)
}

/// One resumes when the other stops.
pub(super) fn pause_alternately(world: &mut World, node: usize) -> Option<u64> {
    let length = world.random(50 * MS, 2 * S);
    let times = world.rng.random_range(2..8_u32);
    pause_again(world, node, times, length);
    Some(length * u64::from(times))
}

pub(super) fn pause_again(world: &mut World, node: usize, left: u32, length: u64) {
    if left == 0 || !world.chaos {
        return;
    }
    pause(world, node, length);
    let undo = Undo::Pause {
        node: 1 - node,
        left: left - 1,
        length,
    };
    world.after(length, Event::FaultEnds(undo));
}

pub(super) fn lose_power(world: &mut World, node: usize) -> Option<u64> {
    world.machines[node].node.as_ref()?;
    let off = lasting(world);
    world.power_off(node);
    world.after(off + 500 * MS, Event::NodeBoot { node });
    Some(off)
}

/// Power fails between two effects of one turn.
pub(super) fn lose_power_at_a_step(world: &mut World, node: usize) -> Option<u64> {
    world.machines[node].node.as_ref()?;
    let steps = world.rng.random_range(1..60_u32);
    say(
        world,
        format_args!("node {node} will lose power after {steps} more effects"),
    );
    world.machines[node].dies_after = Some(steps);
    // Often enough there is nothing but beats to be interrupted: give it something.
    match world.rng.random_range(0..4_u32) {
        0 => {
            let _ = super::commands::type_in(world, &["system switchover"]);
        }
        1 => {
            let service = ServiceName::PolicyEngine;
            if world.machines[node].is_awake() {
                world.feed(node, NodeInput::Kill { service });
            }
        }
        2 if world.machines[1 - node].is_awake() => world.kill_system_manager(1 - node),
        _ => {}
    }
    Some(S)
}

pub(super) fn kill_agent(world: &mut World) -> Option<u64> {
    let host = world.rng.random_range(0..world.hosts.len());
    say(world, format_args!("agent of host {host} killed"));
    world.kill_agent(host);
    Some(0)
}
