//! What was committed, what was acknowledged, and whether it is still there.
//!
//! Each commit makes a zone that no rule uses, or takes an old one away. A commit whose session
//! died, or that was refused, may or may not have happened; one that was acknowledged as known to
//! both nodes must be there on whoever leads, for ever.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::lab::Lab;

/// What the shell says of a commit that only one node has.
const LOCAL_MARK: &str = "Committed on this node only (local)";
/// Zones kept: enough to span several failovers, few enough for a short configuration.
const KEPT: usize = 25;

/// What is known of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Both nodes have it.
    Replicated,
    /// One node has it, and said so.
    Local,
    /// Refused, or the session died: it may or may not be there.
    Unknown,
}

/// A commit that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    number: u32,
    makes: bool,
}

impl Change {
    /// The zone it is about.
    fn zone(&self) -> String {
        zone(self.number)
    }

    /// Makes it on `node`.
    ///
    /// # Errors
    /// When no shell can be started.
    pub fn commit(&self, lab: &Lab, node: &str) -> Result<Level> {
        let zone = self.zone();
        let line = if self.makes {
            format!("zone {zone}")
        } else {
            format!("no zone {zone}")
        };
        let reply = lab.shell(node, &["configure", &line])?;
        Ok(level(reply.succeeded, &reply.text))
    }
}

fn zone(number: u32) -> String {
    format!("soak-{number}@root")
}

fn level(succeeded: bool, text: &str) -> Level {
    if !succeeded {
        Level::Unknown
    } else if text.contains(LOCAL_MARK) {
        Level::Local
    } else {
        Level::Replicated
    }
}

/// How many commits ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Acknowledged as known to both nodes.
    pub replicated: u64,
    /// Acknowledged as known to one.
    pub local: u64,
    /// Neither.
    pub unknown: u64,
    /// Local ones that are gone from the configuration: their node lost a conflict.
    pub local_gone: u64,
}

/// What a comparison found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What is not as both nodes acknowledged it.
    pub wrong: Vec<String>,
    /// Zones that one node had, and whoever leads has not: they must be in an archive.
    pub gone: Vec<String>,
}

/// All commits so far.
#[derive(Debug, Default)]
pub struct Ledger {
    next: u32,
    /// What is known of each zone: is it to be there, and how sure is that.
    zones: BTreeMap<u32, (bool, Level)>,
    counts: Counts,
}

impl Ledger {
    /// The next commit: a new zone, or, when there are many, the end of the oldest.
    pub fn plan(&mut self) -> Change {
        let there: Vec<u32> = self
            .zones
            .iter()
            .filter(|(_, (there, level))| *there && *level == Level::Replicated)
            .map(|(number, _)| *number)
            .collect();
        if let (Some(oldest), true) = (there.first(), there.len() > KEPT) {
            return Change {
                number: *oldest,
                makes: false,
            };
        }
        self.next += 1;
        Change {
            number: self.next,
            makes: true,
        }
    }

    /// Notes how `change` ended.
    pub fn note(&mut self, change: &Change, level: Level) {
        match level {
            Level::Replicated => self.counts.replicated += 1,
            Level::Local => self.counts.local += 1,
            Level::Unknown => self.counts.unknown += 1,
        }
        self.zones.insert(change.number, (change.makes, level));
    }

    /// How the commits ended.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Compares with the running configuration of whoever leads. What was not certain is certain
    /// from then on.
    pub fn compare(&mut self, running: &str) -> Comparison {
        let present: Vec<&str> = running
            .lines()
            .filter_map(|line| line.trim().strip_prefix("zone "))
            .collect();
        let mut found = Comparison::default();
        for (number, (there, level)) in &mut self.zones {
            let is_there = present.contains(&zone(*number).as_str());
            if *level == Level::Replicated && is_there != *there {
                let zone = zone(*number);
                found.wrong.push(if *there {
                    format!("{zone} was acknowledged by both nodes and is gone")
                } else {
                    format!("the end of {zone} was acknowledged by both nodes, and it is there")
                });
            }
            if *level == Level::Local && is_there != *there {
                self.counts.local_gone += 1;
                if *there {
                    found.gone.push(zone(*number));
                }
            }
            // A pair in step agrees on what is there now, and must keep it.
            (*there, *level) = (is_there, Level::Replicated);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_nodes_acknowledged_must_stay() {
        let mut ledger = Ledger::default();
        let (one, two, three) = (ledger.plan(), ledger.plan(), ledger.plan());
        ledger.note(&one, Level::Replicated);
        ledger.note(&two, Level::Unknown);
        ledger.note(&three, Level::Local);
        let four = ledger.plan();
        ledger.note(&four, Level::Local);
        let first = ledger.compare("zone soak-1@root\nzone soak-3@root\n");
        assert_eq!((first.wrong.len(), &first.gone[..]), (0, &[zone(4)][..]));
        assert_eq!(ledger.compare("zone soak-1@root\n").wrong.len(), 1, "three");
        assert_eq!(ledger.compare("").wrong.len(), 1, "one");
        assert_eq!(ledger.counts().local_gone, 1);
    }

    #[test]
    fn old_zones_end_and_stay_gone() {
        let mut ledger = Ledger::default();
        for _ in 0..=KEPT {
            let change = ledger.plan();
            ledger.note(&change, Level::Replicated);
        }
        let end = ledger.plan();
        assert!(!end.makes);
        assert_eq!(end.zone(), "soak-1@root");
        ledger.note(&end, Level::Replicated);
        let all: String = (1..=26)
            .map(|number| format!("zone {}\n", zone(number)))
            .collect();
        assert_eq!(ledger.compare(&all).wrong.len(), 1);
    }

    #[test]
    fn levels_are_read_as_the_shell_says_them() {
        assert_eq!(level(false, LOCAL_MARK), Level::Unknown);
        assert_eq!(level(true, ""), Level::Replicated);
        assert_eq!(level(true, &format!("x\n{LOCAL_MARK}: y")), Level::Local);
    }
}
