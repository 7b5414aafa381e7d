//! The client against a scripted store.

use super::*;
use wire::checkpoint::{Durability, Scope};

const NAMESPACE: Namespace = Namespace {
    owner: ServiceName::Cfgmgr,
    scope: Scope::SharedGlobal,
    durability: Durability::Persistent,
};

fn client() -> CheckpointClient {
    let mut client = CheckpointClient::new(ServiceName::Cfgmgr, Time(1));
    client.broker_connected(Time(1));
    client
}

fn sent(client: &mut CheckpointClient) -> (u64, Request) {
    let message = client.poll_message().expect("a request was sent");
    let Ok(ToPss::Request(request)) = decode_body(&message.body) else {
        panic!("not a request: {message:?}")
    };
    (message.correlation, request)
}

fn from_pss(kind: Kind, correlation: u64, body: Vec<u8>) -> Message {
    Message {
        source: ServiceName::Pss.sap(),
        from_peer: false,
        destination: Destination::Local,
        sap: ServiceName::Cfgmgr.sap(),
        kind,
        correlation,
        body,
    }
}

fn answer(client: &mut CheckpointClient, correlation: u64, response: &Response) {
    let message = from_pss(Kind::Response, correlation, encode_body(response));
    assert_eq!(client.message(Time(2), message), None);
    client.check();
}

fn notify(client: &mut CheckpointClient, changed: &Changed) {
    let message = from_pss(Kind::Notification, 0, encode_body(changed));
    assert_eq!(client.message(Time(2), message), None);
    client.check();
}

fn put(key: &[u8], value: &[u8]) -> Operation {
    Operation::Put {
        namespace: NAMESPACE,
        key: key.to_vec(),
        value: value.to_vec(),
    }
}

fn load(client: &mut CheckpointClient) {
    let (correlation, request) = sent(client);
    assert_eq!(
        request,
        Request::Watch {
            namespace: NAMESPACE
        }
    );
    answer(client, correlation, &Response::Watching { from: Lsn(1) });
    assert_eq!(client.poll_event(), Some(CheckpointEvent::Reset(NAMESPACE)));
    let (correlation, request) = sent(client);
    assert_eq!(
        request,
        Request::Range {
            namespace: NAMESPACE,
            after: Vec::new()
        }
    );
    answer(
        client,
        correlation,
        &Response::Pairs {
            pairs: Vec::new(),
            more: false,
        },
    );
    assert_eq!(
        client.poll_event(),
        Some(CheckpointEvent::Loaded(NAMESPACE))
    );
    assert!(client.is_loaded(NAMESPACE));
}

#[test]
fn a_watch_reads_page_by_page_and_loses_no_change_in_between() {
    let mut client = client();
    client.watch(Time(1), NAMESPACE);
    let (correlation, _) = sent(&mut client);
    let early = Changed::Commit {
        lsn: Lsn(1),
        operations: vec![put(b"a", b"old")],
    };
    notify(&mut client, &early);
    assert_eq!(
        client.poll_event(),
        None,
        "what is read later is not told twice"
    );
    answer(
        &mut client,
        correlation,
        &Response::Watching { from: Lsn(1) },
    );
    let (correlation, _) = sent(&mut client);
    let pairs = vec![(b"a".to_vec(), b"1".to_vec())];
    answer(
        &mut client,
        correlation,
        &Response::Pairs { pairs, more: true },
    );
    let (correlation, request) = sent(&mut client);
    assert_eq!(
        request,
        Request::Range {
            namespace: NAMESPACE,
            after: b"a".to_vec()
        }
    );
    let between = Changed::Commit {
        lsn: Lsn(2),
        operations: vec![put(b"a", b"2")],
    };
    notify(&mut client, &between);
    answer(
        &mut client,
        correlation,
        &Response::Pairs {
            pairs: Vec::new(),
            more: false,
        },
    );
    let events: Vec<_> = core::iter::from_fn(|| client.poll_event()).collect();
    assert_eq!(
        events,
        [
            CheckpointEvent::Reset(NAMESPACE),
            CheckpointEvent::Operations(NAMESPACE, vec![put(b"a", b"1")]),
            CheckpointEvent::Operations(NAMESPACE, vec![put(b"a", b"2")]),
            CheckpointEvent::Loaded(NAMESPACE),
        ]
    );
}

#[test]
fn a_restart_of_pss_repeats_the_commit_and_the_watch() {
    let mut client = client();
    client.watch(Time(1), NAMESPACE);
    load(&mut client);
    let operations = vec![put(b"k", b"v")];
    let ticket = client
        .commit(Time(2), operations.clone(), Acknowledgement::Local)
        .expect("no commit is in flight");
    assert_eq!(
        client.commit(Time(2), Vec::new(), Acknowledgement::Local),
        Err(CommitInFlight)
    );
    let (first, _) = sent(&mut client);
    notify(&mut client, &Changed::Replaced { lsn: Lsn(1) });
    assert!(!client.is_loaded(NAMESPACE));
    let (again, request) = sent(&mut client);
    assert_eq!(again, first);
    let acknowledgement = Acknowledgement::Local;
    assert_eq!(
        request,
        Request::Commit {
            operations,
            acknowledgement
        }
    );
    let reached = Acknowledgement::Local;
    answer(
        &mut client,
        first,
        &Response::Committed {
            lsn: Lsn(2),
            reached,
        },
    );
    answer(
        &mut client,
        first,
        &Response::Committed {
            lsn: Lsn(3),
            reached,
        },
    );
    let committed = CheckpointEvent::Committed {
        ticket,
        lsn: Lsn(2),
        reached,
    };
    assert_eq!(client.poll_event(), Some(committed));
    assert_eq!(client.poll_event(), None, "a second answer is nobody's");
    load(&mut client);
}

#[test]
fn what_is_unanswered_is_asked_again_after_the_broker_or_the_time() {
    let mut client = client();
    client.watch(Time(1), NAMESPACE);
    let (first, _) = sent(&mut client);
    let undeliverable = from_pss(Kind::Undeliverable, first, Vec::new());
    assert_eq!(client.message(Time(2), undeliverable), None);
    let deadline = client.next_deadline().expect("a request waits");
    assert_eq!(deadline, Time(2) + UNDELIVERABLE_RETRY);
    client.tick(deadline);
    assert_eq!(sent(&mut client).0, first);
    client.broker_lost();
    assert_eq!(client.next_deadline(), None);
    client.broker_connected(Time(9));
    load(&mut client);
}

#[test]
fn the_peers_and_others_messages_are_given_back() {
    let mut client = client();
    let mut message = from_pss(Kind::Request, 7, Vec::new());
    assert_eq!(
        client.message(Time(2), message.clone()),
        Some(message.clone())
    );
    message.kind = Kind::Response;
    assert_eq!(
        client.message(Time(2), message.clone()),
        Some(message.clone())
    );
    message.kind = Kind::Notification;
    message.source = ServiceName::PolicyEngine.sap();
    assert_eq!(client.message(Time(2), message.clone()), Some(message));
}
