use core::time::Duration;
use std::fmt::Write as _;

use model::{Incarnation, ServiceKind, ServiceName, Slot, Time};
use wire::supervision::{Activity, ToService};

use super::Core;
use crate::catalogue::{CATALOGUE, HANDSHAKE_DEADLINE, HEARTBEAT_DEADLINE, RESTART_WINDOW, entry};
use crate::input::{ExitStatus, Input, PostureChange, Start};
use crate::output::{Health, Output};
use crate::state::State;

const PID: u32 = 100;

fn core() -> Core {
    Core::new(Start {
        incarnation: Incarnation(1),
        slot: Slot::Sup1,
    })
}

fn tell(core: &mut Core, now: Time, input: Input) -> Vec<Output> {
    core.handle(now, input);
    core.check().expect("invariants hold");
    core::iter::from_fn(|| core.poll_output()).collect()
}

fn posture(sequence: u64, activity: Activity) -> Input {
    Input::SetPosture(PostureChange {
        sequence,
        activity,
        peer_connected: false,
        redundant: false,
        slot: Slot::Sup1,
    })
}

/// All services run and have applied posture 1.
fn ready(now: Time) -> Core {
    let mut core = core();
    tell(&mut core, now, Input::Tick);
    tell(&mut core, now, posture(1, Activity::Standby));
    for (index, entry) in CATALOGUE.iter().enumerate() {
        let service = entry.service;
        tell(
            &mut core,
            now,
            Input::Spawned {
                service,
                pid: PID + index as u32,
            },
        );
        tell(&mut core, now, Input::Handshake { service });
        tell(
            &mut core,
            now,
            Input::Applied {
                service,
                sequence: 1,
            },
        );
    }
    assert_eq!(core.health(), Health::Ready);
    core
}

fn pid(core: &Core, service: ServiceName) -> u32 {
    let row = core
        .rows()
        .find(|row| row.service == service)
        .expect("listed");
    row.state.pid().expect("it runs")
}

fn state(core: &Core, service: ServiceName) -> State {
    core.rows()
        .find(|row| row.service == service)
        .expect("listed")
        .state
}

fn kill(core: &mut Core, now: Time, service: ServiceName) -> Vec<Output> {
    let pid = pid(core, service);
    tell(
        core,
        now,
        Input::Exited {
            service,
            pid,
            status: ExitStatus::Signal(9),
        },
    )
}

fn start_again(core: &mut Core, now: Time, service: ServiceName, pid: u32) {
    tell(core, now, Input::Spawned { service, pid });
    tell(core, now, Input::Handshake { service });
    tell(
        core,
        now,
        Input::Applied {
            service,
            sequence: 1,
        },
    );
}

#[test]
fn services_start_when_those_they_need_have_shaken_hands() {
    let mut core = core();
    let now = Time::from_ms(1);
    let first = tell(&mut core, now, Input::Tick);
    assert_eq!(
        first,
        [Output::Spawn {
            service: ServiceName::Mts
        }]
    );
    assert_eq!(
        tell(
            &mut core,
            now,
            Input::Spawned {
                service: ServiceName::Mts,
                pid: 9
            }
        ),
        []
    );
    let after = tell(
        &mut core,
        now,
        Input::Handshake {
            service: ServiceName::Mts,
        },
    );
    assert!(matches!(
        after[0],
        Output::ToService {
            service: ServiceName::Mts,
            message: ToService::Posture(_),
        }
    ));
    assert_eq!(
        after[1..],
        [
            Output::Spawn {
                service: ServiceName::Pss
            },
            Output::Spawn {
                service: ServiceName::Vshd
            },
        ]
    );
}

#[test]
fn a_native_death_is_failure_before_anything_else_is_said() {
    let now = Time::from_ms(1);
    let mut core = ready(now);
    let outputs = kill(&mut core, now, ServiceName::PolicyEngine);
    assert_eq!(outputs[0], Output::Health(Health::Failed));
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Log(record)
        if record.mnemonic == "SERVICE_CRASHED"
        && record.text == "Service \"policy_engine\" (PID 103) hasn't caught signal 9 (no core)."))
    );
    assert!(
        !outputs
            .iter()
            .any(|output| matches!(output, Output::Spawn { .. }))
    );
    let later = tell(&mut core, now + Duration::from_secs(3600), Input::Tick);
    assert!(
        !later.contains(&Output::Health(Health::Ready)),
        "failure is final"
    );
}

#[test]
fn a_borrowed_death_is_a_restart_with_the_posture_in_force() {
    let now = Time::from_ms(1);
    let mut core = ready(now);
    let outputs = kill(&mut core, now, ServiceName::VemMgr);
    assert_eq!(outputs[0], Output::Health(Health::Starting));
    assert!(
        outputs.contains(&Output::Spawn {
            service: ServiceName::VemMgr
        }),
        "at once"
    );
    tell(&mut core, now, posture(2, Activity::Idle));
    tell(
        &mut core,
        now,
        Input::Spawned {
            service: ServiceName::VemMgr,
            pid: 900,
        },
    );
    let outputs = tell(
        &mut core,
        now,
        Input::Handshake {
            service: ServiceName::VemMgr,
        },
    );
    assert!(
        matches!(&outputs[0], Output::ToService { message: ToService::Posture(posture), .. }
        if posture.sequence == 2)
    );
    let outputs = tell(
        &mut core,
        now,
        Input::Applied {
            service: ServiceName::VemMgr,
            sequence: 2,
        },
    );
    assert!(outputs.contains(&Output::Health(Health::Ready)));
    let row = core
        .rows()
        .find(|row| row.service == ServiceName::VemMgr)
        .expect("listed");
    assert_eq!(row.start_count, 2);
}

#[test]
fn a_borrowed_service_that_crashes_too_often_fails_the_node_but_not_over_a_long_time() {
    for (pause, fails) in [(Duration::from_secs(1), true), (RESTART_WINDOW, false)] {
        let mut now = Time::from_ms(1);
        let mut core = ready(now);
        let limit = entry(ServiceName::Vshd).restarts_max;
        let mut failed = false;
        for crash in 0..=u32::from(limit) {
            failed |=
                kill(&mut core, now, ServiceName::Vshd).contains(&Output::Health(Health::Failed));
            if failed {
                break;
            }
            // The others beat all the time.
            let end = now + pause + Duration::from_secs(2);
            while now < end {
                now = now + Duration::from_millis(100);
                for entry in CATALOGUE {
                    let service = entry.service;
                    tell(
                        &mut core,
                        now,
                        Input::Heartbeat {
                            service,
                            turns: now.0,
                        },
                    );
                }
            }
            start_again(&mut core, now, ServiceName::Vshd, 500 + crash);
        }
        assert_eq!(failed, fails, "with {pause:?} between crashes");
    }
}

#[test]
fn a_service_that_stops_turning_is_killed_and_a_count_that_stands_still_is_no_life() {
    let start = Time::from_ms(1);
    let mut core = ready(start);
    let mut now = start;
    let mut killed = None;
    while killed.is_none() {
        now = now + Duration::from_millis(100);
        for entry in CATALOGUE {
            let service = entry.service;
            let turns = if service == ServiceName::Cfgmgr {
                5
            } else {
                now.0
            };
            let outputs = tell(&mut core, now, Input::Heartbeat { service, turns });
            if outputs.contains(&Output::Kill {
                service: ServiceName::Cfgmgr,
            }) {
                killed = Some(now);
            }
        }
        assert!(now < start + HEARTBEAT_DEADLINE * 2, "never killed");
    }
    assert!(matches!(
        state(&core, ServiceName::Cfgmgr),
        State::Killing { .. }
    ));
    assert_eq!(core.health(), Health::Starting);
}

#[test]
fn a_stuck_native_service_fails_the_node_before_it_is_dead() {
    let now = Time::from_ms(1);
    let mut core = ready(now);
    let later = now + HEARTBEAT_DEADLINE;
    let mut turn = now;
    while turn + Duration::from_millis(100) < later {
        turn = turn + Duration::from_millis(100);
        for entry in CATALOGUE {
            let service = entry.service;
            if entry.kind == ServiceKind::Borrowed {
                tell(
                    &mut core,
                    turn,
                    Input::Heartbeat {
                        service,
                        turns: turn.0,
                    },
                );
            }
        }
    }
    let outputs = tell(&mut core, later, Input::Tick);
    assert_eq!(outputs[0], Output::Health(Health::Failed));
    assert!(outputs.contains(&Output::Kill {
        service: ServiceName::PolicyEngine
    }));
}

#[test]
fn a_pause_of_the_whole_node_is_nobodys_fault() {
    let now = Time::from_ms(1);
    let core = ready(now);
    for pause in [1_000, 4_900, 5_100, 5_600, 60_000] {
        let mut core = core.clone();
        let later = now + Duration::from_millis(pause);
        assert_eq!(tell(&mut core, later, Input::Tick), [], "after {pause} ms");
        assert_eq!(core.health(), Health::Ready);
    }
}

#[test]
fn a_service_that_never_shakes_hands_is_killed() {
    let now = Time::from_ms(1);
    let mut core = core();
    tell(&mut core, now, Input::Tick);
    tell(
        &mut core,
        now,
        Input::Spawned {
            service: ServiceName::Mts,
            pid: 9,
        },
    );
    let mut outputs = Vec::new();
    let mut turn = now;
    while turn < now + HANDSHAKE_DEADLINE {
        turn = core.next_deadline().expect("a handshake is awaited");
        outputs.extend(tell(&mut core, turn, Input::Tick));
    }
    assert!(outputs.contains(&Output::Kill {
        service: ServiceName::Mts
    }));
}

#[test]
fn a_posture_is_applied_when_all_that_run_have_applied_it() {
    let now = Time::from_ms(1);
    let mut core = ready(now);
    tell(&mut core, now, posture(2, Activity::Idle));
    let mut said = Vec::new();
    for entry in CATALOGUE {
        if entry.service != ServiceName::Vshd {
            said.extend(tell(
                &mut core,
                now,
                Input::Applied {
                    service: entry.service,
                    sequence: 2,
                },
            ));
        }
    }
    assert_eq!(said, [], "one is missing");
    // It dies instead: what does not run need not apply.
    assert!(
        kill(&mut core, now, ServiceName::Vshd).contains(&Output::PostureApplied { sequence: 2 })
    );
}

/// Every state and every event, one line each; the whole is in docs/sysmgr-transitions.md.
#[test]
fn the_table_of_states_and_events_is_as_documented() {
    let mut table = String::from(
        "# Service supervision: every state and every event\n\n\
         Generated and checked by `cargo test -p sysmgr` (set `BLESS=1` to write it anew).\n\
         A cell names the state after the event, and what is asked for.\n",
    );
    for service in [ServiceName::PolicyEngine, ServiceName::VemMgr] {
        let kind = match entry(service).kind {
            ServiceKind::Native => "native",
            ServiceKind::Borrowed => "borrowed",
        };
        write!(
            table,
            "\n## A {kind} service\n\n| state | event | state after | asked for |\n"
        )
        .expect("a String grows");
        table.push_str("|---|---|---|---|\n");
        for (name, prepared) in states(service) {
            for (event, input) in events(service) {
                let mut core = prepared.clone();
                let now = Time::from_ms(1000);
                let outputs = tell(&mut core, now, input);
                let asked: Vec<String> = outputs.iter().map(shorten).collect();
                let after = state(&core, service);
                writeln!(
                    table,
                    "| {name} | {event} | {after} | {} |",
                    asked.join(", ")
                )
                .expect("a String grows");
            }
        }
    }
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/sysmgr-transitions.md"
    );
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &table).expect("docs can be written");
    }
    let documented = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        documented == table,
        "docs/sysmgr-transitions.md is out of date: run with BLESS=1"
    );
}

fn states(service: ServiceName) -> Vec<(&'static str, Core)> {
    let now = Time::from_ms(999);
    let waiting = core();
    let mut spawning = core();
    tell(&mut spawning, now, Input::Tick);
    tell(&mut spawning, now, posture(1, Activity::Standby));
    for needed in [ServiceName::Mts, ServiceName::Pss] {
        tell(
            &mut spawning,
            now,
            Input::Spawned {
                service: needed,
                pid: 50,
            },
        );
        tell(&mut spawning, now, Input::Handshake { service: needed });
    }
    let mut started = spawning.clone();
    tell(&mut started, now, Input::Spawned { service, pid: PID });
    let mut handshaked = started.clone();
    tell(&mut handshaked, now, Input::Handshake { service });
    let mut hot = handshaked.clone();
    tell(
        &mut hot,
        now,
        Input::Applied {
            service,
            sequence: 1,
        },
    );
    let mut killing = started.clone();
    let index = CATALOGUE
        .iter()
        .position(|entry| entry.service == service)
        .expect("listed");
    killing.services[index].state = State::Killing { pid: PID };
    tell(&mut killing, now, Input::Tick);
    let mut again = hot.clone();
    again.services[index].state = State::Restarting {
        at: Time::from_ms(5000),
    };
    tell(&mut again, now, Input::Tick);
    vec![
        ("WAIT_SPAWN_CONDITION", waiting),
        ("SPAWNING", spawning),
        ("STARTED", started),
        ("HANDSHAKED, no posture yet", handshaked),
        ("HANDSHAKED", hot),
        ("TERMINATING", killing),
        ("SPAWNING after a crash", again),
    ]
}

fn events(service: ServiceName) -> Vec<(&'static str, Input)> {
    let exited = |status| Input::Exited {
        service,
        pid: PID,
        status,
    };
    vec![
        ("tick", Input::Tick),
        (
            "spawned",
            Input::Spawned {
                service,
                pid: PID + 1,
            },
        ),
        (
            "spawn failed",
            Input::SpawnFailed {
                service,
                error: "no memory".to_owned(),
            },
        ),
        ("handshake", Input::Handshake { service }),
        ("heartbeat", Input::Heartbeat { service, turns: 3 }),
        (
            "applied",
            Input::Applied {
                service,
                sequence: 1,
            },
        ),
        ("killed by signal 9", exited(ExitStatus::Signal(9))),
        ("returned 1", exited(ExitStatus::Code(1))),
        (
            "another process exited",
            Input::Exited {
                service,
                pid: PID + 77,
                status: ExitStatus::Code(0),
            },
        ),
        ("posture", posture(2, Activity::Idle)),
    ]
}

fn shorten(output: &Output) -> String {
    match output {
        Output::Spawn { service } => format!("spawn {service}"),
        Output::Kill { service } => format!("kill {service}"),
        Output::ToService { service, message } => match message {
            ToService::Posture(_) => format!("posture to {service}"),
            ToService::Answer { .. }
            | ToService::Console(_)
            | ToService::AskVotes { .. }
            | ToService::Archive { .. }
            | ToService::Resync { .. }
            | ToService::Trust(_)
            | ToService::Stop => {
                format!("message to {service}")
            }
        },
        Output::Health(health) => format!("health {health:?}"),
        Output::PostureApplied { sequence } => format!("posture {sequence} applied"),
        Output::Log(record) => format!("log {}", record.mnemonic),
    }
}
