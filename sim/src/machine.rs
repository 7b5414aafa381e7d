//! One gateway's machine: its disks, its clock, its guardian, and the node that runs on it.

use model::{Epoch, Incarnation, Lsn, NodeKey, Time};
use node::node::{Disks, Node, Storages};
use pss::StorageError;
use pss::storage::{MemoryDisk, MemoryStorage};
use rand::Rng;
use rand::rngs::StdRng;
use redundancy::NodeRecord;
use wire::conflict::{HELD, KEPT, is_head};
use wire::heartbeat::State;

use crate::clock::Clock;
use crate::coverage::Shown;
use crate::network::LINKS;
use crate::wire_path::WirePath;

/// The disks as a node opens them.
#[derive(Clone, Debug, Default)]
pub struct Platters {
    /// Survives loss of power, as far as flushed.
    pub persistent: MemoryDisk,
    /// A tmpfs.
    pub volatile: MemoryDisk,
}

impl Platters {
    /// Other disks with the bytes that a loss of power now would leave.
    #[must_use]
    pub fn after_power_loss(&self) -> Self {
        Self {
            persistent: self.persistent.durable_copy(),
            volatile: MemoryDisk::new(),
        }
    }
}

/// The texts in the archives of lost conflicts that a store holds.
#[must_use]
pub fn archived(store: &pss::Store) -> Vec<String> {
    let pairs = [HELD, KEPT].map(|namespace| store.pairs(namespace));
    let records = pairs.into_iter().flatten();
    records
        .filter(|(key, _)| !is_head(key))
        .filter_map(|(_, value)| String::from_utf8(value).ok())
        .collect()
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
    /// Which gateway of the pair it is: 0 the primary's machine, 1 the secondary's.
    pub slot: usize,
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
    /// Its monotonic clock.
    pub clock: Clock,
    /// What its wall clock shows, in seconds since 1970, when the world begins.
    pub wall_s: u64,
    /// All its processes are stopped until then.
    pub paused_until: Option<u64>,
    /// The next tick that is scheduled.
    pub tick_at: Option<u64>,
    /// Its broker can be connected to.
    pub bulk_listens: bool,
    /// Its `vem_mgr` can be connected to.
    pub vems_listen: bool,
    /// What protects its datagrams, and what the guardian would send.
    pub wire: WirePath,
    /// Numbers of processes.
    pub next_pid: u32,
    /// What its last heartbeat said.
    pub said: Option<State>,
    /// The state it was last seen in.
    pub shown: Shown,
    /// The commit of its active that it last said is durable here, by the active's epoch.
    pub acked: Option<(Epoch, Lsn)>,
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
    /// Starts of its processes take this much longer, in nanoseconds.
    pub slow_start_ns: u64,
    /// It loses power after so many more of its outputs have been carried out.
    pub dies_after: Option<u32>,
    /// Disks as they once were, which it may be set back to.
    pub image: Option<(NodeRecord, Platters)>,
    /// A bit of its store has been inverted, or its disk fails: it may say so.
    pub damaged: bool,
    /// Since when it has been running without a pause.
    pub up_since: Option<u64>,
}

impl Machine {
    /// A machine that is off, with this node file.
    #[must_use]
    pub fn new(slot: usize, keys: [NodeKey; 2], record: NodeRecord, clock: Clock) -> Self {
        let (key, peer) = (keys[slot], keys[1 - slot]);
        Self {
            slot,
            key,
            peer,
            node: None,
            boot: 0,
            platters: Platters::default(),
            record,
            writes: Vec::new(),
            clock,
            wall_s: 1_700_000_000,
            paused_until: None,
            tick_at: None,
            bulk_listens: false,
            vems_listen: false,
            wire: WirePath::default(),
            next_pid: 100,
            said: None,
            shown: Shown::Off,
            acked: None,
            lacked: 0,
            stable_at: None,
            acted: Epoch::default(),
            disk_ns: 1_000_000,
            node_file_fails: false,
            slow_start_ns: 0,
            dies_after: None,
            image: None,
            damaged: false,
            up_since: None,
        }
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self, now: u64) -> Time {
        self.clock.read(now)
    }

    /// The world's time of one of its deadlines.
    #[must_use]
    pub fn world_time(&self, deadline: Time) -> u64 {
        self.clock.world_time(deadline)
    }

    /// It runs and is not stopped.
    #[must_use]
    pub const fn is_awake(&self) -> bool {
        self.node.is_some() && self.paused_until.is_none()
    }

    /// Its role and pair are those it is meant to have.
    #[must_use]
    pub fn is_paired_rightly(&self) -> bool {
        let record = match &self.node {
            Some(running) => running.supervisor().record(),
            None => &self.record,
        };
        record.role == crate::faults::role(self.slot) && record.pair == crate::faults::pair()
    }

    /// The node's processes have ended. Of the writes under way some prefix has happened.
    pub fn stop(&mut self, rng: &mut StdRng) {
        self.node = None;
        self.paused_until = None;
        self.bulk_listens = false;
        self.vems_listen = false;
        self.wire = WirePath::default();
        self.dies_after = None;
        self.said = None;
        self.acked = None;
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

    /// The store that would be found if power failed now.
    fn durable_store(&self) -> Option<pss::Store> {
        let persistent = MemoryStorage::open(&self.platters.persistent.durable_copy());
        let volatile = MemoryStorage::open(&MemoryDisk::new());
        let opened = pss::Store::open(Box::new(persistent), Box::new(volatile));
        opened.ok().map(|(store, _)| store)
    }

    /// The running configuration that would be found if power failed now.
    #[must_use]
    pub fn durable_running(&self) -> String {
        let store = self.durable_store();
        let value = store.and_then(|store| store.value(pss::config_namespace(), b"running"));
        String::from_utf8(value.unwrap_or_default()).unwrap_or_default()
    }

    /// That, and what the archives of conflicts beside it hold.
    #[must_use]
    pub fn durable_texts(&self) -> Vec<String> {
        let Some(store) = self.durable_store() else {
            return Vec::new();
        };
        let value = store.value(pss::config_namespace(), b"running");
        let running = String::from_utf8(value.unwrap_or_default()).unwrap_or_default();
        let mut texts = archived(&store);
        texts.push(running);
        texts
    }

    /// Starts the node.
    ///
    /// # Errors
    /// When its store cannot be read.
    pub fn start(&mut self, now: u64, incarnation: Incarnation) -> Result<(), StorageError> {
        self.boot += 1;
        self.tick_at = None;
        // Until it starts again its peer may still take it for what it was (S8).
        self.stable_at = None;
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
