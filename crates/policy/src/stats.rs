//! How often each policy was asked and each rule matched (`show policy-engine stats`).

use std::collections::BTreeMap;

use model::ObjectName;
use serde::{Deserialize, Serialize};

use crate::classifier::{Classifier, Decision};
use crate::event::action_name;

/// Shown for decisions that no rule of the policy made.
pub const NOT_APPLICABLE: &str = "NOT_APPLICABLE";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PolicyCounters {
    lookups: u64,
    not_applicable: u64,
    rules: BTreeMap<ObjectName, u64>,
}

/// The counters. They outlive a change of policy; what no longer exists is not shown.
///
/// Invariant ([`MatchStats::check`]): a policy's lookups are the sum of its rules' and of those
/// no rule made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchStats {
    policies: BTreeMap<ObjectName, PolicyCounters>,
}

/// A rule's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleLine {
    /// The rule, or [`NOT_APPLICABLE`].
    pub rule: String,
    /// Decisions it made.
    pub hits: u64,
    /// `Log, Permit`.
    pub actions: String,
}

/// A policy's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLines {
    /// The policy.
    pub policy: String,
    /// Decisions asked of it.
    pub lookups: u64,
    /// Its rules in order, then the decisions that none made.
    pub rules: Vec<RuleLine>,
}

impl MatchStats {
    /// Counts one decision.
    pub fn record(&mut self, decision: &Decision<'_>) {
        if !self.policies.contains_key(decision.policy) {
            self.policies
                .insert(decision.policy.clone(), PolicyCounters::default());
        }
        let Some(counters) = self.policies.get_mut(decision.policy) else {
            return;
        };
        counters.lookups += 1;
        match decision.rule {
            None => counters.not_applicable += 1,
            Some(rule) => match counters.rules.get_mut(rule) {
                Some(hits) => *hits += 1,
                None => {
                    counters.rules.insert(rule.clone(), 1);
                }
            },
        }
    }

    /// The counters of what `classifier` holds, by policy name.
    #[must_use]
    pub fn lines(&self, classifier: &Classifier) -> Vec<PolicyLines> {
        let none = PolicyCounters::default();
        classifier
            .rules()
            .map(|(policy, rules)| {
                let counters = self.policies.get(policy).unwrap_or(&none);
                let mut lines: Vec<RuleLine> = rules
                    .map(|(rule, actions)| RuleLine {
                        rule: rule.to_string(),
                        hits: counters.rules.get(rule).copied().unwrap_or(0),
                        actions: shown(actions.iter().map(|action| action_name(*action))),
                    })
                    .collect();
                lines.push(RuleLine {
                    rule: NOT_APPLICABLE.to_owned(),
                    hits: counters.not_applicable,
                    actions: "Drop".to_owned(),
                });
                PolicyLines {
                    policy: policy.to_string(),
                    lookups: counters.lookups,
                    rules: lines,
                }
            })
            .collect()
    }

    /// Verifies the invariant.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn check(&self) {
        for (policy, counters) in &self.policies {
            let made = counters.rules.values().sum::<u64>() + counters.not_applicable;
            assert_eq!(counters.lookups, made, "lookups of {policy}");
        }
    }
}

/// The original names `Log` before the verdict, whatever their numbers.
fn shown<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_by_key(|name| *name != "Log");
    names.join(", ")
}
