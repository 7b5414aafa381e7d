//! Looks on from outside, all the time, while faults are made.
//!
//! Invariants that it checks:
//! - W1: the highest epoch that a host agent has seen never goes back, through its crashes too;
//! - W2: an agent takes verdicts under the highest epoch that it has seen, or under none: it never
//!   mixes two;
//! - W3: while nothing keeps the nodes apart, at most one of them says that it is active.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::agent::Status;
use crate::lab::Lab;
use crate::{clock, site};

/// Between two looks at the agents: shorter than any failover.
const AGENT_PAUSE: Duration = Duration::from_millis(15);
/// Between two looks at the nodes: each look is two processes.
const NODE_PAUSE: Duration = Duration::from_millis(150);
/// Violations kept; a pair that is broken for good would fill the memory.
const VIOLATIONS_MAX: usize = 100;

/// What was seen, shared by the threads that look.
#[derive(Debug, Default)]
pub struct Watch {
    stops: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    agents: BTreeMap<&'static str, Epoch>,
    /// Since when nothing keeps the nodes apart and the hold time is over; `None` while something
    /// does.
    in_contact_since_ns: Option<u64>,
    /// Looks at agents and nodes.
    looks: u64,
    violations: Vec<String>,
}

/// An epoch as it is shown, ordered as it is in the product: counter, node, incarnation.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    counter: u64,
    rest: String,
}

impl Epoch {
    /// Reads `12.1a2b3c4d.5e6f`; what is no epoch is below all.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let (counter, rest) = text.split_once('.').unwrap_or((text, ""));
        Self {
            counter: counter.parse().unwrap_or(0),
            rest: rest.to_owned(),
        }
    }
}

/// One look at a node.
struct Look {
    asked_ns: u64,
    answered_ns: u64,
    is_active: bool,
}

impl Look {
    fn at(lab: &Lab, node: &str) -> Self {
        let asked_ns = clock::now_ns();
        let is_active = lab.leads(node).unwrap_or(false);
        Self {
            asked_ns,
            answered_ns: clock::now_ns(),
            is_active,
        }
    }
}

impl Watch {
    /// Looks until [`Self::stop`], in threads of `scope`.
    pub fn run<'scope, 'all>(
        &'scope self,
        lab: &'scope Lab,
        scope: &'scope thread::Scope<'scope, 'all>,
    ) {
        scope.spawn(|| {
            while !self.stops.load(Ordering::Relaxed) {
                for host in site::HOSTS {
                    // An agent that was killed does not answer; it is asked again.
                    if let Ok(status) = Status::peek(lab, host) {
                        self.note_agent(host, &status);
                    }
                }
                thread::sleep(AGENT_PAUSE);
            }
        });
        scope.spawn(|| {
            let [one, two] = site::NODES;
            let mut before = Look::at(lab, one);
            while !self.stops.load(Ordering::Relaxed) {
                let middle = Look::at(lab, two);
                let after = Look::at(lab, one);
                self.note_nodes(&before, &middle, &after);
                before = after;
                thread::sleep(NODE_PAUSE);
            }
        });
    }

    /// Ends the looking.
    pub fn stop(&self) {
        self.stops.store(true, Ordering::Relaxed);
    }

    /// Something is about to keep the nodes apart.
    pub fn apart(&self) {
        self.lock().in_contact_since_ns = None;
    }

    /// Nothing keeps them apart, and the hold time is over, since `at_ns`.
    pub fn in_contact(&self, at_ns: u64) {
        self.lock().in_contact_since_ns = Some(at_ns);
    }

    /// What was violated since the last call.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().violations)
    }

    /// How often it looked.
    pub fn looks(&self) -> u64 {
        self.lock().looks
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A thread that panicked has left counters behind, nothing half-made.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_agent(&self, host: &'static str, status: &Status) {
        let mut seen = self.lock();
        seen.looks += 1;
        let highest = Epoch::read(&status.highest_epoch);
        let before = seen.agents.insert(host, highest.clone());
        if before.is_some_and(|before| before > highest) {
            let text = format!("{host} went back to epoch {}", status.highest_epoch);
            seen.complain(text);
        }
        if let Some(obeyed) = &status.obeyed_epoch
            && *obeyed != status.highest_epoch
        {
            let text = format!(
                "{host} obeys {obeyed}, and has seen {}",
                status.highest_epoch
            );
            seen.complain(text);
        }
    }

    /// Two are active only if the one was before and after the other was seen to be: looks at two
    /// nodes are never at once.
    fn note_nodes(&self, before: &Look, middle: &Look, after: &Look) {
        let mut seen = self.lock();
        seen.looks += 1;
        let in_contact = seen
            .in_contact_since_ns
            .is_some_and(|since| since <= before.asked_ns);
        let both = before.is_active && middle.is_active && after.is_active;
        if both && in_contact {
            let text = format!(
                "both nodes were active from {} to {}",
                before.answered_ns, after.asked_ns
            );
            seen.complain(text);
        }
    }
}

impl Seen {
    fn complain(&mut self, text: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(asked_ns: u64, is_active: bool) -> Look {
        Look {
            asked_ns,
            answered_ns: asked_ns + 1,
            is_active,
        }
    }

    fn status(highest: &str, obeyed: Option<&str>) -> Status {
        let value = serde_json::json!({
            "highest_epoch": highest, "obeyed_epoch": obeyed, "gateways": [],
            "last_claim_accepted_ns": null, "first_decision_after_claim_ns": null,
            "counters": {
                "permitted": 0, "denied": 0, "failed_open": 0, "failed_closed": 0,
                "claims_refused": 0, "answers_ignored": 0,
            },
        });
        serde_json::from_value(value).expect("a status")
    }

    #[test]
    fn epochs_are_ordered_by_their_counter_first() {
        assert!(Epoch::read("10.00000000.1") > Epoch::read("9.ffffffff.1"));
        assert!(Epoch::read("9.00000001.1") > Epoch::read("9.00000000.f"));
    }

    #[test]
    fn an_agent_that_goes_back_or_mixes_is_seen() {
        let watch = Watch::default();
        watch.note_agent("host-1", &status("3.a.1", Some("3.a.1")));
        watch.note_agent("host-1", &status("4.a.1", None));
        assert_eq!(watch.take_violations(), Vec::<String>::new());
        watch.note_agent("host-1", &status("3.a.1", None));
        watch.note_agent("host-1", &status("4.a.1", Some("3.a.1")));
        assert_eq!(watch.take_violations().len(), 2);
    }

    #[test]
    fn two_actives_count_only_in_contact_and_only_if_seen_on_both_sides() {
        let watch = Watch::default();
        watch.note_nodes(&look(10, true), &look(11, true), &look(12, true));
        watch.in_contact(11);
        watch.note_nodes(&look(10, true), &look(11, true), &look(12, true));
        watch.note_nodes(&look(20, true), &look(21, true), &look(22, false));
        watch.note_nodes(&look(20, false), &look(21, true), &look(22, true));
        assert_eq!(watch.take_violations(), Vec::<String>::new());
        watch.note_nodes(&look(20, true), &look(21, true), &look(22, true));
        assert_eq!(watch.take_violations().len(), 1);
        watch.apart();
        watch.note_nodes(&look(30, true), &look(31, true), &look(32, true));
        assert_eq!(watch.take_violations(), Vec::<String>::new());
    }
}
