//! The control connections: one TLS connection with the pinned peer over each HA link, of which
//! one is used at a time.
//!
//! Invariants:
//! - the dialling side chooses the connection in use, the listening side follows it; each change
//!   is told to the core as an end and a new beginning, because what was sent on the old one may
//!   be lost;
//! - a link that is silent while another is heard is not used, and connections with a peer that
//!   is silent on all are given up, long before TCP notices;
//! - heartbeat keys of a connection are installed before its first message leaves, and used by
//!   the listening side only after the dialling side's first message.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{LinkId, NodeKey, Time};
use runtime::envelope::ExportedKeys;
use runtime::stream::MessageSender;
use tokio::task::AbortHandle;
use wire::control::ControlMessage;

/// Silence on every link before connections are given up, if the hold time is shorter: a new
/// handshake on a busy machine must not be mistaken for it.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// Connections whose place another has taken, at once: one on each link, and as many again if
/// identities are changed in a hurry.
const RETIRED_MAX: usize = 8;
/// A connection with a peer that was unpaired may send what waits for so long.
const FAREWELL: Duration = Duration::from_millis(200);

/// One connection: counts all of them.
pub(super) type ConnectionNumber = u64;

/// What the tasks tell the main loop.
#[derive(Debug)]
pub(super) enum ControlEvent {
    /// A connection stands.
    Up(Box<Connection>),
    /// A message came on it.
    Message(ConnectionNumber, ControlMessage),
    /// It has ended.
    Down(ConnectionNumber),
}

/// One connection with the peer.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: ConnectionNumber,
    pub(super) link: LinkId,
    /// `None` once another has taken its place: what the peer still says on it is heard.
    pub(super) sender: Option<MessageSender<ControlMessage>>,
    pub(super) reader: AbortHandle,
    /// The peer's identity on it.
    pub(super) key: NodeKey,
    /// It takes the place of one that stands, without a break.
    pub(super) renewal: bool,
    /// Heartbeat keys.
    pub(super) keys: ExportedKeys,
    /// We listened.
    pub(super) server: bool,
    pub(super) spoken: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        if let Some(sender) = &self.sender {
            sender.abort();
        }
    }
}

/// What a change of the connections means for the core, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Connected,
    Disconnected,
}

/// Connections by number, and which is in use.
#[derive(Debug, Default)]
pub(super) struct Connections {
    all: BTreeMap<ConnectionNumber, Connection>,
    current: Option<ConnectionNumber>,
    heard: BTreeMap<LinkId, Time>,
    /// Those whose place another has taken, until the peer has said its last word on them.
    retired: BTreeMap<ConnectionNumber, Connection>,
}

impl Connections {
    /// Takes a new connection; it replaces an older one on the same link.
    pub(super) fn up(&mut self, connection: Connection) -> Vec<Change> {
        if connection.renewal {
            return self.renewed(connection);
        }
        let older: Vec<_> = self
            .all
            .values()
            .filter(|old| old.link == connection.link)
            .map(|old| old.number)
            .collect();
        let mut changes = Vec::new();
        let number = connection.number;
        let replaced = self.current.is_some_and(|current| older.contains(&current));
        for old in older {
            self.all.remove(&old);
        }
        self.all.insert(number, connection);
        if replaced {
            changes.push(Change::Disconnected);
            self.current = None;
        }
        if self.current.is_none() {
            self.current = Some(number);
            changes.push(Change::Connected);
        }
        changes
    }

    /// Takes a connection in the place of another of its link: for the core nothing happens. The
    /// listening side goes on sending on the old one until the dialling side speaks on the new.
    fn renewed(&mut self, connection: Connection) -> Vec<Change> {
        let (number, link, server) = (connection.number, connection.link, connection.server);
        self.all.insert(number, connection);
        if !server {
            self.retire(link, number);
        }
        if self.current.is_none() {
            self.current = Some(number);
            return vec![Change::Connected];
        }
        Vec::new()
    }

    /// Nothing is sent any more on the other connections of a link.
    fn retire(&mut self, link: LinkId, stays: ConnectionNumber) {
        let old: Vec<_> = self
            .all
            .values()
            .filter(|old| old.link == link && old.number != stays)
            .map(|old| old.number)
            .collect();
        for number in old {
            if let Some(mut connection) = self.all.remove(&number) {
                // What waits is sent, then the peer reads the end.
                connection.sender = None;
                self.retired.insert(number, connection);
            }
            if self.current == Some(number) {
                self.current = Some(stays);
            }
        }
        while self.retired.len() > RETIRED_MAX {
            self.retired.pop_first();
        }
    }

    /// Forgets a connection that has ended.
    pub(super) fn down(&mut self, number: ConnectionNumber) -> Vec<Change> {
        self.retired.remove(&number);
        self.all.remove(&number);
        if self.current != Some(number) {
            return Vec::new();
        }
        self.current = None;
        let mut changes = vec![Change::Disconnected];
        if let Some(other) = self.best() {
            self.current = Some(other);
            changes.push(Change::Connected);
        }
        changes
    }

    /// A message came: whether to heed it, whether it is the dialling side's first (its keys are
    /// now in force: returns their id), and what it changes.
    pub(super) fn message(
        &mut self,
        number: ConnectionNumber,
        message: &ControlMessage,
    ) -> Option<(Option<u64>, Vec<Change>)> {
        if self.retired.contains_key(&number) {
            return Some((None, Vec::new()));
        }
        let connection = self.all.get_mut(&number)?;
        let renewal = connection.renewal && connection.server && !connection.spoken;
        let link = connection.link;
        let first = connection.server && !std::mem::replace(&mut connection.spoken, true);
        let (keys, server) = (first.then_some(connection.keys.id()), connection.server);
        let mut changes = Vec::new();
        if renewal {
            self.retire(link, number);
        }
        if server && self.current != Some(number) {
            // The dialling side begins anew on this connection: follow it.
            if self.current.is_some() && matches!(message, ControlMessage::Hello(_)) {
                changes.extend([Change::Disconnected, Change::Connected]);
            }
            self.current = Some(number);
        }
        Some((keys, changes))
    }

    /// The link that a connection goes over.
    pub(super) fn link(&self, number: ConnectionNumber) -> Option<LinkId> {
        self.all.get(&number).map(|connection| connection.link)
    }

    /// Sends on the connection in use; dropped if there is none. A peer that does not read is cut
    /// off.
    pub(super) fn send(&mut self, message: &ControlMessage) -> Vec<Change> {
        let Some(number) = self.current else {
            return Vec::new();
        };
        let Some(connection) = self.all.get(&number) else {
            return Vec::new();
        };
        let Some(sender) = &connection.sender else {
            return Vec::new();
        };
        match sender.send(message) {
            Ok(()) => Vec::new(),
            Err(_) => self.down(number),
        }
    }

    /// Ends all connections: the peer is another, or none. What waits is still sent.
    pub(super) fn leave_all(&mut self) -> Vec<Change> {
        let all = core::mem::take(&mut self.all);
        self.retired.clear();
        self.heard.clear();
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            drop(all);
        });
        let used = self.current.take().is_some();
        used.then_some(Change::Disconnected).into_iter().collect()
    }

    /// A heartbeat was heard on a link.
    pub(super) fn heard(&mut self, link: LinkId, now: Time) {
        self.heard.insert(link, now);
    }

    /// Leaves a connection whose link is silent while another's is heard.
    pub(super) fn avoid_silence(&mut self, now: Time, hold_time: Duration) -> Vec<Change> {
        let Some(current) = self.current.and_then(|number| self.all.get(&number)) else {
            return Vec::new();
        };
        let heard = |link: LinkId| {
            self.heard
                .get(&link)
                .is_some_and(|heard| now.since(*heard) <= hold_time)
        };
        if current.server || heard(current.link) {
            return Vec::new();
        }
        let better = self
            .all
            .values()
            .find(|other| heard(other.link))
            .map(|other| other.number);
        match better {
            None => Vec::new(),
            Some(better) => {
                self.current = Some(better);
                vec![Change::Disconnected, Change::Connected]
            }
        }
    }

    /// Gives up connections with a peer that is silent on every link: it is dead, or back as a
    /// new process that waits to be dialled, and TCP would notice only seconds later. Their ends
    /// are told as events.
    pub(super) fn leave_the_dead(&mut self, now: Time, hold_time: Duration) {
        let patience = hold_time.max(SILENCE_MIN);
        let newest = self.heard.values().max();
        if newest.is_some_and(|newest| now.since(*newest) > patience) {
            // Silence is held against connections only once they were heard.
            self.heard.clear();
            self.all
                .values()
                .for_each(|connection| connection.reader.abort());
        }
    }

    /// The connection of the most recently heard link.
    fn best(&self) -> Option<ConnectionNumber> {
        let newest = self
            .all
            .values()
            .max_by_key(|one| (self.heard.get(&one.link), one.number));
        newest.map(|connection| connection.number)
    }
}

#[cfg(test)]
mod tests;
