//! What goes wrong, at random.

use model::ServiceName;
use node::node::NodeInput;
use rand::Rng;

use crate::network::{CONTROL, LINKS, vem_stream};
use crate::world::{Event, MS, World};

/// How a lasting fault ends.
#[derive(Clone, Copy, Debug)]
pub enum Undo {
    /// A direction of an HA link mends.
    Link {
        /// Which link.
        link: usize,
        /// Which direction.
        direction: usize,
    },
    /// A service path mends.
    Service {
        /// Which host.
        host: usize,
        /// Which node.
        node: usize,
    },
    /// A disk is fast again.
    Disk {
        /// Whose.
        node: usize,
    },
}

/// Injects one fault and schedules the next.
pub fn inject(world: &mut World) {
    if !world.chaos {
        return;
    }
    let mean = world.fault_pause_ns;
    let pause = world.random(mean / 6, mean * 11 / 6);
    world.after(pause, Event::Fault);
    world.outcome.faults += 1;
    let node = world.rng.random_range(0..2_usize);
    match world.rng.random_range(0..100_u32) {
        0..10 => cut_link(world),
        10..18 => cut_all_links(world),
        18..24 => isolate(world, node),
        24..30 => cut_service(world, node),
        30..38 => bad_link(world),
        38..46 => lose_power(world, node),
        46..48 => {
            lose_power(world, 0);
            lose_power(world, 1);
        }
        48..53 => {
            world.trace.line(
                world.now,
                format_args!("FAULT System Manager of {node} killed"),
            );
            if world.machines[node].is_awake() {
                world.kill_system_manager(node);
            }
        }
        53..67 => kill_service(world, node),
        67..82 => pause_node(world, node),
        82..86 => {
            pause_node(world, 0);
            pause_node(world, 1);
        }
        86..92 => {
            let host = world.rng.random_range(0..world.hosts.len());
            world
                .trace
                .line(world.now, format_args!("FAULT agent of host {host} killed"));
            world.kill_agent(host);
        }
        92..95 => failing_disk(world, node),
        _ => slow_disk(world, node),
    }
}

/// From 50 ms to 20 s, short ones as likely as long ones.
fn lasting(world: &mut World) -> u64 {
    let exponent = world.rng.random_range(0.0..1.0_f64);
    (50.0 * MS as f64 * 400.0_f64.powf(exponent)) as u64
}

fn cut(world: &mut World, link: usize, direction: usize, length: u64) {
    world.net.links[link][direction].cut = true;
    world.after(length, Event::FaultEnds(Undo::Link { link, direction }));
    world.check_later(CONTROL);
    world.check_later(crate::network::BULK);
}

fn cut_link(world: &mut World) {
    world.outcome.partitions += 1;
    let link = world.rng.random_range(0..LINKS);
    let length = lasting(world);
    let directions = world.rng.random_range(1..4_u32);
    world.trace.line(
        world.now,
        format_args!("FAULT link {link} cut {directions:#04b}"),
    );
    for direction in 0..2 {
        if directions & (1 << direction) != 0 {
            cut(world, link, direction, length);
        }
    }
}

fn cut_all_links(world: &mut World) {
    world.outcome.partitions += 1;
    let length = lasting(world);
    let directions = world.rng.random_range(1..4_u32);
    world.trace.line(
        world.now,
        format_args!("FAULT all links cut {directions:#04b}"),
    );
    for link in 0..LINKS {
        for direction in 0..2 {
            if directions & (1 << direction) != 0 {
                let more = world.random(0, 300 * MS);
                cut(world, link, direction, length + more);
            }
        }
    }
}

fn cut_path(world: &mut World, host: usize, node: usize, length: u64) {
    for direction in &mut world.net.service[host][node] {
        direction.cut = true;
    }
    world.after(length, Event::FaultEnds(Undo::Service { host, node }));
    world.check_later(vem_stream(host, node));
}

fn isolate(world: &mut World, node: usize) {
    world.outcome.partitions += 1;
    let length = lasting(world);
    world
        .trace
        .line(world.now, format_args!("FAULT node {node} isolated"));
    for link in 0..LINKS {
        cut(world, link, 0, length);
        cut(world, link, 1, length);
    }
    for host in 0..world.hosts.len() {
        cut_path(world, host, node, length);
    }
}

fn cut_service(world: &mut World, node: usize) {
    world.outcome.partitions += 1;
    let host = world.rng.random_range(0..world.hosts.len());
    let length = lasting(world);
    world.trace.line(
        world.now,
        format_args!("FAULT host {host} and node {node} cut"),
    );
    cut_path(world, host, node, length);
}

fn bad_link(world: &mut World) {
    let link = world.rng.random_range(0..LINKS);
    let loss = world.rng.random_range(0.0..0.7);
    let doubled = world.rng.random_range(0.0..0.3);
    let jitter_ns = world.random(0, 80 * MS);
    let length = lasting(world);
    world
        .trace
        .line(world.now, format_args!("FAULT link {link} loses {loss:.2}"));
    for direction in 0..2 {
        let known = &mut world.net.links[link][direction];
        known.loss = loss;
        known.doubled = doubled;
        known.jitter_ns = jitter_ns;
        world.after(length, Event::FaultEnds(Undo::Link { link, direction }));
    }
}

fn lose_power(world: &mut World, node: usize) {
    if world.machines[node].node.is_none() {
        return;
    }
    world
        .trace
        .line(world.now, format_args!("FAULT node {node} loses power"));
    world.machines[node].lose_power(&mut world.rng);
    world.node_ended(node);
    let off = lasting(world);
    world.after(off + 500 * MS, Event::NodeBoot { node });
}

fn kill_service(world: &mut World, node: usize) {
    let service = ServiceName::ALL[world.rng.random_range(0..ServiceName::ALL.len())];
    if world.machines[node].is_awake() {
        world.trace.line(
            world.now,
            format_args!("FAULT {service} of node {node} killed"),
        );
        world.feed(node, NodeInput::Kill { service });
    }
}

fn pause_node(world: &mut World, node: usize) {
    // From 10 ms to 60 s, short ones as likely as long ones.
    let exponent = world.rng.random_range(0.0..1.0_f64);
    let length = (10.0 * MS as f64 * 6000.0_f64.powf(exponent)) as u64;
    let machine = &mut world.machines[node];
    if !machine.is_awake() {
        return;
    }
    let until = world.now + length;
    machine.paused_until = Some(until);
    let boot = machine.boot;
    world.trace.line(
        world.now,
        format_args!("FAULT node {node} stopped for {} ms", length / MS),
    );
    world.schedule(until, Event::Resume { node, boot });
}

fn slow_disk(world: &mut World, node: usize) {
    let slow = world.random(5 * MS, 3000 * MS);
    world.trace.line(
        world.now,
        format_args!("FAULT disk of {node} takes {} ms", slow / MS),
    );
    world.machines[node].disk_ns = slow;
    let length = lasting(world);
    world.after(length, Event::FaultEnds(Undo::Disk { node }));
}

/// Writes of the node file fail for a while; the store's disk is another one.
fn failing_disk(world: &mut World, node: usize) {
    world.trace.line(
        world.now,
        format_args!("FAULT node file of {node} cannot be written"),
    );
    world.machines[node].node_file_fails = true;
    let length = lasting(world);
    world.after(length, Event::FaultEnds(Undo::Disk { node }));
}

/// One lasting fault ends.
pub fn end(world: &mut World, undo: Undo) {
    match undo {
        Undo::Link { link, direction } => {
            world.net.links[link][direction] = crate::network::Direction::default();
        }
        Undo::Service { host, node } => {
            world.net.service[host][node] = crate::network::Path::default();
        }
        Undo::Disk { node } => {
            world.machines[node].disk_ns = MS;
            world.machines[node].node_file_fails = false;
        }
    }
}

/// All faults end: paths mend, disks are fast, whoever is stopped resumes, whoever is off starts.
pub fn end_all(world: &mut World) {
    world.net.heal();
    for node in 0..2 {
        world.machines[node].disk_ns = MS;
        world.machines[node].node_file_fails = false;
        let boot = world.machines[node].boot;
        if world.machines[node].paused_until.is_some() {
            world.machines[node].paused_until = Some(world.now);
            world.after(0, Event::Resume { node, boot });
        }
        if world.machines[node].node.is_none() {
            world.after(500 * MS, Event::NodeBoot { node });
        }
    }
    for host in 0..world.hosts.len() {
        world.hosts[host].decided = 0;
        world.after(500 * MS, Event::HostBoot { host });
    }
}
