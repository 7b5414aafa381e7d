//! The schedules that must come out right, as scripts: one file each, replayable by
//! `sim --schedule N`.

mod s01_survivor_of_a_split;
mod s02_isolated_standby;
mod s03_old_active_boots_alone;
mod s04_both_boot_after_a_takeover;
mod s05_crossing_takeovers;
mod s06_acknowledgements_lost;
mod s07_contact_by_any_path;
mod s08_whole_host_stalls;
mod s09_interval_changes;
mod s10_crash_between_steps;

use crate::script::Script;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Its number.
    pub number: usize,
    /// What happens in it.
    pub what: &'static str,
    script: fn(&mut Script) -> Result<(), String>,
}

impl Schedule {
    /// Plays it.
    ///
    /// # Errors
    /// What did not come out as it must.
    pub fn run(&self, readable: bool) -> Result<(), String> {
        let mut script = Script::new(self.number as u64, readable);
        (self.script)(&mut script)?;
        script.ends()
    }
}

/// All of them.
pub const ALL: [Schedule; 10] = [
    Schedule {
        number: 1,
        what: "B survives a split and decides again at once, under a new epoch",
        script: s01_survivor_of_a_split::play,
    },
    Schedule {
        number: 2,
        what: "a standby that is cut off from everything does not take over",
        script: s02_isolated_standby::play,
    },
    Schedule {
        number: 3,
        what: "the old active boots alone and does not lead with old configuration",
        script: s03_old_active_boots_alone::play,
    },
    Schedule {
        number: 4,
        what: "both boot after a takeover: the new active's commits survive",
        script: s04_both_boot_after_a_takeover::play,
    },
    Schedule {
        number: 5,
        what: "crossing takeovers, an old reservation, a clone: no epoch twice",
        script: s05_crossing_takeovers::play,
    },
    Schedule {
        number: 6,
        what: "acknowledgements lost one way: the gap is named, nothing is silently gone",
        script: s06_acknowledgements_lost::play,
    },
    Schedule {
        number: 7,
        what: "two actives in contact by any one path: one within a hold time",
        script: s07_contact_by_any_path::play,
    },
    Schedule {
        number: 8,
        what: "the whole host stalls a hundred times: no role change",
        script: s08_whole_host_stalls::play,
    },
    Schedule {
        number: 9,
        what: "the interval goes from 10 s to 10 ms and back: no role change",
        script: s09_interval_changes::play,
    },
    Schedule {
        number: 10,
        what: "power fails between any two steps of every course",
        script: s10_crash_between_steps::play,
    },
];
