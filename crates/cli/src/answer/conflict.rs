//! `show redundancy conflicts`: what was archived of nodes that lost a conflict. The original has
//! nothing like it; the layout is that of `show redundancy status`.

use model::Slot;
use serde::{Deserialize, Serialize};

use super::heading;

/// Records of one service when its node lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictCount {
    /// Whose.
    pub service: String,
    /// How many.
    pub records: u32,
    /// They are in the archive; else they were volatile, and are only counted.
    pub archived: bool,
}

/// One archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// What to type; `None` while only the node that lost has it.
    pub number: Option<u32>,
    /// When it was archived: `Sat May 19 02:52:21 2018`; empty if that is not known.
    pub when: String,
    /// Whose content.
    pub node: Slot,
    /// The epoch of its newest commit.
    pub epoch: String,
    /// Position of that commit.
    pub lsn: u64,
    /// The epoch that prevailed.
    pub prevailed: String,
    /// Why.
    pub reason: String,
    /// Commits that only this content has; `None` if that could not be told.
    pub commits: Option<u64>,
    /// Lines of its running configuration that the present one lacks.
    pub lines_lost: usize,
    /// Lines of the present running configuration that it lacks.
    pub lines_gained: usize,
    /// By service.
    pub counts: Vec<ConflictCount>,
    /// Records that had no room.
    pub left_out: u32,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflicts {
    /// In the order of their numbers; those without one last.
    pub conflicts: Vec<Conflict>,
}

impl Conflicts {
    /// Own layout.
    #[must_use]
    pub fn text(&self) -> String {
        if self.conflicts.is_empty() {
            return "No conflict is archived.\n".to_owned();
        }
        let blocks: Vec<String> = self.conflicts.iter().map(Conflict::text).collect();
        blocks.join("\n")
    }
}

impl Conflict {
    fn text(&self) -> String {
        let mut text = match self.number {
            Some(number) => heading(&format!("Conflict {number}")),
            None => heading("Conflict, to be handed over"),
        };
        let mut line = |label: &str, value: &str| text += &format!("{label:>20}:   {value}\n");
        let when = if self.when.is_empty() {
            "not known"
        } else {
            &self.when
        };
        line("Archived", when);
        line("Node", &self.node.to_string());
        line(
            "Last commit",
            &format!("{} of epoch {}", self.lsn, self.epoch),
        );
        line("Prevailing epoch", &self.prevailed);
        line("Reason", &self.reason);
        let commits = self
            .commits
            .map_or("not known".to_owned(), |commits| commits.to_string());
        line("Commits lost", &commits);
        line(
            "Configuration",
            &format!(
                "{} lines only in the archive, {} only in running-config",
                self.lines_lost, self.lines_gained
            ),
        );
        for count in &self.counts {
            let kept = if count.archived {
                "archived"
            } else {
                "volatile, not archived"
            };
            let value = format!("{} records of {} ({kept})", count.records, count.service);
            line("State", &value);
        }
        if self.left_out > 0 {
            let value = format!("{} records had no room", self.left_out);
            line("Left out", &value);
        }
        text
    }
}
