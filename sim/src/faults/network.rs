//! Paths that are cut or bad, and datagrams of strangers.

use rand::Rng;
use wire::heartbeat::{DATAGRAM_MAX_BYTES, Datagram, Gasp};

use super::{Undo, lasting, say};
use crate::network::{BULK, CONTROL, LINKS, vem_stream};
use crate::wire_path::{FOREIGN, WirePath};
use crate::world::{Event, MS, S, World};

fn cut(world: &mut World, link: usize, direction: usize, length: u64) {
    world.net.links[link][direction].cut = true;
    world.after(length, Event::FaultEnds(Undo::Link { link, direction }));
    world.check_later(CONTROL);
    world.check_later(BULK);
}

fn cut_path(world: &mut World, host: usize, node: usize, direction: usize, length: u64) {
    world.net.service[host][node][direction].cut = true;
    let undo = Undo::Service {
        host,
        node,
        direction,
    };
    world.after(length, Event::FaultEnds(undo));
    world.check_later(vem_stream(host, node));
}

pub(super) fn cut_link(world: &mut World) -> Option<u64> {
    let link = world.rng.random_range(0..LINKS);
    let length = lasting(world);
    let directions = world.rng.random_range(1..4_u32);
    say(world, format_args!("link {link} cut {directions:#04b}"));
    for direction in 0..2 {
        if directions & (1 << direction) != 0 {
            cut(world, link, direction, length);
        }
    }
    Some(length)
}

pub(super) fn cut_all_links(world: &mut World, one_way: bool) -> Option<u64> {
    let length = lasting(world);
    let directions = if one_way {
        world.rng.random_range(1..3_u32)
    } else {
        3
    };
    say(world, format_args!("all links cut {directions:#04b}"));
    for link in 0..LINKS {
        for direction in 0..2 {
            if directions & (1 << direction) != 0 {
                let more = world.random(0, 300 * MS);
                cut(world, link, direction, length + more);
            }
        }
    }
    Some(length)
}

/// Any subset of the directions of all HA links and service paths.
pub(super) fn cut_subset(world: &mut World) -> Option<u64> {
    let length = lasting(world);
    let hosts = world.hosts.len();
    let mask = world.rng.random_range(1..1_u64 << (LINKS * 2 + hosts * 4));
    say(world, format_args!("subset {mask:#b} of all paths cut"));
    let mut bit = 0;
    let mut chosen = || {
        bit += 1;
        mask & (1 << (bit - 1)) != 0
    };
    for link in 0..LINKS {
        for direction in 0..2 {
            if chosen() {
                cut(world, link, direction, length);
            }
        }
    }
    for host in 0..hosts {
        for node in 0..2 {
            for direction in 0..2 {
                if chosen() {
                    cut_path(world, host, node, direction, length);
                }
            }
        }
    }
    Some(length)
}

pub(super) fn isolate(world: &mut World, node: usize) -> Option<u64> {
    let length = lasting(world);
    say(world, format_args!("node {node} isolated"));
    for link in 0..LINKS {
        cut(world, link, 0, length);
        cut(world, link, 1, length);
    }
    for host in 0..world.hosts.len() {
        cut_path(world, host, node, 0, length);
        cut_path(world, host, node, 1, length);
    }
    Some(length)
}

pub(super) fn cut_service(world: &mut World, node: usize) -> Option<u64> {
    let host = world.rng.random_range(0..world.hosts.len());
    let length = lasting(world);
    say(world, format_args!("host {host} and node {node} cut"));
    cut_path(world, host, node, 0, length);
    cut_path(world, host, node, 1, length);
    Some(length)
}

/// A cut that only the end of all faults mends: one direction of a path or of all HA links, or
/// the whole of it.
pub(super) fn cut_for_good(world: &mut World) -> Option<u64> {
    let directions = world.rng.random_range(1..4_usize);
    let whole = directions == 3;
    let direction = directions - 1;
    let all = world.rng.random_bool(0.3);
    if world.rng.random_bool(0.5) {
        let only = world.rng.random_range(0..LINKS);
        say(
            world,
            format_args!("link {only} (all: {all}) cut {directions:#04b} for good"),
        );
        for link in (0..LINKS).filter(|link| all || *link == only) {
            for path in 0..2 {
                if whole || path == direction {
                    world.net.links[link][path].cut = true;
                    world.net.links[link][path].permanent = true;
                }
            }
        }
        world.check_later(CONTROL);
        world.check_later(BULK);
    } else {
        let host = world.rng.random_range(0..world.hosts.len());
        let node = world.rng.random_range(0..2_usize);
        say(
            world,
            format_args!("host {host} and node {node} cut {directions:#04b} for good"),
        );
        for path in 0..2 {
            if whole || path == direction {
                world.net.service[host][node][path].cut = true;
                world.net.service[host][node][path].permanent = true;
            }
        }
        world.check_later(vem_stream(host, node));
    }
    Some(600 * S)
}

/// All HA links go down and up again and again, each time for about a hold time.
pub(super) fn flap(world: &mut World) -> Option<u64> {
    let record = &world.machines[0].record;
    let interval = if record.interval_ms == 0 {
        100
    } else {
        u64::from(record.interval_ms)
    };
    let hold_ns = interval * 3 * MS;
    let every = world.random(hold_ns / 2, hold_ns * 2).min(4 * S);
    let times = world.rng.random_range(2..12_u32);
    say(
        world,
        format_args!("all links flap {times} times, every {} ms", every / MS),
    );
    flap_again(world, times * 2, every);
    Some(every * u64::from(times) * 2)
}

pub(super) fn flap_again(world: &mut World, left: u32, every: u64) {
    for path in &mut world.net.links {
        for direction in path.iter_mut().filter(|direction| !direction.permanent) {
            direction.cut = world.chaos && left.is_multiple_of(2) && left > 0;
        }
    }
    world.check_later(CONTROL);
    world.check_later(BULK);
    if left > 0 && world.chaos {
        let left = left - 1;
        world.after(every, Event::FaultEnds(Undo::Flap { left, every }));
    }
}

/// Loses, doubles, delays and reorders.
pub(super) fn bad_link(world: &mut World) -> Option<u64> {
    let only = world.rng.random_range(0..LINKS);
    let all = world.rng.random_bool(0.4);
    let loss = world.rng.random_range(0.0..0.7);
    let doubled = world.rng.random_range(0.0..0.3);
    let jitter_ns = world.random(0, 80 * MS);
    let length = lasting(world);
    say(
        world,
        format_args!("link {only} (all: {all}) loses {loss:.2}"),
    );
    for link in (0..LINKS).filter(|link| all || *link == only) {
        for direction in 0..2 {
            let known = &mut world.net.links[link][direction];
            known.loss = loss;
            known.doubled = doubled;
            known.jitter_ns = jitter_ns;
            world.after(length, Event::FaultEnds(Undo::Link { link, direction }));
        }
    }
    Some(length)
}

pub(super) fn damage(world: &mut World) -> Option<u64> {
    let share = world.rng.random_range(0.05..1.0);
    let length = lasting(world);
    say(
        world,
        format_args!("all links damage {share:.2} of datagrams"),
    );
    for link in 0..LINKS {
        for direction in 0..2 {
            world.net.links[link][direction].damaged = share;
            world.after(length, Event::FaultEnds(Undo::Link { link, direction }));
        }
    }
    Some(length)
}

/// Datagrams that are not the peer's: damaged, cut off, too long, noise, replayed, reflected, and
/// those of another pair with the same number.
pub(super) fn throw(world: &mut World, node: usize) -> Option<u64> {
    say(
        world,
        format_args!("strangers send datagrams to node {node}"),
    );
    let mut foreign = WirePath::default();
    foreign.connected(FOREIGN + world.rng.random_range(0..4), true);
    let foreign_life = FOREIGN + world.rng.random_range(0..4);
    foreign.connected(foreign_life, true);
    foreign.heard_on(foreign_life);
    for _ in 0..24 {
        let (node, bytes, sent) = hostile(world, node, &mut foreign);
        let link = world.rng.random_range(0..LINKS);
        let at = world.random(0, 400 * MS);
        let event = Event::Datagram {
            to: node,
            link,
            bytes,
            sent,
        };
        world.after(at, event);
    }
    Some(400 * MS)
}

/// One of them: to whom, what, and its number if the pair itself once sent just that there.
fn hostile(
    world: &mut World,
    node: usize,
    foreign: &mut WirePath,
) -> (usize, Vec<u8>, Option<u64>) {
    let index = world.rng.random_range(0..world.overheard.len().max(1));
    let overheard = world.overheard.get(index).cloned();
    let heard = overheard.unwrap_or((node, vec![0; 100], 0));
    let (to, mut bytes, sent) = heard;
    match world.rng.random_range(0..7_u32) {
        0 => {
            let bit = world.rng.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        1 => {
            let keep = world.rng.random_range(0..bytes.len());
            bytes.truncate(keep);
        }
        2 => {
            let more = world.rng.random_range(1..2 * DATAGRAM_MAX_BYTES);
            bytes.resize(bytes.len() + more, 0);
        }
        3 => {
            let length = world.rng.random_range(0..200_usize);
            bytes = (0..length).map(|_| world.rng.random()).collect();
        }
        4 => {
            // Another pair's gasp, which would end an active, were it believed.
            let epoch = world.machines[1 - node].acted;
            let incarnation = epoch.incarnation;
            let gasp = Datagram::Gasp(Gasp { epoch, incarnation });
            bytes = foreign.seal(&gasp).unwrap_or_default();
        }
        // Reflected to whoever sent it.
        5 => return (1 - to, bytes, None),
        // Replayed: taken in only if it never arrived.
        _ => return (to, bytes, Some(sent).filter(|sent| *sent > 0)),
    }
    (node, bytes, None)
}
