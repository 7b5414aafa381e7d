//! Two stores with a connection between them.

use model::{Lsn, ServiceName};
use wire::broker::Message;
use wire::checkpoint::{Acknowledgement, Changed, Request};
use wire::supervision::Activity;

use super::rig::{CONFIG, FLOWS, OWN, Rig, epoch, put};
use crate::Input;

pub(super) struct Pair {
    pub(super) a: Rig,
    pub(super) b: Rig,
}

impl Pair {
    /// `a` acts under the first epoch, `b` follows.
    pub(super) fn new() -> Self {
        let mut pair = Self {
            a: Rig::new(),
            b: Rig::new(),
        };
        pair.a.posture(Activity::Active(epoch(1, 1)), false);
        pair.b.posture(Activity::Standby, false);
        pair
    }

    pub(super) fn connect(&mut self) {
        self.a.feed(Input::PeerConnected(true));
        self.b.feed(Input::PeerConnected(true));
        self.settle();
    }

    pub(super) fn disconnect(&mut self) {
        self.a.to_peer.clear();
        self.b.to_peer.clear();
        self.a.feed(Input::PeerConnected(false));
        self.b.feed(Input::PeerConnected(false));
    }

    pub(super) fn settle(&mut self) {
        loop {
            let from_a = self.a.to_peer.pop_front();
            let from_b = self.b.to_peer.pop_front();
            if from_a.is_none() && from_b.is_none() {
                break;
            }
            from_a
                .into_iter()
                .for_each(|message| deliver(&mut self.b, message));
            from_b
                .into_iter()
                .for_each(|message| deliver(&mut self.a, message));
        }
    }

    pub(super) fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 10 {
            self.a.pass(10);
            self.b.pass(10);
            self.settle();
        }
    }

    pub(super) fn assert_equal(&mut self) {
        self.pass(2000);
        assert_eq!(self.a.store.history(), self.b.store.history());
        for namespace in [CONFIG, FLOWS] {
            assert_eq!(self.a.store.pairs(namespace), self.b.store.pairs(namespace));
        }
        assert_eq!(self.a.sync.config_hash, self.b.sync.config_hash);
        assert!(self.a.sync.bulk_done && self.b.sync.bulk_done);
        assert_eq!(self.a.sync.acked, self.a.sync.lsn);
        assert_eq!(self.b.sync.acked, self.a.sync.lsn);
    }
}

pub(super) fn deliver(to: &mut Rig, mut message: Message) {
    message.from_peer = true;
    to.feed(Input::Message(message));
}

#[test]
fn a_standby_with_a_contained_history_gets_increments() {
    let mut pair = Pair::new();
    pair.a
        .commit(vec![put(CONFIG, "running", "a")], Acknowledgement::Volatile);
    pair.connect();
    for i in 0..2000 {
        pair.a.commit(
            vec![put(FLOWS, &format!("{i}"), "x")],
            Acknowledgement::Volatile,
        );
    }
    pair.assert_equal();
    assert_eq!(pair.b.store.counters().bulks, 0, "both began empty");
    let commit = pair.a.commit(
        vec![put(CONFIG, "running", "b")],
        Acknowledgement::Replicated,
    );
    pair.settle();
    assert_eq!(pair.a.reached(commit), Some(Acknowledgement::Replicated));
}

#[test]
fn replicated_waits_for_the_standbys_disk_too() {
    let mut pair = Pair::new();
    pair.connect();
    pair.a.posture(Activity::Active(epoch(1, 1)), true);
    pair.b.quick_disk = false;
    let commit = pair.a.commit(
        vec![put(CONFIG, "running", "a")],
        Acknowledgement::Replicated,
    );
    pair.settle();
    assert_eq!(
        pair.a.reached(commit),
        None,
        "the standby has it in memory only"
    );
    pair.b.finish_work();
    pair.settle();
    assert_eq!(pair.a.reached(commit), Some(Acknowledgement::Replicated));
}

#[test]
fn a_silent_standby_costs_a_bounded_wait_and_the_answer_says_local() {
    let mut pair = Pair::new();
    pair.connect();
    pair.a.posture(Activity::Active(epoch(1, 1)), true);
    pair.disconnect();
    let commit = pair.a.commit(
        vec![put(CONFIG, "running", "a")],
        Acknowledgement::Replicated,
    );
    pair.a.pass(999);
    assert!(pair.a.questions.is_empty());
    pair.a.pass(2);
    let question = pair.a.questions[0];
    pair.a.feed(Input::AloneAnswered {
        question,
        granted: true,
    });
    assert_eq!(pair.a.reached(commit), Some(Acknowledgement::Local));
    // The pair is still called redundant: the leave was for that commit only.
    let next = pair.a.commit(
        vec![put(CONFIG, "running", "b")],
        Acknowledgement::Replicated,
    );
    assert_eq!(pair.a.reached(next), None);
    pair.a.pass(1001);
    assert_eq!(pair.a.questions.len(), 2);
    pair.connect();
    pair.settle();
    assert_eq!(pair.a.reached(next), Some(Acknowledgement::Replicated));
}

/// Its wait for the standby is over and the disk has not answered: there is nothing to do by the
/// clock (`pass` panics on a deadline that does not move).
#[test]
fn a_slow_disk_keeps_no_deadline_in_the_past() {
    let mut pair = Pair::new();
    pair.a.posture(Activity::Active(epoch(1, 1)), true);
    pair.a.finish_work();
    pair.a.quick_disk = false;
    let commit = pair.a.commit(
        vec![put(CONFIG, "running", "a")],
        Acknowledgement::Replicated,
    );
    pair.a.pass(5000);
    assert_eq!(pair.a.store.next_deadline(), None);
    pair.a.finish_work();
    let question = pair.a.questions[0];
    pair.a.feed(Input::AloneAnswered {
        question,
        granted: true,
    });
    assert_eq!(pair.a.reached(commit), Some(Acknowledgement::Local));
}

#[test]
fn a_forked_standby_is_replaced_not_merged() {
    let mut pair = Pair::new();
    pair.connect();
    pair.a.commit(
        vec![put(CONFIG, "running", "common")],
        Acknowledgement::Volatile,
    );
    pair.settle();
    pair.disconnect();
    // b leads under a lower counter for a moment and commits; a goes on.
    pair.b.posture(Activity::Active(epoch(2, 2)), false);
    pair.b
        .commit(vec![put(CONFIG, "only-b", "1")], Acknowledgement::Volatile);
    pair.b
        .commit(vec![put(FLOWS, "flow-b", "1")], Acknowledgement::Volatile);
    pair.b
        .commit(vec![put(OWN, "own", "kept")], Acknowledgement::Volatile);
    pair.a.posture(Activity::Active(epoch(3, 1)), false);
    pair.a
        .commit(vec![put(CONFIG, "only-a", "1")], Acknowledgement::Volatile);
    let watcher = ServiceName::PolicyEngine.sap();
    pair.b
        .request_from(watcher, false, Request::Watch { namespace: CONFIG });
    pair.b.posture(Activity::Standby, false);
    assert!(!pair.b.sync.bulk_done);
    pair.connect();
    pair.assert_equal();
    assert_eq!(pair.b.text(CONFIG, "only-b"), None);
    assert_eq!(pair.b.text(FLOWS, "flow-b"), None);
    assert_eq!(
        pair.b.text(OWN, "own").as_deref(),
        Some("kept"),
        "its own is its own"
    );
    assert_eq!(pair.b.store.counters().bulks, 1);
    assert!(
        pair.b
            .changes
            .iter()
            .any(|(_, changed)| matches!(changed, Changed::Replaced { .. }))
    );
    pair.b.restart();
    assert_eq!(pair.b.store.history(), pair.a.store.history());
    assert_eq!(pair.b.text(CONFIG, "only-a").as_deref(), Some("1"));
}

#[test]
fn a_bulk_goes_on_after_the_link_flapped() {
    let mut pair = Pair::new();
    let value = "v".repeat(20_000);
    for i in 0..40 {
        pair.a.commit(
            vec![put(FLOWS, &format!("{i:03}"), &value)],
            Acknowledgement::Volatile,
        );
    }
    // b has a history of its own.
    pair.b.posture(Activity::Active(epoch(0, 2)), false);
    pair.b
        .commit(vec![put(CONFIG, "x", "y")], Acknowledgement::Volatile);
    pair.b.posture(Activity::Standby, false);
    pair.a.feed(Input::PeerConnected(true));
    pair.b.feed(Input::PeerConnected(true));
    let mut chunks = 0;
    for _ in 0..200 {
        // Every third message is lost with the connection.
        for _ in 0..3 {
            pair.b
                .to_peer
                .drain(..)
                .for_each(|message| deliver(&mut pair.a, message));
            chunks += pair
                .a
                .to_peer
                .iter()
                .filter(|message| message.body.len() > 10_000)
                .count();
            pair.a
                .to_peer
                .drain(..)
                .for_each(|message| deliver(&mut pair.b, message));
        }
        pair.disconnect();
        pair.a.feed(Input::PeerConnected(true));
        pair.b.feed(Input::PeerConnected(true));
        if pair.b.store.counters().bulks > 0 {
            break;
        }
    }
    assert_eq!(pair.b.store.counters().bulks, 1);
    assert!(
        chunks <= 30,
        "{chunks} chunks for 14 that are needed: it was begun anew"
    );
    pair.assert_equal();
}

/// A late repetition of a snapshot's last chunk is not the whole snapshot.
#[test]
fn chunks_that_arrive_twice_do_no_harm() {
    let mut pair = Pair::new();
    let value = "v".repeat(20_000);
    for i in 0..10 {
        pair.a.commit(
            vec![put(FLOWS, &format!("{i:03}"), &value)],
            Acknowledgement::Volatile,
        );
    }
    pair.b.posture(Activity::Active(epoch(0, 2)), false);
    pair.b
        .commit(vec![put(CONFIG, "x", "y")], Acknowledgement::Volatile);
    pair.b.posture(Activity::Standby, false);
    pair.a.feed(Input::PeerConnected(true));
    pair.b.feed(Input::PeerConnected(true));
    for _ in 0..20 {
        let again: Vec<Message> = pair.a.to_peer.drain(..).collect();
        let twice = again
            .iter()
            .flat_map(|message| [message.clone(), message.clone()]);
        twice.for_each(|message| deliver(&mut pair.b, message));
        pair.b
            .to_peer
            .drain(..)
            .for_each(|message| deliver(&mut pair.a, message));
        again
            .into_iter()
            .for_each(|message| deliver(&mut pair.b, message));
    }
    pair.assert_equal();
    assert_eq!(pair.b.store.pairs(FLOWS).len(), 10);
}

#[test]
fn a_standby_that_lost_its_volatile_state_is_replaced() {
    let mut pair = Pair::new();
    pair.connect();
    pair.a
        .commit(vec![put(FLOWS, "f", "1")], Acknowledgement::Volatile);
    pair.a
        .commit(vec![put(CONFIG, "running", "a")], Acknowledgement::Local);
    pair.pass(100);
    pair.disconnect();
    pair.b.lose_power(0);
    pair.b.posture(Activity::Standby, false);
    pair.connect();
    pair.assert_equal();
    assert_eq!(pair.b.text(FLOWS, "f").as_deref(), Some("1"));
}

#[test]
fn nothing_of_a_lower_epoch_is_applied() {
    let mut pair = Pair::new();
    pair.connect();
    pair.a
        .commit(vec![put(CONFIG, "running", "a")], Acknowledgement::Volatile);
    pair.settle();
    // b has heard of a higher epoch: from another active.
    let mut other = Rig::new();
    other.posture(Activity::Active(epoch(7, 3)), false);
    other.feed(Input::PeerConnected(true));
    other
        .to_peer
        .drain(..)
        .for_each(|message| deliver(&mut pair.b, message));
    pair.b.to_peer.clear();
    let before = pair.b.store.history();
    pair.a.commit(
        vec![put(CONFIG, "running", "stale")],
        Acknowledgement::Volatile,
    );
    pair.settle();
    assert_eq!(pair.b.store.history(), before);
    assert!(pair.b.store.counters().stale > 0);
}

#[test]
fn either_process_may_restart_and_lost_messages_are_sent_again() {
    let mut pair = Pair::new();
    pair.connect();
    for round in 0..30_u64 {
        pair.a.commit(
            vec![put(FLOWS, &format!("{round}"), "x")],
            Acknowledgement::Volatile,
        );
        pair.a.commit(
            vec![put(CONFIG, "running", &format!("{round}"))],
            Acknowledgement::Volatile,
        );
        match round % 5 {
            0 => pair.a.to_peer.clear(),
            1 => pair.b.to_peer.clear(),
            2 => {
                pair.a.restart();
                pair.a.posture(Activity::Active(epoch(1, 1)), false);
                pair.a.feed(Input::PeerConnected(true));
            }
            3 => {
                pair.b.restart();
                pair.b.posture(Activity::Standby, false);
                pair.b.feed(Input::PeerConnected(true));
            }
            _ => {}
        }
        pair.pass(if round % 2 == 0 { 1500 } else { 20 });
    }
    pair.assert_equal();
    assert_eq!(pair.b.store.counters().bulks, 0, "increments were enough");
}

#[test]
fn a_standby_whose_configuration_differs_is_found_and_replaced() {
    let mut pair = Pair::new();
    pair.connect();
    pair.a
        .commit(vec![put(CONFIG, "running", "a")], Acknowledgement::Volatile);
    pair.settle();
    // A fault in memory or code: the same history with another content.
    pair.b
        .store
        .content
        .apply(&[put(CONFIG, "running", "flipped")]);
    pair.a
        .commit(vec![put(CONFIG, "other", "b")], Acknowledgement::Volatile);
    pair.pass(1000);
    pair.assert_equal();
    assert_eq!(pair.b.store.counters().bulks, 1);
}

#[test]
fn quiesce_is_applied_when_the_standby_has_everything() {
    let mut pair = Pair::new();
    pair.connect();
    pair.a.posture(Activity::Active(epoch(1, 1)), true);
    pair.b.quick_disk = false;
    pair.a.commit(
        vec![put(CONFIG, "running", "a")],
        Acknowledgement::Replicated,
    );
    let sequence = pair.a.posture(Activity::Quiesce(epoch(1, 1)), true);
    let late = pair.a.commit(
        vec![put(CONFIG, "running", "late")],
        Acknowledgement::Replicated,
    );
    assert!(pair.a.refusal(late).contains("switchover"));
    pair.a.commit(
        vec![put(FLOWS, "f", "last words")],
        Acknowledgement::Volatile,
    );
    pair.settle();
    assert!(!pair.a.applied.contains(&sequence));
    pair.b.finish_work();
    pair.settle();
    pair.a.pass(1);
    assert!(pair.a.applied.contains(&sequence));
    assert_eq!(pair.a.sync.acked, Lsn(2));
    assert_eq!(pair.b.text(FLOWS, "f").as_deref(), Some("last words"));
}

#[test]
fn a_standby_whose_content_differs_pulls_a_whole_copy_when_it_is_told_to() {
    let mut pair = Pair::new();
    pair.connect();
    pair.a
        .commit(vec![put(CONFIG, "zone", "web")], Acknowledgement::Local);
    pair.assert_equal();
    let bulks = pair.b.store.counters().bulks;
    // Damage that no checksum of the disk shows, at an equal position.
    let key = b"zone".to_vec();
    pair.b
        .store
        .content
        .put(CONFIG, key, b"damaged".to_vec().into());
    pair.b.feed(Input::Resync { whole: false });
    pair.pass(100);
    assert_eq!(pair.b.store.counters().bulks, bulks, "the histories agree");
    assert_ne!(
        pair.a.store.pairs(CONFIG),
        pair.b.store.pairs(CONFIG),
        "to ask again does not mend it"
    );
    pair.b.feed(Input::Resync { whole: true });
    assert!(!pair.b.sync.bulk_done, "not in step until it is mended");
    pair.pass(100);
    assert_eq!(pair.b.store.counters().bulks, bulks + 1);
    pair.assert_equal();
}

#[test]
fn an_active_does_not_synchronise_afresh() {
    let mut pair = Pair::new();
    pair.connect();
    pair.assert_equal();
    pair.a.feed(Input::Resync { whole: true });
    pair.a
        .commit(vec![put(CONFIG, "zone", "web")], Acknowledgement::Local);
    pair.assert_equal();
}
