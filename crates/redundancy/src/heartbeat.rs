//! The heartbeat path: what goes out on each HA link and when, and what comes in.
//!
//! One value, owned by the real-time heartbeat thread of `vsgd` and by the simulation alike. Its
//! steady path ([`HeartbeatPath::poll_send`], [`HeartbeatPath::received`]) allocates nothing.
//!
//! Invariants:
//! - H1 no beat leaves when the main loop has not finished a turn for our own hold time: a thread
//!   that lives must not speak for a node that is stuck;
//! - H2 beats leave at the shorter of both nodes' intervals until both state the same one, so that
//!   a change on a live pair never looks like silence;
//! - H3 of each link, a frame is passed on once and never after a newer one; nothing is taken from
//!   an incarnation that another has followed.
//!
//! Not done here: sealing, replay windows, sockets (the shell), and what silence means (the core).

mod measure;

use core::time::Duration;

use measure::Measure;
use model::{DropReason, Incarnation, LinkId, Time};
use wire::heartbeat::{Content, Datagram, Gasp, Heartbeat};
use wire::supervision::{HeartbeatStatus, LinkStatus};

/// Most HA links of a node: the original has two (control, management); four leave room.
pub const LINKS_MAX: usize = 4;
/// Shortest and longest interval an operator may set, in milliseconds (issue: 10 ms to 10 s); also
/// what a peer's statement is clamped to, so that no frame can make us wait for ever.
pub const INTERVAL_MS: (u32, u32) = (10, 10_000);
/// Fewest and most beats that may be missed.
pub const MISSES: (u8, u8) = (2, 20);
/// Interval of the default profile, 3 × 100 ms.
pub const DEFAULT_INTERVAL_MS: u32 = 100;
/// Misses of every profile.
pub const DEFAULT_MISSES: u8 = 3;
/// Pause between two gasps: short against every profile's hold time, so that a lost one costs
/// little; at most [`GASPS_MAX`] are sent.
pub const GASP_PACE_MS: u32 = 5;
/// Gasps sent on each link when nobody answers: then the peer is dead or deaf.
pub const GASPS_MAX: u8 = 60;
/// Superseded incarnations of the peer that are remembered (H3). Frames of one that is four
/// restarts old died with its keys.
const RETIRED_MAX: usize = 4;

/// An interval and the beats that may be missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Milliseconds between beats.
    pub interval_ms: u32,
    /// Beats that may be missed.
    pub misses: u8,
}

impl Timing {
    /// The default profile.
    pub const DEFAULT: Self = Self {
        interval_ms: DEFAULT_INTERVAL_MS,
        misses: DEFAULT_MISSES,
    };

    /// `interval_ms` and `misses` brought into [`INTERVAL_MS`] and [`MISSES`]; zero is the default
    /// profile's value.
    #[must_use]
    pub fn clamped(interval_ms: u32, misses: u8) -> Self {
        let or = |value, default| if value == 0 { default } else { value };
        Self {
            interval_ms: or(interval_ms, DEFAULT_INTERVAL_MS).clamp(INTERVAL_MS.0, INTERVAL_MS.1),
            misses: if misses == 0 {
                DEFAULT_MISSES
            } else {
                misses.clamp(MISSES.0, MISSES.1)
            },
        }
    }

    /// Time between beats.
    #[must_use]
    pub const fn interval(self) -> Duration {
        Duration::from_millis(self.interval_ms as u64)
    }

    /// Silence after which the sender counts as dead.
    #[must_use]
    pub const fn hold_time(self) -> Duration {
        Duration::from_millis(self.interval_ms as u64 * self.misses as u64)
    }
}

/// What a received frame tells beyond its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The peer's hold time.
    pub peer_hold_time: Duration,
    /// When the newest of our beats that the peer had received was sent; zero if it had none.
    pub echo: Time,
}

/// What is measured of one link.
#[derive(Clone, Debug, Default)]
pub struct LinkMonitor {
    incarnation: Incarnation,
    sequence: u64,
    last_seen: Option<Time>,
    echo_ns: u64,
    /// Newest beat of ours whose round trip was measured.
    echo_measured_ns: u64,
    sent: u64,
    received: u64,
    lost: u64,
    refused: u64,
    round_trip_us: u64,
    round_trips: Measure,
    lateness: Measure,
}

impl LinkMonitor {
    fn received(&mut self, now: Time, frame: &Heartbeat) -> bool {
        let restarted = self.incarnation != frame.content.incarnation;
        if !restarted && frame.sequence <= self.sequence {
            return false;
        }
        if restarted {
            self.incarnation = frame.content.incarnation;
        } else {
            self.lost += frame.sequence - self.sequence - 1;
            if frame.sequence == self.sequence + 1 {
                self.note_lateness(now, frame.interval_ms);
            }
        }
        self.sequence = frame.sequence;
        self.received += 1;
        self.last_seen = Some(now);
        self.echo_ns = frame.sent_ns;
        // An echo that was measured before is older now, not slower.
        if (self.echo_measured_ns + 1..=now.0).contains(&frame.echo_ns) {
            self.echo_measured_ns = frame.echo_ns;
            let passed = now.0.saturating_sub(frame.echo_ns);
            self.round_trip_us = passed.saturating_sub(frame.echo_held_ns) / 1000;
            self.round_trips.record(self.round_trip_us);
        }
        true
    }

    /// Only lateness counts: a beat that a change of state sent early is no jitter.
    fn note_lateness(&mut self, now: Time, interval_ms: u32) {
        let gap = self
            .last_seen
            .map_or(Duration::ZERO, |seen| now.since(seen));
        let late = gap.saturating_sub(Duration::from_millis(u64::from(interval_ms)));
        self.lateness.record(late.as_micros() as u64);
    }

    fn status(&self, now: Time, link: LinkId, name: &str, hold_time: Duration) -> LinkStatus {
        LinkStatus {
            link,
            name: name.to_owned(),
            up: self
                .last_seen
                .is_some_and(|seen| now.since(seen) <= hold_time),
            sent: self.sent,
            received: self.received,
            lost: self.lost,
            refused: self.refused,
            round_trip_us: self.round_trip_us,
            round_trip_mean_us: self.round_trips.mean_us(),
            round_trip_p99_us: self.round_trips.p99_us(),
            jitter_us: self.lateness.max_us(),
            jitter_p99_us: self.lateness.p99_us(),
            last_seen_ms: self
                .last_seen
                .map(|seen| now.since(seen).as_millis() as u64),
        }
    }
}

/// The last words of a node, being repeated.
#[derive(Clone, Debug)]
struct Gasping {
    gasp: Gasp,
    next: Time,
    left: u8,
}

/// Both directions of the heartbeat on all links.
#[derive(Clone, Debug)]
pub struct HeartbeatPath {
    content: Option<Content>,
    timing: Timing,
    /// What the peer last stated.
    peer: Option<Timing>,
    main_loop_turned: Time,
    next_beat: Time,
    /// Link that is next in the beat under way.
    cursor: Option<usize>,
    gasping: Option<Gasping>,
    gasp_cursor: Option<usize>,
    links: [LinkMonitor; LINKS_MAX],
    link_count: usize,
    /// The peer's newest start, and those before it (H3).
    incarnation: Option<Incarnation>,
    retired: [Option<Incarnation>; RETIRED_MAX],
}

/// What the peer must know at once.
fn at_once(content: &Content) -> impl PartialEq {
    (
        (content.state, content.epoch, content.reserved),
        (content.pair, content.role, content.grant),
        (content.contest, content.restart, content.down),
    )
}

impl HeartbeatPath {
    /// A path over `links` links (at most [`LINKS_MAX`]) that is silent until it has a content.
    #[must_use]
    pub fn new(now: Time, links: u8) -> Self {
        Self {
            content: None,
            timing: Timing::DEFAULT,
            peer: None,
            main_loop_turned: now,
            next_beat: now,
            cursor: None,
            gasping: None,
            gasp_cursor: None,
            links: Default::default(),
            link_count: usize::from(links).min(LINKS_MAX),
            incarnation: None,
            retired: [None; RETIRED_MAX],
        }
    }

    /// What beats say from now on. A change of what the peer must know at once is sent at once, a mere change of positions with the next beat.
    pub fn set_content(&mut self, now: Time, content: Content) {
        let urgent = self
            .content
            .as_ref()
            .is_none_or(|old| at_once(old) != at_once(&content));
        self.content = Some(content);
        if urgent {
            self.next_beat = now;
            self.cursor = None;
        }
    }

    /// Our timing from now on; sent at once.
    pub fn set_timing(&mut self, now: Time, interval_ms: u32, misses: u8) {
        self.timing = Timing::clamped(interval_ms, misses);
        self.next_beat = now;
        self.cursor = None;
    }

    /// The main loop has finished a turn. To be stamped at the end of a turn, after its content
    /// has been handed over: a node that wakes from a pause must not speak before it has thought.
    pub fn main_loop_turned(&mut self, now: Time) {
        self.main_loop_turned = self.main_loop_turned.max(now);
    }

    /// Says at once, and again and again until it is heard, that this node's epoch has ended.
    pub fn start_gasp(&mut self, now: Time, gasp: Gasp) {
        self.gasping = Some(Gasping {
            gasp,
            next: now,
            left: GASPS_MAX,
        });
        self.gasp_cursor = None;
    }

    /// The peer has heard it. True if it was the gasp being repeated.
    pub fn gasp_heard(&mut self, gasp: &Gasp) -> bool {
        let heard = self
            .gasping
            .as_ref()
            .is_some_and(|gasping| gasping.gasp == *gasp);
        if heard {
            self.gasping = None;
            self.gasp_cursor = None;
        }
        heard
    }

    /// When [`Self::poll_send`] is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        if self.cursor.is_some() || self.gasp_cursor.is_some() {
            return Time(0);
        }
        self.gasping
            .as_ref()
            .map_or(self.next_beat, |gasping| self.next_beat.min(gasping.next))
    }

    /// The next datagram due and its link; `None` when there is nothing more to send now.
    pub fn poll_send(&mut self, now: Time) -> Option<(LinkId, Datagram)> {
        if let Some(sent) = self.poll_gasp(now) {
            return Some(sent);
        }
        if self.cursor.is_none() && now >= self.next_beat {
            let pace = self.pace();
            let next = self.next_beat + pace;
            // A beat that is late by more than one is not made up for.
            self.next_beat = if next > now { next } else { now + pace };
            let stuck = now.since(self.main_loop_turned) >= self.timing.hold_time();
            if !stuck && self.content.is_some() && self.link_count > 0 {
                self.cursor = Some(0);
            }
        }
        let index = self.cursor?;
        let content = self.content.clone()?;
        self.cursor = (index + 1 < self.link_count).then_some(index + 1);
        Some((
            LinkId(index as u8),
            Datagram::Heartbeat(self.frame(now, index, content)),
        ))
    }

    fn poll_gasp(&mut self, now: Time) -> Option<(LinkId, Datagram)> {
        let gasping = self.gasping.as_mut()?;
        if self.gasp_cursor.is_none() && now >= gasping.next && self.link_count > 0 {
            if gasping.left == 0 {
                self.gasping = None;
                return None;
            }
            gasping.left -= 1;
            gasping.next = now + Duration::from_millis(u64::from(GASP_PACE_MS));
            self.gasp_cursor = Some(0);
        }
        let index = self.gasp_cursor?;
        let gasp = self.gasping.as_ref()?.gasp.clone();
        self.gasp_cursor = (index + 1 < self.link_count).then_some(index + 1);
        Some((LinkId(index as u8), Datagram::Gasp(gasp)))
    }

    fn frame(&mut self, now: Time, index: usize, content: Content) -> Heartbeat {
        let monitor = &mut self.links[index];
        monitor.sent += 1;
        Heartbeat {
            sequence: monitor.sent,
            sent_ns: now.0,
            echo_ns: monitor.echo_ns,
            echo_held_ns: monitor
                .last_seen
                .map_or(0, |seen| now.since(seen).as_nanos() as u64),
            interval_ms: self.timing.interval_ms,
            misses: self.timing.misses,
            content,
        }
    }

    /// A verified frame. `None`: it is old, and nothing more is to be done with it.
    pub fn received(&mut self, now: Time, link: LinkId, frame: &Heartbeat) -> Option<Received> {
        if usize::from(link.0) >= self.link_count || !self.adopt(frame.content.incarnation) {
            return None;
        }
        if !self.links[usize::from(link.0)].received(now, frame) {
            return None;
        }
        let timing = Timing::clamped(frame.interval_ms, frame.misses);
        self.peer = Some(timing);
        // A peer that has begun to beat faster is followed at once (H2).
        self.next_beat = self.next_beat.min(now + self.pace());
        Some(Received {
            peer_hold_time: timing.hold_time(),
            echo: Time(frame.echo_ns),
        })
    }

    /// Makes `incarnation` the peer's current one; false if it has been followed by another.
    fn adopt(&mut self, incarnation: Incarnation) -> bool {
        if self.retired.contains(&Some(incarnation)) {
            return false;
        }
        if self.incarnation.is_some_and(|known| known != incarnation) {
            self.retired.rotate_right(1);
            self.retired[0] = self.incarnation;
        }
        self.incarnation = Some(incarnation);
        true
    }

    /// Why the node that sent `content` cannot be this node's peer, if it cannot: for counting
    /// only, what follows from it is the core's to say.
    #[must_use]
    pub fn stranger(&self, content: &Content) -> Option<DropReason> {
        let ours = self.content.as_ref()?;
        if ours.pair != content.pair {
            return Some(DropReason::ForeignPair);
        }
        (ours.role == content.role).then_some(DropReason::WrongSlot)
    }

    /// A datagram was refused (bad tag, replay, malformed).
    pub fn refused(&mut self, link: LinkId) {
        if let Some(monitor) = self.links.get_mut(usize::from(link.0)) {
            monitor.refused += 1;
        }
    }

    /// Time between our beats now (H2).
    fn pace(&self) -> Duration {
        self.peer.map_or(self.timing.interval(), |peer| {
            peer.interval().min(self.timing.interval())
        })
    }

    /// Silence after which the peer counts as dead: the larger of both sides' statements.
    #[must_use]
    pub fn hold_time(&self) -> Duration {
        self.peer.map_or(self.timing.hold_time(), |peer| {
            peer.hold_time().max(self.timing.hold_time())
        })
    }

    /// `show redundancy heartbeat`; `names` in the order of the links. Allocates.
    #[must_use]
    pub fn status(
        &self,
        now: Time,
        names: &[String],
        real_time: Result<(), String>,
    ) -> HeartbeatStatus {
        let hold_time = self.hold_time();
        let links = self.links[..self.link_count].iter().enumerate();
        HeartbeatStatus {
            interval_ms: self.timing.interval_ms,
            misses: self.timing.misses,
            peer_interval_ms: self.peer.map(|peer| peer.interval_ms),
            hold_time_ms: hold_time.as_millis() as u32,
            awaits_confirmation: self.peer.is_some_and(|peer| peer != self.timing),
            canaries: self.content.as_ref().map_or(0, |content| content.canary),
            // The thread does not know; whoever asked it does.
            watchdog: None,
            real_time,
            links: links
                .map(|(index, monitor)| {
                    let name = names.get(index).map_or("", String::as_str);
                    monitor.status(now, LinkId(index as u8), name, hold_time)
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
