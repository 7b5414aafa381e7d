//! Who is not our peer: refused, with a line in the log and a reason in the display, on both sides.

use core::time::Duration;

use model::{Incarnation, LinkId, PairId, Role};

use super::pair::{A, B, Pair};
use crate::Input;

/// Boots both and checks that no pair is formed and that both say why.
fn refused(mut pair: Pair, why: [&str; 2]) -> Pair {
    pair.boot(A);
    pair.boot(B);
    pair.run(20_000);
    for (node, why) in [A, B].into_iter().zip(why) {
        let reason = pair.reason(node);
        assert!(reason.contains(why), "{node}: {reason}");
        let mut lines = pair.sides[node].logs.iter();
        let line = lines
            .find(|line| line.mnemonic == "NOT_PAIRED" && line.text.contains(why))
            .unwrap_or_else(|| panic!("{node}: a line that says {why}"));
        assert!(line.severity <= 3);
        let same = pair.sides[node].logs.iter();
        let same = same.filter(|line| line.mnemonic == "NOT_PAIRED").count();
        assert!(same <= 2, "{node}: said once, not in every beat: {same}");
        assert!(!pair.is_stable(node) && !pair.mode_ha(node));
        let status = pair.core(node).status(pair.now);
        let other = status.other.expect("somebody is there");
        assert_eq!(other.redundancy_state, "Unknown");
    }
    assert!(
        pair.actives().is_empty(),
        "who is refused does not make one lead"
    );
    pair
}

#[test]
fn two_primaries_and_two_secondaries() {
    for role in [Role::Primary, Role::Secondary] {
        let mut pair = Pair::new(1);
        pair.sides[A].durable.role = role;
        pair.sides[B].durable.role = role;
        let why = format!("both supervisors have the role {role}");
        refused(pair, [&why, &why]);
    }
}

#[test]
fn another_pair_id_or_none() {
    let mut pair = Pair::new(1);
    pair.sides[B].durable.pair = PairId::try_from(8).ok();
    refused(
        pair,
        ["states pair ID 8, ours is 7", "states pair ID 7, ours is 8"],
    );
    let mut pair = Pair::new(1);
    pair.sides[B].durable.pair = None;
    refused(
        pair,
        ["states pair ID none, ours is 7", "no pair ID is set"],
    );
}

#[test]
fn an_active_that_is_refused_by_a_newcomer_carries_on() {
    let mut pair = Pair::new(1);
    pair.boot(A);
    pair.run_until("A leads", 10_000, |pair| pair.actives() == [A]);
    pair.sides[B].durable.role = Role::Primary;
    pair.boot(B);
    pair.run(10_000);
    assert_eq!(pair.actives(), [A]);
    assert_eq!(pair.acts.len(), 1);
    assert!(
        pair.reason(A)
            .contains("both supervisors have the role primary")
    );
    // Put right, it joins.
    pair.kill(B);
    pair.sides[B].durable.role = Role::Secondary;
    pair.boot(B);
    pair.run_until("B is stable", 10_000, |pair| {
        pair.is_stable(B) && pair.mode_ha(A)
    });
    assert!(pair.reason(A).is_empty());
}

#[test]
fn a_standalone_node_ignores_valid_frames_of_a_peer() {
    let mut pair = Pair::stable(1);
    let frame = pair.core(B).ctx.said.clone().expect("B speaks");
    let mut alone = Pair::new(1);
    alone.sides[A].durable.role = Role::Standalone;
    alone.boot(A);
    alone.run_until("A leads", 1_000, |pair| pair.actives() == [A]);
    alone.run(100);
    let before = (alone.core(A).status(alone.now), alone.sides[A].logs.len());
    let epoch = alone.sides[A].acting();
    for state in [
        wire::heartbeat::State::Active,
        wire::heartbeat::State::Standby,
        wire::heartbeat::State::Yielded,
    ] {
        let mut content = frame.clone();
        content.state = state;
        content.epoch.counter += 100;
        content.restart = Some(content.epoch);
        let now = alone.now;
        alone.tell(A, Input::PeerConnected);
        alone.tell(
            A,
            Input::Heartbeat {
                link: LinkId(0),
                content,
                peer_hold_time: Duration::from_millis(300),
                echo: now,
            },
        );
        alone.run(200);
    }
    assert_eq!(alone.sides[A].acting(), epoch);
    let after = (alone.core(A).status(alone.now), alone.sides[A].logs.len());
    assert_eq!(before, after);
    pair.run(1);
}

#[test]
fn a_second_node_with_the_peers_identity_is_refused_with_the_first() {
    let mut pair = Pair::stable(1);
    pair.run(100);
    let first = pair.core(B).ctx.said.clone().expect("B speaks");
    let mut twin = first.clone();
    twin.incarnation = Incarnation(777);
    twin.state = wire::heartbeat::State::Initializing;
    let beat = |pair: &mut Pair| {
        let content = twin.clone();
        let now = pair.now;
        pair.tell(
            A,
            Input::Heartbeat {
                link: LinkId(0),
                content,
                peer_hold_time: Duration::from_millis(300),
                echo: now,
            },
        );
    };
    // The twin looks like a restart of B, but B speaks on.
    for _ in 0..40 {
        beat(&mut pair);
        pair.run(100);
    }
    assert!(pair.reason(A).contains("the clone"), "{}", pair.reason(A));
    assert!(pair.sides[A].logs.iter().any(|line| {
        line.mnemonic == "NOT_PAIRED" && line.text.contains("bear the other supervisor's identity")
    }));
    assert_eq!(pair.actives(), [A], "the active carries on alone");
    assert!(!pair.mode_ha(A));
    // The twin is stopped, and B restarted, as the operator is told.
    pair.kill(B);
    pair.run(11_000);
    pair.boot(B);
    pair.run_until("B is taken in again", 20_000, |pair| {
        pair.is_stable(B) && pair.mode_ha(A)
    });
}

/// A clone of the standby has led, and the old active follows it.
#[test]
fn a_standby_that_meets_an_epoch_of_its_own_identity_does_not_take_over() {
    let mut pair = Pair::stable(1);
    pair.run(100);
    let mut content = pair.core(A).ctx.said.clone().expect("A speaks");
    content.incarnation = Incarnation(500);
    content.state = wire::heartbeat::State::Standby;
    content.epoch = model::Epoch {
        counter: content.epoch.counter + 1,
        node: model::NodeKey([2; 32]),
        // Below the reservation, as it happens.
        incarnation: Incarnation(0),
    };
    content.grant = false;
    pair.kill(A);
    let now = pair.now;
    pair.tell(
        B,
        Input::Heartbeat {
            link: LinkId(0),
            content,
            peer_hold_time: Duration::from_millis(300),
            echo: now,
        },
    );
    assert!(!pair.is_stable(B));
    for _ in 0..20_000 {
        pair.run(1);
        assert!(pair.actives().is_empty());
    }
    let reason = pair.reason(B);
    assert!(
        reason.contains("bears this supervisor's identity"),
        "{reason}"
    );
}
