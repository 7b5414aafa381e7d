//! Scenario `stalls`: both nodes stop at once for a moment, as on a machine that is itself stopped,
//! again and again, and nobody may fail over.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::load::Load;
use super::watch::Watch;
use super::{Profile, Violation, await_obeyed, set_profile};
use crate::lab::Lab;
use crate::{clock, site};

/// How long both are stopped, in milliseconds: longer than the hold time of the default profile.
const STALL_MS: u64 = 400;
/// From one stall to the next: the pair has looked around by then.
const BETWEEN: Duration = Duration::from_millis(400);

/// What came of it. The field names are the documented schema of `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Always `stalls`.
    pub scenario: &'static str,
    /// How often both nodes were stopped.
    pub stalls: usize,
    /// How long each time.
    pub stall_ms: u64,
    /// The longest stall of an established flow meanwhile.
    pub established_stall_ms: f64,
    /// The slowest new connection.
    pub slowest_connect_ms: f64,
    /// Stalls after which somebody else led, or under another epoch.
    pub role_changes: usize,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

/// Stops both nodes of a redundant pair with the sample policy, `times` times.
///
/// # Errors
/// When the site itself fails, not when the product does: that is in the report.
pub fn run(lab: &Lab, times: usize, rate: u64, say: &dyn Fn(&str)) -> Result<Report> {
    let watch = Watch::default();
    thread::scope(|scope| {
        watch.run(lab, scope);
        let ended = all(lab, times, rate, &watch, say);
        watch.stop();
        ended
    })
}

fn all(lab: &Lab, times: usize, rate: u64, watch: &Watch, say: &dyn Fn(&str)) -> Result<Report> {
    set_profile(lab, Profile::Default)?;
    let mut report = Report {
        scenario: "stalls",
        stalls: times,
        stall_ms: STALL_MS,
        established_stall_ms: 0.0,
        slowest_connect_ms: 0.0,
        role_changes: 0,
        violations: Vec::new(),
    };
    let mut complain = |during: String, what: String| {
        say(&format!("VIOLATION ({during}): {what}"));
        report.violations.push(Violation {
            during,
            what,
            replay: "cargo xtask soak --scenario stalls".to_owned(),
        });
    };
    let mut load = Load::start(lab, rate)?;
    let active = lab.await_redundant()?;
    let mut epoch = await_obeyed(lab)?;
    let mut from_ns = clock::now_ns();
    for number in 1..=times {
        both(lab)?;
        thread::sleep(BETWEEN);
        let during = format!("stall {number} of {times}");
        let now = await_obeyed(lab)?;
        if now != epoch {
            report.role_changes += 1;
            complain(
                during.clone(),
                format!("epoch {now} is obeyed instead of {epoch}"),
            );
            epoch = now;
        }
        for what in watch.take_violations() {
            complain(during.clone(), what);
        }
        let ends = number == times;
        if ends || load.is_used() {
            let window = lab.settled_traffic(from_ns, clock::now_ns())?;
            report.established_stall_ms = report.established_stall_ms.max(window.stall_ms());
            report.slowest_connect_ms = report.slowest_connect_ms.max(window.connect_slowest_ms);
            let lost = window.udp_lost + window.udp_reordered;
            let bad = lost + window.connections_failed + window.forbidden_reached;
            if bad > 0 || !window.tcp_alive {
                complain(during, format!("the traffic met {window:?}"));
            }
            if !ends {
                load.refresh()?;
                from_ns = clock::now_ns();
            }
        }
    }
    let after = lab.await_redundant()?;
    if after != active {
        complain(
            "the end".to_owned(),
            format!("{after} leads instead of {active}"),
        );
    }
    load.stop()?;
    Ok(report)
}

fn both(lab: &Lab) -> Result<()> {
    let span = format!("{STALL_MS}ms");
    thread::scope(|scope| {
        let span = &span;
        let threads =
            site::NODES.map(|node| scope.spawn(move || lab.fault(&["pause", node, "--for", span])));
        for thread in threads {
            thread.join().ok().context("a stopping thread")??;
        }
        Ok(())
    })
}
