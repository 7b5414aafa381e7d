//! What a lost conflict leaves is never gone: not at any loss of power, not with either node.

use model::{ServiceName, Slot};
use wire::checkpoint::{Acknowledgement, Request};
use wire::conflict::{ConflictHead, HELD, KEPT, decode_head, is_head};
use wire::supervision::Activity;

use super::pair::{Pair, deliver};
use super::rig::{CONFIG, FLOWS, Rig, epoch, put};
use crate::Input;
use crate::limits::{ARCHIVES, HISTORY_BYTES};
use crate::storage::MemoryDisk;

fn heads(rig: &Rig, namespace: wire::checkpoint::Namespace) -> Vec<ConflictHead> {
    let pairs = rig.store.pairs(namespace);
    let heads = pairs.iter().filter(|(key, _)| is_head(key));
    heads
        .map(|(_, value)| decode_head(value).expect("a head"))
        .collect()
}

/// The archived running configuration, from whichever place has the archive.
fn archived(rig: &Rig) -> Option<String> {
    [HELD, KEPT].into_iter().find_map(|namespace| {
        let head = heads(rig, namespace).pop()?;
        let key = head.id.record_key(CONFIG, b"running");
        let value = rig.store.value(namespace, &key).expect("the head is last");
        Some(String::from_utf8(value).expect("tests store text"))
    })
}

fn ask(rig: &mut Rig, number: u64) {
    rig.feed(Input::Archive {
        number,
        rival: epoch(9, 9),
        reason: "both were active".to_owned(),
    });
}

fn set(rig: &mut Rig, value: &str) {
    rig.commit(vec![put(CONFIG, "running", value)], Acknowledgement::Local);
}

/// `a` and `b` have "common"; then each led alone, `a` under an older epoch with two changes that
/// end in "mine", `b` with "theirs". `a` is standby and not connected yet.
fn forked() -> Pair {
    let mut pair = Pair::new();
    pair.connect();
    set(&mut pair.a, "common");
    pair.pass(100);
    pair.disconnect();
    set(&mut pair.a, "first");
    set(&mut pair.a, "mine");
    pair.b.posture(Activity::Active(epoch(2, 2)), false);
    set(&mut pair.b, "theirs");
    pair.a.posture(Activity::Standby, false);
    pair
}

#[test]
fn asked_for_it_is_answered_when_durable_and_taken_once() {
    let mut rig = Rig::new();
    rig.finish_work();
    rig.posture(Activity::Active(epoch(1, 1)), false);
    set(&mut rig, "mine");
    rig.posture(Activity::Idle, false);
    rig.feed(Input::WallClock { unix_s: 1_000_000 });
    rig.quick_disk = false;
    ask(&mut rig, 7);
    assert_eq!(rig.archived, [], "it is not flushed");
    rig.finish_work();
    assert_eq!(rig.archived, [7]);
    ask(&mut rig, 8);
    rig.finish_work();
    assert_eq!(rig.archived, [7, 8]);
    let heads = heads(&rig, HELD);
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0].rival, epoch(9, 9));
    assert_eq!(heads[0].reason, "both were active");
    assert_eq!(heads[0].slot, Slot::Sup1);
    assert_eq!(heads[0].taken_unix_s, 1_000_000);
    rig.lose_power(0);
    assert_eq!(archived(&rig).as_deref(), Some("mine"));
}

#[test]
fn an_empty_node_has_nothing_to_archive() {
    let mut rig = Rig::new();
    ask(&mut rig, 1);
    assert_eq!(rig.archived, [1]);
    assert!(heads(&rig, HELD).is_empty());
}

#[test]
fn what_the_active_lacks_is_archived_and_both_nodes_keep_it() {
    let mut pair = forked();
    pair.connect();
    pair.pass(3000);
    for rig in [&pair.a, &pair.b] {
        assert_eq!(rig.text(CONFIG, "running").as_deref(), Some("theirs"));
        let kept = heads(rig, KEPT);
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].number, kept[0].commits), (1, Some(2)));
        assert_eq!(kept[0].id.epoch, epoch(1, 1));
        assert_eq!(archived(rig).as_deref(), Some("mine"));
        assert!(
            heads(rig, HELD).is_empty(),
            "the loser has let go of its own"
        );
    }
    pair.assert_equal();
    // Either node alone still has it, after a loss of power too.
    pair.a.lose_power(0);
    pair.b.lose_power(0);
    assert_eq!(archived(&pair.a).as_deref(), Some("mine"));
    assert_eq!(archived(&pair.b).as_deref(), Some("mine"));
}

#[test]
fn asked_for_and_found_again_it_is_one_archive_with_its_reason() {
    let mut pair = forked();
    ask(&mut pair.a, 1);
    pair.connect();
    pair.pass(3000);
    let kept = heads(&pair.b, KEPT);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].reason, "both were active");
    assert_eq!(kept[0].commits, Some(2));
}

#[test]
fn it_is_not_let_go_before_both_nodes_have_it() {
    let mut pair = forked();
    pair.b.quick_disk = false;
    pair.connect();
    for _ in 0..400 {
        pair.pass(10);
        if heads(&pair.a, HELD).is_empty() && heads(&pair.a, KEPT).is_empty() {
            // Before the bulk sync nothing is replaced yet.
            assert_eq!(pair.a.text(CONFIG, "running").as_deref(), Some("mine"));
        }
        if heads(&pair.a, KEPT).len() == 1 {
            assert_eq!(
                heads(&pair.a, HELD).len(),
                1,
                "the active's disk has not worked"
            );
        }
    }
    assert_eq!(heads(&pair.a, KEPT).len(), 1);
    pair.b.finish_work();
    pair.pass(2000);
    assert!(heads(&pair.a, HELD).is_empty());
}

/// Power fails at every boundary of every write of the archive, of the replacement and of the
/// hand-over, with any part of what was not flushed on the platter.
#[test]
fn at_every_loss_of_power_the_content_or_its_archive_is_there() {
    for asks in [false, true] {
        let mut pair = forked();
        pair.a.finish_work();
        pair.a.quick_disk = false;
        if asks {
            ask(&mut pair.a, 1);
        }
        pair.connect();
        let mut boundaries = 0;
        for _ in 0..300 {
            pair.pass(10);
            boundaries += survives_every_cut(&pair.a);
            if pair.a.run_work() {
                pair.settle();
                boundaries += survives_every_cut(&pair.a);
            }
        }
        pair.a.finish_work();
        pair.pass(2000);
        assert!(boundaries > 300, "only {boundaries} boundaries");
        assert_eq!(heads(&pair.a, KEPT).len(), 1);
        assert!(heads(&pair.a, HELD).is_empty());
    }
}

fn survives_every_cut(rig: &Rig) -> usize {
    let durable = rig.persistent.durable_bytes();
    let loose = rig.persistent.log_bytes() - durable;
    // Every record's boundary and the middle of each lies within these steps.
    let step = (loose / 24).max(1);
    let cuts: Vec<usize> = (0..=loose).step_by(step).chain([loose]).collect();
    for kept in &cuts {
        let disk = rig.persistent.copy();
        disk.cut(durable + kept);
        let after = Rig::on(disk, MemoryDisk::new());
        assert_eq!(after.recovery.damage, None);
        let running = after.text(CONFIG, "running");
        let safe =
            running.as_deref() == Some("mine") || archived(&after).as_deref() == Some("mine");
        assert!(
            safe,
            "{kept} of {loose} loose bytes: {running:?} and no archive"
        );
    }
    cuts.len()
}

/// A node that died with flows unsent, and one that was away for longer than the active's memory
/// of its commits, have lost nothing an operator did.
#[test]
fn nothing_is_archived_of_a_node_whose_changes_the_active_has() {
    let mut pair = Pair::new();
    pair.connect();
    set(&mut pair.a, "common");
    pair.pass(100);
    pair.disconnect();
    pair.a
        .commit(vec![put(FLOWS, "f", "unsent")], Acknowledgement::Volatile);
    pair.b.posture(Activity::Active(epoch(2, 2)), false);
    set(&mut pair.b, "theirs");
    let big = "x".repeat(90_000);
    for _ in 0..HISTORY_BYTES / big.len() + 2 {
        pair.b
            .commit(vec![put(FLOWS, "g", &big)], Acknowledgement::Volatile);
    }
    pair.a.posture(Activity::Standby, false);
    pair.connect();
    pair.pass(3000);
    assert_eq!(pair.a.store.counters().bulks, 1);
    assert_eq!(pair.a.text(CONFIG, "running").as_deref(), Some("theirs"));
    assert!(heads(&pair.a, HELD).is_empty() && heads(&pair.a, KEPT).is_empty());
}

#[test]
fn the_lineage_outlives_compaction_and_loss_of_power() {
    let mut pair = forked();
    // Enough to compact both logs several times.
    let big = "x".repeat(90_000);
    for i in 0..200 {
        pair.b
            .commit(vec![put(CONFIG, "startup", &big)], Acknowledgement::Local);
        pair.a.commit(
            vec![put(super::rig::OWN, &format!("{}", i % 3), &big)],
            Acknowledgement::Local,
        );
    }
    assert!(pair.a.store.counters().compactions > 0);
    assert!(pair.b.store.counters().compactions > 0);
    pair.a.lose_power(0);
    pair.b.lose_power(0);
    pair.b.posture(Activity::Active(epoch(2, 2)), false);
    pair.a.posture(Activity::Standby, false);
    pair.connect();
    pair.pass(4000);
    assert_eq!(heads(&pair.b, KEPT).len(), 1);
    assert_eq!(heads(&pair.b, KEPT)[0].commits, Some(2));
    assert_eq!(archived(&pair.b).as_deref(), Some("mine"));
}

/// Wins and loses in turn: each conflict is one archive, the oldest go, numbers are not reused.
#[test]
fn the_oldest_go_and_numbers_are_never_given_twice() {
    let mut pair = forked();
    pair.connect();
    pair.pass(3000);
    let rounds = ARCHIVES as u64 + 2;
    for round in 0..rounds {
        pair.disconnect();
        let counter = 10 + 2 * round;
        pair.a.posture(Activity::Active(epoch(counter, 1)), false);
        set(&mut pair.a, &format!("lost in {round}"));
        pair.b
            .posture(Activity::Active(epoch(counter + 1, 2)), false);
        set(&mut pair.b, &format!("kept in {round}"));
        pair.a.posture(Activity::Standby, false);
        pair.connect();
        pair.pass(3000);
    }
    let mut numbers: Vec<u32> = heads(&pair.b, KEPT)
        .iter()
        .map(|head| head.number)
        .collect();
    numbers.sort_unstable();
    let last = u32::try_from(rounds).expect("few") + 1;
    assert_eq!(
        numbers,
        (last + 1 - ARCHIVES as u32..=last).collect::<Vec<_>>()
    );
    assert_eq!(heads(&pair.a, KEPT), heads(&pair.b, KEPT));
    let records = pair.b.store.pairs(KEPT).len();
    // A head and a record for each, the number, the lineage: no leftovers of those that went.
    assert!(records <= 2 * ARCHIVES + 2, "{records} records");
}

#[test]
fn an_archive_only_the_loser_kept_is_handed_over_again() {
    let mut pair = forked();
    pair.connect();
    pair.pass(3000);
    // `b` is replaced by an empty node that leads, under a higher epoch, with a change of its own.
    pair.disconnect();
    pair.b = Rig::new();
    pair.b.posture(Activity::Active(epoch(5, 3)), false);
    set(&mut pair.b, "new");
    pair.a.posture(Activity::Standby, false);
    pair.connect();
    pair.pass(5000);
    let kept = heads(&pair.b, KEPT);
    assert_eq!(kept.len(), 2, "the old conflict, and what `a` had last");
    assert_eq!(heads(&pair.a, KEPT), kept);
}

/// A node that was superseded asks for an archive before it knows what the active has.
#[test]
fn an_archive_of_what_the_active_has_is_let_go() {
    for by_bulk in [false, true] {
        let mut pair = Pair::new();
        pair.connect();
        set(&mut pair.a, "common");
        pair.pass(100);
        pair.disconnect();
        if by_bulk {
            pair.a
                .commit(vec![put(FLOWS, "f", "unsent")], Acknowledgement::Volatile);
        }
        pair.a.posture(Activity::Idle, false);
        ask(&mut pair.a, 1);
        assert_eq!(heads(&pair.a, HELD).len(), 1);
        pair.b.posture(Activity::Active(epoch(2, 2)), false);
        set(&mut pair.b, "theirs");
        pair.a.posture(Activity::Standby, false);
        pair.connect();
        pair.pass(3000);
        assert_eq!(pair.a.store.counters().bulks, u64::from(by_bulk));
        assert!(heads(&pair.a, HELD).is_empty() && heads(&pair.b, KEPT).is_empty());
    }
}

/// The winner dies right after the bulk sync: the loser leads, with the archive.
#[test]
fn a_loser_that_leads_before_it_has_handed_over_keeps_its_archive_for_the_pair() {
    let mut pair = forked();
    pair.a.feed(Input::PeerConnected(true));
    pair.b.feed(Input::PeerConnected(true));
    while heads(&pair.a, HELD).is_empty() {
        let (from_a, from_b) = (pair.a.to_peer.pop_front(), pair.b.to_peer.pop_front());
        assert!(from_a.is_some() || from_b.is_some(), "it synchronises");
        from_a
            .into_iter()
            .for_each(|message| deliver(&mut pair.b, message));
        from_b
            .into_iter()
            .for_each(|message| deliver(&mut pair.a, message));
    }
    pair.disconnect();
    assert!(heads(&pair.a, KEPT).is_empty(), "it is not handed over yet");
    pair.a.posture(Activity::Active(epoch(3, 1)), false);
    pair.a.pass(1000);
    assert_eq!(heads(&pair.a, KEPT).len(), 1);
    assert!(heads(&pair.a, HELD).is_empty());
    assert_eq!(archived(&pair.a).as_deref(), Some("mine"));
    pair.b.posture(Activity::Standby, false);
    pair.connect();
    pair.assert_equal();
    assert_eq!(archived(&pair.b).as_deref(), Some("mine"));
}

/// It archived what it had, restarted, and leads again with just that.
#[test]
fn an_archive_of_what_is_in_force_is_let_go() {
    let mut rig = Rig::new();
    rig.posture(Activity::Active(epoch(1, 1)), false);
    set(&mut rig, "mine");
    rig.posture(Activity::Idle, false);
    ask(&mut rig, 1);
    assert_eq!(heads(&rig, HELD).len(), 1);
    rig.restart();
    rig.posture(Activity::Active(epoch(2, 1)), false);
    rig.pass(1000);
    assert!(heads(&rig, HELD).is_empty() && heads(&rig, KEPT).is_empty());
}

fn clear(rig: &mut Rig, number: u32) -> u64 {
    let source = ServiceName::Vshd.sap();
    rig.request_from(source, false, Request::ClearConflict { number })
}

#[test]
fn cleared_on_the_active_it_is_gone_on_both() {
    let mut pair = forked();
    pair.connect();
    pair.pass(3000);
    let refused = clear(&mut pair.a, 1);
    assert!(pair.a.refusal(refused).contains("standby"));
    let unknown = clear(&mut pair.b, 2);
    assert_eq!(pair.b.refusal(unknown), "there is no conflict 2");
    let foreign = pair.b.request_from(
        ServiceName::VemMgr.sap(),
        false,
        Request::ClearConflict { number: 1 },
    );
    assert!(pair.b.refusal(foreign).contains("vshd"));
    pair.b.posture(Activity::Active(epoch(2, 2)), true);
    let cleared = clear(&mut pair.b, 1);
    pair.pass(1000);
    assert_eq!(pair.b.reached(cleared), Some(Acknowledgement::Replicated));
    for rig in [&pair.a, &pair.b] {
        assert!(heads(rig, KEPT).is_empty());
        assert!(!rig.store.pairs(KEPT).iter().any(|(key, _)| key[0] == b'r'));
    }
}
