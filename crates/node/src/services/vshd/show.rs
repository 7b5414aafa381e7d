//! What the services answer, as the shell's typed answers.

use cli::answer::{
    ConnectionRow, Connections, HeartbeatStatus, InternalState, LinkHeartbeat, ModuleRow,
    ModuleStatus, Modules, OtherSupervisor, PolicyStats, PolicyStatsRow, ProcessRow, ProcessState,
    Processes, RedundancyMode, RedundancyState, RedundancyStatus, RuleStatsRow, Supervisor,
    SupervisorState,
};
use cli::{Answer, HeartbeatSetting};
use wire::service::{Connection, Module, PolicyLookups};
use wire::supervision;

/// Model of the supervisors and of the host agents in `show module`.
const MODEL: &str = "Twinwall";

pub(super) fn redundancy(status: &supervision::RedundancyStatus) -> RedundancyStatus {
    let mode = |ha| {
        if ha {
            RedundancyMode::HA
        } else {
            RedundancyMode::None
        }
    };
    RedundancyStatus {
        role_administrative: status.administrative_role,
        role_operational: status.operational_role,
        mode_administrative: RedundancyMode::HA,
        mode_operational: mode(status.mode_ha),
        this_slot: status.slot,
        this: supervisor(&status.this),
        other: status
            .other
            .as_ref()
            .map_or(OtherSupervisor::NotPresent, |other| {
                OtherSupervisor::Present(supervisor(other))
            }),
        conflict_policy: status.conflict_policy,
        boot_wait_s: status.boot_wait_s,
        notices: status.reason.lines().map(str::to_owned).collect(),
    }
}

fn supervisor(status: &supervision::SupervisorStatus) -> Supervisor {
    Supervisor {
        redundancy_state: match status.redundancy_state.as_str() {
            "Active" => RedundancyState::Active,
            "At BIOS" => RedundancyState::AtBios,
            "Failed" => RedundancyState::Failed,
            "Initializing" => RedundancyState::Initializing,
            "Not present" => RedundancyState::NotPresent,
            "Offline" => RedundancyState::Offline,
            "Standby" => RedundancyState::Standby,
            _ => RedundancyState::Unknown,
        },
        supervisor_state: match status.supervisor_state.as_str() {
            "Active" => SupervisorState::Active,
            "HA standby" => SupervisorState::HaStandby,
            "Offline" => SupervisorState::Offline,
            _ => SupervisorState::Unknown,
        },
        internal_state: match status.internal_state.as_str() {
            "Active with failed standby" => InternalState::ActiveWithFailedStandby,
            "Active with HA standby" => InternalState::ActiveWithHaStandby,
            "Active with no standby" => InternalState::ActiveWithNoStandby,
            "HA standby" => InternalState::HaStandby,
            "HA switchover in progress" => InternalState::HaSwitchoverInProgress,
            "HA synchronization in progress" => InternalState::HaSynchronizationInProgress,
            "Offline" => InternalState::Offline,
            "Shutting down" => InternalState::ShuttingDown,
            "Standby (failed)" => InternalState::StandbyFailed,
            _ => InternalState::Other,
        },
    }
}

pub(super) fn heartbeat(status: &supervision::HeartbeatStatus) -> HeartbeatStatus {
    let profiles = [
        ("fast", HeartbeatSetting::Fast),
        ("default", HeartbeatSetting::Default),
        ("vm-safe", HeartbeatSetting::VmSafe),
    ];
    let known = profiles.iter().find(|(_, profile)| {
        profile.interval_ms() == status.interval_ms && profile.misses() == status.misses
    });
    HeartbeatStatus {
        profile: known.map_or("explicit", |(name, _)| name).to_owned(),
        interval_ms: status.interval_ms,
        misses: status.misses,
        peer_interval_ms: status.peer_interval_ms,
        hold_time_ms: status.hold_time_ms,
        awaits_confirmation: status.awaits_confirmation,
        realtime_refused: status.real_time.clone().err(),
        watchdog: match &status.watchdog {
            None => "not configured".to_owned(),
            Some(Ok(device)) => device.clone(),
            Some(Err(why)) => format!("unavailable: {why}"),
        },
        canaries: status.canaries,
        links: status.links.iter().map(link).collect(),
    }
}

fn link(status: &supervision::LinkStatus) -> LinkHeartbeat {
    LinkHeartbeat {
        name: status.name.clone(),
        heard: status.up,
        last_heard_ms: status.last_seen_ms,
        sent: status.sent,
        received: status.received,
        lost: status.lost,
        refused: status.refused,
        round_trip_us: status.round_trip_us,
        round_trip_mean_us: status.round_trip_mean_us,
        round_trip_p99_us: status.round_trip_p99_us,
        jitter_us: status.jitter_us,
        jitter_p99_us: status.jitter_p99_us,
    }
}

/// Rows of both supervisors, then of the host agents.
pub(super) fn modules(
    status: &supervision::RedundancyStatus,
    vems: &[Module],
    version: &str,
) -> Modules {
    let row =
        |slot: model::Slot, supervisor: &supervision::SupervisorStatus, this_terminal| ModuleRow {
            module: slot.module(),
            ports: 0,
            module_type: "Virtual Supervisor Module".to_owned(),
            model: MODEL.to_owned(),
            status: match supervisor.supervisor_state.as_str() {
                "Active" => ModuleStatus::Active,
                "HA standby" => ModuleStatus::HaStandby,
                "Offline" => ModuleStatus::Offline,
                _ => ModuleStatus::PoweredUp,
            },
            this_terminal,
            software: this_terminal.then(|| version.to_owned()),
            server_address: None,
            server_id: None,
            server_name: None,
        };
    let this = row(status.slot, &status.this, true);
    let other = status
        .other
        .as_ref()
        .map(|other| row(status.slot.other(), other, false));
    let mut modules: Vec<ModuleRow> = core::iter::once(this).chain(other).collect();
    modules.sort_by_key(|row| row.module);
    modules.extend(vems.iter().map(|vem| ModuleRow {
        module: vem.module,
        ports: u32::from(vem.ports),
        module_type: "Virtual Ethernet Module".to_owned(),
        model: MODEL.to_owned(),
        status: if vem.status == "ok" {
            ModuleStatus::Ok
        } else {
            ModuleStatus::Offline
        },
        this_terminal: false,
        software: None,
        server_address: (!vem.address.is_empty()).then(|| vem.address.clone()),
        server_id: Some(vem.fingerprint.clone()),
        server_name: Some(vem.host.clone()),
    }));
    Modules { modules }
}

pub(super) fn processes(rows: &[supervision::Process]) -> Processes {
    let row = |row: &supervision::Process| ProcessRow {
        pid: row.pid,
        state: match row.state.as_str() {
            "D" => ProcessState::D,
            "ER" => ProcessState::ER,
            "NR" => ProcessState::NR,
            "R" => ProcessState::R,
            "T" => ProcessState::T,
            "Z" => ProcessState::Z,
            _ => ProcessState::S,
        },
        program_counter: row
            .pc
            .as_ref()
            .and_then(|pc| u64::from_str_radix(pc.trim_start_matches("0x"), 16).ok()),
        start_count: row.start_count,
        tty: row.tty.clone(),
        process: row.name.clone(),
    };
    Processes {
        processes: rows.iter().map(row).collect(),
    }
}

pub(super) fn policy_stats(policies: &[PolicyLookups], log_suppressed: u64) -> PolicyStats {
    let policies = policies
        .iter()
        .map(|policy| PolicyStatsRow {
            policy: policy.policy.clone(),
            lookups: policy.lookups,
            rules: policy
                .rules
                .iter()
                .map(|rule| RuleStatsRow {
                    rule: rule.rule.clone(),
                    hits: rule.hits,
                    actions: rule.actions.clone(),
                })
                .collect(),
        })
        .collect();
    PolicyStats {
        policies,
        log_suppressed,
    }
}

pub(super) fn connections(rows: &[Connection], total: u64, capacity: u64) -> Answer {
    let row = |row: &Connection| ConnectionRow {
        module: row.module,
        port: row.port.clone(),
        direction: row.direction,
        flow: row.flow,
        verdict: row.verdict,
        rule: row.rule.clone(),
        age_s: row.age_s,
    };
    Answer::Connections(Connections {
        connections: rows.iter().map(row).collect(),
        total,
        capacity,
    })
}
