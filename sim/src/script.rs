//! Scripted runs: what happens is written down, and so is what must come of it.

use model::Epoch;
use node::node::NodeInput;

use crate::invariants::{l1_one_active_with_standby, l2_equal_configuration};
use crate::network::{LINKS, vem_stream};
use crate::world::{Event, MS, S, World};

/// A world that a script drives.
#[derive(Debug)]
pub struct Script {
    /// The world.
    pub world: World,
}

/// The primary's machine.
pub const A: usize = 0;
/// The secondary's machine.
pub const B: usize = 1;

/// How long a script waits for something to come about.
const PATIENCE_NS: u64 = 60 * S;

impl Script {
    /// Two machines that are off and two hosts that run.
    #[must_use]
    pub fn new(seed: u64, readable: bool) -> Self {
        let mut world = World::new(seed, 2, readable);
        world.scripted = true;
        for machine in &mut world.machines {
            machine.record.interval_ms = 0;
        }
        world.begin_hosts();
        Self { world }
    }

    // ---- time

    /// Lets time pass.
    ///
    /// # Errors
    /// The safety invariant that failed meanwhile.
    pub fn pass(&mut self, nanoseconds: u64) -> Result<(), String> {
        let until = self.world.now + nanoseconds;
        self.world.run_until(until);
        match &self.world.outcome.failure {
            Some(what) => Err(what.clone()),
            None => Ok(()),
        }
    }

    /// Lets time pass until something holds.
    ///
    /// # Errors
    /// If it does not within a minute.
    pub fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&World) -> bool,
    ) -> Result<(), String> {
        let began = self.world.now;
        while !holds(&self.world) {
            if self.world.now - began > PATIENCE_NS {
                let why = l1_one_active_with_standby::holds(&self.world).err();
                return Err(format!(
                    "in vain waited for: {what} ({})",
                    why.unwrap_or_default()
                ));
            }
            self.pass(5 * MS)?;
        }
        Ok(())
    }

    // ---- what happens

    /// Switches a machine on.
    pub fn power_on(&mut self, node: usize) {
        self.world.after(0, Event::NodeBoot { node });
    }

    /// Switches a machine off.
    pub fn power_off(&mut self, node: usize) {
        self.world.power_off(node);
    }

    /// Boots both and waits for `leader` to lead with a stable standby.
    ///
    /// # Errors
    /// If that does not come about.
    pub fn pair_led_by(&mut self, leader: usize) -> Result<Epoch, String> {
        self.power_on(leader);
        self.until("the leader leads", |world| world.acts_now(leader))?;
        self.power_on(1 - leader);
        self.stable(leader)
    }

    /// Waits for this active with a stable standby, equal configurations and all hosts.
    ///
    /// # Errors
    /// If that does not come about.
    pub fn stable(&mut self, leader: usize) -> Result<Epoch, String> {
        self.until("a stable pair", |world| {
            l1_one_active_with_standby::holds(world).is_ok_and(|(active, epoch)| {
                active == leader
                    && l2_equal_configuration::holds(world).is_ok()
                    && (0..world.hosts.len())
                        .all(|host| obeys(world, host) == Some((leader, epoch)))
            })
        })?;
        self.pass(300 * MS)?;
        self.acting(leader)
            .ok_or_else(|| format!("node {leader} does not act any more"))
    }

    /// The epoch under which a node acts.
    #[must_use]
    pub fn acting(&self, node: usize) -> Option<Epoch> {
        self.world.machines[node].node.as_ref()?.acting()
    }

    /// Cuts or mends a direction of all HA links: 0 from A to B.
    pub fn links(&mut self, direction: usize, cut: bool) {
        for link in 0..LINKS {
            self.world.net.links[link][direction].cut = cut;
        }
        self.world.check_streams();
    }

    /// Cuts or mends all HA links.
    pub fn all_links(&mut self, cut: bool) {
        self.links(0, cut);
        self.links(1, cut);
    }

    /// Cuts or mends a service path.
    pub fn service(&mut self, host: usize, node: usize, cut: bool) {
        for direction in &mut self.world.net.service[host][node] {
            direction.cut = cut;
        }
        self.world.check_later(vem_stream(host, node));
    }

    /// Stops all processes of a machine for a while.
    pub fn pause(&mut self, node: usize, nanoseconds: u64) {
        crate::faults::pause(&mut self.world, node, nanoseconds);
    }

    /// A node is told something, now.
    pub fn tell(&mut self, node: usize, input: NodeInput) {
        self.world.feed(node, input);
    }

    /// An operator types these lines at a node; gives what he read once the last has ended.
    ///
    /// # Errors
    /// If it does not end.
    pub fn operator(&mut self, node: usize, lines: &[&str]) -> Result<String, String> {
        if !self.world.type_at(node, lines) {
            return Err("somebody is typing already".to_owned());
        }
        self.until("the command's end", |world| world.typing().is_none())?;
        Ok(self.world.last_read().to_owned())
    }

    /// A change is committed at a node; gives its number and how far it went.
    ///
    /// # Errors
    /// If it does not end.
    pub fn commit(&mut self, node: usize) -> Result<(u32, Option<String>), String> {
        let change = self
            .world
            .commit_at(node)
            .ok_or("somebody is typing already")?;
        self.until("the commit's end", |world| world.typing().is_none())?;
        Ok((
            change,
            self.world.last_reached().map(|level| format!("{level:?}")),
        ))
    }

    // ---- what must come of it

    /// A change is in a node's running configuration.
    #[must_use]
    pub fn has(&self, node: usize, change: u32) -> bool {
        self.world
            .running(node)
            .contains(&format!("zone z{change}@root\n"))
    }

    /// Something must hold now.
    ///
    /// # Errors
    /// If it does not.
    pub fn must(&self, holds: bool, what: &str) -> Result<(), String> {
        if holds {
            return Ok(());
        }
        let at = self.world.now as f64 / S as f64;
        Err(format!("at {at:.3} s: not so: {what}"))
    }

    /// The log of a node has held this mnemonic since the run began.
    #[must_use]
    pub fn logged(&self, node: usize, mnemonic: &str) -> bool {
        self.world
            .logged
            .iter()
            .any(|(at, word, _)| *at == node && word == mnemonic)
    }

    /// Times that a gateway began to act.
    #[must_use]
    pub const fn role_changes(&self) -> u64 {
        self.world.outcome.role_changes
    }

    /// The script is over: all acknowledged changes are where they must be.
    ///
    /// # Errors
    /// If one is not.
    pub fn ends(&mut self) -> Result<(), String> {
        self.world.at_the_end();
        match &self.world.outcome.failure {
            Some(what) => Err(what.clone()),
            None => Ok(()),
        }
    }
}

/// Whom a host obeys.
#[must_use]
pub fn obeys(world: &World, host: usize) -> Option<(usize, Epoch)> {
    let agent = world.hosts[host].agent.as_ref()?;
    let (gateway, epoch, _) = agent.obeyed()?;
    Some((usize::from(gateway.0), epoch))
}
