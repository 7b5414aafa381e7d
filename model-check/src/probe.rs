//! Every event of the transition table, given to a node in every state that is met.
//!
//! Most rows of the table come about by themselves. The rest (a command that nobody gives, a
//! message that a peer in this state would not send) is tried on a copy of the core in the state
//! that was reached: its invariants must hold afterwards. The copy is then thrown away: what a
//! peer never says does not belong to the states of the model.

use model::{ConflictPolicy, Epoch, Incarnation, LinkId, Lsn, NodeKey, Role, ServiceName, Time};
use redundancy::{Command, Core, Input, ServicesHealth};
use wire::control::{ControlMessage, Hello};
use wire::heartbeat::{Content, Contest, Gasp, State};
use wire::supervision::Tally;

use crate::coverage::Coverage;
use crate::engine::name;
use crate::rules::Rule;
use crate::site::{Node, Site};

/// A number above every one that a core has given.
const ALL: u64 = u64::MAX;

impl Site {
    /// Gives a node in `row` each event that no node in it was given yet.
    pub(crate) fn probe(&mut self, node: usize, row: &'static str, coverage: &Coverage) {
        let (now, side) = (self.now, &self.nodes[node]);
        let Some(core) = &side.core else { return };
        let mut broken = None;
        for (event, inputs) in events(now, core, side, &self.nodes[1 - node]) {
            if !coverage.give(row, event) {
                continue;
            }
            let mut core = core.clone();
            for (at, input) in inputs {
                core.handle(at, input);
                while core.poll_output().is_some() {}
                if let Err(violation) = core.check() {
                    broken = Some(format!(
                        "{} in \"{row}\" at \"{event}\": {violation}",
                        name(node)
                    ));
                }
            }
        }
        if let Some(text) = broken {
            self.fail(Rule::OwnHighestEpoch, text);
        }
    }
}

type Given = (&'static str, Vec<(Time, Input)>);

/// The events of the table, as `side` would meet them.
fn events(now: Time, core: &Core, side: &Node, other: &Node) -> Vec<Given> {
    let mut given: Vec<Given> = Vec::new();
    let mut one = |event, input| given.push((event, vec![(now, input)]));
    let ours = core.seen();
    let higher = foreign(ours.counter + 5, other);
    let lower = foreign(0, other);
    beats(now, side, other, (ours, lower, higher), &mut one);
    messages(side, other, (ours, lower, higher), &mut one);
    reports(side, (lower, higher), &mut one);
    commands(&mut one);
    let hold = core.hold_time();
    let turns = |step: u32| now + hold.mul_f64(f64::from(step) / 40.0);
    given.push((
        "silence",
        (1..=41).map(|step| (turns(step), Input::Tick)).collect(),
    ));
    given.push(("pause", vec![(now + hold * 2, Input::Tick)]));
    given
}

fn foreign(counter: u64, other: &Node) -> Epoch {
    Epoch {
        counter,
        node: NodeKey([77; 32]),
        incarnation: start_of(other),
    }
}

/// The other node's start, or one that it will have.
fn start_of(other: &Node) -> Incarnation {
    let said = other.said.as_ref();
    said.map_or(Incarnation(900), |content| content.incarnation)
}

type Epochs = (Epoch, Epoch, Epoch);
type Take<'a> = &'a mut dyn FnMut(&'static str, Input);

fn beats(now: Time, side: &Node, other: &Node, (ours, lower, higher): Epochs, one: Take<'_>) {
    let Some(said) = other.said.clone().or_else(|| {
        side.said.clone().map(|content| Content {
            role: if content.role == Role::Primary {
                Role::Secondary
            } else {
                Role::Primary
            },
            incarnation: start_of(other),
            state: State::Initializing,
            ..content
        })
    }) else {
        return;
    };
    let beat = |state, epoch, contest| Input::Heartbeat {
        link: LinkId(0),
        content: Content {
            revision: u64::from(u32::MAX),
            state,
            epoch,
            contest,
            ..said.clone()
        },
        peer_hold_time: side.hold_time(),
        echo: now,
    };
    let contest = |vems| {
        Some(Contest {
            rival: ours,
            history: (higher, Lsn(9)),
            base: (lower, Lsn(0)),
            policy: ConflictPolicy::MostVems,
            config_age_s: None,
            vems,
        })
    };
    one("tick", Input::Tick);
    one("peer: initializing", beat(State::Initializing, lower, None));
    one(
        "peer: synchronizing",
        beat(State::Synchronizing, ours, None),
    );
    one("peer: standby", beat(State::Standby, ours, None));
    one(
        "peer: active, lower epoch",
        beat(State::Active, lower, None),
    );
    one(
        "peer: active, higher epoch",
        beat(State::Active, higher, None),
    );
    let wins = "peer: active, higher epoch, contests and wins";
    one(wins, beat(State::Active, higher, contest(9)));
    let loses = "peer: active, higher epoch, contests and loses";
    one(loses, beat(State::Active, higher, contest(0)));
    one(
        "peer: paused, lower epoch",
        beat(State::Paused, lower, None),
    );
    one("peer: yielded", beat(State::Yielded, ours, None));
    one("peer: resetting", beat(State::Resetting, ours, None));
}

fn messages(side: &Node, other: &Node, (ours, lower, higher): Epochs, one: Take<'_>) {
    let gasp = |epoch: Epoch| Gasp {
        epoch,
        incarnation: epoch.incarnation,
    };
    one("gasp of this epoch", Input::Gasp(gasp(ours)));
    one("gasp of another epoch", Input::Gasp(gasp(lower)));
    one("our gasp was heard", Input::GaspHeard(gasp(ours)));
    one("peer connected", Input::PeerConnected);
    one("peer disconnected", Input::PeerDisconnected);
    let mut told = |event, message| one(event, Input::Control(message));
    let hello = |active, lsn| {
        ControlMessage::Hello(Hello {
            pair: side.durable.pair,
            role: if side.durable.role == Role::Primary {
                Role::Secondary
            } else {
                Role::Primary
            },
            incarnation: start_of(other),
            highest_epoch: lower,
            history: (lower, Lsn(lsn)),
            alone: false,
            active,
            follows: false,
            uptime_ms: 1,
        })
    };
    told("hello, newer history", hello(false, 1_000_000));
    told("hello, active", hello(true, 0));
    told("refused", ControlMessage::Refused("probe".to_owned()));
    let (epoch, lsn) = (ours, side.history.1);
    told("grant", ControlMessage::Grant { epoch, lsn });
    told("withdraw", ControlMessage::Withdraw { epoch });
    told("withdrawn", ControlMessage::Withdrawn { epoch });
    told("hand over", ControlMessage::HandOver { epoch, lsn });
    told(
        "taken over, higher epoch",
        ControlMessage::TakenOver { epoch: higher },
    );
    let reason = "probe".to_owned();
    told("reset ordered", ControlMessage::Reset { reason, epoch });
    let (interval_ms, misses) = (2_000, 4);
    told(
        "timing",
        ControlMessage::Timing {
            interval_ms,
            misses,
        },
    );
    let policy = ControlMessage::ConflictPolicy(ConflictPolicy::MostVems);
    told("conflict policy", policy);
    told("told to reload", ControlMessage::Reload);
}

fn reports(side: &Node, (lower, higher): (Epoch, Epoch), one: Take<'_>) {
    one("pss is down", Input::Down(Some(ServiceName::Pss)));
    one(
        "services starting",
        Input::Services(ServicesHealth::Starting),
    );
    one("services ready", Input::Services(ServicesHealth::Ready));
    one("services failed", Input::Services(ServicesHealth::Failed));
    one("posture applied", Input::PostureApplied { sequence: ALL });
    let mut sync = side.last_sync.unwrap_or_default();
    sync.bulk_done = false;
    one("synchronization lost", Input::Sync(sync));
    let pinned = |gives_way, above| Input::PeerPinned { gives_way, above };
    one("peer pinned", pinned(false, lower));
    one("peer pinned, has led higher", pinned(false, higher));
    one("peer pinned, gives way", pinned(true, lower));
    one("peer unpinned", Input::PeerUnpinned);
    one("archived", Input::Archived { number: 1 });
    one("a commit asks to go alone", Input::AskAlone { question: 1 });
    one(
        "all writes durable",
        Input::Persisted {
            write: side.last_write,
        },
    );
    let write = side.last_write;
    one("a write failed", Input::PersistFailed { write });
    one("canary", Input::Canary { finished: 1 });
    let vems = side.last_vems.unwrap_or_default();
    let mut told = |event, change: &dyn Fn(&mut wire::supervision::VemReport)| {
        let mut report = vems;
        change(&mut report);
        one(event, Input::Vems(report));
    };
    told("VEM: higher epoch", &|report| report.highest_epoch = higher);
    let promised = "VEM: higher epoch promised";
    told(promised, &|report| report.promised_epoch = higher);
    told("VEM: clone", &|report| report.clone_seen = true);
    told("VEM connects", &|report| {
        (report.registered, report.connected) = (2, 2)
    });
    let tally = side.tally;
    let votes = |alive, silent| Tally {
        open: 0,
        alive,
        silent,
        ..tally
    };
    told("VEMs: the active is alive", &|report| {
        report.tally = votes(2, 0)
    });
    told("VEMs: one of two says so", &|report| {
        report.tally = votes(1, 1)
    });
    told("VEMs: none says so", &|report| report.tally = votes(0, 2));
    told("VEMs: none answers", &|report| report.tally = votes(0, 0));
}

fn commands(one: Take<'_>) {
    let mut order = |event, kind| one(event, Input::Command { command: 1, kind });
    order("switchover", Command::Switchover);
    order("role standalone", Command::SetRole(Role::Standalone));
    if let Ok(pair) = model::PairId::try_from(9) {
        order("pair ID", Command::SetPairId(pair));
    }
    let (interval_ms, misses) = (500, 4);
    order(
        "heartbeat",
        Command::SetHeartbeat {
            interval_ms,
            misses,
        },
    );
    let policy = Command::SetConflictPolicy(ConflictPolicy::MostVems);
    order("split-brain policy", policy);
    order("boot wait", Command::SetBootWait(Some(60)));
    order("reload", Command::Reload);
    order("reload standby", Command::ReloadStandby);
    order("force active", Command::ForceActive);
}
