//! What happens at one instant: cores are told, what they ask for is carried out, until all rests.

use core::time::Duration;

use model::{Epoch, LinkId, Time};
use redundancy::{Core, Input, Output, ServicesHealth};
use wire::control::ControlMessage;
use wire::heartbeat::State;
use wire::supervision::{Activity, Tally};

use crate::coverage::{Coverage, event_of};
use crate::rules::Rule;
use crate::site::{A, B, Comes, Event, Node, Site, TICK, TURN};

/// Events at one instant before it is said that they never end (R2). A cold start of both nodes
/// takes below a hundred.
const EVENTS_MAX: usize = 600;

/// Resets of one node without anything new having happened to the site (R1): those of a pair
/// that is restarted as often as the core allows, and one for what follows.
pub(crate) const RESETS_MAX: u8 = 5;

impl Site {
    /// Lets an interval pass.
    pub(crate) fn tick(&mut self, coverage: &Coverage) {
        let end = self.now + TICK;
        while self.now < end && self.broken.is_none() {
            self.now = self.now + TURN;
            if self.now == end {
                self.interval_ends(coverage);
            }
            for node in [A, B] {
                self.turn(node, coverage);
            }
        }
        if self.is_good() {
            // What is over leaves no trace.
            for node in &mut self.nodes {
                node.resets = 0;
                node.tally = Tally::default();
            }
        }
    }

    /// A node's turn, if it is due.
    fn turn(&mut self, node: usize, coverage: &Coverage) {
        let side = &self.nodes[node];
        let due = side.core.as_ref().and_then(Core::next_deadline);
        if side.is_awake() && due.is_some_and(|due| due <= self.now) {
            self.queue.push_back(Event::Tell(node, Input::Tick));
            self.settle(coverage);
        }
    }

    fn interval_ends(&mut self, coverage: &Coverage) {
        for node in [A, B] {
            let side = &self.nodes[node];
            if side.core.is_none() && side.comes == Comes::Soon {
                self.start(node);
            }
        }
        self.settle(coverage);
        self.connect();
        self.settle(coverage);
        self.end_votes();
        self.settle(coverage);
        for node in [A, B] {
            self.queue.push_back(Event::Beat(node));
        }
        self.settle(coverage);
        self.replicate(true);
        self.settle(coverage);
    }

    /// The control connection follows the link: it stands while both directions carry.
    fn connect(&mut self) {
        let stands = self.is_linked() && self.nodes.iter().all(Node::is_awake);
        let keeps = self.connection && self.is_linked();
        self.connection = stands || (keeps && self.nodes.iter().all(|node| node.core.is_some()));
        for node in [A, B] {
            let side = &mut self.nodes[node];
            if side.connected && (!self.connection || side.stale) {
                (side.connected, side.stale) = (false, false);
                side.pipe.clear();
                self.queue
                    .push_back(Event::Tell(node, Input::PeerDisconnected));
            }
            let side = &mut self.nodes[node];
            if !side.connected && self.connection && side.core.is_some() {
                side.connected = true;
                self.queue
                    .push_back(Event::Tell(node, Input::PeerConnected));
            }
        }
    }

    /// Carries out everything that follows at this instant.
    pub(crate) fn settle(&mut self, coverage: &Coverage) {
        for _ in 0..EVENTS_MAX {
            if self.broken.is_some() {
                self.queue.clear();
                return;
            }
            let Some(event) = self.queue.pop_front() else {
                self.report();
                if self.queue.is_empty() {
                    return;
                }
                continue;
            };
            self.happen(event, coverage);
        }
        self.fail(
            Rule::ComesToRest,
            format!("more than {EVENTS_MAX} events at one instant"),
        );
        self.queue.clear();
    }

    fn happen(&mut self, event: Event, coverage: &Coverage) {
        let now = self.now;
        match event {
            Event::Tell(node, input) => self.tell(node, input, coverage),
            Event::Durable(node) => {
                let side = &mut self.nodes[node];
                if side.slow_disk {
                    return;
                }
                if let Some((write, record)) = side.writes.pop_front() {
                    side.durable = record;
                    self.tell(node, Input::Persisted { write }, coverage);
                }
            }
            Event::Beat(from) => {
                let (side, other) = (&self.nodes[from], &self.nodes[1 - from]);
                let arrives = self.carries[from] && side.is_awake() && other.core.is_some();
                if let (true, Some(content)) = (arrives, side.said.clone()) {
                    let input = Input::Heartbeat {
                        link: LinkId(0),
                        content: content.clone(),
                        peer_hold_time: side.hold_time(),
                        echo: side.heard,
                    };
                    let listener = &mut self.nodes[1 - from];
                    (listener.heard, listener.granted) = (now, content.grant);
                    listener.heard_lsn = content.lsn;
                    self.tell(1 - from, input, coverage);
                }
            }
            Event::Control(from, message) => {
                if self.nodes[from].stalled {
                    // What is said again and again stands in the pipe once.
                    let pipe = &mut self.nodes[from].pipe;
                    if !pipe.contains(&message) {
                        pipe.push_back(message);
                    }
                } else if self.connection && self.carries[from] && self.nodes[1 - from].connected {
                    self.tell(1 - from, Input::Control(message), coverage);
                }
            }
            Event::Gasp(from, gasp) => {
                if self.carries[from] && self.nodes[1 - from].core.is_some() {
                    let awake = !self.nodes[1 - from].paused;
                    self.tell(1 - from, Input::Gasp(gasp.clone()), coverage);
                    if awake && self.carries[1 - from] {
                        self.tell(from, Input::GaspHeard(gasp), coverage);
                    }
                }
            }
            Event::Applied(node, sequence) => {
                // What `pss` says of its new place comes first.
                self.report();
                let input = Input::PostureApplied { sequence };
                self.queue.push_back(Event::Tell(node, input));
            }
            Event::Claim(node) => self.claim(node),
            Event::Reset(node) => self.reset(node),
        }
    }

    fn reset(&mut self, node: usize) {
        let side = &mut self.nodes[node];
        side.resets += 1;
        if side.resets > RESETS_MAX {
            self.fail(
                Rule::ResetsBounded,
                format!("{} resets itself again and again", name(node)),
            );
        }
        let closes = self.carries[node] && self.connection;
        self.kill(node, Comes::Soon);
        if closes && self.nodes[1 - node].connected {
            (self.nodes[1 - node].connected, self.nodes[1 - node].stale) = (false, false);
            self.queue
                .push_back(Event::Tell(1 - node, Input::PeerDisconnected));
        }
    }

    /// Tells a core, checks it, and carries out what it asks for.
    pub(crate) fn tell(&mut self, node: usize, input: Input, coverage: &Coverage) {
        let now = self.now;
        let linked = self.is_linked();
        let side = &mut self.nodes[node];
        if side.paused {
            if !matches!(input, Input::Tick) {
                // A pile of beats is read to the newest one.
                if matches!(input, Input::Heartbeat { .. }) {
                    side.waiting
                        .retain(|waiting| !matches!(waiting, Input::Heartbeat { .. }));
                }
                side.waiting.push_back(input);
            }
            return;
        }
        let heard = side.heard;
        let Some(core) = &mut side.core else { return };
        let before = Before {
            row: core.row(now),
            stable: (core.is_stable_standby() || side.granted)
                && side.bulk_done
                && side.health == ServicesHealth::Ready,
        };
        if let Some(event) = event_of(core, now, &input, heard) {
            coverage.note(before.row, event);
        }
        // A node that has not spoken yet is tried when it has.
        if self.nodes[node].said.is_some() && coverage.wants(before.row) {
            self.probe(node, before.row, coverage);
        }
        let Some(core) = &mut self.nodes[node].core else {
            return;
        };
        if coverage.tells() {
            println!("      {now} {} <- {input:?}", name(node));
        }
        core.handle(now, input);
        let mut outputs = Vec::new();
        while let Some(output) = core.poll_output() {
            outputs.push(output);
        }
        if let Err(violation) = core.check() {
            let rule =
                match violation {
                    redundancy::Violation::GrantWhileAlone
                    | redundancy::Violation::GrantNotGiven => Rule::NoGrantBesideMark,
                    redundancy::Violation::EpochNotDurable => Rule::EpochDurableBeforeUse,
                    redundancy::Violation::StableWithoutReservation => Rule::OnlyStableTakesOver,
                    redundancy::Violation::ForeignEpoch
                    | redundancy::Violation::ActsWithoutLeading => Rule::OwnHighestEpoch,
                };
            self.fail(rule, format!("{}: {violation}", name(node)));
        }
        let on_silence = outputs.iter().any(|output| {
            matches!(output, Output::Log(record)
                if record.mnemonic == "ROLE_CHANGE" && record.text.contains("silent"))
        });
        let alarmed = outputs.iter().any(
            |output| matches!(output, Output::Log(record) if record.mnemonic == "COMMITS_MISSING"),
        );
        let facts = Facts {
            linked,
            alarmed,
            on_silence,
        };
        for output in outputs {
            if self.nodes[node].core.is_none() {
                return;
            }
            self.carry_out(node, output, before, facts);
            if let Some(left) = &mut self.nodes[node].dies_after {
                *left -= 1;
                if *left == 0 {
                    self.kill(node, Comes::WhenStarted);
                }
            }
        }
    }

    fn carry_out(&mut self, node: usize, output: Output, before: Before, facts: Facts) {
        let acting = self.nodes[node].acting();
        let side = &mut self.nodes[node];
        match output {
            Output::Persist { write, record } => {
                side.last_write = write;
                side.writes.push_back((write, record));
                self.queue.push_back(Event::Durable(node));
            }
            Output::HeartbeatContent(content) => {
                if content.state != State::Active && acting.is_some() {
                    self.fail(
                        Rule::StopsBeforeSaying,
                        format!(
                            "{} says {:?} while its services act",
                            name(node),
                            content.state
                        ),
                    );
                }
                self.nodes[node].said = Some(content);
                self.queue.push_back(Event::Beat(node));
            }
            Output::HeartbeatTiming {
                interval_ms,
                misses,
            } => side.timing = (interval_ms, misses),
            Output::Control(message) => self.say(node, message),
            Output::Gasp(gasp) => {
                if acting.is_some() {
                    let text = format!("{} gasps while its services act", name(node));
                    self.fail(Rule::StopsBeforeSaying, text);
                }
                self.queue.push_back(Event::Gasp(node, gasp));
            }
            Output::SealGasp(gasp) => side.sealed = gasp,
            Output::Posture {
                sequence,
                activity,
                redundant,
                ..
            } => {
                if activity != Activity::Standby {
                    side.bulk_done = false;
                }
                if activity == Activity::Idle {
                    side.idle_since = sequence;
                }
                (side.told, side.redundant, side.posture) = (activity, redundant, sequence);
                self.queue.push_back(Event::Applied(node, sequence));
                self.queue.push_back(Event::Claim(node));
            }
            Output::AskVotes {
                vote, candidate, ..
            } => self.ask_votes(node, vote, candidate),
            Output::Archive { number, .. } => {
                let input = Input::Archived { number };
                self.queue.push_back(Event::Tell(node, input));
            }
            Output::Resync { whole } => side.bulk_done &= !whole,
            Output::AloneGranted { .. } => self.commit_alone(node),
            Output::Log(_) | Output::CommandDone { .. } => {}
            Output::Reset { .. } => {
                if acting.is_some() {
                    let text = format!("{} resets while its services act", name(node));
                    self.fail(Rule::StopsBeforeSaying, text);
                }
                self.queue.push_back(Event::Reset(node));
            }
            Output::Activated { epoch } => self.activated(node, epoch, before, facts),
        }
    }

    fn say(&mut self, node: usize, message: ControlMessage) {
        {
            if let ControlMessage::Grant { lsn, .. } = &message {
                let other = &self.nodes[1 - node];
                let holds = other.core.is_none() || (other.bulk_done && other.history.1 >= *lsn);
                if self.replicates() && !holds {
                    let text = format!("{} grants what the standby does not hold", name(node));
                    self.fail(Rule::GrantOnlyToComplete, text);
                }
            }
            if let ControlMessage::HandOver { .. } = &message {
                let stable = self.nodes[1 - node]
                    .core
                    .as_ref()
                    .is_some_and(Core::is_stable_standby);
                if self.is_linked() && self.nodes[1 - node].is_awake() && !stable {
                    let text = format!("{} hands over to a standby that is not stable", name(node));
                    self.fail(Rule::NoSwitchoverWithoutStable, text);
                }
                if self.nodes[node].acting().is_some() {
                    let text = format!("{} hands over while its services act", name(node));
                    self.fail(Rule::StopsBeforeSaying, text);
                }
            }
        }
        if self.nodes[node].connected {
            self.queue.push_back(Event::Control(node, message));
        }
    }

    /// The rules that are judged when a node begins to act.
    fn activated(&mut self, node: usize, epoch: Epoch, before: Before, facts: Facts) {
        let Facts {
            linked,
            alarmed,
            on_silence,
        } = facts;
        let side = &self.nodes[node];
        let other = &self.nodes[1 - node];
        let who = name(node);
        let mut broken = Vec::new();
        if epoch <= side.acted || epoch == other.acted {
            broken.push((
                Rule::EpochsUsedOnce,
                format!("{who} acts under {epoch} again"),
            ));
        }
        if side.durable.reserved_epoch.max(side.durable.highest_epoch) < epoch {
            broken.push((
                Rule::EpochDurableBeforeUse,
                format!("{who} acts under {epoch}, which is not on its disk"),
            ));
        }
        let took_over = before.row.starts_with("Standby");
        if took_over && !side.forced && !before.stable {
            let text = format!("{who} takes over from \"{}\"", before.row);
            broken.push((Rule::OnlyStableTakesOver, text));
        }
        let booted = before.row.starts_with("Booting") || before.row == "Activating";
        let survived = side.acted.incarnation == epoch.incarnation;
        if booted && !survived && !side.forced && !side.has_newest && !self.forked {
            let text = format!("{who} leads from its boot and lacks a commit that was answered");
            broken.push((Rule::NewestHistoryLeads, text));
        }
        let lacks = side.heard_lsn > side.history.1;
        if took_over && !side.forced && !alarmed && lacks {
            let text = format!("{who} takes over without a word on a commit that it lacks");
            broken.push((Rule::NewestHistoryLeads, text));
        }
        let heard = self.now.since(side.heard) < Duration::from_millis(1);
        if booted && !survived && linked && heard && other.acting().is_some() && other.is_awake() {
            let text = format!(
                "{who} begins to lead while it hears that {} acts",
                name(1 - node)
            );
            broken.push((Rule::NoPreemption, text));
        }
        let tally = side.tally;
        let counted = tally.alive + tally.silent > 0 && side.asked >= side.heard;
        if took_over && on_silence && (!counted || tally.alive > tally.silent) {
            let text = format!("{who} takes over on silence, with {tally:?}");
            broken.push((Rule::VotesForbid, text));
        }
        for (rule, text) in broken {
            self.fail(rule, text);
        }
        let side = &mut self.nodes[node];
        side.acted = epoch;
    }

    /// One leads, the other is stable, and every VEM obeys the one.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let acting: Vec<usize> = [A, B]
            .into_iter()
            .filter(|node| self.nodes[*node].acting().is_some())
            .collect();
        let [leader] = acting[..] else { return false };
        let row = |node: usize| {
            self.nodes[node]
                .core
                .as_ref()
                .map(|core| core.row(self.now))
        };
        self.connection
            && row(leader) == Some("Active, stable standby")
            && row(1 - leader) == Some("Standby, stable")
            && self
                .vems
                .iter()
                .all(|vem| vem.obeyed.is_some_and(|(by, _)| usize::from(by) == leader))
    }

    /// Its fingerprint.
    #[must_use]
    pub const fn fp(&self) -> u64 {
        self.fingerprint
    }

    /// Both act.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.nodes.iter().all(|node| node.acting().is_some())
    }

    /// When this instant is, for traces.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }
}

/// What a node was before it was told something.
#[derive(Clone, Copy, Debug)]
struct Before {
    row: &'static str,
    stable: bool,
}

/// What else is known when a core asks for something.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// Both directions of the link carried before.
    linked: bool,
    /// It tells of commits that it lacks.
    alarmed: bool,
    /// It takes over because the active is silent.
    on_silence: bool,
}

/// How a node is called in reports.
pub(crate) const fn name(node: usize) -> &'static str {
    if node == A { "sup-1" } else { "sup-2" }
}
