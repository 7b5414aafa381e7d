//! When the system, the pair as a whole, started: it survives a switchover, other than the uptime
//! of the active supervisor. The first active writes it down, replicated and volatile: the record
//! lasts as long as either node does.

use model::{ServiceName, Time};
use wire::checkpoint::{Acknowledgement, Durability, Namespace, Operation, Scope};

use super::Vshd;

/// Where it is stored.
pub(super) const SYSTEM: Namespace = Namespace {
    owner: ServiceName::Vshd,
    scope: Scope::SharedGlobal,
    durability: Durability::Volatile,
};

const STARTED: &[u8] = b"started";

/// What this `vshd` knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SystemStart {
    /// Seconds since 1970, as stored.
    unix_s: Option<u64>,
    /// How old the system was when this was first read here, and when that was: from there on
    /// the age follows the monotonic clock.
    age_s: Option<(u64, Time)>,
    /// It was asked to be stored, under this posture.
    pub(super) asked: bool,
}

impl SystemStart {
    pub(super) fn apply(&mut self, now: Time, unix_s: u64, operations: &[Operation]) {
        for operation in operations {
            let value = match operation {
                Operation::Put { key, value, .. } if key == STARTED => value.as_slice(),
                Operation::Put { .. } | Operation::Delete { .. } => continue,
            };
            let Ok(bytes) = value.try_into() else {
                continue;
            };
            let started = u64::from_be_bytes(bytes);
            if self.unix_s != Some(started) {
                self.unix_s = Some(started);
                self.age_s = (unix_s > 0).then(|| (unix_s.saturating_sub(started), now));
            }
        }
    }

    /// The wall clock is known now: what was read before it has an age.
    pub(super) fn wall_clock(&mut self, now: Time, unix_s: u64) {
        if let (Some(started), None) = (self.unix_s, self.age_s) {
            self.age_s = Some((unix_s.saturating_sub(started), now));
        }
    }

    pub(super) const fn is_known(&self) -> bool {
        self.unix_s.is_some()
    }

    /// Seconds since the start of the system, if that is known.
    pub(super) fn age_s(&self, now: Time) -> Option<u64> {
        self.age_s
            .map(|(age_s, at)| age_s + now.since(at).as_secs())
    }
}

/// The transaction that writes it down.
pub(super) fn put_started(unix_s: u64) -> Vec<Operation> {
    vec![Operation::Put {
        namespace: SYSTEM,
        key: STARTED.to_vec(),
        value: unix_s.to_be_bytes().to_vec(),
    }]
}

impl Vshd {
    /// The first active of the pair writes down when its system started.
    pub(super) fn write_down_system_start(&mut self, now: Time) {
        let leads = self.active_since.is_some();
        let due = leads && self.checkpoint.is_loaded(SYSTEM) && !self.system.is_known();
        if !due || self.unix_s.0 == 0 || self.system.asked {
            return;
        }
        let unix_s = self.unix_s.0 + now.since(self.unix_s.1).as_secs();
        let own_s = now.since(self.facts.started).as_secs();
        let operations = put_started(unix_s.saturating_sub(own_s));
        // Refused, it is tried again when this node next takes the lead: only a display lacks it.
        let level = Acknowledgement::Volatile;
        self.system.asked = self.checkpoint.commit(now, operations, level).is_ok();
    }
}
