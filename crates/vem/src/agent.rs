//! The composition: which concern sees which input, and what follows.

mod deciding;
mod obedience;
mod voting;

use std::collections::VecDeque;

use model::{Epoch, Generation, Time};
use serde::{Deserialize, Serialize};
use wire::vem::{Fenced, FromVem};

use crate::fence::Fence;
use crate::gateways::{GatewayView, Gateways, Takeover};
use crate::input::Input;
use crate::output::{Event, Output};
use crate::reports::Reports;
use crate::revalidation::{Revalidation, WALK_ENTRIES};
use crate::types::{GatewayId, PortSettings};
use crate::votes::Votes;
use crate::waiting::{Due, HOLD_LIMIT, Settling, Waiting};

/// A failed write of the epoch is tried again after this.
const PERSIST_AGAIN_AFTER: core::time::Duration = core::time::Duration::from_secs(1);
/// Messages kept while the barrier of [`Output::Persist`] holds them; only signs of life and
/// refusals arise then. Above it they are dropped and counted.
const BLOCKED_SENDS_MAX: usize = 256;

/// What the host agent is configured with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the host.
    pub host: String,
    /// Its protected ports; [`crate::PortIndex`] counts here.
    pub ports: Vec<PortSettings>,
    /// How many gateways are configured; [`GatewayId`] counts to here.
    pub gateways: u8,
}

/// What has happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Flows asked for, repetitions not counted.
    pub asked: u64,
    /// Requests sent again because nobody answered.
    pub repeated: u64,
    /// Flows asked for again because another gateway is obeyed.
    pub asked_anew: u64,
    /// Verdicts of gateways: permit.
    pub permitted: u64,
    /// Verdicts of gateways: drop or reset.
    pub denied: u64,
    /// Flows permitted by the fail mode.
    pub failed_open: u64,
    /// Flows dropped by the fail mode.
    pub failed_closed: u64,
    /// Answers ignored: late, duplicate, of a foreign epoch, or of a gateway that is not obeyed.
    pub answers_ignored: u64,
    /// Claims refused.
    pub claims_refused: u64,
    /// Clones seen.
    pub clones: u64,
    /// Votes answered *alive*.
    pub votes_alive: u64,
    /// Votes answered *silent*.
    pub votes_silent: u64,
    /// Packets dropped because their flow or port held too much.
    pub held_full: u64,
    /// Packets dropped because their flow expired, was denied, or began anew meanwhile.
    pub held_stray: u64,
    /// Flows settled by force: packets were lost in a tap's queue.
    pub forced: u64,
    /// Verdicts asked for again under a newer policy.
    pub revalidated: u64,
    /// Messages dropped at the persist barrier.
    pub sends_lost: u64,
}

/// The host agent.
#[derive(Debug)]
pub struct Vem {
    settings: Settings,
    fence: Fence,
    persist_again_at: Option<Time>,
    gateways: Gateways,
    votes: Votes,
    waiting: Waiting,
    revalidation: Revalidation,
    reports: Reports,
    counters: Counters,
    next_request: u64,
    fail_mode_said: bool,
    effects: VecDeque<Output>,
    sends: VecDeque<Output>,
}

impl Vem {
    /// Starts with what of the fence is durable. `first_request` must differ from run to run
    /// (the shell takes its clock), so that answers to an earlier run are not mistaken for ours.
    #[must_use]
    pub fn new(now: Time, settings: Settings, durable: Fenced, first_request: u64) -> Self {
        let (gateways, ports) = (usize::from(settings.gateways), settings.ports.len());
        Self {
            settings,
            fence: Fence::new(durable),
            persist_again_at: None,
            gateways: Gateways::new(now, gateways),
            votes: Votes::default(),
            waiting: Waiting::new(ports),
            revalidation: Revalidation::new(),
            reports: Reports::default(),
            counters: Counters::default(),
            next_request: first_request,
            fail_mode_said: false,
            effects: VecDeque::new(),
            sends: VecDeque::new(),
        }
    }

    /// Takes one event at `now`, which never goes back.
    pub fn handle(&mut self, now: Time, input: Input) {
        // Answers to effects do nothing that is due: a shell that is behind its deadlines would
        // be given new effects for ever, and never come to the packets they wait for.
        let is_answer = matches!(input, Input::Settled { .. } | Input::Walked { .. });
        match input {
            Input::Tick => {}
            Input::Connected(gateway) => self.connected(gateway),
            Input::Disconnected(gateway) => self.disconnected(now, gateway),
            Input::Received { gateway, message } => self.received(now, gateway, message),
            Input::Persisted(fenced) => self.persisted(now, fenced),
            Input::PersistFailed(fenced) => {
                self.persist_again_at = Some(now + PERSIST_AGAIN_AFTER);
                self.log(Event::PersistFailed(fenced.floor()));
            }
            Input::Held {
                slot,
                flow,
                entry,
                bytes,
            } => self.held(now, slot, flow, entry, bytes),
            Input::Settled {
                flow,
                outcome,
                tap_empty,
            } => match self.waiting.settled(now, flow, outcome, tap_empty) {
                Settling::Over | Settling::Later => {}
                Settling::Force => {
                    self.counters.forced += 1;
                    self.effects.push_back(Output::Settle { flow, force: true });
                }
            },
            Input::Walked { stale, next } => self.walked(now, &stale, next),
            Input::Reported(report) => self.reported(now, report),
        }
        if !is_answer {
            self.do_due(now);
        }
    }

    /// The next effect.
    pub fn poll_output(&mut self) -> Option<Output> {
        let effect = self.effects.pop_front();
        effect.or_else(|| {
            if self.fence.is_durable() {
                self.sends.pop_front()
            } else {
                None
            }
        })
    }

    /// When to call [`Self::handle`] with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let reports = self
            .gateways
            .obeyed()
            .is_some()
            .then(|| self.reports.next_deadline())
            .flatten();
        let others = [
            self.waiting.next_deadline(),
            self.revalidation.next_deadline(),
            self.votes.next_deadline(),
            reports,
        ];
        let fail_mode = self.gateways.lost_at().map(|at| at + HOLD_LIMIT);
        let fail_mode = fail_mode.filter(|_| !self.fail_mode_said);
        others
            .into_iter()
            .chain([self.persist_again_at, fail_mode])
            .flatten()
            .min()
    }

    /// What has happened.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The epoch below which nothing is obeyed: the highest obeyed or promised.
    #[must_use]
    pub fn highest_epoch(&self) -> Epoch {
        self.fence.floor()
    }

    /// What the fence holds.
    #[must_use]
    pub const fn fenced(&self) -> Fenced {
        self.fence.held()
    }

    /// The epoch obeyed now, and its policy.
    #[must_use]
    pub fn obeyed(&self) -> Option<(GatewayId, Epoch, Generation)> {
        self.gateways
            .obeyed()
            .map(|obeyed| (obeyed.gateway, obeyed.epoch, obeyed.generation))
    }

    /// When the newest claim was accepted, and its first verdict arrived.
    #[must_use]
    pub const fn takeover(&self) -> Takeover {
        self.gateways.takeover()
    }

    /// The gateways, in the order of the configuration.
    #[must_use]
    pub fn gateways(&self) -> Vec<GatewayView> {
        self.gateways.views()
    }

    /// Flows undecided or draining, and packets held.
    #[must_use]
    pub fn waiting(&self) -> (usize, u32) {
        (self.waiting.flows(), self.waiting.held())
    }

    /// Asserts the invariants of the crate.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        let somebody = self.gateways.obeyed().is_some();
        self.fence.check();
        self.gateways.check(self.fence.floor());
        self.votes.check();
        self.waiting.check(somebody);
        self.revalidation.check(somebody);
        self.reports.check();
        assert!(
            !somebody || self.fence.is_durable(),
            "obeying an epoch that is not durable"
        );
    }

    fn do_due(&mut self, now: Time) {
        while let Some(due) = self.waiting.due(now) {
            match due {
                Due::Repeat { request, flow } => {
                    self.counters.repeated += 1;
                    self.send_request(request, flow, false);
                }
                Due::Fail(flow) => self.follow_fail_mode(now, flow),
                Due::Settle(flow) => {
                    self.effects
                        .push_back(Output::Settle { flow, force: false });
                }
            }
        }
        if self.persist_again_at.is_some_and(|at| at <= now) {
            self.persist_again_at = None;
            self.effects.push_back(Output::Persist(self.fence.held()));
        }
        self.end_votes(now);
        let lost_long = self
            .gateways
            .lost_at()
            .is_some_and(|at| now.since(at) >= HOLD_LIMIT);
        if lost_long && !self.fail_mode_said {
            self.fail_mode_said = true;
            self.log(Event::FailModeBegan);
        }
        let Some(obeyed) = self.gateways.obeyed() else {
            return;
        };
        if let Some(step) = self.revalidation.due(now) {
            let (older_than, after) = (step.older_than, step.after);
            self.effects.push_back(Output::Walk {
                older_than,
                after,
                limit: WALK_ENTRIES,
            });
        }
        if let Some(done) = self.revalidation.take_done()
            && done.asked > 0
        {
            let (generation, asked, turned) = (done.generation, done.asked, done.turned);
            self.log(Event::Revalidated {
                generation,
                asked,
                turned,
            });
        }
        self.aim(now);
        while let Some(message) = self.reports.take(now) {
            self.send(obeyed.gateway, message);
        }
    }

    fn send(&mut self, gateway: GatewayId, message: FromVem) {
        if !self.fence.is_durable() && self.sends.len() >= BLOCKED_SENDS_MAX {
            self.counters.sends_lost += 1;
            return;
        }
        self.sends.push_back(Output::Send { gateway, message });
    }

    fn log(&mut self, event: Event) {
        self.effects.push_back(Output::Log(event));
    }
}

#[cfg(test)]
mod tests;
