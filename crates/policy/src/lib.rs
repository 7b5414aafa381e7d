//! Policy as values: what an administrator wrote becomes a classifier, a flow's attributes
//! become a decision.
//!
//! | module | holds |
//! |---|---|
//! | [`object`] | zones, object groups, rules, policies, security profiles, and what may be missing |
//! | [`ranges`] | sets of numbers as ranges: what every condition compiles to |
//! | [`classifier`] | the compiled form: six look-ups and an intersection decide a flow |
//! | [`interpreter`] | the meaning of a policy, word by word; the classifier is tested against it |
//! | [`event`] | the text of a lookup event, and the limit on how many are written |
//! | [`stats`] | how often each rule matched |
//! | [`flow_table`] | the connections decided, and the records that replicate them |
//!
//! Invariants:
//! - what no rule permits is dropped: an unknown profile, a profile without a policy, a policy
//!   none of whose rules match;
//! - a condition on an attribute that the packet lacks (a port of ICMP) never holds, negated or
//!   not;
//! - a classifier never changes: a new policy is a new classifier with a higher generation.

pub mod classifier;
pub mod event;
pub mod flow_table;
pub mod interpreter;
pub mod object;
pub mod ranges;
pub mod stats;

pub use classifier::{Classifier, CompileError, Decision, compile};
pub use event::{EventLimiter, lookup_event};
pub use flow_table::{FlowRecord, FlowTable};
pub use object::{ObjectGroup, Policy, PolicyModel, Problem, Rule, SecurityProfile, Zone};
pub use stats::MatchStats;
