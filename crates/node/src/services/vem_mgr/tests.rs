//! `vem_mgr` by message scripts: a scripted store and a scripted `policy_engine`.

mod votes;

use core::net::Ipv4Addr;

use super::*;
use model::{
    Direction, FlowAttributes, FlowKey, Incarnation, Lsn, ModuleNumber, NodeKey, Protocol, Slot,
    Verdict,
};
use wire::broker::{Destination, encode_body};
use wire::checkpoint::{Request, Response, ToPss};
use wire::vem::{BATCH_MAX, Decision, DecisionRequest, Port};

const A: VemConnection = VemConnection(1);

fn epoch(counter: u64) -> Epoch {
    Epoch {
        counter,
        node: NodeKey([1; 32]),
        incarnation: Incarnation(1),
    }
}

fn obeyed(obeyed: Epoch) -> Fenced {
    let promised = Epoch::default();
    Fenced { obeyed, promised }
}

struct Bench {
    service: VemMgr,
    now: Time,
    sequence: u64,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            service: VemMgr::new(Time(0)),
            now: Time::from_ms(1),
            sequence: 0,
        };
        bench.handle(ServiceInput::Start);
        bench.handle(ServiceInput::BrokerConnected);
        bench
    }

    /// Handles one input; answers requests to `pss` as an empty store would; gives the rest.
    fn handle(&mut self, input: ServiceInput) -> Vec<ServiceOutput> {
        self.service.handle(self.now, input);
        self.service.check();
        let mut rest = Vec::new();
        while let Some(output) = self.service.poll_output() {
            match output {
                ServiceOutput::Send(message) if message.sap == ServiceName::Pss.sap() => {
                    let reply = store(&message);
                    self.service.handle(self.now, ServiceInput::Message(reply));
                }
                other => rest.push(other),
            }
        }
        rest
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

    fn connect(&mut self, connection: VemConnection, key: u8, seen: Epoch) -> Vec<ServiceOutput> {
        let event = VemEvent::Connected {
            key: NodeKey([key; 32]),
            address: "10.0.0.9".into(),
        };
        let mut outputs = self.handle(ServiceInput::Vem { connection, event });
        let ports = vec![Port {
            name: "web".into(),
            profile: "web@root".into(),
        }];
        let hello = FromVem::Hello {
            host: "host-1".into(),
            fenced: obeyed(seen),
            ports,
        };
        outputs.extend(self.vem(connection, hello));
        outputs
    }

    fn vem(&mut self, connection: VemConnection, message: FromVem) -> Vec<ServiceOutput> {
        let event = VemEvent::Message(message);
        self.handle(ServiceInput::Vem { connection, event })
    }

    fn policy_engine<T: serde::Serialize>(
        &mut self,
        kind: Kind,
        correlation: u64,
        body: &T,
    ) -> Vec<ServiceOutput> {
        self.handle(ServiceInput::Message(Message {
            source: ServiceName::PolicyEngine.sap(),
            from_peer: false,
            destination: Destination::Local,
            sap: ServiceName::VemMgr.sap(),
            kind,
            correlation,
            body: encode_body(body),
        }))
    }

    fn generation(&mut self, number: u64) -> Vec<ServiceOutput> {
        let generation = FromPolicyEngine::Generation(Generation(number));
        self.policy_engine(Kind::Notification, 0, &ToVemMgr::PolicyEngine(generation))
    }
}

fn store(message: &Message) -> Message {
    let Ok(ToPss::Request(request)) = decode_body(&message.body) else {
        panic!("a request")
    };
    let response = match request {
        Request::Watch { .. } => Response::Watching { from: Lsn(0) },
        Request::Range { .. } => Response::Pairs {
            pairs: Vec::new(),
            more: false,
        },
        Request::Commit {
            acknowledgement, ..
        } => Response::Committed {
            lsn: Lsn(1),
            reached: acknowledgement,
        },
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

fn to_vem(outputs: &[ServiceOutput]) -> Vec<ToVem> {
    let message = |output: &ServiceOutput| match output {
        ServiceOutput::Vem { message, .. } => Some(message.clone()),
        ServiceOutput::Send(_)
        | ServiceOutput::Supervision(_)
        | ServiceOutput::CloseVem(_)
        | ServiceOutput::Shell { .. }
        | ServiceOutput::CloseShell(_) => None,
    };
    outputs.iter().filter_map(message).collect()
}

fn applied(outputs: &[ServiceOutput]) -> bool {
    outputs
        .iter()
        .any(|o| matches!(o, ServiceOutput::Supervision(FromService::Applied { .. })))
}

fn asked(outputs: &[ServiceOutput]) -> Option<u64> {
    outputs.iter().find_map(|output| match output {
        ServiceOutput::Send(message) => match decode_body(&message.body) {
            Ok(ToPolicyEngine::Decide { .. }) => Some(message.correlation),
            Ok(_) | Err(_) => None,
        },
        _ => None,
    })
}

fn question() -> FromVem {
    let flow = FlowKey {
        src_ip: Ipv4Addr::new(10, 0, 0, 1),
        dst_ip: Ipv4Addr::new(10, 0, 0, 2),
        src_port: 1,
        dst_port: 80,
        protocol: Protocol::TCP,
    };
    let attributes = FlowAttributes {
        profile: "web@root".into(),
        direction: Direction::Ingress,
        flow,
        ethertype: 0x0800,
    };
    let port = "web".into();
    FromVem::Decide(vec![DecisionRequest {
        request: 7,
        port,
        attributes,
        revalidation: false,
    }])
}

fn answer(under: Epoch) -> FromPolicyEngine {
    let decision = Decision {
        request: 7,
        verdict: Verdict::Permit,
        generation: Generation(5),
    };
    FromPolicyEngine::Decided {
        epoch: under,
        decisions: vec![decision],
    }
}

fn active() -> Bench {
    let mut bench = Bench::new();
    bench.generation(5);
    assert!(applied(&bench.posture(Activity::Active(epoch(3)))));
    let outputs = bench.connect(A, 1, Epoch::default());
    let claim = ToVem::Claim {
        epoch: epoch(3),
        generation: Generation(5),
    };
    assert_eq!(
        to_vem(&outputs),
        [
            ToVem::Welcome {
                module: ModuleNumber(3)
            },
            claim
        ]
    );
    bench
}

#[test]
fn a_canary_counts_when_it_has_come_back_through_the_engine() {
    let mut bench = active();
    bench.now = bench.now + Duration::from_millis(150);
    let outputs = bench.handle(ServiceInput::Tick);
    let sent = outputs.iter().find_map(|output| match output {
        ServiceOutput::Send(message) => match decode_body(&message.body) {
            Ok(ToPolicyEngine::Canary { sequence }) => Some((message.correlation, sequence)),
            _ => None,
        },
        _ => None,
    });
    let (correlation, sequence) = sent.expect("a canary");
    let counted = ServiceOutput::Supervision(FromService::Canary);
    assert!(!outputs.contains(&counted), "it has not come back yet");
    let answer = FromPolicyEngine::Canary { sequence };
    let outputs = bench.policy_engine(Kind::Response, correlation, &answer);
    assert!(outputs.contains(&counted), "{outputs:?}");
}

#[test]
fn a_question_is_answered_under_the_epoch_and_never_on_a_standby() {
    let mut bench = active();
    let outputs = bench.vem(A, question());
    let correlation = asked(&outputs).expect("the question is relayed");
    let outputs = bench.policy_engine(Kind::Response, correlation, &answer(epoch(3)));
    assert!(matches!(&to_vem(&outputs)[..], [ToVem::Decided { epoch: e, .. }] if *e == epoch(3)));
    let outputs = bench.posture(Activity::Standby);
    assert_eq!(to_vem(&outputs), [ToVem::Release { epoch: epoch(3) }]);
    assert_eq!(asked(&bench.vem(A, question())), None);
}

#[test]
fn a_takeover_claims_every_standing_connection_at_once() {
    let mut bench = active();
    bench.posture(Activity::Standby);
    let outputs = bench.posture(Activity::Active(epoch(4)));
    let claim = ToVem::Claim {
        epoch: epoch(4),
        generation: Generation(5),
    };
    assert_eq!(to_vem(&outputs), [claim]);
    assert!(applied(&outputs));
}

#[test]
fn an_empty_or_lost_answer_is_asked_again() {
    let mut bench = active();
    let first = asked(&bench.vem(A, question())).expect("relayed");
    let empty = FromPolicyEngine::Decided {
        epoch: Epoch::default(),
        decisions: Vec::new(),
    };
    let outputs = bench.policy_engine(Kind::Response, first, &empty);
    assert!(to_vem(&outputs).is_empty());
    let second = asked(&bench.generation(5)).expect("policy_engine is ready now");
    bench.policy_engine(Kind::Undeliverable, second, &());
    let deadline = bench.service.next_deadline().expect("it waits");
    assert!(deadline <= bench.now + Duration::from_millis(5));
    bench.now = bench.now + Duration::from_millis(5);
    let third = asked(&bench.handle(ServiceInput::Tick)).expect("asked again by time");
    let old = bench.policy_engine(Kind::Response, first, &answer(epoch(3)));
    assert!(
        to_vem(&old).is_empty(),
        "an answer to a question given up is nobody's"
    );
    let outputs = bench.policy_engine(Kind::Response, third, &answer(epoch(3)));
    assert_eq!(to_vem(&outputs).len(), 1);
    let wrong = asked(&bench.vem(A, question())).expect("relayed");
    let outputs = bench.policy_engine(Kind::Response, wrong, &answer(epoch(2)));
    assert!(to_vem(&outputs).is_empty(), "never under another epoch");
}

#[test]
fn a_switchover_lets_answers_out_first_then_releases() {
    let mut bench = active();
    let correlation = asked(&bench.vem(A, question())).expect("relayed");
    let outputs = bench.posture(Activity::Quiesce(epoch(3)));
    assert!(!applied(&outputs) && to_vem(&outputs).is_empty());
    let outputs = bench.policy_engine(Kind::Response, correlation, &answer(epoch(3)));
    let messages = to_vem(&outputs);
    assert!(matches!(
        &messages[..],
        [ToVem::Decided { .. }, ToVem::Release { .. }]
    ));
    assert!(applied(&outputs));
    let mut bench = active();
    bench.vem(A, question());
    bench.posture(Activity::Quiesce(epoch(3)));
    bench.now = bench.now + DRAIN_LIMIT;
    let outputs = bench.handle(ServiceInput::Tick);
    assert!(
        applied(&outputs),
        "a lost answer does not hold a switchover up"
    );
}

#[test]
fn a_higher_epoch_and_a_clone_are_reported_at_once() {
    let mut bench = active();
    let refused = FromVem::ClaimRefused {
        epoch: epoch(3),
        fenced: obeyed(epoch(9)),
        clone: true,
    };
    let outputs = bench.vem(A, refused);
    let report = outputs.iter().rev().find_map(|output| match output {
        ServiceOutput::Supervision(FromService::Vems(report)) => Some(*report),
        _ => None,
    });
    let report = report.expect("a report");
    assert!(report.clone_seen && report.highest_epoch == epoch(9) && report.connected == 1);
}

#[test]
fn a_newer_connection_of_one_identity_replaces_the_older() {
    let mut bench = active();
    let outputs = bench.connect(VemConnection(2), 1, epoch(3));
    assert!(outputs.contains(&ServiceOutput::CloseVem(A)));
    assert!(to_vem(&outputs).contains(&ToVem::Welcome {
        module: ModuleNumber(3)
    }));
    let outputs = bench.connect(VemConnection(3), 2, epoch(3));
    assert!(to_vem(&outputs).contains(&ToVem::Welcome {
        module: ModuleNumber(4)
    }));
}

#[test]
fn whoever_breaks_the_protocol_is_cut_off_and_nothing_is_passed_on() {
    let oversized = |port: String, count: usize| {
        let FromVem::Decide(mut requests) = question() else {
            panic!("a question")
        };
        requests[0].port = port;
        FromVem::Decide(vec![requests[0].clone(); count])
    };
    for message in [
        oversized("p".repeat(65), 1),
        oversized("web".to_owned(), BATCH_MAX + 1),
    ] {
        let mut bench = active();
        let outputs = bench.vem(A, message);
        assert!(outputs.contains(&ServiceOutput::CloseVem(A)), "{outputs:?}");
        assert_eq!(asked(&outputs), None);
        assert!(asked(&bench.vem(A, question())).is_none(), "it is gone");
    }
}

#[test]
fn a_new_policy_is_told_to_the_claimed_and_idle_ones_are_probed() {
    let mut bench = active();
    let outputs = bench.generation(6);
    let told = ToVem::Generation {
        epoch: epoch(3),
        generation: Generation(6),
    };
    assert_eq!(to_vem(&outputs), [told]);
    bench.now = bench.now + PROBE_INTERVAL;
    let outputs = bench.handle(ServiceInput::Tick);
    assert!(matches!(&to_vem(&outputs)[..], [ToVem::Probe { .. }]));
}

#[test]
fn after_a_stop_the_system_manager_hears_when_every_host_agent_has_told_what_it_saw() {
    let mut bench = active();
    let outputs = bench.posture(Activity::Idle);
    let posture = bench.sequence;
    let sequence = to_vem(&outputs)
        .into_iter()
        .find_map(|message| match message {
            ToVem::Probe { sequence } => Some(sequence),
            _ => None,
        })
        .expect("they are asked");
    let asked = |outputs: &[ServiceOutput]| {
        outputs.iter().rev().find_map(|output| match output {
            ServiceOutput::Supervision(FromService::Vems(report)) => Some(report.asked),
            _ => None,
        })
    };
    assert_ne!(asked(&outputs), Some(posture), "none has answered yet");
    let alive = FromVem::Alive {
        sequence,
        fenced: Fenced::default(),
        active_heard: false,
    };
    let outputs = bench.vem(A, alive);
    assert_eq!(asked(&outputs), Some(posture));
}
