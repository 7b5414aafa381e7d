//! Reads and watches.

use model::{Lsn, Sap, ServiceName, Time};
use wire::broker::{Destination, Kind, Message, encode_body};
use wire::checkpoint::{Changed, Namespace, Operation, Response, Scope};

use super::Store;
use crate::content::{is_shared, namespace_of};
use crate::limits::{WATCH_RETRY, WATCHES};

impl Store {
    /// Whether the caller may read there, by its SAP as the broker vouches for it.
    fn readable(message: &Message, namespace: Namespace) -> Result<(), String> {
        let allowed = match namespace.scope {
            Scope::Private => Self::caller(message) == Some(namespace.owner),
            Scope::SharedLocal => Self::caller(message).is_some(),
            Scope::SharedGlobal => true,
        };
        let owner = namespace.owner;
        allowed
            .then_some(())
            .ok_or_else(|| format!("that namespace of {owner} is not shared"))
    }

    pub(super) fn get(&mut self, message: &Message, namespace: Namespace, key: &[u8]) {
        match Self::readable(message, namespace) {
            Ok(()) => {
                let value = self.content.get(namespace, key).map(|value| value.to_vec());
                self.respond(message, &Response::Value(value));
            }
            Err(reason) => self.refuse(message, reason),
        }
    }

    pub(super) fn range(&mut self, message: &Message, namespace: Namespace, after: &[u8]) {
        match Self::readable(message, namespace) {
            Ok(()) => {
                let (pairs, more) = self.content.page(namespace, after);
                self.respond(message, &Response::Pairs { pairs, more });
            }
            Err(reason) => self.refuse(message, reason),
        }
    }

    pub(super) fn watch(&mut self, message: &Message, namespace: Namespace) {
        let watch = (message.source, namespace);
        if let Err(reason) = Self::readable(message, namespace) {
            return self.refuse(message, reason);
        }
        if message.from_peer {
            return self.refuse(message, "watches are for services of this node".to_owned());
        }
        if self.watches.len() >= WATCHES && !self.watches.contains(&watch) {
            return self.refuse(message, format!("{WATCHES} watches stand already"));
        }
        self.watches.insert(watch);
        self.dirty_watchers.remove(&message.source);
        let from = self.history.last().1;
        self.respond(message, &Response::Watching { from });
    }

    /// Tells every watcher its part of one commit.
    pub(super) fn tell_watchers(&mut self, lsn: Lsn, operations: &[Operation]) {
        let watches: Vec<(Sap, Namespace)> = self
            .watches
            .iter()
            .filter(|(_, namespace)| operations.iter().any(|o| namespace_of(o) == *namespace))
            .copied()
            .collect();
        for (sap, namespace) in watches {
            let own = operations
                .iter()
                .filter(|o| namespace_of(o) == namespace)
                .cloned()
                .collect();
            let correlation = self.number();
            self.send(changed(
                sap,
                correlation,
                &Changed::Commit {
                    lsn,
                    operations: own,
                },
            ));
        }
    }

    /// Everything shared was replaced: its watchers read again.
    pub(super) fn tell_replaced(&mut self) {
        let of_shared = self
            .watches
            .iter()
            .filter(|(_, namespace)| is_shared(*namespace));
        let mut saps: Vec<Sap> = of_shared.map(|(sap, _)| *sap).collect();
        saps.dedup();
        for sap in saps {
            self.tell_to_read_again(sap);
        }
    }

    /// A new process of the store knows of no watch: whoever had one asks again.
    pub(super) fn tell_everyone_to_read_again(&mut self) {
        for service in ServiceName::ALL {
            if service != ServiceName::Pss && service != ServiceName::Mts {
                self.tell_to_read_again(service.sap());
            }
        }
    }

    fn tell_to_read_again(&mut self, sap: Sap) {
        let lsn = self.history.last().1;
        // The correlation asks the broker to tell us if it cannot be delivered.
        let correlation = self.number();
        self.send(changed(sap, correlation, &Changed::Replaced { lsn }));
    }

    /// A notification found no room at its watcher: it is told to read again, later.
    pub(super) fn watcher_missed(&mut self, now: Time, sap: Sap) {
        if self.watches.iter().any(|(watcher, _)| *watcher == sap) {
            self.dirty_watchers.entry(sap).or_insert(now + WATCH_RETRY);
        }
    }

    pub(super) fn watchers_due(&mut self, now: Time) {
        let due: Vec<Sap> = self
            .dirty_watchers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(sap, _)| *sap)
            .collect();
        for sap in due {
            self.dirty_watchers.remove(&sap);
            self.tell_to_read_again(sap);
        }
    }
}

/// Tells a watcher.
fn changed(to: Sap, correlation: u64, changed: &Changed) -> Message {
    Message {
        source: ServiceName::Pss.sap(),
        from_peer: false,
        destination: Destination::Local,
        sap: to,
        kind: Kind::Notification,
        correlation,
        body: encode_body(changed),
    }
}
