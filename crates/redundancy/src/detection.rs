//! What is known of the peer: whether it is ours, what it last said, how long it has been silent.
//!
//! Invariants:
//! - D1 of one incarnation, what the peer said last is never replaced by what it said before;
//! - D2 an incarnation that was followed by another is never listened to again;
//! - D3 silence is counted only while this node was awake: a pause of our own is added to it;
//! - D4 a superseded incarnation that speaks on is a clone: neither it nor the current one is heard
//!   while both speak.

use core::time::Duration;

use model::{Epoch, Incarnation, LinkId, PairId, Role, Time};
use wire::control::Hello;
use wire::heartbeat::Content;

use crate::heartbeat::LINKS_MAX;

/// Superseded incarnations remembered (D2). Frames of one that is four restarts old died with its
/// keys.
const RETIRED_MAX: usize = 4;

/// How long a link may come up after the first one (or the hold time, if that is longer) before it
/// counts as down: what opens them at the peer's start does so one after the other.
const LINK_STARTS: Duration = Duration::from_secs(1);

/// How the HA links are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// Every one is heard.
    Up,
    /// One has been lost, or has not come up, while another is heard.
    Degraded,
    /// None is heard, or one may yet come up.
    Unsettled,
}

/// How long what a node said before it restarted may still be on its way.
const CLONE_GRACE: Duration = Duration::from_secs(2);
/// So many frames of a superseded start after that are no stragglers: two nodes live.
const CLONE_FRAMES: u8 = 3;
/// How long after its last frame a clone is held against both: which of them is the peer cannot
/// be told.
const CLONE_MEMORY: Duration = Duration::from_secs(10);

/// Whether a second node speaks with the peer's identity (a clone, a restored snapshot): a start
/// that was superseded speaks on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
struct Twin {
    superseded: Time,
    frames: u8,
    last: Time,
}

impl Twin {
    /// A start was superseded just now. Clones that take turns do not begin anew.
    const fn since(self, now: Time) -> Self {
        Self {
            superseded: now,
            ..self
        }
    }

    fn note(&mut self, now: Time) {
        if now.since(self.superseded) >= CLONE_GRACE {
            self.frames = self.frames.saturating_add(1);
            self.last = now;
        }
    }

    fn is_seen(&mut self, now: Time) -> bool {
        if self.frames > 0 && now.since(self.last) >= CLONE_MEMORY {
            self.frames = 0;
        }
        self.frames >= CLONE_FRAMES
    }
}

/// The other node of the pair, as far as it is known.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Peer {
    /// The control connection stands.
    pub(crate) connected: bool,
    /// What it said first on this connection.
    pub(crate) hello: Option<Hello>,
    /// When it did.
    hello_at: Time,
    content: Option<Content>,
    /// Our beat that its newest content answers.
    echo: Time,
    incarnation: Option<Incarnation>,
    retired: Vec<Incarnation>,
    twin: Twin,
    heard: [Option<Time>; LINKS_MAX],
    /// When the first link was heard, of this incarnation and since the last silence.
    first_heard: Time,
    /// The epoch under which it said, on this connection, that it acts.
    taken_over: Option<Epoch>,
    /// When its last message on the control connection came.
    told: Option<Time>,
    hold_time: Duration,
    /// Why the node at the other end is not our peer, in the operator's words.
    pub(crate) fault: Option<String>,
}

impl Peer {
    pub(crate) fn new() -> Self {
        Self {
            connected: false,
            hello: None,
            hello_at: Time(0),
            content: None,
            echo: Time(0),
            incarnation: None,
            retired: Vec::new(),
            twin: Twin::default(),
            heard: [None; LINKS_MAX],
            first_heard: Time(0),
            taken_over: None,
            told: None,
            hold_time: Duration::ZERO,
            fault: None,
        }
    }

    /// Takes in a heartbeat. False if it is of an incarnation that has been superseded.
    pub(crate) fn beat(
        &mut self,
        now: Time,
        link: LinkId,
        content: Content,
        hold_time: Duration,
        echo: Time,
    ) -> bool {
        let before = self.incarnation;
        if !self.adopt(now, content.incarnation) {
            return false;
        }
        let up = |at: &Time| now.since(*at) < self.hold_time.max(hold_time);
        if self.content.is_none()
            || before != self.incarnation
            || !self.heard.iter().flatten().any(up)
        {
            self.first_heard = now;
        }
        if let Some(heard) = self.heard.get_mut(usize::from(link.0)) {
            *heard = Some(now);
        }
        self.hold_time = hold_time;
        if self
            .content
            .as_ref()
            .is_none_or(|known| content.revision >= known.revision)
        {
            self.content = Some(content);
            self.echo = self.echo.max(echo);
        }
        true
    }

    /// Takes in the first message of a connection.
    pub(crate) fn greet(&mut self, now: Time, hello: Hello) {
        if self.adopt(now, hello.incarnation) {
            self.hello_at = now;
            self.hello = Some(hello);
        }
    }

    /// Makes `incarnation` the current one. False if it is superseded.
    fn adopt(&mut self, now: Time, incarnation: Incarnation) -> bool {
        if self.retired.contains(&incarnation) {
            self.twin.note(now);
            return false;
        }
        if let Some(before) = self.incarnation
            && before != incarnation
        {
            if self.retired.len() == RETIRED_MAX {
                self.retired.remove(0);
            }
            self.retired.push(before);
            self.twin = self.twin.since(now);
            self.content = None;
            self.echo = Time(0);
            self.hello = None;
            self.taken_over = None;
        }
        self.incarnation = Some(incarnation);
        true
    }

    /// What the node at the other end says, ours or not, if it is not silent.
    pub(crate) fn heard(&self, now: Time, our_hold_time: Duration) -> Option<&Content> {
        let content = self.content.as_ref();
        content.filter(|_| !self.silent(now, our_hold_time))
    }

    /// Judges the node at the other end by its newest heartbeat.
    pub(crate) fn judge_by_heartbeat(&mut self, now: Time, ours: (Role, Option<PairId>)) {
        if let Some(content) = &self.content {
            let theirs = (content.role, content.pair);
            self.judge(now, ours, theirs);
        }
    }

    /// Judges whether a node that shows `role` and `pair` can be our peer.
    pub(crate) fn judge(
        &mut self,
        now: Time,
        ours: (Role, Option<PairId>),
        theirs: (Role, Option<PairId>),
    ) {
        if self.twin.is_seen(now) {
            let text = "two nodes bear the other supervisor's identity; stop the clone";
            self.fault = Some(text.to_owned());
            return;
        }
        self.fault = match (ours, theirs) {
            ((_, None), _) => Some("no pair ID is set (ha-pair id)".to_owned()),
            ((_, Some(our)), (_, their)) if their != Some(our) => Some(format!(
                "found, not paired: the other supervisor states pair ID {}, ours is {}",
                their.map_or("none".to_owned(), |id| id.number().to_string()),
                our.number()
            )),
            ((_, Some(_)), (Role::Standalone, _)) => {
                Some("found, not paired: the other supervisor is standalone".to_owned())
            }
            ((ours, Some(_)), (theirs, _)) if ours == theirs => Some(format!(
                "found, not paired: both supervisors have the role {ours}"
            )),
            ((_, Some(_)), (_, _)) => None,
        };
    }

    /// Its current start.
    pub(crate) const fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// The epoch it last said it would take over under.
    pub(crate) fn reserved(&self) -> Option<Epoch> {
        self.content
            .as_ref()
            .filter(|_| self.fault.is_none())?
            .reserved
    }

    /// The epoch whose active it orders to reset.
    pub(crate) fn orders_restart(&self) -> Option<Epoch> {
        self.content.as_ref()?.restart
    }

    /// What it says, if it is ours and not silent.
    pub(crate) fn says(&self, now: Time, our_hold_time: Duration) -> Option<&Content> {
        self.heard(now, our_hold_time)
            .filter(|_| self.fault.is_none())
    }

    /// The greeting, if it came after `since`, on a connection that stands, from our peer.
    pub(crate) fn greeted_since(&self, since: Time) -> Option<&Hello> {
        let counts = self.connected && self.fault.is_none() && self.hello_at > since;
        self.hello.as_ref().filter(|_| counts)
    }

    /// It has greeted on a connection that stands, and never sent a heartbeat.
    pub(crate) const fn has_only_greeted(&self) -> bool {
        self.connected && self.hello.is_some() && self.content.is_none()
    }

    /// No heartbeat has been heard since the greeting: what they said before a long silence is
    /// not what it says now.
    pub(crate) fn only_greeted(&self) -> bool {
        !self.heard.iter().flatten().any(|at| *at > self.hello_at)
    }

    /// True if what it says now was said after it had heard a beat that we sent after `since`.
    pub(crate) const fn answered_since(&self, since: Time) -> bool {
        self.echo.0 > since.0
    }

    /// Silence that counts as death: the larger of both sides' statements.
    pub(crate) fn hold_time(&self, ours: Duration) -> Duration {
        self.hold_time.max(ours)
    }

    /// A control connection has come or gone: what was said on the last one is not said any more.
    pub(crate) fn reconnect(&mut self, connected: bool) {
        self.connected = connected;
        self.hello = None;
        self.taken_over = None;
    }

    /// It said, on the control connection, that it acts under `epoch`.
    pub(crate) const fn note_taken_over(&mut self, epoch: Epoch) {
        self.taken_over = Some(epoch);
    }

    /// The epoch under which it said so on this connection.
    pub(crate) const fn taken_over(&self) -> Option<Epoch> {
        self.taken_over
    }

    /// It said something on the control connection: its System Manager lives.
    pub(crate) const fn note_told(&mut self, now: Time) {
        self.told = Some(now);
    }

    /// When a heartbeat was last heard on any link.
    pub(crate) fn beat_at(&self) -> Option<Time> {
        self.heard.iter().flatten().copied().max()
    }

    /// Control messages prolong a life that heartbeats have shown; they do not begin one.
    fn last_heard(&self) -> Option<Time> {
        let heard = self.beat_at()?;
        Some(self.told.map_or(heard, |told| told.max(heard)))
    }

    /// Nothing was heard on any link for the hold time, or ever.
    pub(crate) fn silent(&self, now: Time, our_hold_time: Duration) -> bool {
        self.silence_deadline(our_hold_time)
            .is_none_or(|deadline| now >= deadline)
    }

    /// When it will count as silent.
    pub(crate) fn silence_deadline(&self, our_hold_time: Duration) -> Option<Time> {
        self.last_heard()
            .map(|heard| heard + self.hold_time(our_hold_time))
    }

    /// How the first `links` links are.
    pub(crate) fn links(&self, now: Time, our_hold_time: Duration, links: u8) -> Links {
        let hold_time = self.hold_time(our_hold_time);
        let up = |heard: &Option<Time>| heard.is_some_and(|at| now.since(at) < hold_time);
        let links = || self.heard.iter().take(usize::from(links));
        let started = now.since(self.first_heard) >= LINK_STARTS.max(hold_time);
        let down = |heard: &Option<Time>| {
            let lost = heard.is_some_and(|at| at >= self.first_heard);
            !up(heard) && (lost || started)
        };
        if links().all(up) {
            Links::Up
        } else if links().any(up) && links().any(down) {
            Links::Degraded
        } else {
            Links::Unsettled
        }
    }

    /// This node did not listen for `pause`: the peer cannot be blamed for that (D3).
    pub(crate) fn forgive(&mut self, pause: Duration) {
        for heard in self.heard.iter_mut().flatten() {
            *heard = *heard + pause;
        }
        self.first_heard = self.first_heard + pause;
    }
}
