//! A peer is pinned or unpinned while the node runs.

use model::Epoch;

use super::pair::{A, B, Pair};
use crate::Input;

/// The active leads alone and may commit; the standby resets, does not take over, and says why.
#[test]
fn unpaired_the_active_goes_on_and_the_standby_waits() {
    let mut pair = Pair::stable(1);
    pair.cut();
    pair.tell(A, Input::PeerUnpinned);
    pair.tell(B, Input::PeerUnpinned);
    pair.run(5_000);
    assert_eq!(pair.actives(), [A]);
    assert!(pair.sides[A].durable.alone, "A may boot alone");
    assert_eq!(pair.sides[B].resets.len(), 1, "{:?}", pair.sides[B].resets);
    assert!(pair.sides[B].durable.paired && !pair.sides[B].durable.alone);
    let why = pair.core(B).status(pair.now).reason;
    assert!(why.contains("redundancy pair"), "{why}");
}

/// The standby unpairs: the other way round nothing is different.
#[test]
fn a_standby_that_unpairs_does_not_take_over_the_silent_active() {
    let mut pair = Pair::stable(1);
    pair.tell(B, Input::PeerUnpinned);
    pair.cut();
    pair.run(5_000);
    assert_eq!(pair.actives(), [A]);
}

/// Of two that lead and then pair, the one that joined restarts, archives what it had, and may
/// not lead alone afterwards.
#[test]
fn of_two_that_lead_the_one_that_gives_way_restarts() {
    let mut pair = Pair::new(1);
    pair.cut();
    pair.boot(A);
    pair.boot(B);
    pair.run_until("both lead", 20_000, |pair| pair.actives() == [A, B]);
    let above = Epoch::default();
    pair.tell(
        A,
        Input::PeerPinned {
            gives_way: false,
            above,
        },
    );
    pair.tell(
        B,
        Input::PeerPinned {
            gives_way: true,
            above,
        },
    );
    pair.run(1_000);
    assert_eq!(pair.actives(), [A]);
    assert_eq!(pair.sides[B].resets.len(), 1);
    assert_eq!(pair.sides[B].archives.len(), 1);
    assert!(pair.sides[B].durable.paired && !pair.sides[B].durable.alone);
}

/// The one that joins has led under the higher epoch: whoever stays takes one above it, instead
/// of being superseded by a node that has just restarted to follow.
#[test]
fn whoever_stays_is_not_superseded_by_what_the_other_has_led_under() {
    let mut pair = Pair::new(1).with_vems();
    pair.cut();
    for vem in &mut pair.vems {
        vem.reaches[B] = false;
    }
    pair.boot(A);
    pair.boot(B);
    pair.run_until("both lead", 20_000, |pair| pair.actives() == [A, B]);
    for _ in 0..2 {
        pair.kill(B);
        pair.boot(B);
        pair.run_until("B leads again", 20_000, |pair| pair.actives() == [A, B]);
    }
    let (ours, theirs) = (pair.sides[A].acting(), pair.sides[B].acting());
    assert!(ours < theirs, "{ours:?} {theirs:?}");
    let above = theirs.expect("B leads");
    pair.tell(
        A,
        Input::PeerPinned {
            gives_way: false,
            above,
        },
    );
    let above = ours.expect("A leads");
    pair.tell(
        B,
        Input::PeerPinned {
            gives_way: true,
            above,
        },
    );
    pair.heal();
    pair.run_until("B follows", 20_000, |pair| pair.is_stable(B));
    assert_eq!(pair.actives(), [A]);
    assert_eq!(pair.sides[A].resets, Vec::<String>::new());
    let epoch = pair.sides[A].acting().expect("A leads");
    assert!(pair.vems.iter().all(|vem| vem.obeys(epoch)));
}

/// The second node of a new pair has led for itself, as a standalone node does before it is made a
/// secondary: the first one leads on above that, and the second follows.
#[test]
fn a_joining_node_that_has_led_for_itself_supersedes_nobody() {
    let mut pair = Pair::new(1).with_vems();
    pair.cut();
    for vem in &mut pair.vems {
        vem.reaches[B] = false;
    }
    pair.boot(A);
    pair.boot(B);
    pair.run_until("both lead", 20_000, |pair| pair.actives() == [A, B]);
    for _ in 0..2 {
        pair.kill(B);
        pair.boot(B);
        pair.run_until("B leads again", 20_000, |pair| pair.actives() == [A, B]);
    }
    assert!(pair.sides[A].acting() < pair.sides[B].acting());
    // It has marked itself alone, and with that written down what it leads under.
    pair.run(2_000);
    pair.kill(B);
    pair.heal();
    pair.boot(B);
    pair.run_until("B follows", 20_000, |pair| pair.is_stable(B));
    assert_eq!(pair.actives(), [A]);
    assert_eq!(pair.sides[A].resets, Vec::<String>::new());
    let epoch = pair.sides[A].acting().expect("A leads");
    assert!(pair.vems.iter().all(|vem| vem.obeys(epoch)));
}
