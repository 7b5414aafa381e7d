//! Whole-core tests: a pair on virtual time, the chapter's and the design's rules as scenarios,
//! the table of phases and events, and random faults.

mod announcements;
mod conflicts;
mod crashes;
mod epochs;
mod pair;
mod pauses;
mod pinning;
mod properties;
mod refusals;
mod restarts;
mod roles;
mod scenarios;
mod schedules;
mod states;
mod synchronisation;
mod table;
mod takeover;
mod votes;
