//! One repetition of a step: a control window, the fault, its window.
//!
//! ```text
//!   │◀── control window ──▶│ counters │ lead │◀────── fault window ──────▶│ counters
//!                                          │▲ the fault
//! ```
//! Both windows are equally long, and the traffic is the same in both. The fault window begins a
//! little before the fault, because connections that are on their way then meet it too.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use system_tests::traffic::Window;
use system_tests::{Lab, agent, clock, site, wait};

use super::step::Step;

/// Length of both windows. The slowest promise is below half a second; a SYN that had to be sent
/// again waits for one more second and shows.
const WINDOW: Duration = Duration::from_millis(2500);
const WINDOW_NS: u64 = 2_500_000_000;

/// How long before the fault its window begins: longer than a connect takes without a fault.
const LEAD_NS: u64 = 20_000_000;

/// Between reading the counters and the fault; more than [`LEAD_NS`], so that whatever the window
/// holds is decided after the reading.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest wait for the survivor to say that it leads.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);

/// What one repetition showed.
pub(crate) struct Sample {
    /// Before the fault.
    pub(crate) control: Window,
    /// From the fault on.
    pub(crate) fault: Window,
    /// Verdicts on new connections that gateways gave in the fault window.
    pub(crate) decided_by_gateway: u64,
    /// From the fault to the first decision by the new active, in milliseconds; `None` where the
    /// active stays.
    pub(crate) takeover_ms: Option<f64>,
    /// Whether each host agent obeys the node that leads, under one epoch, and obeyed no older
    /// one since.
    pub(crate) one_active_obeyed: bool,
}

/// Runs one repetition on a redundant pair, and leaves a redundant pair.
pub(crate) fn repetition(lab: &Lab, step: Step) -> Result<Sample> {
    let active = lab.await_redundant()?;
    // The window is measured, not waited for: no state tells that it is over.
    thread::sleep(WINDOW);
    let control_until = clock::now_ns();
    let before = Counters::read(lab)?;
    thread::sleep(PAUSE);
    let at_ns = step.strike(lab, active)?;
    let from_ns = at_ns - LEAD_NS;
    thread::sleep(remaining(from_ns));
    let after = Counters::read(lab)?;
    let expected = if step.moves_the_active() {
        site::other(active)
    } else {
        active
    };
    wait::until(&format!("{expected} leads"), TAKEOVER_LIMIT, || {
        Ok(lab.leads(expected)?.then_some(()))
    })?;
    step.mend(lab, active)?;
    let survivor = lab.await_redundant()?;
    if survivor != expected {
        bail!(
            "{survivor} leads after '{}', expected {expected}",
            step.title()
        );
    }
    let ended = Counters::read(lab)?;
    Ok(Sample {
        control: lab.settled_traffic(control_until - WINDOW_NS, control_until)?,
        fault: lab.settled_traffic(from_ns, from_ns + WINDOW_NS)?,
        decided_by_gateway: after.decided.saturating_sub(before.decided),
        takeover_ms: step
            .moves_the_active()
            .then(|| after.takeover_ms(at_ns))
            .flatten(),
        one_active_obeyed: ended.agree(),
    })
}

fn remaining(from_ns: u64) -> Duration {
    Duration::from_nanos((from_ns + WINDOW_NS).saturating_sub(clock::now_ns()))
}

impl Sample {
    /// The longest stall of an established flow in the fault window, in milliseconds.
    pub(crate) fn stall_ms(&self) -> f64 {
        self.fault.stall_ms()
    }

    /// The same in the control window.
    pub(crate) fn control_stall_ms(&self) -> f64 {
        self.control.stall_ms()
    }
}

/// What the host agents have counted and seen.
struct Counters {
    /// New connections that a gateway permitted at the servers' ports; each is decided once more
    /// at the client's.
    decided: u64,
    agents: Vec<agent::Status>,
}

impl Counters {
    fn read(lab: &Lab) -> Result<Self> {
        let agents = site::HOSTS.iter().map(|host| agent::Status::of(lab, host));
        Ok(Self {
            decided: agent::Status::of(lab, site::SERVER_HOST)?
                .counters
                .permitted,
            agents: agents.collect::<Result<_>>()?,
        })
    }

    /// From `at_ns` to the first verdict that any agent took under a claim accepted since.
    fn takeover_ms(&self, at_ns: u64) -> Option<f64> {
        let first = self
            .agents
            .iter()
            .filter(|agent| {
                agent
                    .claim_accepted_ns()
                    .is_some_and(|claimed| claimed >= at_ns)
            })
            .filter_map(agent::Status::first_decision_ns)
            .min()?;
        // A u64 of nanoseconds since the fault is far below the 53 bits that a double holds.
        Some(first.saturating_sub(at_ns) as f64 / 1_000_000.0)
    }

    /// Whether all agents take verdicts under the same epoch, the highest they have seen.
    fn agree(&self) -> bool {
        self.agents.iter().all(|agent| {
            let obeyed = agent.obeyed_epoch.as_ref();
            obeyed == Some(&agent.highest_epoch)
                && obeyed
                    == self
                        .agents
                        .first()
                        .and_then(|first| first.obeyed_epoch.as_ref())
        })
    }
}
