//! What may happen to the site, and how often.

use model::Role;
use redundancy::{Command, Input, ServicesHealth};
use serde::Serialize;

use crate::coverage::Coverage;
use crate::site::{A, B, Comes, Event, Node, Site};

/// Ticks after which a paused node goes on: beyond, the peer has long drawn its conclusions.
const PAUSE_TICKS_MAX: u8 = 4;

/// Ticks after which nothing more follows from a fault.
const LATE: u8 = 5;

/// A fault ends within the hold time, just after it, or when all has followed from it.
const fn is_time(ticks: u8) -> bool {
    matches!(ticks, 1 | 3 | LATE..)
}

/// How often each kind of thing may yet happen. What undoes a fault (to start, to heal, to
/// resume …) is free, and may happen at any time or never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Crashes.
    pub crashes: u8,
    /// Cuts of the HA link, one-way or both ways.
    pub cuts: u8,
    /// Cuts of paths to VEMs.
    pub vem_cuts: u8,
    /// Pauses of a whole node.
    pub pauses: u8,
    /// Operators' commands.
    pub orders: u8,
    /// Commits.
    pub commits: u8,
    /// Times that a disk makes nothing durable.
    pub disks: u8,
    /// Services that fail or are not ready.
    pub failures: u8,
    /// Times that control messages stay in the pipe.
    pub stalls: u8,
}

/// How a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Power loss: nobody says a word.
    Silent,
    /// Its processes: the guardian gasps, and starts it afresh.
    Processes,
    /// Power loss between two effects: after so many more of them.
    After(u8),
}

/// An operator's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `system switchover`.
    Switchover,
    /// `reload`.
    Reload,
    /// `force-active`.
    ForceActive,
    /// `system redundancy role standalone`.
    Standalone,
    /// `system redundancy role primary|secondary`: the one that the node was made with.
    OwnRole,
}

impl Order {
    fn command(self, node: usize) -> Command {
        match self {
            Self::Switchover => Command::Switchover,
            Self::Reload => Command::Reload,
            Self::ForceActive => Command::ForceActive,
            Self::Standalone => Command::SetRole(Role::Standalone),
            Self::OwnRole => Command::SetRole(if node == A {
                Role::Primary
            } else {
                Role::Secondary
            }),
        }
    }
}

/// One step of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An interval passes.
    Tick,
    /// A node dies.
    Crash(usize, Death),
    /// A node that is down is started.
    Start(usize),
    /// The HA link carries only what these nodes send.
    Cut([bool; 2]),
    /// It carries all again.
    Heal,
    /// The paths of a node to the VEMs below this number are cut.
    CutVems(usize, usize),
    /// All paths to VEMs carry again.
    HealVems,
    /// Nothing on a node gets a turn …
    Pause(usize),
    /// … until now.
    Resume(usize),
    /// An operator's command.
    Command(usize, Order),
    /// The node commits.
    Commit(usize),
    /// The node's disk makes nothing durable …
    SlowDisk(usize),
    /// … until now.
    Flush(usize),
    /// A native service of the node dies for good.
    Fail(usize),
    /// A service of the node is restarting …
    Unready(usize),
    /// … and is ready.
    Ready(usize),
    /// Control messages of the node stay in the pipe …
    Stall(usize),
    /// … until now.
    Unstall(usize),
}

/// What a configuration lets happen.
#[derive(Clone, Debug)]
pub struct Scope {
    /// How often.
    pub budget: Budget,
    /// Kinds of death.
    pub deaths: &'static [Death],
    /// Kinds of cut.
    pub cuts: &'static [[bool; 2]],
    /// How many VEMs lose a node in one cut.
    pub vem_cuts: &'static [usize],
    /// Commands.
    pub orders: &'static [Order],
    /// How many things may happen to the pair before it is healthy again.
    pub at_once: u8,
}

/// Everything that can happen in `site`.
pub(crate) fn actions(scope: &Scope, site: &Site, into: &mut Vec<Action>) {
    if site.broken.is_some() {
        return;
    }
    into.push(Action::Tick);
    if site.busy {
        return;
    }
    let budget = &site.budget;
    let spent = site.at_once >= scope.at_once;
    let budget = &if spent { Budget::default() } else { *budget };
    let vems_cut = site.vems.iter().any(|vem| vem.reaches != [true; 2]);
    if !site.is_linked() {
        if is_time(site.cut_for) {
            into.push(Action::Heal);
        }
    } else if budget.cuts > 0 {
        into.extend(scope.cuts.iter().copied().map(Action::Cut));
    }
    if vems_cut && is_time(site.vems_cut_for) {
        into.push(Action::HealVems);
    }
    for node in [A, B] {
        let side = &site.nodes[node];
        if side.core.is_none() {
            if is_time(side.down_for) && side.comes == Comes::WhenStarted {
                into.push(Action::Start(node));
            }
            continue;
        }
        if budget.crashes > 0 && side.dies_after.is_none() {
            into.extend(scope.deaths.iter().map(|death| Action::Crash(node, *death)));
        }
        if budget.vem_cuts > 0 && site.vems.iter().all(|vem| vem.reaches[node]) {
            into.extend(
                scope
                    .vem_cuts
                    .iter()
                    .map(|count| Action::CutVems(node, *count)),
            );
        }
        undo(side, node, into);
        if side.paused {
            continue;
        }
        with_budget(scope, budget, side, node, into);
    }
}

fn undo(side: &Node, node: usize, into: &mut Vec<Action>) {
    if side.paused && is_time(side.paused_ticks) {
        into.push(Action::Resume(node));
    }
    if side.slow_disk {
        into.push(Action::Flush(node));
    }
    if side.stalled {
        into.push(Action::Unstall(node));
    }
    if side.health == ServicesHealth::Starting {
        into.push(Action::Ready(node));
    }
}

fn with_budget(scope: &Scope, budget: &Budget, side: &Node, node: usize, into: &mut Vec<Action>) {
    if budget.pauses > 0 {
        into.push(Action::Pause(node));
    }
    if budget.disks > 0 && !side.slow_disk {
        into.push(Action::SlowDisk(node));
    }
    if budget.stalls > 0 && !side.stalled {
        into.push(Action::Stall(node));
    }
    if budget.failures > 0 && side.health == ServicesHealth::Ready {
        into.push(Action::Fail(node));
        into.push(Action::Unready(node));
    }
    if budget.commits > 0 && side.acting().is_some() && !side.commit_waits {
        into.push(Action::Commit(node));
    }
    if budget.orders > 0 {
        let leads = side.acting().is_some();
        let sensible = scope.orders.iter().filter(|order| match order {
            Order::Switchover => leads,
            Order::ForceActive => !leads,
            Order::Reload => true,
            Order::Standalone => side.durable.role != Role::Standalone,
            Order::OwnRole => side.durable.role == Role::Standalone,
        });
        into.extend(sensible.map(|order| Action::Command(node, *order)));
    }
}

impl Site {
    /// The site after `action`.
    pub(crate) fn after(&self, action: Action, coverage: &Coverage) -> Self {
        let mut site = self.clone();
        let before = site.budget;
        if action != Action::Tick {
            for node in &mut site.nodes {
                node.resets = 0;
            }
        }
        site.act(action, coverage);
        site.settle(coverage);
        if site.budget != before {
            site.at_once += 1;
        } else if action == Action::Tick && site.is_good() {
            site.at_once = 0;
        }
        site.busy = action != Action::Tick;
        site.undone = matches!(
            action,
            Action::Cut(_)
                | Action::Heal
                | Action::CutVems(..)
                | Action::HealVems
                | Action::Pause(_)
                | Action::Resume(_)
                | Action::SlowDisk(_)
                | Action::Flush(_)
                | Action::Stall(_)
                | Action::Unstall(_)
                | Action::Ready(_)
        );
        site.seal();
        site
    }

    fn act(&mut self, action: Action, coverage: &Coverage) {
        match action {
            Action::Tick => {
                for node in [A, B] {
                    let side = &mut self.nodes[node];
                    side.paused_ticks += u8::from(side.paused);
                    if side.paused_ticks >= PAUSE_TICKS_MAX {
                        self.resume(node);
                    }
                }
                self.settle(coverage);
                self.tick(coverage);
                self.grow_older();
            }
            Action::Crash(node, death) => {
                self.budget.crashes -= 1;
                self.crash(node, death);
            }
            Action::Start(node) => self.start(node),
            Action::Cut(carries) => {
                self.budget.cuts -= 1;
                self.carries = carries;
            }
            Action::Heal => self.carries = [true; 2],
            Action::CutVems(node, count) => {
                self.budget.vem_cuts -= 1;
                for vem in &mut self.vems[..count] {
                    vem.reaches[node] = false;
                    vem.obeyed = vem.obeyed.filter(|(by, _)| usize::from(*by) != node);
                }
            }
            Action::HealVems => self.heal_vems(),
            Action::Pause(node) => {
                self.budget.pauses -= 1;
                self.nodes[node].paused = true;
            }
            Action::Resume(node) => self.resume(node),
            Action::Command(node, order) => {
                self.budget.orders -= 1;
                self.nodes[node].forced |= order == Order::ForceActive;
                let kind = order.command(node);
                let input = Input::Command { command: 1, kind };
                self.queue.push_back(Event::Tell(node, input));
            }
            Action::Commit(node) => {
                self.budget.commits -= 1;
                self.commit(node);
            }
            Action::SlowDisk(node) => {
                self.budget.disks -= 1;
                self.nodes[node].slow_disk = true;
            }
            Action::Flush(node) => self.flush(node),
            Action::Fail(node) | Action::Unready(node) => {
                self.budget.failures -= 1;
                self.nodes[node].health = if action == Action::Fail(node) {
                    ServicesHealth::Failed
                } else {
                    ServicesHealth::Starting
                };
            }
            Action::Ready(node) => self.nodes[node].health = ServicesHealth::Ready,
            Action::Stall(node) => {
                self.budget.stalls -= 1;
                self.nodes[node].stalled = true;
            }
            Action::Unstall(node) => self.unstall(node),
        }
    }

    fn grow_older(&mut self) {
        let older = |age: u8, on: bool| {
            if on {
                age.saturating_add(1).min(LATE)
            } else {
                0
            }
        };
        self.cut_for = older(self.cut_for, !self.is_linked());
        let cut = self.vems.iter().any(|vem| vem.reaches != [true; 2]);
        self.vems_cut_for = older(self.vems_cut_for, cut);
        for side in &mut self.nodes {
            side.down_for = older(side.down_for, side.core.is_none());
        }
    }

    fn crash(&mut self, node: usize, death: Death) {
        match death {
            Death::Silent => self.kill(node, Comes::WhenStarted),
            Death::Processes => {
                let gasp = self.nodes[node].sealed.clone();
                let closes = self.is_linked() && self.connection;
                self.kill(node, Comes::Soon);
                if let Some(gasp) = gasp {
                    self.queue.push_back(Event::Gasp(node, gasp));
                }
                if closes && self.nodes[1 - node].connected {
                    (self.nodes[1 - node].connected, self.nodes[1 - node].stale) = (false, false);
                    let input = Input::PeerDisconnected;
                    self.queue.push_back(Event::Tell(1 - node, input));
                }
            }
            Death::After(effects) => self.nodes[node].dies_after = Some(effects),
        }
    }

    fn resume(&mut self, node: usize) {
        let side = &mut self.nodes[node];
        side.paused = false;
        side.paused_ticks = 0;
        for input in core::mem::take(&mut side.waiting) {
            self.queue.push_back(Event::Tell(node, input));
        }
        self.queue.push_back(Event::Tell(node, Input::Tick));
        self.queue.push_back(Event::Claim(node));
    }

    fn flush(&mut self, node: usize) {
        let side = &mut self.nodes[node];
        side.slow_disk = false;
        for _ in 0..side.writes.len() {
            self.queue.push_back(Event::Durable(node));
        }
    }

    fn unstall(&mut self, node: usize) {
        let side = &mut self.nodes[node];
        side.stalled = false;
        for message in core::mem::take(&mut side.pipe) {
            self.queue.push_back(Event::Control(node, message));
        }
    }

    fn heal_vems(&mut self) {
        for vem in &mut self.vems {
            vem.reaches = [true; 2];
        }
        for node in [A, B] {
            self.queue.push_back(Event::Claim(node));
        }
    }

    /// The site with every fault undone, at the same instant.
    pub(crate) fn healed(&self, coverage: &Coverage) -> Self {
        let mut site = self.clone();
        site.budget = Budget::default();
        site.carries = [true; 2];
        site.heal_vems();
        for node in [A, B] {
            site.nodes[node].resets = 0;
            site.nodes[node].dies_after = None;
            site.nodes[node].health = ServicesHealth::Ready;
            if site.nodes[node].core.is_none() {
                site.nodes[node].comes = Comes::Soon;
            }
            site.resume(node);
            site.flush(node);
            site.unstall(node);
            site.settle(coverage);
        }
        site.seal();
        site
    }
}
