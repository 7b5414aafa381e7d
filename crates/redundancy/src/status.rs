//! `show system redundancy status` in the original's words (behaviour §1).

use model::{Role, Time};
use wire::heartbeat::State;
use wire::supervision::{RedundancyStatus, SupervisorStatus};

use crate::active::Mode;
use crate::context::Context;
use crate::phase::Phase;
use crate::sync::{self, Fault};
use crate::votes::Finding;

pub(crate) fn compose(now: Time, ctx: &Context, phase: &Phase) -> RedundancyStatus {
    let standby_stable = match phase {
        Phase::Active(active) => active.standby_stable(now, ctx),
        Phase::Booting(_) | Phase::Activating(_) | Phase::Standby(_) | Phase::Resetting(_) => false,
    };
    let self_stable = match phase {
        Phase::Standby(standby) => standby.is_stable(now, ctx),
        Phase::Booting(_) | Phase::Activating(_) | Phase::Active(_) | Phase::Resetting(_) => false,
    };
    // What no takeover needs, but redundancy does: a dead service of the active.
    let leads = matches!(phase, Phase::Active(_));
    let fault = sync::actives_service_down(now, ctx, leads);
    let isolated =
        matches!(phase, Phase::Standby(standby) if standby.finding() == Some(Finding::Isolated));
    let synchronised = (standby_stable || self_stable) && fault.is_none() && !isolated;
    let epoch = match phase {
        Phase::Active(active) => active.epoch,
        Phase::Standby(standby) => standby.epoch,
        Phase::Booting(_) | Phase::Activating(_) | Phase::Resetting(_) => ctx.seen,
    };
    RedundancyStatus {
        administrative_role: ctx.record.role,
        operational_role: ctx.role,
        mode_ha: synchronised,
        slot: ctx.slot(),
        this: this(now, ctx, phase, synchronised),
        other: other(now, ctx, phase, synchronised),
        epoch,
        reason: reason(now, ctx, phase, standby_stable, fault),
        pair: ctx.record.pair,
        conflict_policy: ctx.record.conflict_policy,
        boot_wait_s: ctx.record.boot_wait_s,
    }
}

fn supervisor(redundancy: &str, supervisor: &str, internal: &str) -> SupervisorStatus {
    SupervisorStatus {
        redundancy_state: redundancy.to_owned(),
        supervisor_state: supervisor.to_owned(),
        internal_state: internal.to_owned(),
    }
}

const SYNCHRONIZING: &str = "HA synchronization in progress";
const SWITCHING: &str = "HA switchover in progress";
const STANDBY_FAILED: &str = "Standby (failed)";

fn this(now: Time, ctx: &Context, phase: &Phase, synchronised: bool) -> SupervisorStatus {
    match phase {
        Phase::Booting(_) | Phase::Activating(_) => supervisor("Initializing", "Offline", "Other"),
        Phase::Active(active) => {
            let follows = ctx.peer_says(now).map(|content| content.state);
            let internal = match (active.mode, follows) {
                (Mode::Quiescing(_) | Mode::HandingOver(_), _) => SWITCHING,
                (Mode::Contested(_) | Mode::Paused(_), _) => "Other",
                (Mode::Acting, _) if synchronised => "Active with HA standby",
                (Mode::Acting, _) if active.leave.standby_failed() => "Active with failed standby",
                (Mode::Acting, Some(State::Synchronizing | State::Standby)) => SYNCHRONIZING,
                (
                    Mode::Acting,
                    Some(
                        State::Initializing
                        | State::Active
                        | State::Yielded
                        | State::Resetting
                        | State::Paused,
                    )
                    | None,
                ) => "Active with no standby",
            };
            supervisor("Active", "Active", internal)
        }
        Phase::Standby(_) if synchronised => supervisor("Standby", "HA standby", "HA standby"),
        Phase::Standby(standby) if standby.has_failed() => {
            supervisor("Failed", "Offline", STANDBY_FAILED)
        }
        Phase::Standby(standby) if standby.finding() == Some(Finding::Isolated) => {
            supervisor("Offline", "Offline", "Offline")
        }
        Phase::Standby(_) => supervisor("Initializing", "Offline", SYNCHRONIZING),
        Phase::Resetting(resetting) => {
            let internal = if resetting.epoch.is_some() {
                SWITCHING
            } else {
                "Shutting down"
            };
            supervisor("Offline", "Offline", internal)
        }
    }
}

/// `None` is *Not present*.
fn other(now: Time, ctx: &Context, phase: &Phase, stable: bool) -> Option<SupervisorStatus> {
    if ctx.role == Role::Standalone {
        return None;
    }
    if ctx.peer.fault.is_some() {
        // Somebody is there, but nobody of this pair.
        let heard = ctx.peer.connected || ctx.stranger_says(now).is_some();
        return heard.then(|| supervisor("Unknown", "Unknown", "Other"));
    }
    if ctx.peer.has_only_greeted() {
        return Some(supervisor("At BIOS", "Unknown", "Other"));
    }
    let content = ctx.peer_says(now)?;
    if let Phase::Active(active) = phase
        && active.leave.standby_failed()
        && matches!(content.state, State::Initializing | State::Synchronizing)
    {
        return Some(supervisor("Failed", "Offline", STANDBY_FAILED));
    }
    Some(match content.state {
        State::Initializing => supervisor("Initializing", "Offline", "Other"),
        State::Active | State::Paused => {
            let internal = if stable {
                "Active with HA standby"
            } else {
                "Active with no standby"
            };
            supervisor("Active", "Active", internal)
        }
        State::Yielded => supervisor("Active", "Active", SWITCHING),
        State::Synchronizing => supervisor("Initializing", "Offline", SYNCHRONIZING),
        // It calls itself stable; unless we agree, it is not.
        State::Standby if stable => supervisor("Standby", "HA standby", "HA standby"),
        State::Standby => supervisor("Standby", "HA standby", SYNCHRONIZING),
        State::Resetting => supervisor("Offline", "Offline", "Shutting down"),
    })
}

fn reason(
    now: Time,
    ctx: &Context,
    phase: &Phase,
    standby_stable: bool,
    down: Option<Fault>,
) -> String {
    if let Some(fault) = &ctx.peer.fault {
        return fault.clone();
    }
    if let Some(fault) = down {
        return format!("not synchronised: {fault}");
    }
    match phase {
        Phase::Booting(booting) => booting.reason.clone(),
        Phase::Activating(_) => "waiting for the epoch to be durable".to_owned(),
        Phase::Active(active) => match active.mode {
            Mode::Contested(contested) => {
                let theirs = contested.ours.rival;
                let outcome = match contested.loses {
                    Some(rule) => format!("this one loses ({})", rule.words()),
                    None => "it is being judged which resets".to_owned(),
                };
                format!("both supervisors are active, the other under epoch {theirs}; {outcome}")
            }
            Mode::Paused(_) => "stopped after a pause; asking whether anybody took over".to_owned(),
            Mode::Acting | Mode::Quiescing(_) | Mode::HandingOver(_)
                if standby_stable || ctx.role == Role::Standalone =>
            {
                String::new()
            }
            Mode::Acting | Mode::Quiescing(_) | Mode::HandingOver(_) => match ctx.gap {
                Some(gap) => format!(
                    "{}\nthis supervisor took over without {gap}",
                    active.leave.lacks
                ),
                None => active.leave.lacks.clone(),
            },
        },
        Phase::Standby(standby) => {
            let fault = ctx
                .peer_says(now)
                .filter(|content| content.state == State::Active)
                .and_then(|content| sync::of_this(ctx, content));
            match fault.filter(|_| !standby.is_stable(now, ctx)) {
                Some(fault) if !standby.reason.is_empty() => {
                    format!("{} ({fault})", standby.reason)
                }
                Some(_) | None => standby.reason.clone(),
            }
        }
        Phase::Resetting(resetting) => format!("resetting: {}", resetting.reason()),
    }
}
