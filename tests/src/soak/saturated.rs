//! Scenario `saturated`: no core is idle, the active is stopped for less than the hold time now and
//! then, and nobody may fail over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::load::Load;
use super::{Profile, Violation, set_profile};
use crate::lab::{Lab, REDUNDANT};
use crate::{agent, site};

/// Threads that burn, for each core: the scheduler must always have another one to run.
const BURNERS_A_CORE: usize = 2;
/// Between two looks at the nodes.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// From one pause of the active to the next.
const PAUSE_EVERY: Duration = Duration::from_secs(3);

/// A stretch of the scenario.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Stretch {
    /// The heartbeat profile.
    pub profile: Profile,
    /// How long the active is stopped each time, in milliseconds; 0 is not at all.
    pub pause_ms: u64,
}

/// The stretches, each as long as is asked for.
pub const STRETCHES: [Stretch; 3] = [
    Stretch {
        profile: Profile::Default,
        pause_ms: 0,
    },
    Stretch {
        profile: Profile::Default,
        pause_ms: 200,
    },
    Stretch {
        profile: Profile::VmSafe,
        pause_ms: 2000,
    },
];

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Length of each stretch.
    pub duration: Duration,
    /// New connections a second.
    pub rate: u64,
}

/// What came of it. The field names are the documented schema of `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Always `saturated`.
    pub scenario: &'static str,
    /// Each stretch.
    pub stretches: Vec<Outcome>,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

/// One stretch.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// What was done.
    #[serde(flatten)]
    pub stretch: Stretch,
    /// How long.
    pub seconds: f64,
    /// How often the active was stopped.
    pub pauses: u64,
    /// Busy threads beside everything else.
    pub burners: usize,
    /// Looks at both nodes.
    pub looks: u64,
    /// Looks at which somebody else led than before, or under another epoch.
    pub role_changes: u64,
    /// Looks at which the standby was not ready to take over: it lagged.
    pub standby_not_ready: u64,
}

/// Runs the scenario on a redundant pair with the sample policy.
///
/// # Errors
/// When the site itself fails, not when the product does: that is in the report.
pub fn run(lab: &Lab, options: &Options, say: &dyn Fn(&str)) -> Result<Report> {
    let mut report = Report {
        scenario: "saturated",
        stretches: Vec::new(),
        violations: Vec::new(),
    };
    for stretch in STRETCHES {
        let mut load = Load::start(lab, options.rate)?;
        set_profile(lab, stretch.profile)?;
        let during = format!(
            "{}, pauses of {} ms",
            stretch.profile.word(),
            stretch.pause_ms
        );
        say(&format!("{during}: {:?}", options.duration));
        let outcome = one(lab, stretch, options.duration, &mut load)?;
        if outcome.role_changes > 0 {
            report.violations.push(Violation {
                during: during.clone(),
                what: format!("{} looks showed other roles", outcome.role_changes),
                replay: "cargo xtask soak --scenario saturated".to_owned(),
            });
        }
        say(&format!(
            "{during}: {} pauses, {} looks, {} role changes; {} times the standby was not ready",
            outcome.pauses, outcome.looks, outcome.role_changes, outcome.standby_not_ready
        ));
        report.stretches.push(outcome);
        load.stop()?;
    }
    Ok(report)
}

fn one(lab: &Lab, stretch: Stretch, length: Duration, load: &mut Load<'_>) -> Result<Outcome> {
    let active = lab.await_redundant()?;
    let epoch = super::await_obeyed(lab)?;
    let burners = thread::available_parallelism().map_or(2, usize::from) * BURNERS_A_CORE;
    let ended = AtomicBool::new(false);
    let (mut looks, mut role_changes, mut standby_not_ready, mut pauses) = (0, 0, 0, 0);
    let begun = Instant::now();
    thread::scope(|scope| -> Result<()> {
        for _ in 0..burners {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let pauser = scope.spawn(|| {
            let mut made = 0;
            while stretch.pause_ms > 0 && !ended.load(Ordering::Relaxed) {
                lab.fault(&["pause", active, "--for", &format!("{}ms", stretch.pause_ms)])?;
                made += 1;
                thread::sleep(PAUSE_EVERY.saturating_sub(Duration::from_millis(stretch.pause_ms)));
            }
            anyhow::Ok(made)
        });
        let looked = (|| {
            while begun.elapsed() < length {
                load.refresh()?;
                looks += 1;
                match look(lab, active, &epoch)? {
                    Look::AsBefore => {}
                    Look::StandbyNotReady => standby_not_ready += 1,
                    Look::RoleChange => role_changes += 1,
                }
                thread::sleep(LOOK_PAUSE);
            }
            anyhow::Ok(())
        })();
        // The burners end whatever happened.
        ended.store(true, Ordering::Relaxed);
        if let Ok(made) = pauser.join() {
            pauses = made?;
        }
        looked
    })?;
    Ok(Outcome {
        stretch,
        seconds: begun.elapsed().as_secs_f64().round(),
        pauses,
        burners,
        looks,
        role_changes,
        standby_not_ready,
    })
}

/// What a look shows.
enum Look {
    AsBefore,
    StandbyNotReady,
    RoleChange,
}

/// Whether `active` leads with a standby in step, and all agents obey it under the same epoch: a
/// change there and back would have raised it.
fn look(lab: &Lab, active: &str, epoch: &str) -> Result<Look> {
    for host in site::HOSTS {
        let status = agent::Status::peek(lab, host)?;
        if status.obeyed_epoch.as_deref() != Some(epoch) {
            return Ok(Look::RoleChange);
        }
    }
    // A node that is stopped answers when it goes on.
    if !lab.leads(active)? {
        return Ok(Look::RoleChange);
    }
    let state = lab.internal_state(active)?;
    Ok(if state.as_deref() == Some(REDUNDANT) {
        Look::AsBefore
    } else {
        Look::StandbyNotReady
    })
}
