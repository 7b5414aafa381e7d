//! The configuration as `cfgmgr` stores it, and the copy that other services keep of it.
//!
//! | key | value |
//! |---|---|
//! | `running` | text of the running configuration |
//! | `startup` | text of the startup configuration |
//! | `generation` | number of its policy, 8 bytes, big endian |
//!
//! Invariant: `running` and `generation` change in one transaction, and the generation grows with
//! every change of the policy, in the history of one active and across those of two: see
//! [`next_generation`].

use config::Configuration;
use model::{Epoch, Generation, ServiceName};
use wire::checkpoint::{Durability, Namespace, Operation, Scope};

/// Where it is stored.
pub const CONFIGURATION: Namespace = Namespace {
    owner: ServiceName::Cfgmgr,
    scope: Scope::SharedGlobal,
    durability: Durability::Persistent,
};

/// Key of the running configuration.
pub const RUNNING: &[u8] = b"running";
const STARTUP: &[u8] = b"startup";
const GENERATION: &[u8] = b"generation";

/// Generations of one epoch begin at its counter times this: two nodes that both led during a
/// partition gave different numbers to different policies, and VEMs ask again when they change
/// sides.
const PER_EPOCH: u64 = 1 << 20;

/// The number of the policy committed after `current`, under `epoch`.
#[must_use]
pub fn next_generation(current: Generation, epoch: Epoch) -> Generation {
    Generation(Ord::max(
        current.0 + 1,
        epoch.counter.saturating_mul(PER_EPOCH),
    ))
}

/// A service's copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationMirror {
    /// The running configuration; empty before the first commit.
    pub running: String,
    /// The startup configuration; empty before the first save.
    pub startup: String,
    /// Number of the policy in the running configuration; 0 before the first.
    pub generation: Generation,
}

impl ConfigurationMirror {
    /// Applies what was stored. Bytes that are not text do not come from `cfgmgr`; they are read
    /// as far as they are text.
    pub fn apply(&mut self, operations: &[Operation]) {
        for operation in operations {
            let (key, value) = match operation {
                Operation::Put { key, value, .. } => (key, value.as_slice()),
                Operation::Delete { key, .. } => (key, [].as_slice()),
            };
            let text = || String::from_utf8_lossy(value).into_owned();
            match key.as_slice() {
                RUNNING => self.running = text(),
                STARTUP => self.startup = text(),
                GENERATION => {
                    let number = value.try_into().map_or(0, u64::from_be_bytes);
                    self.generation = Generation(number);
                }
                _ => {}
            }
        }
    }
}

/// Text to configuration. Empty text is what a node holds before its first commit: the defaults.
///
/// # Errors
/// In words, with the number of the line, when the text is not valid.
pub fn parse(text: &str) -> Result<Configuration, String> {
    Configuration::load(text).map_err(|error| error.to_string())
}

/// The transaction that makes `text` the running configuration.
#[must_use]
pub fn put_running(text: &str, generation: Generation) -> Vec<Operation> {
    vec![
        put(RUNNING, text.as_bytes().to_vec()),
        put(GENERATION, generation.0.to_be_bytes().to_vec()),
    ]
}

/// The transaction that makes `text` the startup configuration.
#[must_use]
pub fn put_startup(text: &str) -> Vec<Operation> {
    vec![put(STARTUP, text.as_bytes().to_vec())]
}

fn put(key: &[u8], value: Vec<u8>) -> Operation {
    Operation::Put {
        namespace: CONFIGURATION,
        key: key.to_vec(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Incarnation, NodeKey};

    #[test]
    fn generations_grow_and_differ_between_epochs() {
        let epoch = |counter| Epoch {
            counter,
            node: NodeKey([1; 32]),
            incarnation: Incarnation(1),
        };
        let first = next_generation(Generation(0), epoch(1));
        let second = next_generation(first, epoch(1));
        let other = next_generation(first, epoch(2));
        assert!(first < second && second < other);
        assert!(next_generation(other, epoch(1)) > other);
    }

    #[test]
    fn a_mirror_reads_what_was_put() {
        let mut mirror = ConfigurationMirror::default();
        mirror.apply(&put_running("hostname a\n", Generation(7)));
        mirror.apply(&put_startup("hostname b\n"));
        assert_eq!(
            (mirror.running.as_str(), mirror.generation),
            ("hostname a\n", Generation(7))
        );
        assert_eq!(mirror.startup, "hostname b\n");
    }
}
