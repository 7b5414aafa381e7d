//! The objects of a policy as an administrator defines them.
//!
//! Invariants (checked by [`PolicyModel::problems`]):
//! - every name that a condition, a policy or a profile refers to exists;
//! - an object group is tested only by conditions of its own field, and its expressions refer to
//!   no other group;
//! - the three built-in objects are always there, and the built-in rule and policy are as built.

use std::collections::{BTreeMap, BTreeSet};

use model::{Action, Attribute, Condition, MatchCriteria, ObjectName, Verdict};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most objects of one kind. A classifier is rebuilt whole at each change; this keeps that well
/// below a second. One more is refused.
pub const OBJECTS_MAX: usize = 4_096;

/// Most conditions, expressions or actions in one object: a group of a thousand ports is a list
/// that should be a range. One more is refused.
pub const LINES_PER_OBJECT_MAX: usize = 1_024;

/// Name of the built-in profile and of the built-in policy.
const DEFAULT: &str = "default@root";

/// Name of the built-in rule.
const DEFAULT_RULE: &str = "default/default-rule@root";

/// Rank of the built-in rule in its policy, and number of its one action.
const DEFAULT_RANK: u16 = 10;

/// A set of addresses. One without conditions is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// How the conditions are joined.
    pub criteria: MatchCriteria,
    /// By their numbers.
    pub conditions: BTreeMap<u16, Condition>,
}

/// Values of one attribute: a value is a member if any expression holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectGroup {
    /// The attribute, without side.
    pub attribute: Attribute,
    /// By their numbers.
    pub matches: BTreeMap<u16, Condition>,
}

/// Conditions and actions. One without conditions matches everything; one whose actions give no
/// verdict is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// How the conditions are joined.
    pub criteria: MatchCriteria,
    /// By their numbers.
    pub conditions: BTreeMap<u16, Condition>,
    /// By their numbers.
    pub actions: BTreeMap<u16, Action>,
}

impl Rule {
    /// The first action that decides, with the verdict it gives.
    #[must_use]
    pub fn deciding(&self) -> Option<(Action, Verdict)> {
        self.actions.values().find_map(|action| match action {
            Action::Log => None,
            Action::Permit | Action::Inspect(_) => Some((*action, Verdict::Permit)),
            Action::Drop => Some((*action, Verdict::Drop)),
            Action::Reset => Some((*action, Verdict::Reset)),
        })
    }

    /// Whether a match is to be logged.
    #[must_use]
    pub fn logs(&self) -> bool {
        self.actions.values().any(|action| *action == Action::Log)
    }
}

/// Rules in the order of their ranks; the first that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// By rank. A rule stands here at most once.
    pub rules: BTreeMap<u16, ObjectName>,
}

/// A policy's binding to ports, which name the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityProfile {
    /// The policy; `None` means the built-in one, which drops.
    pub policy: Option<ObjectName>,
}

/// Something that is not there, or does not fit.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum Problem {
    /// A built-in object is missing or changed.
    #[error("{name} is built in")]
    BuiltIn {
        /// The object.
        name: ObjectName,
    },
    /// A condition tests another field than the group holds.
    #[error("object-group {group} does not hold {attribute}")]
    GroupField {
        /// The group.
        group: ObjectName,
        /// The attribute of the condition.
        attribute: Attribute,
    },
    /// An expression does not fit its group.
    #[error("object-group {group} has an expression that it cannot hold")]
    GroupExpression {
        /// The group.
        group: ObjectName,
    },
    /// No such object group.
    #[error("unknown object-group {group}")]
    UnknownGroup {
        /// Its name.
        group: ObjectName,
    },
    /// No such policy.
    #[error("unknown policy {policy}")]
    UnknownPolicy {
        /// Its name.
        policy: ObjectName,
    },
    /// No such rule.
    #[error("unknown rule {rule}")]
    UnknownRule {
        /// Its name.
        rule: ObjectName,
    },
    /// No such zone.
    #[error("unknown zone {zone}")]
    UnknownZone {
        /// Its name.
        zone: ObjectName,
    },
    /// A rule stands twice in one policy.
    #[error("rule {rule} stands twice in policy {policy}")]
    RuleTwice {
        /// The policy.
        policy: ObjectName,
        /// The rule.
        rule: ObjectName,
    },
    /// More objects of a kind, or more lines in one object, than can be.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: String,
        /// The limit.
        limit: usize,
    },
}

/// Everything the policy engine knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyModel {
    /// Zones.
    pub zones: BTreeMap<ObjectName, Zone>,
    /// Object groups.
    pub object_groups: BTreeMap<ObjectName, ObjectGroup>,
    /// Rules.
    pub rules: BTreeMap<ObjectName, Rule>,
    /// Policies.
    pub policies: BTreeMap<ObjectName, Policy>,
    /// Security profiles.
    pub profiles: BTreeMap<ObjectName, SecurityProfile>,
}

/// The name of the built-in profile and of the built-in policy.
#[must_use]
pub fn default_name() -> ObjectName {
    ObjectName::new(DEFAULT).expect("invariant: the constant is a valid name")
}

/// The name of the built-in rule.
#[must_use]
pub fn default_rule_name() -> ObjectName {
    ObjectName::new(DEFAULT_RULE).expect("invariant: the constant is a valid name")
}

fn default_rule() -> Rule {
    Rule {
        actions: BTreeMap::from([(DEFAULT_RANK, Action::Drop)]),
        ..Rule::default()
    }
}

fn default_policy() -> Policy {
    Policy {
        rules: BTreeMap::from([(DEFAULT_RANK, default_rule_name())]),
    }
}

impl Default for PolicyModel {
    /// Only the built-in objects: everything is dropped.
    fn default() -> Self {
        let profile = SecurityProfile {
            policy: Some(default_name()),
        };
        Self {
            zones: BTreeMap::new(),
            object_groups: BTreeMap::new(),
            rules: BTreeMap::from([(default_rule_name(), default_rule())]),
            policies: BTreeMap::from([(default_name(), default_policy())]),
            profiles: BTreeMap::from([(default_name(), profile)]),
        }
    }
}

impl PolicyModel {
    /// Everything that is wrong with it, in a stable order; empty means valid.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.limits();
        self.built_in(&mut problems);
        for (name, group) in &self.object_groups {
            let fits = |condition: &Condition| {
                condition.attribute() == group.attribute && condition.group().is_none()
            };
            if !group.matches.values().all(fits) {
                problems.push(Problem::GroupExpression {
                    group: name.clone(),
                });
            }
        }
        let of_zones = self
            .zones
            .values()
            .flat_map(|zone| zone.conditions.values());
        let of_rules = self
            .rules
            .values()
            .flat_map(|rule| rule.conditions.values());
        for condition in of_zones.chain(of_rules) {
            problems.extend(self.condition_problem(condition));
        }
        for (name, policy) in &self.policies {
            let mut seen = BTreeSet::new();
            for rule in policy.rules.values() {
                if !self.rules.contains_key(rule) {
                    problems.push(Problem::UnknownRule { rule: rule.clone() });
                }
                if !seen.insert(rule) {
                    problems.push(Problem::RuleTwice {
                        policy: name.clone(),
                        rule: rule.clone(),
                    });
                }
            }
        }
        for policy in self
            .profiles
            .values()
            .filter_map(|profile| profile.policy.as_ref())
        {
            if !self.policies.contains_key(policy) {
                problems.push(Problem::UnknownPolicy {
                    policy: policy.clone(),
                });
            }
        }
        problems
    }

    /// What is wrong with a condition of a rule or a zone, as far as it names other objects.
    #[must_use]
    pub fn condition_problem(&self, condition: &Condition) -> Option<Problem> {
        if let Some(zone) = condition.zone()
            && !self.zones.contains_key(zone)
        {
            return Some(Problem::UnknownZone { zone: zone.clone() });
        }
        let name = condition.group()?;
        match self.object_groups.get(name) {
            None => Some(Problem::UnknownGroup {
                group: name.clone(),
            }),
            Some(group) if group.attribute.field != condition.attribute().field => {
                let attribute = condition.attribute();
                Some(Problem::GroupField {
                    group: name.clone(),
                    attribute,
                })
            }
            Some(_) => None,
        }
    }

    fn built_in(&self, problems: &mut Vec<Problem>) {
        let name = default_name();
        if self.policies.get(&name) != Some(&default_policy()) || !self.profiles.contains_key(&name)
        {
            problems.push(Problem::BuiltIn { name });
        }
        let name = default_rule_name();
        if self.rules.get(&name) != Some(&default_rule()) {
            problems.push(Problem::BuiltIn { name });
        }
    }

    fn limits(&self) -> Vec<Problem> {
        let kinds = [
            ("zones", self.zones.len()),
            ("object groups", self.object_groups.len()),
            ("rules", self.rules.len()),
            ("policies", self.policies.len()),
            ("security profiles", self.profiles.len()),
        ];
        let too_many = |what: &str, limit| Problem::TooMany {
            what: what.to_owned(),
            limit,
        };
        let mut problems: Vec<Problem> = kinds
            .into_iter()
            .filter(|(_, count)| *count > OBJECTS_MAX)
            .map(|(what, _)| too_many(what, OBJECTS_MAX))
            .collect();
        let longest = (self.zones.values().map(|zone| zone.conditions.len()))
            .chain(self.object_groups.values().map(|group| group.matches.len()))
            .chain(
                self.rules
                    .values()
                    .map(|rule| rule.conditions.len().max(rule.actions.len())),
            )
            .chain(self.policies.values().map(|policy| policy.rules.len()))
            .max();
        if longest.is_some_and(|longest| longest > LINES_PER_OBJECT_MAX) {
            problems.push(too_many("lines in one object", LINES_PER_OBJECT_MAX));
        }
        problems
    }
}
