//! What goes wrong, at random.
//!
//! | class of faults | module |
//! |---|---|
//! | cuts, flaps, loss, damage, strangers' datagrams | `network` |
//! | deaths, stops, pauses, loss of power | `process` |
//! | full, failing, slow, damaged disks; drift, wall clock | `disk` |
//! | rollback, clone, replacement, wrong role or pair | `identity` |
//! | what operators do, load | `commands` |

mod commands;
mod disk;
mod identity;
mod network;
mod process;

use model::{NodeKey, ServiceName};
use rand::Rng;

use crate::clock::TRUE_RATE;
use crate::world::{Event, MS, World};

pub(crate) use identity::{end_clone, pair, role};
pub(crate) use process::pause;

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(
    missing_docs,
    reason = "the names say it; each has its function in a submodule"
)]
pub enum FaultClass {
    CutLink,
    CutAllLinks,
    CutOneWay,
    CutSubset,
    IsolateNode,
    CutService,
    CutForGood,
    Flap,
    BadLink,
    DamagedDatagrams,
    HostileDatagrams,
    KillService,
    StopService,
    SlowStart,
    KillManager,
    PauseNode,
    PauseBoth,
    PauseAlternately,
    PowerLoss,
    PowerLossOfBoth,
    PowerLossAtAStep,
    KillAgent,
    DiskFull,
    DiskFails,
    DiskStalls,
    NodeFileFails,
    BitFlip,
    ClockDrift,
    WallClockJump,
    Rollback,
    Clone,
    DiskReplaced,
    WrongRole,
    SyncOverload,
    Switchover,
    Reload,
    RoleChange,
    IntervalChange,
    PairIdChange,
    ForceActive,
    ConflictPolicy,
}

use FaultClass as Class;

impl FaultClass {
    /// Each with its weight in the draw.
    pub const WEIGHTS: [(Self, u32); 41] = [
        (Class::CutLink, 8),
        (Class::CutAllLinks, 7),
        (Class::CutOneWay, 6),
        (Class::CutSubset, 6),
        (Class::IsolateNode, 6),
        (Class::CutService, 5),
        (Class::CutForGood, 2),
        (Class::Flap, 6),
        (Class::BadLink, 6),
        (Class::DamagedDatagrams, 3),
        (Class::HostileDatagrams, 3),
        (Class::KillService, 9),
        (Class::StopService, 6),
        (Class::SlowStart, 4),
        (Class::KillManager, 6),
        (Class::PauseNode, 10),
        (Class::PauseBoth, 4),
        (Class::PauseAlternately, 4),
        (Class::PowerLoss, 8),
        (Class::PowerLossOfBoth, 3),
        (Class::PowerLossAtAStep, 10),
        (Class::KillAgent, 5),
        (Class::DiskFull, 3),
        (Class::DiskFails, 3),
        (Class::DiskStalls, 5),
        (Class::NodeFileFails, 3),
        (Class::BitFlip, 2),
        (Class::ClockDrift, 4),
        (Class::WallClockJump, 2),
        (Class::Rollback, 4),
        (Class::Clone, 3),
        (Class::DiskReplaced, 3),
        (Class::WrongRole, 3),
        (Class::SyncOverload, 3),
        (Class::Switchover, 10),
        (Class::Reload, 5),
        (Class::RoleChange, 3),
        (Class::IntervalChange, 4),
        (Class::PairIdChange, 2),
        (Class::ForceActive, 3),
        (Class::ConflictPolicy, 3),
    ];

    /// All of them.
    pub const ALL: [Self; Self::WEIGHTS.len()] = {
        let mut all = [Class::CutLink; Self::WEIGHTS.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = Self::WEIGHTS[index].0;
            index += 1;
        }
        all
    };

    /// It cuts paths.
    const fn is_partition(self) -> bool {
        matches!(
            self,
            Class::CutLink
                | Class::CutAllLinks
                | Class::CutOneWay
                | Class::CutSubset
                | Class::IsolateNode
                | Class::CutService
                | Class::CutForGood
                | Class::Flap
        )
    }
}

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
    /// A direction of a service path mends.
    Service {
        /// Which host.
        host: usize,
        /// Which gateway.
        node: usize,
        /// Which direction.
        direction: usize,
    },
    /// All HA links are cut, or mend, so many times more.
    Flap {
        /// Changes to come.
        left: u32,
        /// Between two, in nanoseconds.
        every: u64,
    },
    /// A disk is fast and has room again.
    Disk {
        /// Whose.
        node: usize,
    },
    /// A clock runs true again.
    Clock {
        /// Whose: a machine, or 3 and more for the hosts.
        whose: usize,
    },
    /// Processes start as fast as ever.
    Start {
        /// Whose.
        node: usize,
    },
    /// A stopped process goes on.
    Service1 {
        /// Whose.
        node: usize,
        /// That start of it.
        boot: u64,
        /// Which.
        service: ServiceName,
    },
    /// A machine is set back to its image of earlier.
    Rollback {
        /// Which.
        node: usize,
    },
    /// One of the clone and its original goes.
    Clone,
    /// A machine gets its own role and pair back.
    Role {
        /// Which.
        node: usize,
    },
    /// The next pause of alternating ones.
    Pause {
        /// Which machine.
        node: usize,
        /// Pauses to come.
        left: u32,
        /// How long, in nanoseconds.
        length: u64,
    },
}

/// A draw may meet a fault that cannot happen now; then another is drawn, so many times.
const DRAWS: u32 = 8;

/// Injects one fault and schedules the next.
pub fn inject(world: &mut World) {
    if !world.chaos {
        return;
    }
    let mean = world.fault_pause_ns;
    let pause = world.random(mean / 6, mean * 11 / 6);
    world.after(pause, Event::Fault);
    for _ in 0..DRAWS {
        let class = draw(world);
        if strike(world, class) {
            return;
        }
    }
}

fn draw(world: &mut World) -> FaultClass {
    let total: u32 = FaultClass::WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut left = world.rng.random_range(0..total);
    for (class, weight) in FaultClass::WEIGHTS {
        if left < weight {
            return class;
        }
        left -= weight;
    }
    FaultClass::CutLink
}

/// Injects a fault of this class; false if there can be none at the moment.
pub fn strike(world: &mut World, class: FaultClass) -> bool {
    let node = world.rng.random_range(0..2_usize);
    let lasts = match class {
        Class::CutLink => network::cut_link(world),
        Class::CutAllLinks => network::cut_all_links(world, false),
        Class::CutOneWay => network::cut_all_links(world, true),
        Class::CutSubset => network::cut_subset(world),
        Class::IsolateNode => network::isolate(world, node),
        Class::CutService => network::cut_service(world, node),
        Class::CutForGood => network::cut_for_good(world),
        Class::Flap => network::flap(world),
        Class::BadLink => network::bad_link(world),
        Class::DamagedDatagrams => network::damage(world),
        Class::HostileDatagrams => network::throw(world, node),
        Class::KillService => process::kill_service(world, node),
        Class::StopService => process::stop_service(world, node),
        Class::SlowStart => process::slow_start(world, node),
        Class::KillManager => process::kill_manager(world, node),
        Class::PauseNode => process::pause_one(world, node),
        Class::PauseBoth => process::pause_both(world),
        Class::PauseAlternately => process::pause_alternately(world, node),
        Class::PowerLoss => process::lose_power(world, node),
        Class::PowerLossOfBoth => {
            let first = process::lose_power(world, 0);
            first.or(process::lose_power(world, 1))
        }
        Class::PowerLossAtAStep => process::lose_power_at_a_step(world, node),
        Class::KillAgent => process::kill_agent(world),
        Class::DiskFull => disk::full(world, node),
        Class::DiskFails => disk::fails(world, node),
        Class::DiskStalls => disk::stalls(world, node),
        Class::NodeFileFails => disk::node_file_fails(world, node),
        Class::BitFlip => disk::flip(world, node),
        Class::ClockDrift => disk::drift(world),
        Class::WallClockJump => disk::wall_clock_jumps(world, node),
        Class::Rollback => identity::roll_back(world, node),
        Class::Clone => identity::clone(world, node),
        Class::DiskReplaced => identity::replace_disk(world, node),
        Class::WrongRole => identity::wrong_role(world, node),
        Class::SyncOverload => commands::overload(world),
        Class::Switchover => commands::type_in(world, &["system switchover"]),
        Class::Reload => commands::type_in(world, &["reload", "y"]),
        Class::RoleChange => commands::change_role(world),
        Class::IntervalChange => commands::change_interval(world),
        Class::PairIdChange => commands::change_pair_id(world),
        Class::ForceActive => commands::force_active(world, node),
        Class::ConflictPolicy => commands::change_policy(world),
    };
    let Some(lasts) = lasts else {
        return false;
    };
    world.outcome.faults += 1;
    world.outcome.partitions += u64::from(class.is_partition());
    world.coverage.injected(world.now, class, lasts);
    true
}

fn say(world: &World, what: core::fmt::Arguments<'_>) {
    world.trace.line(world.now, format_args!("FAULT {what}"));
}

/// From 50 ms to 12 s, short ones as likely as long ones.
fn lasting(world: &mut World) -> u64 {
    let exponent = world.rng.random_range(0.0..1.0_f64);
    (50.0 * MS as f64 * 240.0_f64.powf(exponent)) as u64
}

/// One lasting fault ends.
pub fn end(world: &mut World, undo: Undo) {
    match undo {
        Undo::Link { link, direction } => {
            let direction = &mut world.net.links[link][direction];
            if !direction.permanent {
                *direction = crate::network::Direction::default();
            }
        }
        Undo::Service {
            host,
            node,
            direction,
        } => {
            let direction = &mut world.net.service[host][node][direction];
            if !direction.permanent {
                *direction = crate::network::Direction::default();
            }
        }
        Undo::Flap { left, every } => network::flap_again(world, left, every),
        Undo::Disk { node } => disk::mend(world, node),
        Undo::Clock { whose } => disk::set_rate(world, whose, TRUE_RATE),
        Undo::Start { node } => world.machines[node].slow_start_ns = 0,
        Undo::Service1 {
            node,
            boot,
            service,
        } => process::go_on(world, node, boot, service),
        Undo::Rollback { node } => identity::rolled_back(world, node),
        Undo::Clone => end_clone(world),
        Undo::Role { node } => identity::right_role(world, node),
        Undo::Pause { node, left, length } => {
            process::pause_again(world, node, left, length);
        }
    }
}

/// All faults end: paths mend, disks are fast, whoever is stopped resumes, whoever is off starts,
/// roles and pair are what they were.
pub fn end_all(world: &mut World) {
    world.net.heal();
    end_clone(world);
    for node in 0..2 {
        disk::mend(world, node);
        disk::set_rate(world, node, TRUE_RATE);
        world.machines[node].slow_start_ns = 0;
        world.machines[node].dies_after = None;
        let boot = world.machines[node].boot;
        if world.machines[node].paused_until.is_some() {
            world.machines[node].paused_until = Some(world.now);
            world.after(0, Event::Resume { node, boot });
        }
        for service in ServiceName::ALL {
            let undo = Undo::Service1 {
                node,
                boot,
                service,
            };
            world.after(MS, Event::FaultEnds(undo));
        }
        identity::right_role(world, node);
        if world.machines[node].node.is_none() {
            world.after(500 * MS, Event::NodeBoot { node });
        }
    }
    world.nothing_more_to_type();
    for host in 0..world.hosts.len() {
        disk::set_rate(world, 3 + host, TRUE_RATE);
        world.hosts[host].decided = 0;
        world.after(500 * MS, Event::HostBoot { host });
    }
}

/// Identities of the machines.
pub(crate) const KEYS: [NodeKey; 2] = [NodeKey([0xa0; 32]), NodeKey([0xb0; 32])];
