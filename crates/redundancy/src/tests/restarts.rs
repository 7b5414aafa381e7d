//! The restart of the pair by an unstable standby, and its bound.

use model::{Epoch, Incarnation, Lsn, Role};
use wire::control::{ControlMessage, Hello};
use wire::heartbeat::State;

use super::pair::{A, B, Pair};
use crate::phase::Phase;
use crate::standby::{PAIR_RESTART_WINDOW, PAIR_RESTARTS_MAX};
use crate::{Command, Input, ServicesHealth};

/// Restarts of the pair that B has ordered.
fn ordered(pair: &Pair) -> usize {
    let resets = pair.sides[B].resets.iter();
    resets
        .filter(|reason| reason.starts_with("restart of the pair"))
        .count()
}

/// A, which acts, is dead in part: its services are not ready, and what it sends is lost. B is
/// not stable.
fn dead_in_part() -> Pair {
    let mut pair = Pair::stable(1);
    pair.set_health(B, ServicesHealth::Starting);
    pair.set_health(A, ServicesHealth::Starting);
    pair.run(300);
    pair
}

#[test]
fn an_active_that_restarts_waits_for_its_standby_to_settle_who_leads() {
    // Its standby's heartbeats cannot be read yet: they come under a key of before its start.
    let mut pair = Pair::stable(1);
    let standby = pair.core(B).ctx.incarnation;
    let history = pair.sides[A].history;
    pair.kill(A);
    pair.kill(B);
    pair.boot(A);
    pair.run(150);
    assert_eq!(pair.says(A), Some(State::Initializing));
    let mut core = pair.core(A).clone();
    let hello = |follows, revision| {
        Input::Control(ControlMessage::Hello(Hello {
            pair: core.ctx.record.pair,
            role: Role::Secondary,
            incarnation: standby,
            highest_epoch: core.ctx.seen,
            history,
            alone: false,
            active: false,
            follows,
            uptime_ms: revision,
        }))
    };
    let (follower, booting) = (hello(true, 1), hello(false, 2));
    core.handle(pair.now, Input::PeerConnected);
    core.handle(pair.now, follower);
    assert!(core.acting().is_none());
    assert!(
        matches!(core.phase, Phase::Booting(_)),
        "the standby settles it"
    );
    // One that boots too negotiates.
    core.handle(pair.now, Input::PeerDisconnected);
    core.handle(pair.now, Input::PeerConnected);
    core.handle(pair.now, booting);
    assert!(
        matches!(core.phase, Phase::Activating(_)),
        "between equals the primary leads"
    );
}

#[test]
fn a_standby_that_slept_while_its_active_restarted_and_led_again_follows_it() {
    let pair = Pair::stable(1);
    let mut core = pair.core(B).clone();
    let seen = core.ctx.seen;
    let incarnation = Incarnation(77_777);
    let highest_epoch = Epoch {
        counter: seen.counter + 1,
        incarnation,
        ..seen
    };
    core.handle(pair.now, Input::PeerDisconnected);
    core.handle(pair.now, Input::PeerConnected);
    let hello = Hello {
        pair: core.ctx.record.pair,
        role: Role::Primary,
        incarnation,
        highest_epoch,
        history: (highest_epoch, Lsn(900)),
        alone: true,
        active: true,
        follows: false,
        uptime_ms: 6_000,
    };
    core.handle(pair.now, Input::Control(ControlMessage::Hello(hello)));
    assert!(core.acting().is_none(), "it has led, and committed, since");
    assert!(matches!(core.phase, Phase::Booting(_)));
}

#[test]
fn an_active_that_is_dead_in_part_hears_the_order_in_heartbeats_alone() {
    let mut pair = dead_in_part();
    // One way only: no control connection lives on that.
    for link in 0..2 {
        pair.links[link][A] = false;
    }
    pair.run(1_900);
    assert!(pair.sides[B].resets.is_empty(), "patience");
    pair.run_until("both reset", 1_500, |pair| {
        !pair.sides[A].resets.is_empty() && ordered(pair) == 1
    });
    let reason = &pair.sides[A].resets[0];
    assert!(
        reason.starts_with("ordered by the other supervisor"),
        "{reason}"
    );
}

#[test]
fn the_order_is_repeated_on_links_that_lose_most_of_it() {
    for seed in 1..20 {
        let mut pair = Pair::stable(seed);
        pair.loss = 500;
        pair.set_health(A, ServicesHealth::Starting);
        pair.run(200);
        pair.set_health(B, ServicesHealth::Starting);
        for link in 0..2 {
            pair.links[link][A] = false;
        }
        pair.run_until("A resets", 6_000, |pair| !pair.sides[A].resets.is_empty());
    }
}

#[test]
fn an_active_that_is_well_refuses_the_order_once_and_acts_on() {
    let mut pair = Pair::stable(1);
    pair.set_health(B, ServicesHealth::Starting);
    pair.run(300);
    for link in 0..2 {
        pair.links[link][A] = false;
    }
    pair.run_until("B restarts the pair", 4_000, |pair| ordered(pair) == 1);
    pair.run(1_000);
    assert_eq!(pair.actives(), [A]);
    assert!(pair.sides[A].resets.is_empty());
    let refusals = pair.sides[A].mnemonics();
    let refusals = refusals.iter().filter(|line| **line == "RESET_REFUSED");
    assert_eq!(refusals.count(), 1);
}

#[test]
fn a_gasp_to_an_unstable_standby_restarts_the_pair_at_once() {
    let mut pair = Pair::stable(1);
    pair.set_health(B, ServicesHealth::Starting);
    pair.run(300);
    pair.fail_service(A);
    pair.run_until("B restarts the pair", 5_000, |pair| ordered(pair) == 1);
    assert!(pair.actives().is_empty(), "S7");
    pair.run_until("the pair comes back", 30_000, |pair| {
        pair.actives().len() == 1 && pair.is_stable(1 - pair.actives()[0])
    });
}

/// Across restarts of the machine too: the count is in the node file, and stamps of an earlier
/// clock count as fresh.
#[test]
fn the_pair_is_restarted_a_few_times_and_then_the_node_is_isolated() {
    let mut pair = Pair::stable(1);
    for round in 0..8 {
        pair.set_health(B, ServicesHealth::Starting);
        pair.run(300);
        pair.kill(A);
        pair.run(8_000);
        assert!(pair.actives().is_empty(), "S7");
        assert!(ordered(&pair) <= PAIR_RESTARTS_MAX);
        if round >= PAIR_RESTARTS_MAX {
            let reason = pair.reason(B);
            assert!(
                reason.contains("isolated") && reason.contains("was restarted"),
                "{reason}"
            );
        }
        pair.boot(A);
        pair.run_until("A leads", 30_000, |pair| pair.actives() == [A]);
        pair.set_health(B, ServicesHealth::Ready);
        pair.run_until("B is stable", 30_000, |pair| pair.is_stable(B));
    }
    assert_eq!(ordered(&pair), PAIR_RESTARTS_MAX);
}

#[test]
fn after_the_window_it_may_restart_the_pair_again() {
    let mut pair = Pair::stable(1);
    for _ in 0..PAIR_RESTARTS_MAX + 1 {
        pair.set_health(B, ServicesHealth::Starting);
        pair.run(300);
        pair.kill(A);
        pair.run(8_000);
        pair.boot(A);
        pair.run_until("A leads", 30_000, |pair| pair.actives() == [A]);
        pair.set_health(B, ServicesHealth::Ready);
        pair.run_until("B is stable", 30_000, |pair| pair.is_stable(B));
    }
    // Both are off for as long.
    pair.kill(A);
    pair.kill(B);
    pair.now = pair.now + PAIR_RESTART_WINDOW;
    pair.boot(A);
    pair.boot(B);
    pair.run_until("B is stable", 30_000, |pair| pair.is_stable(B));
    pair.set_health(B, ServicesHealth::Starting);
    pair.run(300);
    pair.kill(A);
    pair.run_until("it does", 8_000, |pair| {
        ordered(pair) == PAIR_RESTARTS_MAX + 1
    });
}

#[test]
fn no_second_change_of_roles_before_a_standby_is_stable() {
    let mut pair = Pair::stable(1);
    let command = pair.command(A, Command::Switchover);
    pair.run_until("B leads", 200, |pair| pair.actives() == [B]);
    assert_eq!(pair.result(A, command), Some(Ok(String::new())));
    // A is on its way back, and B fails: nobody is there to take over.
    pair.run_until("A follows", 5_000, |pair| {
        pair.says(A) == Some(State::Synchronizing)
    });
    pair.kill(B);
    pair.run(20_000);
    assert_ne!(pair.actives(), [A], "S8");
}
