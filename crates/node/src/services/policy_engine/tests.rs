//! The engine alone, and its table of connections against a store of a few lines.

use std::collections::BTreeMap;

use model::{Incarnation, Lsn, NodeKey, ObjectName, Slot};
use wire::broker::{Destination, encode_body};
use wire::checkpoint::{Operation, Request, Response, ToPss};
use wire::log::LogRecord;

use super::*;
use crate::services::configuration::put_running;

const RUNNING: &str = "rule noisy
  condition 1 dst.net.port eq 80
  action 10 permit
  action 20 log
policy web
  rule noisy order 10
security-profile web
  policy web
";

fn epoch(counter: u64) -> Epoch {
    Epoch {
        counter,
        node: NodeKey([1; 32]),
        incarnation: Incarnation(1),
    }
}

/// The engine, with a store that holds what it is told.
struct Bench {
    engine: PolicyEngine,
    now: Time,
    stored: BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>,
    sequence: u64,
    commits: usize,
}

impl Bench {
    fn new() -> Self {
        let now = Time::from_ms(1);
        let mut bench = Self {
            engine: PolicyEngine::new(now),
            now,
            stored: BTreeMap::new(),
            sequence: 0,
            commits: 0,
        };
        bench.put(put_running(RUNNING, Generation(5)));
        bench.handle(ServiceInput::Start);
        bench.handle(ServiceInput::BrokerConnected);
        bench
    }

    fn put(&mut self, operations: Vec<Operation>) {
        for operation in operations {
            match operation {
                Operation::Put {
                    namespace,
                    key,
                    value,
                } => {
                    self.stored.insert((encode_body(&namespace), key), value);
                }
                Operation::Delete { namespace, key } => {
                    self.stored.remove(&(encode_body(&namespace), key));
                }
            }
        }
    }

    fn stored_connections(&self) -> usize {
        let namespace = encode_body(&CONNECTIONS);
        self.stored
            .keys()
            .filter(|(in_namespace, _)| *in_namespace == namespace)
            .count()
    }

    fn handle(&mut self, input: ServiceInput) -> Vec<ServiceOutput> {
        self.engine.handle(self.now, input);
        self.engine.check();
        let mut rest = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                ServiceOutput::Send(message) if message.sap == ServiceName::Pss.sap() => {
                    let reply = self.store(&message);
                    self.engine.handle(self.now, ServiceInput::Message(reply));
                    self.engine.check();
                }
                other => rest.push(other),
            }
        }
        rest
    }

    fn store(&mut self, message: &Message) -> Message {
        let Ok(ToPss::Request(request)) = decode_body(&message.body) else {
            panic!("a request")
        };
        let response = match request {
            Request::Watch { .. } => Response::Watching { from: Lsn(0) },
            Request::Range { namespace, after } => {
                let namespace = encode_body(&namespace);
                let pairs = self
                    .stored
                    .iter()
                    .filter(|((within, key), _)| *within == namespace && *key > after)
                    .map(|((_, key), value)| (key.clone(), value.clone()))
                    .collect();
                Response::Pairs { pairs, more: false }
            }
            Request::Commit {
                operations,
                acknowledgement,
            } => {
                assert!(operations.len() <= wire::checkpoint::OPERATIONS_MAX);
                self.commits += 1;
                self.put(operations);
                Response::Committed {
                    lsn: Lsn(1),
                    reached: acknowledgement,
                }
            }
            Request::Get { .. } => Response::Value(None),
            Request::ClearConflict { .. } => panic!("only vshd clears"),
        };
        Message {
            source: message.sap,
            sap: message.source,
            kind: Kind::Response,
            body: encode_body(&response),
            ..message.clone()
        }
    }

    fn posture(&mut self, activity: Activity) -> Vec<ServiceOutput> {
        self.sequence += 1;
        self.handle(ServiceInput::Posture(Posture {
            sequence: self.sequence,
            activity,
            incarnation: Incarnation(1),
            slot: Slot::Sup1,
            peer_connected: false,
            redundant: false,
        }))
    }

    fn ask(&mut self, body: &ToPolicyEngine) -> Vec<ServiceOutput> {
        self.handle(ServiceInput::Message(Message {
            source: ServiceName::VemMgr.sap(),
            from_peer: false,
            destination: Destination::Local,
            sap: ServiceName::PolicyEngine.sap(),
            kind: match body {
                ToPolicyEngine::Report { .. } => Kind::Notification,
                _ => Kind::Request,
            },
            correlation: 1,
            body: encode_body(body),
        }))
    }

    fn decide(&mut self, source_port: u16, port: u16) -> (Vec<Decision>, Vec<LogRecord>) {
        let request = DecisionRequest {
            request: u64::from(source_port),
            port: "web-1".to_owned(),
            attributes: attributes(source_port, port),
            revalidation: false,
        };
        let module = ModuleNumber(3);
        let outputs = self.ask(&ToPolicyEngine::Decide {
            module,
            requests: vec![request],
        });
        let mut decided = Vec::new();
        let mut records = Vec::new();
        for output in outputs {
            match output {
                ServiceOutput::Send(message) => {
                    if let Ok(FromPolicyEngine::Decided { decisions, .. }) =
                        decode_body(&message.body)
                    {
                        decided = decisions;
                    }
                }
                ServiceOutput::Supervision(FromService::Log(record)) => records.push(record),
                _ => {}
            }
        }
        (decided, records)
    }

    fn tick_until(&mut self, until: Time) -> Vec<ServiceOutput> {
        let mut outputs = Vec::new();
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            outputs.extend(self.handle(ServiceInput::Tick));
        }
        self.now = until;
        outputs
    }
}

fn attributes(source_port: u16, port: u16) -> FlowAttributes {
    FlowAttributes {
        profile: "web@root".to_owned(),
        direction: Direction::Egress,
        flow: FlowKey {
            src_ip: Ipv4Addr::new(10, 9, 0, 1),
            dst_ip: Ipv4Addr::new(10, 9, 0, 2),
            src_port: source_port,
            dst_port: port,
            protocol: Protocol::TCP,
        },
        ethertype: 0x0800,
    }
}

#[test]
fn it_decides_only_while_active_and_under_the_epoch() {
    let mut bench = Bench::new();
    assert_eq!(bench.decide(1, 80).0, []);
    bench.posture(Activity::Standby);
    assert_eq!(bench.decide(1, 80).0, []);
    bench.posture(Activity::Active(epoch(3)));
    let (verdict, generation) = (Verdict::Permit, Generation(5));
    assert_eq!(
        bench.decide(1, 80).0,
        [Decision {
            request: 1,
            verdict,
            generation
        }]
    );
    assert_eq!(bench.decide(1, 81).0[0].verdict, Verdict::Drop);
    bench.posture(Activity::Quiesce(epoch(3)));
    assert_eq!(bench.decide(1, 80).0, []);
}

#[test]
fn a_flood_of_logged_lookups_is_limited_and_the_rest_is_told() {
    let mut bench = Bench::new();
    bench.posture(Activity::Active(epoch(3)));
    let records: Vec<LogRecord> = (0..1_000).flat_map(|i| bench.decide(i, 80).1).collect();
    assert_eq!(
        records.len(),
        usize::try_from(EventLimiter::BURST).expect("small")
    );
    assert!(
        records[0]
            .text
            .starts_with("policy=web@root rule=noisy@root action=Permit")
    );
    let until = bench.now + Duration::from_secs(2);
    let outputs = bench.tick_until(until);
    let told = outputs.iter().any(|output| {
        matches!(output, ServiceOutput::Supervision(FromService::Log(record))
            if record.text.starts_with("800 lookup events were not logged"))
    });
    assert!(told, "{outputs:?}");
}

#[test]
fn a_canary_passes_the_classifier_and_is_no_decision() {
    let mut bench = Bench::new();
    bench.posture(Activity::Active(epoch(3)));
    let outputs = bench.ask(&ToPolicyEngine::Canary { sequence: 4 });
    let back = outputs.iter().any(|output| match output {
        ServiceOutput::Send(message) => matches!(
            decode_body(&message.body),
            Ok(FromPolicyEngine::Canary { sequence: 4 })
        ),
        _ => false,
    });
    assert!(back, "{outputs:?}");
    let outputs = bench.ask(&ToPolicyEngine::Stats);
    let lookups = outputs.iter().find_map(|output| match output {
        ServiceOutput::Send(message) => match decode_body(&message.body) {
            Ok(FromPolicyEngine::Stats { policies, .. }) => {
                Some(policies.iter().map(|policy| policy.lookups).sum::<u64>())
            }
            _ => None,
        },
        _ => None,
    });
    assert_eq!(lookups, Some(0));
}

#[test]
fn connections_are_stored_in_batches_and_closed_ones_are_removed() {
    let mut bench = Bench::new();
    bench.posture(Activity::Active(epoch(3)));
    for source_port in 0..1_000 {
        bench.decide(source_port, 80);
    }
    bench.tick_until(bench.now + Duration::from_millis(50));
    assert_eq!(bench.stored_connections(), 1_000);
    assert!(
        bench.commits <= 1_000 / 100 + 3,
        "{} commits",
        bench.commits
    );
    let report = |source_port| FlowReport {
        port: "web-1".to_owned(),
        flow: attributes(source_port, 80).flow,
        event: FlowEvent::Closed,
        packets: 1,
        bytes: 1,
    };
    let flows = (0..200).map(report).collect();
    bench.ask(&ToPolicyEngine::Report {
        module: ModuleNumber(3),
        flows,
    });
    bench.tick_until(bench.now + Duration::from_millis(50));
    assert_eq!(
        (bench.stored_connections(), bench.engine.connections()),
        (800, 800)
    );
}

/// A table in which more changes than are remembered is compared with the store.
#[test]
fn an_overflow_of_changes_ends_in_equal_tables() {
    let decided = |generation| Decided {
        direction: Direction::Ingress,
        verdict: Verdict::Permit,
        policy: ObjectName::new("web").expect("valid: a plain name"),
        rule: None,
        generation: Generation(generation),
    };
    let key = |number: usize| ConnectionKey {
        module: ModuleNumber(3),
        port: "web-1".to_owned(),
        flow: FlowKey {
            src_ip: Ipv4Addr::from(u32::try_from(number).expect("small")),
            ..attributes(1, 80).flow
        },
    };
    let (mut flows, mut store) = (Flows::new(), BTreeMap::new());
    let now = Time::from_ms(5);
    flows.begin_epoch(epoch(1));
    let drain = |flows: &mut Flows, store: &mut BTreeMap<Vec<u8>, Operation>| loop {
        let operations = flows.batch(now, true);
        if operations.is_empty() {
            break;
        }
        for operation in operations {
            match &operation {
                Operation::Put { key, .. } => store.insert(key.clone(), operation.clone()),
                Operation::Delete { key, .. } => store.remove(key),
            };
        }
        flows.committed();
        flows.check();
    };
    for number in 0..100 {
        flows.permit(now, key(number), decided(1));
    }
    drain(&mut flows, &mut store);
    // Far too many changes at once; some of what is stored is closed among them.
    for number in 50..DIRTY_MAX + 200 {
        flows.permit(now, key(number), decided(2));
    }
    for number in 0..50 {
        flows.close(now, &key(number));
    }
    flows.check();
    assert!(!flows.take_overflow(), "what is noted is stored first");
    drain(&mut flows, &mut store);
    let mut comparisons = 0;
    while flows.take_overflow() {
        comparisons += 1;
        assert!(comparisons < 4, "each comparison makes headway");
        flows.reset();
        flows.operations(now, store.values().cloned().collect(), true);
        flows.loaded(now, true);
        drain(&mut flows, &mut store);
    }
    assert_eq!(store.len(), flows.table().len());
    assert!((0..50).all(|number| !store.contains_key(&encode_body(&key(number)))));
    // A standby that reads the store has the same table.
    let mut standby = Flows::new();
    standby.reset();
    standby.operations(now, store.values().cloned().collect(), false);
    standby.loaded(now, false);
    let keys = |flows: &Flows| -> Vec<ConnectionKey> {
        flows
            .table()
            .connections()
            .map(|shown| shown.key.clone())
            .collect()
    };
    assert_eq!(keys(&standby), keys(&flows));
}
