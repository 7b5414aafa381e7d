//! Every phase at every event. The table in docs/redundancy-transitions.md is generated from the
//! core and checked against it, so that a change of a transition shows in the diff as a row.

use core::time::Duration;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use model::{ConflictPolicy, Epoch, Incarnation, LinkId, Lsn, NodeKey, Role, Time};
use wire::control::{ControlMessage, Hello};
use wire::heartbeat::{Content, Contest, Gasp, State};
use wire::supervision::{Activity, SyncReport, Tally, VemReport};

use super::pair::{A, B, Pair};
use crate::active::Mode;
use crate::phase::Phase;
use crate::{Command, Core, Input, Output, ServicesHealth};

const PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/redundancy-transitions.md"
);

/// A node in a state, and the time then.
struct Prepared {
    name: &'static str,
    core: Core,
    now: Time,
    /// The peer's content when it was last heard, or what it would say.
    peer: Content,
}

fn prepared() -> Vec<Prepared> {
    let mut rows = Vec::new();
    let mut take = |name: &'static str, pair: &Pair, node: usize| {
        let core = pair.core(node).clone();
        let ours = core.ctx.said.clone().expect("a paired node speaks");
        let other = 1 - node;
        let peer = pair.sides[other]
            .core
            .as_ref()
            .and_then(|core| core.ctx.said.clone());
        let peer = peer.unwrap_or_else(|| Content {
            role: if ours.role == Role::Primary {
                Role::Secondary
            } else {
                Role::Primary
            },
            incarnation: Incarnation(900),
            state: State::Initializing,
            ..ours
        });
        rows.push(Prepared {
            name,
            core,
            now: pair.now,
            peer,
        });
    };
    let mut pair = Pair::new(1);
    pair.boot(A);
    pair.run(200);
    take("Booting, nobody there", &pair, A);
    let mut pair = Pair::new(1);
    pair.boot(A);
    pair.boot(B);
    pair.run(150);
    pair.run_until("B waits for A", 2_000, |pair| pair.actives() == [A]);
    let mut pair = Pair::new(1);
    pair.sides[A].write_time = Duration::from_secs(3600);
    pair.boot(A);
    pair.boot(B);
    pair.run(2_000);
    take("Activating", &pair, A);
    take("Booting, the other will lead", &pair, B);
    let mut pair = Pair::new(1);
    pair.boot(A);
    pair.run_until("A leads", 5_000, |pair| pair.actives() == [A]);
    pair.run(100);
    take("Active, no standby", &pair, A);
    let mut pair = Pair::stable(1).with_vems();
    pair.run(100);
    take("Active, stable standby", &pair, A);
    take("Standby, stable", &pair, B);
    let mut paused = Pair::stable(1);
    paused.pause(A, 400);
    paused.pause(B, 400);
    paused.run_until("A asks", 600, |pair| {
        matches!(&pair.core(A).phase, Phase::Active(active) if matches!(active.mode, Mode::Paused(_)))
    });
    take("Active, paused", &paused, A);
    let mut quiescing = Pair::stable(1);
    quiescing.command(A, Command::Switchover);
    take("Active, quiescing", &quiescing, A);
    quiescing.pause(B, 10_000);
    quiescing.run(20);
    take("Active, handing over", &quiescing, A);
    let mut unstable = Pair::stable(1);
    unstable.set_health(B, ServicesHealth::Starting);
    unstable.run(200);
    take("Active, standby not stable", &unstable, A);
    take("Standby, not stable", &unstable, B);
    let mut asking = Pair::stable(1).with_vems();
    asking.run(100);
    for vem in &mut asking.vems {
        vem.reaches[A] = false;
    }
    asking.cut();
    asking.run_until("B asks for a promise", 400, |pair| {
        let Phase::Standby(standby) = &pair.core(B).phase else {
            return false;
        };
        standby
            .asked()
            .is_some_and(|(_, candidate)| candidate.is_some())
    });
    take("Standby, asking", &asking, B);
    pair.cut();
    pair.run_until("it is told", 400, |pair| {
        pair.core(B).row(pair.now) == "Standby, forbidden"
    });
    take("Standby, forbidden", &pair, B);
    for vem in &mut pair.vems {
        vem.reaches[B] = false;
    }
    pair.run(1_000);
    take("Standby, isolated", &pair, B);
    let mut yielding = Pair::stable(1);
    yielding.cut();
    yielding.fail_service(A);
    take("Resetting, yielding", &yielding, A);
    rows
}

fn events(prepared: &Prepared) -> Vec<(&'static str, Input)> {
    let peer = &prepared.peer;
    let ours = prepared.core.ctx.seen;
    let peer_key = NodeKey([77; 32]);
    let higher = Epoch {
        counter: ours.counter + 5,
        node: peer_key,
        incarnation: peer.incarnation,
    };
    let lower = Epoch {
        counter: 0,
        node: peer_key,
        incarnation: peer.incarnation,
    };
    let beat = |state, epoch| Input::Heartbeat {
        link: LinkId(0),
        content: Content {
            revision: 10_000,
            state,
            epoch,
            ..peer.clone()
        },
        peer_hold_time: Duration::from_millis(300),
        // An answer to what this node has said just now.
        echo: prepared.now,
    };
    let contested = |epoch, policy, vems| Input::Heartbeat {
        link: LinkId(0),
        content: Content {
            revision: 10_000,
            state: State::Active,
            epoch,
            contest: Some(Contest {
                rival: ours,
                history: (epoch, Lsn(9)),
                base: (lower, Lsn(0)),
                policy,
                config_age_s: None,
                vems,
            }),
            ..peer.clone()
        },
        peer_hold_time: Duration::from_millis(300),
        echo: prepared.now,
    };
    let hello = |active, lsn| {
        Input::Control(ControlMessage::Hello(Hello {
            pair: peer.pair,
            role: peer.role,
            incarnation: peer.incarnation,
            highest_epoch: lower,
            history: (lower, Lsn(lsn)),
            alone: false,
            active,
            follows: false,
            uptime_ms: 1,
        }))
    };
    let gasp = |epoch: Epoch| Gasp {
        epoch,
        incarnation: epoch.incarnation,
    };
    let sync = prepared.core.ctx.sync;
    let vems = prepared.core.ctx.vems;
    let asked = match &prepared.core.phase {
        Phase::Standby(standby) => standby.asked(),
        Phase::Booting(_) | Phase::Activating(_) | Phase::Active(_) | Phase::Resetting(_) => None,
    };
    let votes = |alive, silent| {
        let (vote, candidate) = asked.unwrap_or_default();
        let tally = Tally {
            vote,
            candidate,
            open: 0,
            alive,
            silent,
            alone: false,
        };
        Input::Vems(VemReport { tally, ..vems })
    };
    let command = |kind| Input::Command { command: 1, kind };
    let pinned = |gives_way, above| Input::PeerPinned { gives_way, above };
    let control = |message| Input::Control(message);
    vec![
        ("tick", Input::Tick),
        ("peer: initializing", beat(State::Initializing, lower)),
        ("peer: synchronizing", beat(State::Synchronizing, ours)),
        ("peer: standby", beat(State::Standby, ours)),
        ("peer: active, lower epoch", beat(State::Active, lower)),
        ("peer: active, higher epoch", beat(State::Active, higher)),
        (
            "peer: active, higher epoch, contests and wins",
            contested(higher, ConflictPolicy::MostVems, 9),
        ),
        (
            "peer: active, higher epoch, contests and loses",
            contested(higher, ConflictPolicy::MostVems, 0),
        ),
        ("peer: paused, lower epoch", beat(State::Paused, lower)),
        ("peer: yielded", beat(State::Yielded, ours)),
        ("peer: resetting", beat(State::Resetting, ours)),
        ("gasp of this epoch", Input::Gasp(gasp(ours))),
        ("gasp of another epoch", Input::Gasp(gasp(lower))),
        ("our gasp was heard", Input::GaspHeard(gasp(ours))),
        ("peer connected", Input::PeerConnected),
        ("peer disconnected", Input::PeerDisconnected),
        ("hello, newer history", hello(false, 1_000_000)),
        ("hello, active", hello(true, 0)),
        (
            "refused",
            control(ControlMessage::Refused("test".to_owned())),
        ),
        (
            "grant",
            control(ControlMessage::Grant {
                epoch: ours,
                lsn: sync.lsn,
            }),
        ),
        (
            "withdraw",
            control(ControlMessage::Withdraw { epoch: ours }),
        ),
        (
            "withdrawn",
            control(ControlMessage::Withdrawn { epoch: ours }),
        ),
        (
            "hand over",
            control(ControlMessage::HandOver {
                epoch: ours,
                lsn: sync.lsn,
            }),
        ),
        (
            "taken over, higher epoch",
            control(ControlMessage::TakenOver { epoch: higher }),
        ),
        (
            "reset ordered",
            control(ControlMessage::Reset {
                reason: "test".to_owned(),
                epoch: ours,
            }),
        ),
        (
            "timing",
            control(ControlMessage::Timing {
                interval_ms: 200,
                misses: 4,
            }),
        ),
        (
            "conflict policy",
            control(ControlMessage::ConflictPolicy(ConflictPolicy::MostVems)),
        ),
        ("pss is down", Input::Down(Some(model::ServiceName::Pss))),
        ("told to reload", control(ControlMessage::Reload)),
        (
            "services starting",
            Input::Services(ServicesHealth::Starting),
        ),
        ("services ready", Input::Services(ServicesHealth::Ready)),
        ("services failed", Input::Services(ServicesHealth::Failed)),
        (
            "posture applied",
            Input::PostureApplied { sequence: u64::MAX },
        ),
        (
            "synchronization lost",
            Input::Sync(SyncReport {
                bulk_done: false,
                ..sync
            }),
        ),
        ("peer pinned", pinned(false, lower)),
        ("peer pinned, has led higher", pinned(false, higher)),
        ("peer pinned, gives way", pinned(true, lower)),
        ("peer unpinned", Input::PeerUnpinned),
        ("archived", Input::Archived { number: 1 }),
        ("a commit asks to go alone", Input::AskAlone { question: 1 }),
        (
            "VEM: higher epoch",
            Input::Vems(VemReport {
                highest_epoch: higher,
                ..vems
            }),
        ),
        (
            "VEM: higher epoch promised",
            Input::Vems(VemReport {
                promised_epoch: higher,
                ..vems
            }),
        ),
        ("VEMs: the active is alive", votes(2, 0)),
        ("VEMs: one of two says so", votes(1, 1)),
        ("VEMs: none says so", votes(0, 2)),
        ("VEMs: none answers", votes(0, 0)),
        (
            "VEM: clone",
            Input::Vems(VemReport {
                clone_seen: true,
                ..vems
            }),
        ),
        (
            "VEM connects",
            Input::Vems(VemReport {
                registered: 2,
                connected: 2,
                ..vems
            }),
        ),
        ("canary", Input::Canary { finished: 1 }),
        ("switchover", command(Command::Switchover)),
        (
            "role standalone",
            command(Command::SetRole(Role::Standalone)),
        ),
        (
            "pair ID",
            command(Command::SetPairId(
                model::PairId::try_from(9).expect("in range"),
            )),
        ),
        (
            "heartbeat",
            command(Command::SetHeartbeat {
                interval_ms: 50,
                misses: 4,
            }),
        ),
        (
            "split-brain policy",
            command(Command::SetConflictPolicy(ConflictPolicy::MostVems)),
        ),
        ("boot wait", command(Command::SetBootWait(Some(60)))),
        ("reload", command(Command::Reload)),
        ("reload standby", command(Command::ReloadStandby)),
        ("force active", command(Command::ForceActive)),
        (
            "all writes durable",
            Input::Persisted {
                write: prepared.core.ctx.issued(),
            },
        ),
        (
            "a write failed",
            Input::PersistFailed {
                write: prepared.core.ctx.issued(),
            },
        ),
    ]
}

/// The state a node is in, as the table names it.
fn name(core: &Core, now: Time) -> &'static str {
    match &core.phase {
        Phase::Booting(_) => "Booting",
        Phase::Activating(_) => "Activating",
        Phase::Active(active) => match active.mode {
            Mode::Acting => "Active",
            Mode::Contested(_) => "Active, contested",
            Mode::Paused(_) => "Active, paused",
            Mode::Quiescing(_) => "Active, quiescing",
            Mode::HandingOver(_) => "Active, handing over",
        },
        Phase::Standby(standby) if standby.is_stable(now, &core.ctx) => "Standby, stable",
        Phase::Standby(_) => "Standby, not stable",
        Phase::Resetting(_) => "Resetting",
    }
}

fn outputs(core: &mut Core) -> String {
    let mut words = Vec::new();
    while let Some(output) = core.poll_output() {
        words.push(match output {
            Output::Persist { .. } => "write".to_owned(),
            Output::HeartbeatContent(content) => format!("say {:?}", content.state),
            Output::HeartbeatTiming { .. } => "timing".to_owned(),
            Output::Control(message) => {
                let text = format!("{message:?}");
                let end = text.find([' ', '(']).unwrap_or(text.len());
                format!("send {}", &text[..end])
            }
            Output::Gasp(_) => "gasp".to_owned(),
            Output::SealGasp(Some(_)) => "seal gasp".to_owned(),
            Output::SealGasp(None) => "void gasp".to_owned(),
            Output::Posture { activity, .. } => match activity {
                Activity::Idle => "posture Idle".to_owned(),
                Activity::Standby => "posture Standby".to_owned(),
                Activity::Active(_) => "posture Active".to_owned(),
                Activity::Quiesce(_) => "posture Quiesce".to_owned(),
            },
            Output::AskVotes { .. } => "ask VEMs".to_owned(),
            Output::Archive { .. } => "archive".to_owned(),
            Output::Resync { whole } => format!("resync{}", if whole { ", whole" } else { "" }),
            Output::AloneGranted { .. } => "leave to be alone".to_owned(),
            Output::Log(record) => format!("log {}", record.mnemonic),
            Output::CommandDone { result, .. } => {
                if result.is_ok() {
                    "done".to_owned()
                } else {
                    "refuse".to_owned()
                }
            }
            Output::Reset { .. } => "**reset**".to_owned(),
            Output::Activated { .. } => "**activated**".to_owned(),
        });
    }
    words.join(", ")
}

/// Ticks until the hold time has passed without a word of the peer.
fn silence(core: &mut Core, now: Time) -> Time {
    let end = now + core.hold_time() + Duration::from_millis(1);
    let mut turn = now;
    while turn < end {
        turn = core.next_deadline().expect("it ticks").min(end);
        core.handle(turn, Input::Tick);
    }
    turn
}

#[test]
fn the_table_of_phases_and_events_is_as_documented() {
    let mut table = String::from(
        "# Redundancy: every state at every event\n\n\
         Generated from the core and checked by `cargo test -p redundancy` (set `BLESS=1` to \
         write it anew).\nEach row starts from a node in the state named and gives one event; \
         what is asked for is in order. *Silence* is a hold time without a word of the peer, \
         *pause* is a turn that comes two hold times late.\n",
    );
    let mut reached = BTreeSet::new();
    for state in prepared() {
        write!(
            table,
            "\n## {}\n\n| event | state after | asked for |\n|---|---|---|\n",
            state.name
        )
        .expect("a String grows");
        let before = name(&state.core, state.now);
        assert_eq!(state.core.row(state.now), state.name);
        reached.insert(before);
        let mut without_effect = Vec::new();
        let mut row = |event: &'static str, mut core: Core, now: Time| {
            core.check()
                .unwrap_or_else(|violation| panic!("{event} in {}: {violation}", state.name));
            let after = name(&core, now);
            let asked = outputs(&mut core);
            if after == before && asked.is_empty() {
                without_effect.push(event);
            } else {
                writeln!(table, "| {event} | {after} | {asked} |").expect("a String grows");
            }
        };
        for (event, input) in events(&state) {
            let mut core = state.core.clone();
            core.handle(state.now, input);
            row(event, core, state.now);
        }
        let mut core = state.core.clone();
        let now = silence(&mut core, state.now);
        row("silence", core, now);
        let mut core = state.core.clone();
        let now = state.now + core.hold_time() * 2;
        core.handle(now, Input::Tick);
        row("pause", core, now);
        writeln!(table, "\nNo effect: {}.", without_effect.join("; ")).expect("a String grows");
    }
    assert_eq!(reached.len(), 9, "every state is in the table: {reached:?}");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(PATH, &table).expect("docs can be written");
    }
    let documented = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(
        documented == table,
        "docs/redundancy-transitions.md is out of date: run with BLESS=1"
    );
}
