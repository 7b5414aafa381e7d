//! Scenario `random`: one fault after another, sometimes two at once, commits in flight meanwhile.
//!
//! What must hold of each round, beside what [`super::watch`] sees:
//! - R1: the stream lives, and no datagram is lost or reordered;
//! - R2: no new connection fails, and the forbidden port is tried and never reached;
//! - R3: the node leads that must ([`Fault::leader`]);
//! - R4: one node is active within a hold time of the mending;
//! - R5: the pair is redundant again, all host agents obey the one active, within a bound;
//! - R6: whatever both nodes acknowledged is there ([`super::ledger`]); what one did is there, or in
//!   the archive of a lost conflict.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use super::distribution::Distribution;
use super::fault::{Fault, Leader, Struck};
use super::ledger::{Change, Counts, Ledger, Level};
use super::load::Load;
use super::watch::Watch;
use super::{LOOK_LATE_MS, Profile, Violation, await_obeyed, await_one_active, ms_between};
use crate::lab::Lab;
use crate::traffic::Window;
use crate::{clock, wait};

/// Rounds at one heartbeat profile before the other one's turn, when both are asked for.
const ROUNDS_A_PROFILE: u64 = 20;
/// Shortest round from its fault to the next: a SYN that is sent again shows after a second, and a
/// node that dies young too often is started ever more slowly.
const ROUND_MIN: Duration = Duration::from_millis(1600);
/// How long before a fault its window begins: connections that are on their way then meet it too.
const LEAD_NS: u64 = 20_000_000;
/// Between two commits that are made while a fault strikes.
const COMMIT_PAUSE: Duration = Duration::from_millis(40);
/// How long commits are made before the fault.
const COMMIT_LEAD: Duration = Duration::from_millis(80);
/// Longest wait for a single active: beyond it the round is a failure whatever the bound.
const ONE_ACTIVE_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the archive of a node that lost a conflict: it hands it over once it is in
/// step.
const ARCHIVE_LIMIT: Duration = Duration::from_secs(10);
/// A window whose connections have not all ended is looked at again so often: a connection may
/// take five seconds, a round takes two.
const LOOKS_MAX: u32 = 6;
/// Violations after which going on teaches nothing.
const VIOLATIONS_MAX: usize = 20;
/// The longest stall of an established flow that the machine itself may cause, in milliseconds.
const STALL_MS: f64 = 250.0;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long, at most.
    pub duration: Duration,
    /// The faults follow from it.
    pub seed: u64,
    /// The number of the first round; each round's faults follow from seed and number.
    pub first_round: u64,
    /// How many rounds, at most.
    pub rounds: u64,
    /// New connections a second.
    pub rate: u64,
    /// The heartbeat profile; none means default and fast in turn.
    pub profile: Option<Profile>,
}

/// What came of it. The field names are the documented schema of `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Always `random`.
    pub scenario: &'static str,
    /// The seed.
    pub seed: u64,
    /// How long it took.
    pub seconds: f64,
    /// Faults one after the other.
    pub rounds: u64,
    /// Rounds after which another node leads than before.
    pub failovers: u64,
    /// The same, a minute.
    pub failovers_per_minute: f64,
    /// How often each fault struck.
    pub faults: BTreeMap<String, u64>,
    /// The longest stall of an established flow, of each round with a failover.
    pub stall_ms: Distribution,
    /// The slowest new connection, of each round with a failover.
    pub slowest_connect_ms: Distribution,
    /// The same of all rounds.
    pub slowest_connect_all_ms: Distribution,
    /// From the mending to a redundant pair.
    pub redundant_ms: Distribution,
    /// From the mending to one active, where both could lead.
    pub one_active_ms: Distribution,
    /// New connections, all rounds together.
    pub connections: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Attempts at the forbidden port; none arrived, or it is a violation.
    pub forbidden_attempts: u64,
    /// SYN segments that were sent again.
    pub syn_retransmitted: u64,
    /// Commits.
    pub commits: Counts,
    /// Looks at nodes and host agents.
    pub looks: u64,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

/// A round whose traffic has yet to be looked at.
struct Pending {
    number: u64,
    what: String,
    failed_over: bool,
    may_cost_a_syn: bool,
    from_ns: u64,
    to_ns: u64,
    looks: u32,
}

/// What a round was.
struct Round {
    number: u64,
    faults: Vec<Fault>,
    commits: bool,
    second_after: Duration,
}

impl Round {
    /// Follows from seed and number alone.
    fn plan(seed: u64, number: u64) -> Self {
        // Any odd number keeps neighbouring rounds apart; this one is 2^64 divided by the golden
        // ratio.
        let mut chance = StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut faults = vec![Fault::draw(&mut chance)];
        if chance.random_range(0..6_u32) == 0 {
            faults.push(Fault::draw_second(&mut chance));
        }
        Self {
            number,
            faults,
            commits: chance.random_range(0..2_u32) == 0,
            second_after: Duration::from_millis(chance.random_range(0..400)),
        }
    }

    fn describe(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        faults.join(" and ")
    }

    fn leader(&self, hold_ms: u64) -> Leader {
        match &self.faults[..] {
            [one] => one.leader(hold_ms),
            // Two at once may move it there and back.
            [..] => Leader::Any,
        }
    }
}

/// Runs the scenario on a redundant pair with the sample policy; `keep` is given the figures so far
/// now and then, so that a run that is killed has not been for nothing.
///
/// # Errors
/// When the site itself fails, not when the product does: that is in the report.
pub fn run(
    lab: &Lab,
    options: &Options,
    say: &dyn Fn(&str),
    keep: &dyn Fn(&Report),
) -> Result<Report> {
    let watch = Watch::default();
    let mut soak = Soak {
        lab,
        options,
        say,
        keep,
        started_ns: clock::now_ns(),
        watch: &watch,
        ledger: Ledger::default(),
        pending: VecDeque::new(),
        profile: options.profile.unwrap_or(Profile::Default),
        figures: Figures::default(),
        violations: Vec::new(),
    };
    thread::scope(|scope| {
        watch.run(lab, scope);
        let ended = soak.rounds();
        watch.stop();
        ended
    })?;
    Ok(soak.report())
}

/// Figures of the rounds so far.
#[derive(Default)]
struct Figures {
    rounds: u64,
    failovers: u64,
    faults: BTreeMap<String, u64>,
    stalls: Vec<f64>,
    connects: Vec<f64>,
    connects_all: Vec<f64>,
    redundant: Vec<f64>,
    one_active: Vec<f64>,
    connections: u64,
    datagrams: u64,
    forbidden_attempts: u64,
    syn_retransmitted: u64,
}

struct Soak<'a> {
    lab: &'a Lab,
    options: &'a Options,
    say: &'a dyn Fn(&str),
    keep: &'a dyn Fn(&Report),
    started_ns: u64,
    watch: &'a Watch,
    ledger: Ledger,
    pending: VecDeque<Pending>,
    profile: Profile,
    figures: Figures,
    violations: Vec<Violation>,
}

impl Soak<'_> {
    fn rounds(&mut self) -> Result<()> {
        let mut load = Load::start(self.lab, self.options.rate)?;
        super::set_profile(self.lab, self.profile)?;
        let last = self.options.first_round.saturating_add(self.options.rounds);
        for number in self.options.first_round..last {
            let elapsed = Duration::from_nanos(clock::now_ns() - self.started_ns);
            if elapsed >= self.options.duration || self.violations.len() >= VIOLATIONS_MAX {
                break;
            }
            if load.is_used() {
                self.look_at_all()?;
                load.refresh()?;
            }
            self.turn_profile(number)?;
            let round = Round::plan(self.options.seed, number);
            if let Err(error) = self.round(&round) {
                // A pair that does not come back is what the soak looks for.
                self.complain(number, &round.describe(), format!("{error:#}"));
                break;
            }
            self.look_at_some(1)?;
            if number.is_multiple_of(ROUNDS_A_PROFILE) {
                (self.keep)(&self.report());
            }
        }
        self.look_at_all()?;
        load.stop()
    }

    fn turn_profile(&mut self, number: u64) -> Result<()> {
        if self.options.profile.is_some() {
            return Ok(());
        }
        let wanted = if (number / ROUNDS_A_PROFILE).is_multiple_of(2) {
            Profile::Default
        } else {
            Profile::Fast
        };
        if wanted == self.profile {
            return Ok(());
        }
        let before = self.lab.await_redundant()?;
        super::set_profile(self.lab, wanted)?;
        self.profile = wanted;
        let after = self.lab.await_redundant()?;
        if before != after {
            let what = format!("the active moved from {before} to {after}");
            self.complain(number, &format!("profile {}", wanted.word()), what);
        }
        Ok(())
    }

    fn round(&mut self, round: &Round) -> Result<()> {
        let what = round.describe();
        let hold_ms = self.profile.hold_ms();
        let active = self.lab.await_redundant()?;
        let begun_ns = clock::now_ns();
        self.watch.apart();
        let struck = self.strike(round, active)?;
        let bound_ms = hold_ms + LOOK_LATE_MS;
        self.watch
            .in_contact(struck.mended_ns + bound_ms * 1_000_000);
        let may_split = round.faults.iter().any(Fault::may_split);
        if may_split {
            let took_ms = await_one_active(self.lab, struck.mended_ns, ONE_ACTIVE_LIMIT)?;
            self.figures.one_active.push(took_ms);
        }
        let survivor = self.lab.await_redundant()?;
        self.figures
            .redundant
            .push(ms_between(struck.mended_ns, clock::now_ns()));
        await_obeyed(self.lab)?;
        self.check_leader(round, active, survivor);
        self.check_commits(round, survivor)?;
        self.note(round, active != survivor);
        thread::sleep(ROUND_MIN.saturating_sub(Duration::from_nanos(
            clock::now_ns().saturating_sub(begun_ns),
        )));
        self.pending.push_back(Pending {
            number: round.number,
            what: what.clone(),
            failed_over: active != survivor,
            // Two at once may leave nobody who decides, for as long as a node takes to boot.
            may_cost_a_syn: round.faults.len() > 1
                || round.faults.iter().any(Fault::may_cost_a_syn),
            from_ns: struck.at_ns - LEAD_NS,
            to_ns: clock::now_ns(),
            looks: 0,
        });
        for seen in self.watch.take_violations() {
            self.complain(round.number, &what, seen);
        }
        Ok(())
    }

    /// Makes the round's faults, and commits meanwhile if it has some.
    fn strike(&mut self, round: &Round, active: &str) -> Result<Struck> {
        let ended = AtomicBool::new(false);
        let (lab, ledger) = (self.lab, &mut self.ledger);
        thread::scope(|scope| {
            let committer = round
                .commits
                .then(|| scope.spawn(|| commit_until(lab, ledger, active, &ended)));
            if round.commits {
                thread::sleep(COMMIT_LEAD);
            }
            let second = round.faults.get(1).map(|fault| {
                scope.spawn(|| {
                    thread::sleep(round.second_after);
                    // What it was to strike may be dead already.
                    let _ = fault.strike(lab, active);
                })
            });
            let struck = round.faults[0].strike(lab, active);
            if let Some(second) = second {
                second.join().ok().context("the second fault's thread")?;
            }
            ended.store(true, Ordering::Relaxed);
            if let Some(committer) = committer {
                committer.join().ok().context("the committing thread")??;
            }
            let mut struck = struck?;
            if round.faults.len() > 1 {
                struck.mended_ns = struck.mended_ns.max(clock::now_ns());
            }
            Ok(struck)
        })
    }

    fn check_leader(&mut self, round: &Round, before: &str, after: &str) {
        let moved = before != after;
        let wrong = match round.leader(self.profile.hold_ms()) {
            Leader::Moves => !moved,
            Leader::Stays => moved,
            Leader::Any => false,
        };
        if wrong {
            let what = if moved {
                format!("{after} took over from {before}")
            } else {
                format!("{before} leads still")
            };
            self.complain(round.number, &round.describe(), what);
        }
    }

    fn check_commits(&mut self, round: &Round, active: &str) -> Result<()> {
        let running = self.lab.must_shell(active, &["show running-config"])?;
        let found = self.ledger.compare(&running);
        for wrong in found.wrong {
            self.complain(round.number, &round.describe(), wrong);
        }
        for zone in found.gone {
            if let Err(error) = await_archived(self.lab, active, &zone) {
                let what = format!("{zone} was acknowledged by one node and is gone: {error:#}");
                self.complain(round.number, &round.describe(), what);
            }
        }
        Ok(())
    }

    fn note(&mut self, round: &Round, failed_over: bool) {
        self.figures.rounds += 1;
        self.figures.failovers += u64::from(failed_over);
        for fault in &round.faults {
            let value = serde_json::to_value(fault).unwrap_or_default();
            let name = value["fault"].as_str().unwrap_or("?").to_owned();
            *self.figures.faults.entry(name).or_default() += 1;
        }
    }

    fn look_at_all(&mut self) -> Result<()> {
        self.look_at_some(0)
    }

    /// Looks at the traffic of all rounds but the last `left`; those whose connections are still
    /// under way are looked at again later, unless none is to be left.
    fn look_at_some(&mut self, left: usize) -> Result<()> {
        let mut again = VecDeque::new();
        while self.pending.len() > left {
            let Some(mut round) = self.pending.pop_front() else {
                break;
            };
            let window = if left == 0 {
                self.lab.settled_traffic(round.from_ns, round.to_ns)?
            } else {
                self.lab.traffic(round.from_ns, round.to_ns)?
            };
            round.looks += 1;
            if window.complete || round.looks >= LOOKS_MAX {
                self.judge(&round, &window);
            } else {
                again.push_back(round);
            }
        }
        again.append(&mut self.pending);
        self.pending = again;
        Ok(())
    }

    fn judge(&mut self, round: &Pending, window: &Window) {
        let mut wrong = Vec::new();
        if !window.complete {
            wrong.push("the records of the traffic are incomplete".to_owned());
        }
        if !window.tcp_alive {
            wrong.push("the established stream is dead".to_owned());
        }
        let udp = window.udp_lost + window.udp_reordered;
        if udp > 0 {
            let (lost, reordered) = (window.udp_lost, window.udp_reordered);
            wrong.push(format!("UDP: {lost} lost, {reordered} reordered"));
        }
        if window.stall_ms() > STALL_MS {
            wrong.push(format!(
                "established flows stalled {} ms",
                window.stall_ms()
            ));
        }
        if window.connections_failed > 0 {
            wrong.push(format!("{} connections failed", window.connections_failed));
        }
        if window.syn_retransmitted > 0 && !round.may_cost_a_syn {
            wrong.push(format!("{} SYN sent again", window.syn_retransmitted));
        }
        if window.forbidden_attempts == 0 || window.forbidden_reached > 0 {
            let (tried, reached) = (window.forbidden_attempts, window.forbidden_reached);
            wrong.push(format!(
                "forbidden port: {tried} attempts, {reached} arrived"
            ));
        }
        for what in wrong {
            self.complain(round.number, &round.what, what);
        }
        let figures = &mut self.figures;
        if round.failed_over {
            figures.stalls.push(window.stall_ms());
            figures.connects.push(window.connect_slowest_ms);
        }
        figures.connects_all.push(window.connect_slowest_ms);
        figures.connections += window.connections;
        figures.datagrams += window.udp_sent;
        figures.forbidden_attempts += window.forbidden_attempts;
        figures.syn_retransmitted += window.syn_retransmitted;
        (self.say)(&format!(
            "round {:>4}: {}{}: stall {:.1} ms, slowest connect {:.1} ms",
            round.number,
            round.what,
            if round.failed_over {
                ", failed over"
            } else {
                ""
            },
            window.stall_ms(),
            window.connect_slowest_ms
        ));
    }

    fn complain(&mut self, number: u64, during: &str, what: String) {
        (self.say)(&format!("VIOLATION in round {number} ({during}): {what}"));
        let profile = self.profile.word();
        self.violations.push(Violation {
            during: format!("round {number}: {during}"),
            what,
            replay: format!(
                "cargo xtask soak --seed {} --round {number} --rounds 1 --profile {profile}",
                self.options.seed
            ),
        });
    }

    fn report(&self) -> Report {
        let figures = &self.figures;
        let seconds = ms_between(self.started_ns, clock::now_ns()) / 1000.0;
        // Counts far below the 53 bits that a double holds.
        let a_minute = figures.failovers as f64 * 60.0 / seconds.max(1.0);
        Report {
            scenario: "random",
            seed: self.options.seed,
            seconds,
            rounds: figures.rounds,
            failovers: figures.failovers,
            failovers_per_minute: (a_minute * 10.0).round() / 10.0,
            faults: figures.faults.clone(),
            stall_ms: Distribution::of(figures.stalls.clone()),
            slowest_connect_ms: Distribution::of(figures.connects.clone()),
            slowest_connect_all_ms: Distribution::of(figures.connects_all.clone()),
            redundant_ms: Distribution::of(figures.redundant.clone()),
            one_active_ms: Distribution::of(figures.one_active.clone()),
            connections: figures.connections,
            datagrams: figures.datagrams,
            forbidden_attempts: figures.forbidden_attempts,
            syn_retransmitted: figures.syn_retransmitted,
            commits: self.ledger.counts(),
            looks: self.watch.looks(),
            violations: self.violations.clone(),
        }
    }
}

/// Waits until an archive of a lost conflict, as `active` shows it, holds `zone`.
fn await_archived(lab: &Lab, active: &str, zone: &str) -> Result<()> {
    wait::until("an archive that holds it", ARCHIVE_LIMIT, || {
        for number in lab.conflicts(active)? {
            let show = format!("show redundancy conflicts {number}");
            if lab.must_shell(active, &[&show])?.contains(zone) {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
}

/// Commits on `node` until `ended`.
fn commit_until(lab: &Lab, ledger: &mut Ledger, node: &str, ended: &AtomicBool) -> Result<()> {
    while !ended.load(Ordering::Relaxed) {
        let change: Change = ledger.plan();
        let level: Level = change.commit(lab, node)?;
        ledger.note(&change, level);
        thread::sleep(COMMIT_PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_follows_from_seed_and_number() {
        let describe = |seed, number| Round::plan(seed, number).describe();
        assert_eq!(describe(1, 7), describe(1, 7));
        let all: std::collections::BTreeSet<String> =
            (0..40).map(|number| describe(1, number)).collect();
        assert!(all.len() > 20, "{all:?}");
    }
}
