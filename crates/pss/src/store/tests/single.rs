//! One node by itself.

use model::{Lsn, ServiceName};
use wire::checkpoint::{
    Acknowledgement, Changed, Durability, Operation, Request, Response, Scope, VALUE_MAX_BYTES,
};
use wire::supervision::Activity;

use super::rig::{CONFIG, FLOWS, OWN, Rig, epoch, namespace, put};
use crate::Input;

#[test]
fn a_commit_is_answered_local_only_after_flush_and_leave() {
    let mut rig = Rig::new();
    rig.finish_work();
    rig.quick_disk = false;
    rig.posture(Activity::Active(epoch(1, 1)), false);
    let commit = rig.commit(
        vec![put(CONFIG, "running", "a")],
        Acknowledgement::Replicated,
    );
    assert_eq!(rig.reached(commit), None);
    assert!(
        rig.questions.is_empty(),
        "leave is asked for what is durable"
    );
    rig.finish_work();
    assert_eq!(rig.questions.len(), 1);
    assert_eq!(rig.reached(commit), None);
    let question = rig.questions[0];
    rig.feed(Input::AloneAnswered {
        question,
        granted: true,
    });
    assert_eq!(rig.reached(commit), Some(Acknowledgement::Local));
    let next = rig.commit(vec![put(CONFIG, "running", "b")], Acknowledgement::Local);
    rig.finish_work();
    assert_eq!(rig.reached(next), Some(Acknowledgement::Local));
    assert_eq!(rig.questions.len(), 1, "leave holds");
    assert_eq!(
        rig.answers[&next],
        Response::Committed {
            lsn: Lsn(2),
            reached: Acknowledgement::Local
        }
    );
}

#[test]
fn one_flush_serves_all_that_gathered() {
    let mut rig = Rig::new();
    rig.quick_disk = false;
    rig.finish_work();
    rig.posture(Activity::Idle, false);
    let before = rig.store.counters().flushes;
    let commits: Vec<u64> = (0..100)
        .map(|i| rig.commit(vec![put(OWN, &format!("{i}"), "x")], Acknowledgement::Local))
        .collect();
    rig.finish_work();
    assert!(
        commits
            .iter()
            .all(|commit| rig.reached(*commit) == Some(Acknowledgement::Local))
    );
    assert_eq!(
        rig.store.counters().flushes,
        before + 2,
        "the first one, and one for the rest"
    );
}

#[test]
fn scope_and_owner_are_enforced_from_the_callers_address() {
    let mut rig = Rig::new();
    rig.posture(Activity::Active(epoch(1, 1)), false);
    let local = namespace(ServiceName::Vshd, Scope::SharedLocal, Durability::Volatile);
    rig.commit(vec![put(OWN, "k", "private")], Acknowledgement::Volatile);
    rig.commit(vec![put(local, "k", "local")], Acknowledgement::Volatile);
    rig.commit(vec![put(CONFIG, "k", "global")], Acknowledgement::Volatile);
    let vshd = ServiceName::Vshd.sap();
    let other = ServiceName::PolicyEngine.sap();
    // (caller, from the peer, namespace) → may read
    let table = [
        (vshd, false, OWN, true),
        (other, false, OWN, false),
        (vshd, true, OWN, false),
        (other, false, local, true),
        (vshd, true, local, false),
        (other, false, CONFIG, true),
        (other, true, CONFIG, true),
    ];
    for (source, from_peer, namespace, may) in table {
        let key = b"k".to_vec();
        let get = rig.request_from(source, from_peer, Request::Get { namespace, key });
        let after = Vec::new();
        let range = rig.request_from(source, from_peer, Request::Range { namespace, after });
        let read = matches!(rig.answers[&get], Response::Value(Some(_)));
        let ranged = matches!(rig.answers[&range], Response::Pairs { .. });
        assert_eq!(
            (read, ranged),
            (may, may),
            "{source:?} {from_peer} {namespace:?}"
        );
    }
    for (source, from_peer) in [(other, false), (ServiceName::Cfgmgr.sap(), true)] {
        let operations = vec![put(CONFIG, "k", "forged")];
        let acknowledgement = Acknowledgement::Volatile;
        let request = Request::Commit {
            operations,
            acknowledgement,
        };
        let commit = rig.request_from(source, from_peer, request);
        assert!(rig.refusal(commit).contains("only cfgmgr"));
    }
    assert_eq!(rig.text(CONFIG, "k").as_deref(), Some("global"));
}

#[test]
fn what_breaks_a_limit_is_refused_and_changes_nothing() {
    let mut rig = Rig::new();
    rig.posture(Activity::Active(epoch(1, 1)), false);
    let large = "x".repeat(VALUE_MAX_BYTES + 1);
    let half = "x".repeat(VALUE_MAX_BYTES / 2 + 1);
    let many: Vec<Operation> = (0..300).map(|i| put(CONFIG, &format!("{i}"), "")).collect();
    let cases = [
        (vec![put(CONFIG, "k", &large)], "a value of"),
        (vec![put(CONFIG, "", "v")], "a key of"),
        (vec![put(CONFIG, &"k".repeat(257), "v")], "a key of"),
        (many, "operations in one transaction"),
        (
            vec![
                put(CONFIG, "a", &half),
                put(CONFIG, "b", &half),
                put(CONFIG, "c", &half),
            ],
            "bytes",
        ),
    ];
    for (operations, words) in cases {
        let commit = rig.commit(operations, Acknowledgement::Local);
        assert!(
            rig.refusal(commit).contains(words),
            "{words}: {}",
            rig.refusal(commit)
        );
    }
    let mixed = namespace(ServiceName::Cfgmgr, Scope::Private, Durability::Persistent);
    let commit = rig.commit(
        vec![put(CONFIG, "a", ""), put(mixed, "b", "")],
        Acknowledgement::Local,
    );
    assert!(rig.refusal(commit).contains("one durability"));
    assert!(rig.store.pairs(CONFIG).is_empty());
    assert_eq!(rig.store.history().1, Lsn(0), "refusals take no number");
}

#[test]
fn a_node_that_does_not_act_takes_no_shared_commit_but_its_own() {
    let mut rig = Rig::new();
    for activity in [Activity::Idle, Activity::Standby] {
        rig.posture(activity, false);
        let shared = rig.commit(vec![put(CONFIG, "k", "v")], Acknowledgement::Local);
        assert!(!rig.refusal(shared).is_empty());
        let own = rig.commit(vec![put(OWN, "k", "v")], Acknowledgement::Local);
        assert_eq!(rig.reached(own), Some(Acknowledgement::Local));
    }
}

#[test]
fn volatile_state_survives_the_process_and_not_the_machine() {
    let mut rig = Rig::new();
    rig.posture(Activity::Active(epoch(1, 1)), false);
    rig.commit(vec![put(FLOWS, "f", "1")], Acknowledgement::Volatile);
    rig.commit(vec![put(CONFIG, "running", "a")], Acknowledgement::Local);
    rig.commit(vec![put(FLOWS, "g", "2")], Acknowledgement::Volatile);
    rig.restart();
    assert_eq!(rig.text(FLOWS, "f").as_deref(), Some("1"));
    assert_eq!(rig.store.history(), (epoch(1, 1), Lsn(3)));
    assert!(!rig.recovery.volatile_lost);
    rig.finish_work();
    rig.lose_power(0);
    assert_eq!(rig.text(FLOWS, "f"), None);
    assert_eq!(rig.text(CONFIG, "running").as_deref(), Some("a"));
    assert_eq!(rig.store.history(), (epoch(1, 1), Lsn(2)));
    assert!(rig.recovery.volatile_lost);
    rig.restart();
    assert!(
        rig.recovery.volatile_lost,
        "a second start does not forget that"
    );
}

#[test]
fn a_watcher_is_told_of_every_commit_of_its_namespace_only() {
    let mut rig = Rig::new();
    rig.posture(Activity::Active(epoch(1, 1)), false);
    let watcher = ServiceName::PolicyEngine.sap();
    let watch = rig.request_from(watcher, false, Request::Watch { namespace: CONFIG });
    assert_eq!(rig.answers[&watch], Response::Watching { from: Lsn(0) });
    rig.commit(vec![put(CONFIG, "running", "a")], Acknowledgement::Volatile);
    rig.commit(vec![put(FLOWS, "f", "1")], Acknowledgement::Volatile);
    rig.commit(vec![put(CONFIG, "running", "b")], Acknowledgement::Volatile);
    let told = |lsn, value: &str| {
        let operations = vec![put(CONFIG, "running", value)];
        (
            watcher,
            Changed::Commit {
                lsn: Lsn(lsn),
                operations,
            },
        )
    };
    assert_eq!(rig.changes, [told(1, "a"), told(3, "b")]);
    rig.changes.clear();
    // The broker could not deliver the last one.
    rig.feed(Input::Message(wire::broker::Message {
        source: watcher,
        from_peer: false,
        destination: wire::broker::Destination::Local,
        sap: ServiceName::Pss.sap(),
        kind: wire::broker::Kind::Undeliverable,
        correlation: 5,
        body: Vec::new(),
    }));
    rig.pass(1000);
    assert_eq!(rig.changes, [(watcher, Changed::Replaced { lsn: Lsn(3) })]);
}

#[test]
fn a_new_process_tells_every_service_to_read_again() {
    let mut rig = Rig::new();
    rig.feed(Input::BrokerConnected);
    let told: Vec<u16> = rig.changes.iter().map(|(sap, _)| sap.0).collect();
    assert_eq!(told, [3, 4, 5, 6]);
}

#[test]
fn a_full_disk_refuses_and_a_failed_flush_ends_the_process() {
    let mut rig = Rig::new();
    rig.posture(Activity::Active(epoch(1, 1)), false);
    rig.persistent.set_room(Some(10));
    let commit = rig.commit(vec![put(CONFIG, "k", "v")], Acknowledgement::Local);
    assert!(rig.refusal(commit).contains("no space"));
    rig.persistent.set_room(None);
    rig.persistent.set_flushes_fail(true);
    let commit = rig.commit(vec![put(OWN, "k", "v")], Acknowledgement::Local);
    assert!(rig.failed.is_some());
    assert_eq!(rig.reached(commit), None, "nothing was acknowledged");
}

#[test]
fn compaction_keeps_everything_and_bounds_the_log() {
    let mut rig = Rig::new();
    rig.posture(Activity::Idle, false);
    let value = "v".repeat(60_000);
    for i in 0..1000 {
        rig.commit(
            vec![put(OWN, &format!("{}", i % 7), &value)],
            Acknowledgement::Local,
        );
    }
    assert!(rig.store.counters().compactions >= 5);
    assert!(rig.persistent.log_bytes() < 2 * 8 * 1024 * 1024);
    let before = rig.store.pairs(OWN);
    rig.restart();
    assert_eq!(rig.store.pairs(OWN), before);
    assert_eq!(before.len(), 7);
}

#[test]
fn the_configuration_hash_sees_values_keys_and_their_borders() {
    let mut seen = std::collections::BTreeSet::new();
    for pairs in [
        vec![],
        vec![("a", "bc")],
        vec![("ab", "c")],
        vec![("a", "b"), ("c", "")],
    ] {
        let mut rig = Rig::new();
        rig.posture(Activity::Active(epoch(1, 1)), false);
        for (key, value) in &pairs {
            rig.commit(vec![put(CONFIG, key, value)], Acknowledgement::Volatile);
        }
        rig.commit(
            vec![put(FLOWS, "f", "not configuration")],
            Acknowledgement::Volatile,
        );
        rig.pass(100);
        assert!(seen.insert(rig.sync.config_hash), "{pairs:?}");
    }
}
