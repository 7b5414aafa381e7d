//! The connections of host agents, and how far each has come.
//!
//! | state | `Hello` | module known | claim sent |
//! |---|---|---|---|
//! | connected | → greeted | – | – |
//! | greeted | ports replaced | → welcomed | – |
//! | welcomed | ports replaced | – | → claimed |
//! | claimed(E) | ports replaced | – | → claimed(E') |
//!
//! Invariant: one connection per identity; a newer one replaces the older, whose end may not
//! have been noticed yet.

use std::collections::BTreeMap;

use model::{Epoch, ModuleNumber, NodeKey, Time};

use crate::service::VemConnection;

/// Most connections at once: the registered VEMs, each with one, and as many being replaced.
pub const CONNECTIONS_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: NodeKey,
    pub(super) address: String,
    pub(super) greeting: Option<Greeting>,
    pub(super) module: Option<ModuleNumber>,
    pub(super) claimed: Option<Epoch>,
    pub(super) accepted: Option<Epoch>,
    /// The newest probe it has answered.
    pub(super) probed: u64,
    pub(super) last_sent: Time,
    /// The gateways it was told to trust, and those it has confirmed.
    pub(super) told: Vec<NodeKey>,
    pub(super) pinned: Vec<NodeKey>,
    /// It asks whether this node acts, and has no answer yet.
    pub(super) inquiry: Option<u64>,
    /// It has been asked for this vote and has not answered.
    pub(super) votes: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) host: String,
    pub(super) ports: u16,
}

#[derive(Debug, Default)]
pub(super) struct Connections {
    open: BTreeMap<VemConnection, Connection>,
}

impl Connections {
    /// Adds one; gives those that must be closed: the older of the same identity, or the new one
    /// itself if there are too many.
    pub(super) fn open(
        &mut self,
        id: VemConnection,
        key: NodeKey,
        address: String,
    ) -> Option<VemConnection> {
        let older = self
            .open
            .iter()
            .find(|(_, c)| c.key == key)
            .map(|(id, _)| *id);
        if let Some(older) = older {
            self.open.remove(&older);
        } else if self.open.len() >= CONNECTIONS_MAX {
            return Some(id);
        }
        let connection = Connection {
            key,
            address,
            greeting: None,
            module: None,
            claimed: None,
            accepted: None,
            probed: 0,
            last_sent: Time::default(),
            told: Vec::new(),
            pinned: Vec::new(),
            inquiry: None,
            votes: None,
        };
        self.open.insert(id, connection);
        older
    }

    pub(super) fn close(&mut self, id: VemConnection) -> Option<Connection> {
        self.open.remove(&id)
    }

    pub(super) fn entry(&mut self, id: VemConnection) -> Option<&mut Connection> {
        self.open.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (VemConnection, &Connection)> {
        self.open.iter().map(|(id, connection)| (*id, connection))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (VemConnection, &mut Connection)> {
        self.open
            .iter_mut()
            .map(|(id, connection)| (*id, connection))
    }

    pub(super) fn with_module(&self, module: ModuleNumber) -> Option<(VemConnection, &Connection)> {
        self.iter()
            .find(|(_, connection)| connection.module == Some(module))
    }

    pub(super) fn of_module(&self, module: ModuleNumber) -> Option<&Connection> {
        self.open
            .values()
            .find(|connection| connection.module == Some(module))
    }

    /// Whether all that have greeted have answered this probe.
    pub(super) fn all_answered(&self, probe: u64) -> bool {
        let mut greeted = self.open.values().filter(|c| c.greeting.is_some());
        greeted.all(|connection| connection.probed >= probe)
    }

    /// Those that have accepted the claim of `epoch`.
    pub(super) fn obeying(&self, epoch: Option<Epoch>) -> usize {
        self.open
            .values()
            .filter(|connection| epoch.is_some() && connection.accepted == epoch)
            .count()
    }

    pub(super) fn check(&self) {
        let mut keys: Vec<NodeKey> = self
            .open
            .values()
            .map(|connection| connection.key)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), self.open.len(), "one connection per identity");
        for connection in self.open.values() {
            assert!(
                connection.claimed.is_none() || connection.module.is_some(),
                "claim order"
            );
        }
    }
}
