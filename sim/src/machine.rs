//! One gateway's machine: its disks, its clock, its guardian, and the node that runs on it.

use model::{Epoch, Incarnation, NodeKey, Time};
use node::node::{Disks, Node, Storages};
use pss::StorageError;
use pss::storage::{MemoryDisk, MemoryStorage};
use rand::Rng;
use rand::rngs::StdRng;
use redundancy::NodeRecord;
use wire::heartbeat::{Gasp, State};

use crate::network::LINKS;

/// The disks as a node opens them.
#[derive(Clone, Debug, Default)]
pub struct Platters {
    /// Survives loss of power, as far as flushed.
    pub persistent: MemoryDisk,
    /// A tmpfs.
    pub volatile: MemoryDisk,
}

impl Disks for Platters {
    fn open(&mut self) -> Result<Storages, StorageError> {
        Ok((
            Box::new(MemoryStorage::open(&self.persistent)),
            Box::new(MemoryStorage::open(&self.volatile)),
        ))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    /// Identity.
    pub key: NodeKey,
    /// The peer's identity.
    pub peer: NodeKey,
    /// What runs, while it runs.
    pub node: Option<Node>,
    /// Counts starts.
    pub boot: u64,
    /// Disks of the store.
    pub platters: Platters,
    /// The node file as a loss of power would leave it.
    pub record: NodeRecord,
    /// Writes of it under way, oldest first.
    pub writes: Vec<(u64, NodeRecord)>,
    /// What its clock shows more than the world's, in nanoseconds.
    pub clock_offset_ns: u64,
    /// All its processes are stopped until then.
    pub paused_until: Option<u64>,
    /// The next tick that is scheduled.
    pub tick_at: Option<u64>,
    /// Its broker can be connected to.
    pub bulk_listens: bool,
    /// Its `vem_mgr` can be connected to.
    pub vems_listen: bool,
    /// What the guardian would send.
    pub sealed: Option<Gasp>,
    /// Numbers of processes.
    pub next_pid: u32,
    /// Keys of heartbeats that it knows, newest last.
    pub heartbeat_keys: Vec<u64>,
    /// What its last heartbeat said.
    pub said: Option<State>,
    /// Parts of being stable that it lacked before this turn.
    pub lacked: usize,
    /// When it was last a stable standby.
    pub stable_at: Option<u64>,
    /// Highest epoch it has ever acted under.
    pub acted: Epoch,
    /// Writes of its node file take this long, in nanoseconds.
    pub disk_ns: u64,
    /// Writes of its node file fail.
    pub node_file_fails: bool,
    /// Since when it has been running without a pause.
    pub up_since: Option<u64>,
}

impl Machine {
    /// A machine that is off, with this node file.
    #[must_use]
    pub fn new(key: NodeKey, peer: NodeKey, record: NodeRecord, clock_offset_ns: u64) -> Self {
        Self {
            key,
            peer,
            node: None,
            boot: 0,
            platters: Platters::default(),
            record,
            writes: Vec::new(),
            clock_offset_ns,
            paused_until: None,
            tick_at: None,
            bulk_listens: false,
            vems_listen: false,
            sealed: None,
            next_pid: 100,
            heartbeat_keys: Vec::new(),
            said: None,
            lacked: 0,
            stable_at: None,
            acted: Epoch::default(),
            disk_ns: 1_000_000,
            node_file_fails: false,
            up_since: None,
        }
    }

    /// Its clock.
    #[must_use]
    pub const fn clock(&self, now: u64) -> Time {
        Time(now + self.clock_offset_ns)
    }

    /// The world's time of one of its deadlines.
    #[must_use]
    pub const fn world_time(&self, deadline: Time) -> u64 {
        deadline.0.saturating_sub(self.clock_offset_ns)
    }

    /// It runs and is not stopped.
    #[must_use]
    pub const fn is_awake(&self) -> bool {
        self.node.is_some() && self.paused_until.is_none()
    }

    /// The node's processes have ended. Of the writes under way some prefix has happened.
    pub fn stop(&mut self, rng: &mut StdRng) {
        self.node = None;
        self.paused_until = None;
        self.bulk_listens = false;
        self.vems_listen = false;
        self.sealed = None;
        self.heartbeat_keys.clear();
        self.said = None;
        self.stable_at = None;
        self.up_since = None;
        let happened = rng.random_range(0..=self.writes.len());
        if let Some((_, record)) = self.writes.drain(..).take(happened).next_back() {
            self.record = record;
        }
    }

    /// The machine has lost power.
    pub fn lose_power(&mut self, rng: &mut StdRng) {
        self.stop(rng);
        self.platters
            .persistent
            .lose_power(&mut |loose| rng.random_range(0..=loose));
        self.platters.volatile.wipe();
    }

    /// The running configuration that would be found if power failed now.
    #[must_use]
    pub fn durable_running(&self) -> String {
        let persistent = MemoryStorage::open(&self.platters.persistent.durable_copy());
        let volatile = MemoryStorage::open(&MemoryDisk::new());
        let opened = pss::Store::open(Box::new(persistent), Box::new(volatile));
        let value = opened
            .ok()
            .and_then(|(store, _)| store.value(pss::config_namespace(), b"running"));
        String::from_utf8(value.unwrap_or_default()).unwrap_or_default()
    }

    /// Starts the node.
    ///
    /// # Errors
    /// When its store cannot be read.
    pub fn start(&mut self, now: u64, incarnation: Incarnation) -> Result<(), StorageError> {
        self.boot += 1;
        self.tick_at = None;
        self.up_since = Some(now);
        let (mut persistent, mut volatile) = self.platters.open()?;
        let history = pss::newest_commit(persistent.as_mut(), volatile.as_mut())?;
        let start = redundancy::Start {
            record: self.record.clone(),
            incarnation,
            node: self.key,
            links: LINKS as u8,
            history,
        };
        self.node = Some(Node::new(
            self.clock(now),
            start,
            Box::new(self.platters.clone()),
        ));
        Ok(())
    }
}
