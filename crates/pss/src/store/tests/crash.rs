//! Loss of power at every byte, and damage at every bit.

use proptest::prelude::*;
use wire::checkpoint::{Acknowledgement, Namespace, Operation};
use wire::supervision::Activity;

use super::rig::{CONFIG, OWN, Rig, epoch, put};

/// The content of the two persistent namespaces.
type Image = Vec<(Vec<u8>, Vec<u8>)>;

fn image(rig: &Rig) -> Image {
    let mut all = rig.store.pairs(CONFIG);
    all.extend(rig.store.pairs(OWN));
    all
}

/// One step of a workload: a transaction on one namespace, and whether the disk gets to work.
#[derive(Clone, Debug)]
struct Step {
    shared: bool,
    keys: Vec<u8>,
    value: u8,
    works: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = prop::collection::vec(0_u8..6, 1..4);
    let step = (any::<bool>(), keys, any::<u8>(), any::<bool>()).prop_map(
        |(shared, keys, value, works)| Step {
            shared,
            keys,
            value,
            works,
        },
    );
    prop::collection::vec(step, 1..12)
}

fn operations(step: &Step) -> Vec<Operation> {
    let namespace: Namespace = if step.shared { CONFIG } else { OWN };
    let of = |key: &u8| match key {
        5 => Operation::Delete {
            namespace,
            key: vec![b'0'],
        },
        _ => put(
            namespace,
            &key.to_string(),
            &"v".repeat(usize::from(step.value)),
        ),
    };
    step.keys.iter().map(of).collect()
}

/// Runs a workload; gives the rig, the image after each transaction, and how many of them were
/// acknowledged as durable.
fn run(steps: &[Step]) -> (Rig, Vec<Image>, usize) {
    let mut rig = Rig::new();
    rig.finish_work();
    rig.quick_disk = false;
    rig.posture(Activity::Active(epoch(1, 1)), true);
    let mut images = vec![image(&rig)];
    let mut commits = Vec::new();
    for step in steps {
        commits.push(rig.commit(operations(step), Acknowledgement::Local));
        images.push(image(&rig));
        if step.works {
            rig.finish_work();
        }
    }
    let acknowledged = commits
        .iter()
        .filter(|commit| rig.reached(**commit).is_some())
        .count();
    (rig, images, acknowledged)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Power fails after any number of the unflushed bytes has reached the platter: what was
    /// acknowledged is there, what was not is there whole or not at all, in order.
    #[test]
    fn at_every_cut_a_prefix_with_all_that_was_acknowledged(steps in steps()) {
        let (rig, images, acknowledged) = run(&steps);
        for kept in 0..=rig.persistent.log_bytes() - rig.persistent.durable_bytes() {
            let disk = rig.persistent.copy();
            disk.cut(rig.persistent.durable_bytes() + kept);
            let after = Rig::on(disk.clone(), crate::storage::MemoryDisk::new());
            prop_assert_eq!(&after.recovery.damage, &None);
            let found = image(&after);
            let at_least = &images[acknowledged..];
            prop_assert!(at_least.contains(&found), "kept {kept}: not a prefix");
            // And it goes on from there.
            let mut after = after;
            after.posture(Activity::Active(epoch(2, 1)), true);
            let commit = after.commit(vec![put(CONFIG, "new", "1")], Acknowledgement::Local);
            prop_assert_eq!(after.reached(commit), Some(Acknowledgement::Local));
            after.lose_power(0);
            prop_assert_eq!(after.text(CONFIG, "new"), Some("1".to_owned()));
        }
    }

    /// Any flipped bit below a later record that knew it durable is reported, and what precedes
    /// it is there.
    #[test]
    fn damage_inside_the_log_is_reported(steps in steps(), at in any::<prop::sample::Index>()) {
        let (mut rig, _, _) = run(&steps);
        rig.finish_work();
        let promised = rig.persistent.log_bytes();
        rig.commit(vec![put(OWN, "last", "1")], Acknowledgement::Local);
        rig.finish_work();
        let disk = rig.persistent.copy();
        prop_assert!(disk.flip(at.index(promised * 8)));
        let after = Rig::on(disk, crate::storage::MemoryDisk::new());
        prop_assert!(after.recovery.damage.is_some());
        prop_assert_eq!(after.text(OWN, "last"), None);
    }
}

#[test]
fn a_damaged_snapshot_is_reported() {
    let mut rig = Rig::new();
    rig.posture(Activity::Idle, false);
    let value = "v".repeat(90_000);
    for i in 0..200 {
        rig.commit(
            vec![put(OWN, &format!("{}", i % 3), &value)],
            Acknowledgement::Local,
        );
    }
    assert!(rig.store.counters().compactions > 0);
    for bit in [0, 40, 70, 300, 5_000, 1_000_000] {
        let disk = rig.persistent.copy();
        assert!(disk.flip_snapshot(bit));
        let after = Rig::on(disk, crate::storage::MemoryDisk::new());
        assert!(after.recovery.damage.is_some(), "bit {bit}");
    }
}

/// Numbers behind the damage were given out under the epoch that is still acting: going on would
/// give them out twice. As anything else the store repairs itself and is replaced by its peer.
#[test]
fn a_damaged_store_does_not_go_on_under_the_same_epoch() {
    let damaged = || {
        let mut rig = Rig::new();
        rig.posture(Activity::Active(epoch(1, 1)), true);
        for i in 0..4 {
            rig.commit(
                vec![put(CONFIG, &format!("{i}"), "v")],
                Acknowledgement::Local,
            );
        }
        rig.persistent.flip(1400);
        rig.restart();
        assert!(rig.recovery.damage.is_some());
        rig
    };
    let mut acting = damaged();
    acting.posture(Activity::Active(epoch(1, 1)), true);
    assert!(acting.failed.is_some());
    acting.restart();
    acting.posture(Activity::Active(epoch(1, 1)), true);
    assert!(acting.failed.is_some(), "nor does its next process");
    let mut waiting = damaged();
    waiting.posture(Activity::Idle, false);
    assert!(waiting.failed.is_none());
    let kept = waiting.store.pairs(CONFIG);
    waiting.commit(vec![put(OWN, "k", "v")], Acknowledgement::Local);
    waiting.restart();
    assert_eq!(waiting.recovery.damage, None);
    assert_eq!(waiting.store.pairs(CONFIG), kept);
    assert_eq!(waiting.text(OWN, "k").as_deref(), Some("v"));
}
