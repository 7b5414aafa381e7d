//! Scenario `pauses`: every process of the active is stopped for a while, and goes on.
//!
//! What must hold each time:
//! - P1: the stream lives and stalls no longer than in a window without a fault;
//! - P2: no datagram is lost or reordered, no new connection fails, nothing forbidden passes;
//! - P3: one node is active within a hold time of the resuming;
//! - P4: all host agents obey that one, and none ever obeyed an older epoch after a newer.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::load::Load;
use super::watch::Watch;
use super::{LOOK_LATE_MS, Profile, Violation, await_obeyed, await_one_active, set_profile};
use crate::clock;
use crate::lab::Lab;
use crate::traffic::Window;

/// How much longer than in its control window an established flow may stall, and at most, in
/// milliseconds: the demo's promise.
const STALL_OVER_CONTROL_MS: f64 = 5.0;
const STALL_MS: f64 = 20.0;
/// How long after the resuming a window ends: a SYN that was sent again shows after a second.
const AFTER: Duration = Duration::from_millis(1500);
/// Before the fault: see [`super::random`].
const LEAD_NS: u64 = 20_000_000;
/// Longest wait for a single active.
const ONE_ACTIVE_LIMIT: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// At these heartbeat profiles.
    pub profiles: Vec<Profile>,
    /// For so long each, in milliseconds.
    pub pauses_ms: Vec<u64>,
    /// So often each.
    pub repetitions: usize,
    /// New connections a second.
    pub rate: u64,
}

/// What came of it. The field names are the documented schema of `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Always `pauses`.
    pub scenario: &'static str,
    /// Each pause.
    pub pauses: Vec<Pause>,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

/// One pause.
#[derive(Debug, Serialize)]
pub struct Pause {
    /// The heartbeat profile.
    pub profile: Profile,
    /// How long the active was stopped.
    pub pause_ms: u64,
    /// Which repetition, from 1.
    pub repetition: usize,
    /// Whether the other node leads afterwards.
    pub failed_over: bool,
    /// Whether the stream lives.
    pub stream_alive: bool,
    /// The longest stall of an established flow.
    pub stall_ms: f64,
    /// The same in a window of the same length just before.
    pub control_stall_ms: f64,
    /// Datagrams lost.
    pub udp_lost: u64,
    /// Datagrams out of order.
    pub udp_reordered: u64,
    /// New connections that failed.
    pub connections_failed: u64,
    /// The slowest new connection.
    pub slowest_connect_ms: f64,
    /// From the resuming until one node says that it is active.
    pub one_active_ms: f64,
}

/// Runs the scenario on a redundant pair with the sample policy.
///
/// # Errors
/// When the site itself fails, not when the product does: that is in the report.
pub fn run(lab: &Lab, options: &Options, say: &dyn Fn(&str)) -> Result<Report> {
    let watch = Watch::default();
    thread::scope(|scope| {
        watch.run(lab, scope);
        let ended = all(lab, options, &watch, say);
        watch.stop();
        ended
    })
}

fn all(lab: &Lab, options: &Options, watch: &Watch, say: &dyn Fn(&str)) -> Result<Report> {
    let mut report = Report {
        scenario: "pauses",
        pauses: Vec::new(),
        violations: Vec::new(),
    };
    let mut load = Load::start(lab, options.rate)?;
    for profile in &options.profiles {
        set_profile(lab, *profile)?;
        for pause_ms in &options.pauses_ms {
            for repetition in 1..=options.repetitions {
                load.refresh()?;
                let pause = once(lab, watch, (*profile, *pause_ms, repetition))?;
                let during = format!(
                    "{}, {pause_ms} ms, {repetition} of {}",
                    profile.word(),
                    options.repetitions
                );
                say(&format!(
                    "{during}: stall {:.1} ms (control {:.1}), slowest connect {:.1} ms, one \
                     active after {:.0} ms",
                    pause.stall_ms,
                    pause.control_stall_ms,
                    pause.slowest_connect_ms,
                    pause.one_active_ms
                ));
                let wrong = broken(&pause).into_iter().chain(watch.take_violations());
                for what in wrong {
                    say(&format!("VIOLATION ({during}): {what}"));
                    report.violations.push(Violation {
                        during: during.clone(),
                        what,
                        replay: "cargo xtask soak --scenario pauses".to_owned(),
                    });
                }
                report.pauses.push(pause);
            }
        }
    }
    load.stop()?;
    Ok(report)
}

fn once(
    lab: &Lab,
    watch: &Watch,
    (profile, pause_ms, repetition): (Profile, u64, usize),
) -> Result<Pause> {
    let active = lab.await_redundant()?;
    await_obeyed(lab)?;
    let length = Duration::from_millis(pause_ms) + AFTER;
    // The window is measured, not waited for: no state tells that it is over.
    thread::sleep(length);
    let control_until_ns = clock::now_ns();
    watch.apart();
    let fault = lab.fault(&["pause", active, "--for", &format!("{pause_ms}ms")])?;
    let bound_ns = (profile.hold_ms() + LOOK_LATE_MS) * 1_000_000;
    watch.in_contact(fault.done_ns + bound_ns);
    let one_active_ms = await_one_active(lab, fault.done_ns, ONE_ACTIVE_LIMIT)?;
    let survivor = lab.await_redundant()?;
    await_obeyed(lab)?;
    let end_ns = fault.done_ns + u64::try_from(AFTER.as_nanos()).unwrap_or(u64::MAX);
    thread::sleep(Duration::from_nanos(end_ns.saturating_sub(clock::now_ns())));
    let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    let control = lab.settled_traffic(control_until_ns - length_ns, control_until_ns)?;
    let window = lab.settled_traffic(fault.at_ns - LEAD_NS, end_ns)?;
    Ok(Pause {
        profile,
        pause_ms,
        repetition,
        failed_over: survivor != active,
        one_active_ms: (one_active_ms * 10.0).round() / 10.0,
        control_stall_ms: control.stall_ms(),
        ..of_window(&window, profile, pause_ms)
    })
}

fn of_window(window: &Window, profile: Profile, pause_ms: u64) -> Pause {
    Pause {
        profile,
        pause_ms,
        repetition: 0,
        failed_over: false,
        stream_alive: window.tcp_alive,
        stall_ms: window.stall_ms(),
        control_stall_ms: 0.0,
        udp_lost: window.udp_lost,
        udp_reordered: window.udp_reordered,
        // One that reached the forbidden port is worse than one that failed.
        connections_failed: window.connections_failed + window.forbidden_reached,
        slowest_connect_ms: window.connect_slowest_ms,
        one_active_ms: 0.0,
    }
}

fn broken(pause: &Pause) -> Vec<String> {
    let mut wrong = Vec::new();
    if !pause.stream_alive {
        wrong.push("the established stream is dead".to_owned());
    }
    if pause.udp_lost + pause.udp_reordered > 0 {
        let (lost, reordered) = (pause.udp_lost, pause.udp_reordered);
        wrong.push(format!("UDP: {lost} lost, {reordered} reordered"));
    }
    if pause.connections_failed > 0 {
        wrong.push(format!("{} connections failed", pause.connections_failed));
    }
    let limit_ms = STALL_MS.min(pause.control_stall_ms + STALL_OVER_CONTROL_MS);
    if pause.stall_ms > limit_ms {
        let (stall, control) = (pause.stall_ms, pause.control_stall_ms);
        wrong.push(format!("stall {stall:.1} ms, control {control:.1} ms"));
    }
    // Whole milliseconds far below the 53 bits that a double holds.
    let bound_ms = (pause.profile.hold_ms() + LOOK_LATE_MS) as f64;
    if pause.one_active_ms > bound_ms {
        let took = pause.one_active_ms;
        wrong.push(format!("one active only {took:.0} ms after the resuming"));
    }
    wrong
}
