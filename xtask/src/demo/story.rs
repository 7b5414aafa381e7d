//! The order of it all.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use system_tests::{Lab, clock, site, wait};

use super::Options;
use super::figures::{Demo, StepFigures};
use super::measure::{self, Sample};
use super::promise;
use super::step::Step;
use crate::progress::Progress;

/// Seconds after which the traffic ends by itself: more than the whole story takes.
const TRAFFIC_SECONDS: u64 = 1200;

/// How long the traffic runs before it is looked at: connections, caches and witnesses settle.
const SETTLE: Duration = Duration::from_secs(2);

/// Longest wait for the first clean second of traffic.
const CLEAN_LIMIT: Duration = Duration::from_secs(20);

/// Longest wait for both nodes to use a changed heartbeat.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(10);

/// A change that is never saved; harmless, because no rule uses the zone.
const UNSAVED_CHANGE: &str = "zone never-saved@root\ncondition 1 net.ip-address eq 10.9.0.200";
/// What it looks like in a difference.
const UNSAVED_MARK: &str = "never-saved@root";

/// Runs the story on a lab that is up.
pub(crate) fn tell(lab: &Lab, options: &Options, progress: &Progress) -> Result<Demo> {
    let boot_ms = lab
        .report()
        .boot_ms
        .context("the lab does not say how long it booted")?;
    let active = lab.await_redundant()?;
    progress.line(&format!("{active} leads, redundant after {boot_ms} ms"));
    prepare(lab, active, progress)?;
    let mut steps = Vec::new();
    let mut broken = Vec::new();
    for step in Step::value_variants()
        .iter()
        .copied()
        .filter(|step| options.takes(*step))
    {
        let mut samples = Vec::new();
        for number in 1..=options.repetitions() {
            set_heartbeat(lab, step.profile())?;
            progress.begin(&format!(
                "{} ({number} of {})",
                step.title(),
                options.repetitions()
            ));
            let sample = measure::repetition(lab, step).inspect_err(|_| progress.end("FAILED"))?;
            progress.end(&summary(&sample));
            for promise in promise::broken(step, &sample) {
                progress.line(&format!("  BROKEN: {promise}"));
                broken.push(format!("{} ({number}): {promise}", step.title()));
            }
            samples.push(sample);
        }
        steps.push(StepFigures::of(step, &samples));
    }
    set_heartbeat(lab, "default")?;
    lab.stop_traffic()?;
    let unsaved_change_kept = is_unsaved(lab, lab.await_redundant()?)?;
    if !unsaved_change_kept {
        broken.push("the unsaved change is gone, or saved".to_owned());
    }
    let promises_held = broken.is_empty();
    Ok(Demo {
        boot_ms,
        steps,
        unsaved_change_kept,
        promises_held,
        broken,
    })
}

/// Policy, the unsaved change, and clean traffic.
fn prepare(lab: &Lab, active: &str, progress: &Progress) -> Result<()> {
    progress.line("loading the policy through vsh, saving it, and changing one thing unsaved");
    lab.configure(active, site::POLICY)?;
    lab.must_shell(active, &["copy running-config startup-config"])?;
    lab.configure(active, UNSAVED_CHANGE)?;
    if !is_unsaved(lab, active)? {
        bail!("the change just made does not show in 'show running-config diff'");
    }
    progress.line("starting traffic: a TCP stream, UDP, 500 new connections/s, nginx, iperf3");
    lab.start_traffic(TRAFFIC_SECONDS)?;
    std::thread::sleep(SETTLE);
    let window = wait::until("a clean second of traffic", CLEAN_LIMIT, || {
        let now_ns = clock::now_ns();
        let window = lab.traffic(now_ns - 1_000_000_000, now_ns)?;
        let clean = window.tcp_alive
            && window.connections > 0
            && window.connections_failed + window.udp_lost + window.syn_retransmitted == 0;
        Ok(clean.then_some(window))
    })?;
    if window.forbidden_attempts == 0 || window.forbidden_reached > 0 {
        bail!(
            "the forbidden port: {} attempts, {} reached it",
            window.forbidden_attempts,
            window.forbidden_reached
        );
    }
    progress.line(&format!(
        "traffic is clean: {:.0} new connections/s, slowest {:.1} ms; forbidden port: {} attempts, \
         none reached it",
        window.connections_per_s, window.connect_slowest_ms, window.forbidden_attempts
    ));
    Ok(())
}

/// Sees to it that both nodes use the heartbeat `profile`; the slower of the two counts until both
/// have it, so the hold time on each tells.
fn set_heartbeat(lab: &Lab, profile: &str) -> Result<()> {
    lab.await_redundant()?;
    let hold_time_ms = if profile == "fast" { 30 } else { 300 };
    let holds = format!("Hold time:   {hold_time_ms} ms");
    let uses_it = |node: &str| -> Result<bool> {
        Ok(lab
            .shell(node, &["show redundancy heartbeat"])?
            .text
            .contains(&holds))
    };
    if uses_it(site::NODES[0])? && uses_it(site::NODES[1])? {
        return Ok(());
    }
    for node in site::NODES {
        lab.must_shell(node, &[&format!("system redundancy heartbeat {profile}")])?;
    }
    wait::until(
        &format!("a hold time of {hold_time_ms} ms"),
        HEARTBEAT_LIMIT,
        || Ok((uses_it(site::NODES[0])? && uses_it(site::NODES[1])?).then_some(())),
    )
}

fn is_unsaved(lab: &Lab, node: &str) -> Result<bool> {
    let text = lab.must_shell(node, &["show running-config diff"])?;
    let running = lab.must_shell(node, &["show running-config"])?;
    Ok(text.contains(UNSAVED_MARK) && running.contains(UNSAVED_MARK))
}

fn summary(sample: &Sample) -> String {
    let takeover = match sample.takeover_ms {
        Some(takeover_ms) => format!(", takeover {takeover_ms:.1} ms"),
        None => String::new(),
    };
    format!(
        "stall {:.1} ms (control {:.1}), slowest connect {:.1} ms{takeover}",
        sample.stall_ms(),
        sample.control_stall_ms(),
        sample.fault.connect_slowest_ms,
    )
}
