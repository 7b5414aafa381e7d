//! `show policy-engine stats`.

use serde::{Deserialize, Serialize};

/// One rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatsRow {
    /// Its name; `NOT_APPLICABLE` for what no rule matched.
    pub rule: String,
    /// Decisions it made.
    pub hits: u64,
    /// Its actions, as shown in brackets: `Log, Permit`.
    pub actions: String,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatsRow {
    /// Its name.
    pub policy: String,
    /// Decisions asked of it.
    pub lookups: u64,
    /// Its rules in their order, the unmatched last.
    pub rules: Vec<RuleStatsRow>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStats {
    /// By name.
    pub policies: Vec<PolicyStatsRow>,
    /// Log lines suppressed by the rate limit since start.
    pub log_suppressed: u64,
}

/// Narrowest columns of names; longer names widen the whole column.
const POLICY_COLUMN: usize = 22;
const RULE_COLUMN: usize = 26;

impl PolicyStats {
    /// The original's layout.
    #[must_use]
    pub fn text(&self) -> String {
        let rules = self.policies.iter().flat_map(|policy| &policy.rules);
        let rule_column = rules
            .map(|row| row.rule.len() + 1)
            .max()
            .unwrap_or(0)
            .max(RULE_COLUMN);
        let policies = self.policies.iter();
        let policy_column = policies
            .map(|row| row.policy.len() + 1)
            .max()
            .unwrap_or(0)
            .max(POLICY_COLUMN);
        let mut text = "Policy Match Stats:\n".to_owned();
        for policy in &self.policies {
            text += &format!("{:<policy_column$}:{:>9}\n", policy.policy, policy.lookups);
            for rule in &policy.rules {
                text += &format!(
                    "   {:<rule_column$}:{:>9} ({})\n",
                    rule.rule, rule.hits, rule.actions
                );
            }
        }
        if self.log_suppressed > 0 {
            text += &format!(
                "Lookup events suppressed by the rate limit: {}\n",
                self.log_suppressed
            );
        }
        text
    }
}
