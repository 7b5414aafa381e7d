use std::net::Ipv4Addr;

use model::{Incarnation, NodeKey, Protocol};
use proptest::prelude::*;

use super::*;

fn key(port: u16) -> ConnectionKey {
    ConnectionKey {
        module: ModuleNumber(3),
        port: "web".to_owned(),
        flow: FlowKey {
            src_ip: Ipv4Addr::new(10, 0, 0, 1),
            dst_ip: Ipv4Addr::new(10, 0, 0, 2),
            src_port: port,
            dst_port: 80,
            protocol: Protocol::TCP,
        },
    }
}

fn connection(verdict: Verdict) -> Connection {
    Connection {
        direction: Direction::Ingress,
        verdict,
        policy: ObjectName::new("web").expect("valid: a plain name"),
        rule: None,
        generation: Generation(1),
    }
}

fn epoch(counter: u64) -> Epoch {
    Epoch {
        counter,
        node: NodeKey([1; 32]),
        incarnation: Incarnation(1),
    }
}

fn active() -> FlowTable {
    let mut table = FlowTable::with_capacity(16);
    table.begin_epoch(epoch(1));
    table
}

#[test]
fn a_late_record_never_brings_a_closed_connection_back() {
    let mut active = active();
    let mut standby = FlowTable::with_capacity(16);
    let opened = active
        .insert(Time(1), key(1), connection(Verdict::Permit))
        .expect("room");
    let closed = active.remove(&key(1)).expect("open");
    assert_eq!(standby.apply(Time(2), closed), Applied::Applied);
    assert_eq!(standby.apply(Time(3), opened), Applied::Stale);
    assert!(standby.is_empty());
    assert_eq!(standby.counters().refused_stale, 1);
}

#[test]
fn a_revoked_verdict_is_not_undone_by_the_record_of_the_permit() {
    let mut active = active();
    let permit = active
        .insert(Time(1), key(1), connection(Verdict::Permit))
        .expect("room");
    let revoked = active
        .insert(Time(2), key(1), connection(Verdict::Drop))
        .expect("room");
    let mut standby = FlowTable::with_capacity(16);
    standby.apply(Time(3), revoked);
    standby.apply(Time(4), permit);
    let shown = standby.connection(&key(1)).expect("open");
    assert_eq!(shown.verdict, Verdict::Drop);
}

#[test]
fn a_forgotten_tombstone_leaves_a_floor() {
    let mut active = FlowTable::with_capacity(16);
    active.begin_epoch(epoch(1));
    let first = active
        .insert(Time(1), key(0), connection(Verdict::Permit))
        .expect("room");
    let mut standby = FlowTable::with_capacity(16);
    for number in 0..=TOMBSTONES_MAX as u64 {
        let port = (number % 65_536) as u16;
        let mut other = key(port);
        other.module = ModuleNumber(3 + (number / 65_536) as u16);
        let opened = active.insert(Time(2), other.clone(), connection(Verdict::Permit));
        let closed = active.remove(&other).expect("open");
        assert!(opened.is_some());
        assert_eq!(standby.apply(Time(2), closed), Applied::Applied);
    }
    standby.check();
    active.check();
    assert_eq!(standby.apply(Time(3), first), Applied::Stale);
    assert!(standby.is_empty());
}

#[test]
fn a_new_active_stamps_above_the_old_one() {
    let mut old = active();
    let mut new = FlowTable::with_capacity(16);
    let record = old
        .insert(Time(1), key(1), connection(Verdict::Permit))
        .expect("room");
    new.apply(Time(1), record.clone());
    new.begin_epoch(epoch(2));
    let closed = new.remove(&key(1)).expect("open");
    assert!(closed.stamp > record.stamp);
    // The old active comes back as the standby.
    assert_eq!(old.apply(Time(2), closed), Applied::Applied);
    assert!(old.is_empty());
}

#[test]
fn a_full_table_refuses_and_counts_but_still_changes_what_it_has() {
    let mut table = FlowTable::with_capacity(2);
    table.begin_epoch(epoch(1));
    assert!(
        table
            .insert(Time(1), key(1), connection(Verdict::Permit))
            .is_some()
    );
    assert!(
        table
            .insert(Time(1), key(2), connection(Verdict::Permit))
            .is_some()
    );
    assert!(
        table
            .insert(Time(1), key(3), connection(Verdict::Permit))
            .is_none()
    );
    assert!(
        table
            .insert(Time(1), key(2), connection(Verdict::Drop))
            .is_some()
    );
    assert_eq!(table.counters().refused_full, 1);
    table.check();
}

#[test]
fn silence_closes_a_connection_and_a_sign_of_life_does_not() {
    let mut table = active();
    table.insert(Time(0), key(1), connection(Verdict::Permit));
    table.insert(Time(0), key(2), connection(Verdict::Permit));
    let deadline = table.next_deadline().expect("two are open");
    assert_eq!(deadline, Time(0) + IDLE_MAX);
    table.touch(Time::from_ms(5), &key(2));
    let closed = table.expire(deadline, 10);
    assert_eq!(
        closed.iter().map(|record| &record.key).collect::<Vec<_>>(),
        [&key(1)]
    );
    assert_eq!(table.next_deadline(), Some(Time::from_ms(5) + IDLE_MAX));
    table.check();
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, bool),
    Remove(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u16..6, any::<bool>()).prop_map(|(port, permit)| Step::Insert(port, permit)),
        (0u16..6).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// Whatever the order and the repetitions, once every record has come the standby holds what
    /// the active holds; and at no time a connection whose closing it has already applied.
    #[test]
    fn records_converge_in_any_order(
        steps in steps(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
    ) {
        let mut active = active();
        let mut records = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let now = Time(at as u64);
            records.extend(match step {
                Step::Insert(port, permit) => {
                    let verdict = if *permit { Verdict::Permit } else { Verdict::Drop };
                    active.insert(now, key(*port), connection(verdict))
                }
                Step::Remove(port) => active.remove(&key(*port)),
            });
            active.check();
        }
        let mut standby = FlowTable::with_capacity(16);
        let shuffled: Vec<FlowRecord> = if records.is_empty() {
            Vec::new()
        } else {
            order.iter().map(|index| index.get(&records).clone()).collect()
        };
        for record in shuffled.into_iter().chain(records.iter().rev().cloned()) {
            standby.apply(Time(0), record);
            standby.check();
        }
        let held = |table: &FlowTable| -> Vec<(ConnectionKey, Connection)> {
            table.connections().map(|c| (c.key.clone(), c.connection.clone())).collect()
        };
        prop_assert_eq!(held(&standby), held(&active));
        let mut fresh = FlowTable::with_capacity(16);
        fresh.insert(Time(0), key(99), connection(Verdict::Permit));
        fresh.restore(Time(0), active.snapshot());
        fresh.check();
        prop_assert_eq!(held(&fresh), held(&active));
    }
}
