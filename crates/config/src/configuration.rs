//! The model and its text.

use std::collections::BTreeMap;
use std::fmt;

use model::{Action, Condition, MatchCriteria, PairId};
use policy::PolicyModel;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::candidate::{Candidate, LineError};

/// The host name until one is configured; the original's prompt.
pub const DEFAULT_HOSTNAME: &str = "vsg";

/// Longest configuration that is loaded, in bytes: larger than the limits of the policy's objects
/// can fill with lines of ordinary length. A longer text is refused whole.
pub const TEXT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// A whole configuration. What is a node's own (role, pair ID, links) is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The configured name of the system.
    pub hostname: Option<String>,
    /// Zones, groups, rules, policies and profiles.
    pub policy: PolicyModel,
}

/// SHA-256 of the canonical text: two nodes with equal hashes have equal configurations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConfigHash(pub [u8; 32]);

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigHash({self})")
    }
}

/// What stands above a configuration when it is shown; no part of it.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The command that shows it: `show running-config`.
    pub command: &'a str,
    /// Wall time, for display: `Fri Aug  3 23:58:47 2012`.
    pub time: &'a str,
    /// The software's version.
    pub version: &'a str,
    /// The node's pair ID, which is its own and not replicated.
    pub pair_id: Option<PairId>,
}

impl Configuration {
    /// Loads a text: every line, or nothing.
    ///
    /// # Errors
    /// [`LineError`] with the first line that does not apply.
    pub fn load(text: &str) -> Result<Self, LineError> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(LineError::too_long());
        }
        let mut candidate = Candidate::new(&Self::default());
        candidate.apply_lines(text.lines())?;
        candidate.commit()
    }

    /// The name of the system.
    #[must_use]
    pub fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or(DEFAULT_HOSTNAME)
    }

    /// The canonical text. What is referred to stands before what refers to it; names and numbers
    /// ascend; each line ends with a line feed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        if let Some(hostname) = &self.hostname {
            lines.push(format!("hostname {hostname}"));
        }
        let policy = &self.policy;
        for (name, group) in &policy.object_groups {
            lines.push(format!("object-group {name} {}", group.attribute));
            let expressions = group.matches.iter();
            lines.extend(expressions.map(|(number, test)| format!("  match {number} {test}")));
        }
        for (name, zone) in &policy.zones {
            lines.push(format!("zone {name}"));
            push_conditions(&mut lines, zone.criteria, &zone.conditions);
        }
        for (name, rule) in &policy.rules {
            lines.push(format!("rule {name}"));
            push_conditions(&mut lines, rule.criteria, &rule.conditions);
            push_actions(&mut lines, &rule.actions);
        }
        for (name, policy) in &policy.policies {
            lines.push(format!("policy {name}"));
            let rules = policy.rules.iter();
            lines.extend(rules.map(|(order, rule)| format!("  rule {rule} order {order}")));
        }
        for (name, profile) in &policy.profiles {
            lines.push(format!("security-profile {name}"));
            lines.extend(
                profile
                    .policy
                    .iter()
                    .map(|policy| format!("  policy {policy}")),
            );
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }

    /// The text below its header, as `show running-config` shows it.
    #[must_use]
    pub fn shown(&self, header: &Header<'_>) -> String {
        let mut text = format!("\n!Command: {}\n!Time: {}\n\n", header.command, header.time);
        text += &format!("version {}\n", header.version);
        if let Some(id) = header.pair_id {
            text += &format!("ha-pair id {}\n", id.number());
        }
        text + &self.text()
    }

    /// The hash of the canonical text.
    #[must_use]
    pub fn hash(&self) -> ConfigHash {
        ConfigHash(Sha256::digest(self.text().as_bytes()).into())
    }
}

fn push_conditions(
    lines: &mut Vec<String>,
    criteria: MatchCriteria,
    conditions: &BTreeMap<u16, Condition>,
) {
    if criteria != MatchCriteria::default() {
        lines.push(format!("  cond-match-criteria: {}", criteria.keyword()));
    }
    for (number, condition) in conditions {
        lines.push(format!("  condition {number} {condition}"));
    }
}

fn push_actions(lines: &mut Vec<String>, actions: &BTreeMap<u16, Action>) {
    lines.extend(
        actions
            .iter()
            .map(|(number, action)| format!("  action {number} {action}")),
    );
}
