//! Which rows of the transition table were met.

use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::{BTreeMap, BTreeSet};

use core::cmp::Ordering as Ord;

use model::Time;
use redundancy::{Command, Core, Input, ServicesHealth};
use wire::control::ControlMessage;
use wire::heartbeat::State;

/// The transition table, as documented and checked by the core's own tests.
const TABLE: &str = include_str!("../../docs/redundancy-transitions.md");

/// States that the table has not, but a node can be in.
const MORE_STATES: [&str; 1] = ["Resetting"];

/// Places of names that were looked up, by their addresses: names are literals.
type Known = BTreeMap<(usize, usize), Option<usize>>;

thread_local! {
    static KNOWN: RefCell<Known> = const { RefCell::new(BTreeMap::new()) };
}

/// Which rows were met.
#[derive(Debug)]
pub struct Coverage {
    states: Vec<&'static str>,
    events: Vec<&'static str>,
    met: Vec<AtomicBool>,
    /// Rows that were tried.
    given: Vec<AtomicBool>,
    /// States in which every event was tried.
    probed: Vec<AtomicBool>,
    /// Every input is printed.
    tells: AtomicBool,
}

impl Default for Coverage {
    fn default() -> Self {
        let mut states: Vec<&'static str> = Vec::new();
        let mut events: BTreeSet<&'static str> = BTreeSet::new();
        for line in TABLE.lines() {
            if let Some(state) = line.strip_prefix("## ") {
                states.push(state);
            } else if let Some(none) = line.strip_prefix("No effect: ") {
                events.extend(none.trim_end_matches('.').split("; "));
            } else if let Some(row) = line.strip_prefix("| ")
                && let Some((event, _)) = row.split_once(" |")
                && event != "event"
            {
                events.insert(event);
            }
        }
        states.extend(MORE_STATES);
        let cells = states.len() * events.len();
        Self {
            given: (0..cells).map(|_| AtomicBool::new(false)).collect(),
            probed: states.iter().map(|_| AtomicBool::new(false)).collect(),
            states,
            events: events.into_iter().collect(),
            met: (0..cells).map(|_| AtomicBool::new(false)).collect(),
            tells: AtomicBool::new(false),
        }
    }
}

impl Coverage {
    /// Notes that a node in `state` met `event`.
    pub(crate) fn note(&self, state: &'static str, event: &'static str) {
        if let Some(cell) = self.cell(state, event)
            && !self.met[cell].load(Ordering::Relaxed)
        {
            self.met[cell].store(true, Ordering::Relaxed);
        }
    }

    /// The place of a row.
    fn cell(&self, state: &'static str, event: &'static str) -> Option<usize> {
        let state = place(state, &self.states)?;
        let event = place(event, &self.events)?;
        Some(state * self.events.len() + event)
    }

    /// Whether some event was not tried in `state` yet. Says so once: who asks tries them.
    pub(crate) fn wants(&self, state: &'static str) -> bool {
        place(state, &self.states)
            .is_some_and(|state| !self.probed[state].swap(true, Ordering::Relaxed))
    }

    /// Notes that `event` is being tried in `state`; false if the table has no such row.
    pub(crate) fn give(&self, state: &'static str, event: &'static str) -> bool {
        let cell = self.cell(state, event);
        if let Some(cell) = cell {
            self.given[cell].store(true, Ordering::Relaxed);
        }
        cell.is_some()
    }

    /// The states of the table, each with the events that it met and those that it did not.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let width = self.events.len();
        let row = |(index, state): (usize, &&'static str)| {
            let is = |bits: &[AtomicBool], event: usize| {
                bits[index * width + event].load(Ordering::Relaxed)
            };
            let all = |wanted: &dyn Fn(usize) -> bool| {
                let events = (0..width).filter(|event| wanted(*event));
                events.map(|event| self.events[event]).collect()
            };
            Row {
                state,
                met: all(&|event| is(&self.met, event)),
                given: all(&|event| !is(&self.met, event) && is(&self.given, event)),
                missed: all(&|event| !is(&self.met, event) && !is(&self.given, event)),
            }
        };
        self.states.iter().enumerate().map(row).collect()
    }

    /// Has every input printed from now on, to follow a single path.
    pub fn tell(&self) {
        self.tells.store(true, Ordering::Relaxed);
    }

    pub(crate) fn tells(&self) -> bool {
        self.tells.load(Ordering::Relaxed)
    }
}

/// The place of a name among `names`.
fn place(name: &'static str, names: &[&str]) -> Option<usize> {
    KNOWN.with_borrow_mut(|known| {
        let key = (name.as_ptr() as usize, name.len());
        *known
            .entry(key)
            .or_insert_with(|| names.iter().position(|other| *other == name))
    })
}

/// One state of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub state: &'static str,
    /// Events that came about in it.
    pub met: Vec<&'static str>,
    /// Events not met, but tried, in it.
    pub given: Vec<&'static str>,
    /// Events neither met nor tried in it.
    pub missed: Vec<&'static str>,
}

/// The table's name of what a core is told at `now`; `heard` is when a beat last arrived.
pub(crate) fn event_of(core: &Core, now: Time, input: &Input, heard: Time) -> Option<&'static str> {
    Some(match input {
        Input::Tick => {
            let late = core
                .next_deadline()
                .is_some_and(|due| now.since(due) >= core.hold_time());
            let silent = now.since(heard);
            if late {
                "pause"
            } else if silent >= core.hold_time() && silent < core.hold_time() * 2 {
                "silence"
            } else {
                "tick"
            }
        }
        Input::Persisted { .. } => "all writes durable",
        Input::PersistFailed { .. } => "a write failed",
        Input::Heartbeat { content, .. } => match content.state {
            State::Initializing => "peer: initializing",
            State::Synchronizing => "peer: synchronizing",
            State::Standby => "peer: standby",
            State::Active if content.contest.is_some() => {
                "peer: active, higher epoch, contests and wins"
            }
            State::Active if content.epoch > core.seen() => "peer: active, higher epoch",
            State::Active if content.epoch < core.seen() => "peer: active, lower epoch",
            State::Active => return None,
            State::Paused => "peer: paused, lower epoch",
            State::Yielded => "peer: yielded",
            State::Resetting => "peer: resetting",
        },
        Input::Gasp(gasp) if gasp.epoch == core.seen() => "gasp of this epoch",
        Input::Gasp(_) => "gasp of another epoch",
        Input::GaspHeard(_) => "our gasp was heard",
        Input::PeerConnected => "peer connected",
        Input::PeerDisconnected => "peer disconnected",
        Input::Control(message) => match message {
            ControlMessage::Hello(hello) if hello.active => "hello, active",
            ControlMessage::Hello(_) => "hello, newer history",
            ControlMessage::Refused(_) => "refused",
            ControlMessage::Grant { .. } => "grant",
            ControlMessage::Withdraw { .. } => "withdraw",
            ControlMessage::Withdrawn { .. } => "withdrawn",
            ControlMessage::HandOver { .. } => "hand over",
            ControlMessage::TakenOver { .. } => "taken over, higher epoch",
            ControlMessage::Reset { .. } => "reset ordered",
            ControlMessage::Timing { .. } => "timing",
            // The node's own business, beside the core.
            ControlMessage::Trust(_) => return None,
            ControlMessage::Reload => "told to reload",
            ControlMessage::ConflictPolicy(_) => "conflict policy",
        },
        Input::Services(ServicesHealth::Starting) => "services starting",
        Input::Services(ServicesHealth::Ready) => "services ready",
        Input::Services(ServicesHealth::Failed) => "services failed",
        Input::PostureApplied { .. } => "posture applied",
        Input::Sync(report) if !report.bulk_done => "synchronization lost",
        Input::Sync(_) => return None,
        Input::AskAlone { .. } => "a commit asks to go alone",
        Input::Archived { .. } => "archived",
        Input::Vems(report) if report.clone_seen => "VEM: clone",
        Input::Vems(report) if report.highest_epoch > core.seen() => "VEM: higher epoch",
        Input::Vems(report) if report.promised_epoch > core.seen() => "VEM: higher epoch promised",
        Input::Vems(report) if report.tally.vote > 0 && report.tally.open == 0 => {
            let tally = report.tally;
            match tally.alive.cmp(&tally.silent) {
                Ord::Greater => "VEMs: the active is alive",
                Ord::Equal if tally.alive > 0 => "VEMs: one of two says so",
                Ord::Equal => "VEMs: none answers",
                Ord::Less => "VEMs: none says so",
            }
        }
        Input::Vems(_) => "VEM connects",
        Input::Down(_) => "pss is down",
        Input::PeerPinned { .. } | Input::PeerUnpinned => return None,
        Input::Canary { .. } => "canary",
        Input::Command { kind, .. } => match kind {
            Command::Switchover => "switchover",
            Command::SetRole(_) => "role standalone",
            Command::SetPairId(_) => "pair ID",
            Command::SetHeartbeat { .. } => "heartbeat",
            Command::SetConflictPolicy(_) => "split-brain policy",
            Command::SetBootWait(_) => "boot wait",
            Command::ReloadStandby => "reload standby",
            Command::Reload => "reload",
            Command::ForceActive => "force active",
        },
    })
}
