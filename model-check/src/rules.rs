//! What must hold, by name.

use core::fmt;

use serde::Serialize;

/// A rule of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Rule {
    /// S1.
    EpochsUsedOnce,
    /// S2.
    EpochDurableBeforeUse,
    /// S3.
    VemNeverGoesBack,
    /// S4.
    OneActiveWhenHealthy,
    /// S7.
    OnlyStableTakesOver,
    /// S8.
    NoSwitchoverWithoutStable,
    /// H1.
    NewestHistoryLeads,
    /// A1.
    NoGrantBesideMark,
    /// A2.
    LeaveNeedsDurableMark,
    /// A3.
    GrantOnlyToComplete,
    /// V1.
    OwnHighestEpoch,
    /// V2.
    StopsBeforeSaying,
    /// P1.
    NoPreemption,
    /// C1.
    LoserArchives,
    /// Q1.
    VotesForbid,
    /// R1.
    ResetsBounded,
    /// R2.
    ComesToRest,
    /// L1.
    HealsWithinBound,
    /// L2.
    HealthyPairRests,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 19] = [
        Self::EpochsUsedOnce,
        Self::EpochDurableBeforeUse,
        Self::VemNeverGoesBack,
        Self::OneActiveWhenHealthy,
        Self::OnlyStableTakesOver,
        Self::NoSwitchoverWithoutStable,
        Self::NewestHistoryLeads,
        Self::NoGrantBesideMark,
        Self::LeaveNeedsDurableMark,
        Self::GrantOnlyToComplete,
        Self::OwnHighestEpoch,
        Self::StopsBeforeSaying,
        Self::NoPreemption,
        Self::LoserArchives,
        Self::VotesForbid,
        Self::ResetsBounded,
        Self::ComesToRest,
        Self::HealsWithinBound,
        Self::HealthyPairRests,
    ];

    /// Its name, as it is printed and as mutants are said to be killed by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EpochsUsedOnce => "S1 no epoch is used twice, and none by two nodes",
            Self::EpochDurableBeforeUse => "S2 an epoch is durable before its use",
            Self::VemNeverGoesBack => "S3 a VEM never goes back, and obeys nobody but the highest",
            Self::OneActiveWhenHealthy => "S4 one active at most once all is healthy for a while",
            Self::OnlyStableTakesOver => "S7 only a stable standby takes over",
            Self::NoSwitchoverWithoutStable => "S8 no switchover without a stable standby",
            Self::NewestHistoryLeads => "H1 who boots leads only with every answered commit",
            Self::NoGrantBesideMark => "A1 no grant beside the alone mark",
            Self::LeaveNeedsDurableMark => {
                "A2 leave to commit alone needs a durable mark, and no grant"
            }
            Self::GrantOnlyToComplete => "A3 a grant only to a standby that holds all",
            Self::OwnHighestEpoch => "V1 acts under its own epoch, the highest it has seen",
            Self::StopsBeforeSaying => "V2 services stop before anybody is told that they have",
            Self::NoPreemption => "P1 nobody begins to lead while it hears an active",
            Self::LoserArchives => "C1 who loses a conflict asks for the archive before it ends",
            Self::VotesForbid => "Q1 no takeover on silence against a majority of alive VEMs",
            Self::ResetsBounded => "R1 resets that nothing new has caused are few",
            Self::ComesToRest => "R2 what happens at one instant ends",
            Self::HealsWithinBound => {
                "L1 healed, one leads and the other is stable, within a bound"
            }
            Self::HealthyPairRests => "L2 a healthy pair changes nothing by itself",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub rule: Rule,
    /// How.
    pub text: String,
}
