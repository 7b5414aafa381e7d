//! One behaviour per test, `exhaustive` every input in every state, `random` sequences
//! of inputs.

mod exhaustive;
mod random;
mod votes;

use model::{Direction, Incarnation, NodeKey, Protocol, Verdict};
use wire::vem::{Decision, DecisionRequest, ToVem};

use super::*;
use crate::input::{EntryState, KernelReport, KernelReportKind, SettleOutcome, StaleFlow};
use crate::types::{FailMode, Flow, FlowId, PortIndex, SlotId};
use crate::waiting::{
    ASK_AGAIN_AFTER, HELD_PER_FLOW_MAX, HELD_PER_PORT_MAX, SETTLE_FORCE_AFTER, SETTLE_RETRY_AFTER,
};

const A: GatewayId = GatewayId(0);
const B: GatewayId = GatewayId(1);

/// Above so many packets held the invariants are checked by the test itself.
const CHECKED_PACKETS_MAX: u32 = 200;

fn epoch(counter: u64, node: u8) -> Epoch {
    Epoch {
        counter,
        node: NodeKey([node; 32]),
        incarnation: Incarnation(1),
    }
}

fn obeyed(obeyed: Epoch) -> Fenced {
    let promised = Epoch::default();
    Fenced { obeyed, promised }
}

fn flow(n: u16) -> Flow {
    let id = FlowId {
        port: PortIndex(n % 2),
        vm_ip: [10, 0, 0, 1].into(),
        remote_ip: [10, 0, 0, 2].into(),
        vm_port: n,
        remote_port: 80,
        protocol: Protocol::TCP,
    };
    Flow {
        id,
        born_ns: 1,
        opened: Direction::Egress,
    }
}

/// The core with a shell that does nothing but write down, and checks the invariants.
struct Bench {
    now: Time,
    vem: Vem,
    outputs: Vec<Output>,
}

impl Bench {
    fn new() -> Self {
        let port = |name: &str, fail_mode| PortSettings {
            name: name.to_owned(),
            profile: format!("{name}@root"),
            fail_mode,
        };
        let settings = Settings {
            host: "h".to_owned(),
            ports: vec![port("even", FailMode::Close), port("odd", FailMode::Open)],
            gateways: 2,
        };
        let now = Time::from_ms(1000);
        Self {
            now,
            vem: Vem::new(now, settings, Fenced::default(), 0),
            outputs: Vec::new(),
        }
    }

    /// With gateway A obeyed under epoch 1, and B connected.
    fn obeying() -> Self {
        let mut bench = Self::new();
        bench.give(Input::Connected(A));
        bench.give(Input::Connected(B));
        bench.claim(A, epoch(1, 1), 1);
        bench.give(Input::Persisted(obeyed(epoch(1, 1))));
        bench.walk_to_the_end();
        bench.outputs.clear();
        bench
    }

    fn give(&mut self, input: Input) {
        self.vem.handle(self.now, input);
        while let Some(output) = self.vem.poll_output() {
            self.outputs.push(output);
        }
        // Checking costs a look at every packet held: not while thousands are put there.
        if self.vem.waiting().1 < CHECKED_PACKETS_MAX {
            self.vem.check();
        }
    }

    fn say(&mut self, gateway: GatewayId, message: ToVem) {
        self.give(Input::Received { gateway, message });
    }

    fn claim(&mut self, gateway: GatewayId, epoch: Epoch, generation: u64) {
        let generation = Generation(generation);
        self.say(gateway, ToVem::Claim { epoch, generation });
    }

    fn hold(&mut self, slot: u32, flow: Flow) {
        self.hold_as(slot, flow, EntryState::Pending);
    }

    fn hold_as(&mut self, slot: u32, flow: Flow, entry: EntryState) {
        let slot = SlotId(slot);
        self.give(Input::Held {
            slot,
            flow,
            entry,
            bytes: 60,
        });
    }

    fn pass(&mut self, time: core::time::Duration) {
        self.now = self.now + time;
        self.give(Input::Tick);
    }

    fn walk_to_the_end(&mut self) {
        self.give(Input::Tick);
        self.give(Input::Walked {
            stale: Vec::new(),
            next: None,
        });
        self.give(Input::Tick);
    }

    fn take(&mut self) -> Vec<Output> {
        core::mem::take(&mut self.outputs)
    }

    /// Requests asked for since the last call, with whom was asked.
    fn asked(&mut self) -> Vec<(GatewayId, DecisionRequest)> {
        let requests = |output| match output {
            Output::Send {
                gateway,
                message: FromVem::Decide(requests),
            } => requests
                .into_iter()
                .map(|request| (gateway, request))
                .collect(),
            _ => Vec::new(),
        };
        self.take().into_iter().flat_map(requests).collect()
    }

    fn decide(&mut self, gateway: GatewayId, epoch: Epoch, request: u64, verdict: Verdict) {
        let generation = Generation(1);
        let decisions = vec![Decision {
            request,
            verdict,
            generation,
        }];
        self.say(gateway, ToVem::Decided { epoch, decisions });
    }
}

fn writes(outputs: &[Output]) -> Vec<u32> {
    let slot = |output: &Output| match output {
        Output::Write(slot) => Some(slot.0),
        _ => None,
    };
    outputs.iter().filter_map(slot).collect()
}

fn discards(outputs: &[Output]) -> Vec<u32> {
    let slot = |output: &Output| match output {
        Output::Discard(slot) => Some(slot.0),
        _ => None,
    };
    outputs.iter().filter_map(slot).collect()
}

#[test]
fn permit_drains_in_order_then_settles() {
    let mut bench = Bench::obeying();
    (0..3).for_each(|slot| bench.hold(slot, flow(0)));
    let asked = bench.asked();
    assert_eq!(asked.len(), 1, "one request for one flow");
    bench.decide(A, epoch(1, 1), asked[0].1.request, Verdict::Permit);
    bench.hold_as(3, flow(0), EntryState::Draining);
    let outputs = bench.take();
    assert!(matches!(
        outputs[0],
        Output::Drain {
            epoch_counter: 1,
            discarded: 0,
            ..
        }
    ));
    assert_eq!(writes(&outputs), [0, 1, 2, 3]);
    let settle = Output::Settle {
        flow: flow(0),
        force: false,
    };
    assert!(outputs.contains(&settle));
    bench.give(Input::Settled {
        flow: flow(0),
        outcome: SettleOutcome::Settled,
        tap_empty: true,
    });
    assert_eq!(bench.vem.waiting(), (0, 0));
}

#[test]
fn drop_discards_what_waits() {
    let mut bench = Bench::obeying();
    (0..3).for_each(|slot| bench.hold(slot, flow(0)));
    let request = bench.asked()[0].1.request;
    bench.decide(A, epoch(1, 1), request, Verdict::Drop);
    let outputs = bench.take();
    assert!(matches!(
        outputs[0],
        Output::Deny {
            verdict: Verdict::Drop,
            ..
        }
    ));
    assert_eq!(
        (writes(&outputs), discards(&outputs)),
        (vec![], vec![0, 1, 2])
    );
    assert_eq!(bench.vem.waiting(), (0, 0));
}

#[test]
fn unsettled_flow_is_tried_again_and_at_last_forced() {
    let mut bench = Bench::obeying();
    bench.hold(0, flow(0));
    let request = bench.asked()[0].1.request;
    bench.decide(A, epoch(1, 1), request, Verdict::Permit);
    bench.take();
    let not_drained = |tap_empty| Input::Settled {
        flow: flow(0),
        outcome: SettleOutcome::NotDrained,
        tap_empty,
    };
    let settle = |force| Output::Settle {
        flow: flow(0),
        force,
    };
    bench.give(not_drained(true));
    assert_eq!(bench.take(), []);
    bench.pass(SETTLE_RETRY_AFTER);
    assert_eq!(bench.take(), [settle(false)]);
    bench.now = bench.now + SETTLE_FORCE_AFTER;
    bench.give(not_drained(false));
    assert_eq!(bench.take(), [], "packets are still in the tap");
    bench.pass(SETTLE_FORCE_AFTER);
    bench.give(not_drained(true));
    assert_eq!(bench.take(), [settle(false), settle(true)]);
    assert_eq!(bench.vem.counters().forced, 1);
}

#[test]
fn flow_that_never_pauses_is_settled_by_force() {
    let mut bench = Bench::obeying();
    bench.hold(0, flow(0));
    let request = bench.asked()[0].1.request;
    bench.decide(A, epoch(1, 1), request, Verdict::Permit);
    let mut forced = false;
    for slot in 1..1000 {
        bench.take();
        bench.pass(core::time::Duration::from_millis(1));
        bench.hold_as(slot, flow(0), EntryState::Draining);
        bench.give(Input::Settled {
            flow: flow(0),
            outcome: SettleOutcome::NotDrained,
            tap_empty: false,
        });
        let settle = Output::Settle {
            flow: flow(0),
            force: true,
        };
        forced = bench.take().contains(&settle);
        if forced {
            break;
        }
    }
    assert!(forced, "it stays on the slow path");
}

#[test]
fn only_the_active_that_is_obeyed_restarts_the_agent() {
    let mut bench = Bench::new();
    bench.give(Input::Connected(A));
    bench.give(Input::Connected(B));
    bench.claim(A, epoch(1, 1), 1);
    bench.give(Input::Persisted(obeyed(epoch(1, 1))));
    bench.take();
    for (gateway, wrong) in [(B, epoch(1, 1)), (A, epoch(1, 2)), (A, epoch(2, 1))] {
        bench.say(gateway, ToVem::Restart { epoch: wrong });
        assert!(!bench.take().contains(&Output::Restart));
    }
    bench.say(A, ToVem::Restart { epoch: epoch(1, 1) });
    assert!(bench.take().contains(&Output::Restart));
}

#[test]
fn only_the_active_that_is_obeyed_says_whom_to_trust() {
    let mut bench = Bench::new();
    bench.give(Input::Connected(A));
    bench.give(Input::Connected(B));
    bench.claim(A, epoch(1, 1), 1);
    bench.give(Input::Persisted(obeyed(epoch(1, 1))));
    bench.take();
    let key = |number| NodeKey([number; 32]);
    let trusts = |output: &Output| matches!(output, Output::Trust { .. });
    let too_many: Vec<_> = (0..5).map(key).collect();
    let both = vec![key(1), key(2)];
    for (gateway, epoch, keys) in [
        // A node that was unpaired would make the host its own.
        (B, epoch(1, 1), vec![key(2)]),
        (A, epoch(1, 2), both.clone()),
        (A, epoch(2, 1), both.clone()),
        // A host that trusts nobody could be told nothing any more.
        (A, epoch(1, 1), Vec::new()),
        (A, epoch(1, 1), too_many),
    ] {
        bench.say(gateway, ToVem::Gateways { epoch, keys });
        assert!(!bench.take().iter().any(trusts));
    }
    let (epoch, keys) = (epoch(1, 1), both.clone());
    bench.say(A, ToVem::Gateways { epoch, keys });
    let told = Output::Trust {
        gateway: A,
        keys: both,
    };
    assert!(bench.take().contains(&told));
}

#[test]
fn claim_is_durable_before_anything_follows() {
    let mut bench = Bench::new();
    bench.give(Input::Connected(A));
    bench.hold(0, flow(0));
    bench.take();
    bench.claim(A, epoch(1, 1), 1);
    bench.say(A, ToVem::Probe { sequence: 4 });
    let outputs = bench.take();
    assert_eq!(
        outputs,
        [Output::Persist(obeyed(epoch(1, 1)))],
        "nothing passes the barrier"
    );
    bench.give(Input::Persisted(obeyed(epoch(1, 1))));
    let sent: Vec<_> = bench.take();
    let position = |wanted: fn(&FromVem) -> bool| {
        let found = |output: &Output| match output {
            Output::Send { message, .. } => wanted(message),
            _ => false,
        };
        sent.iter().position(found).expect("sent")
    };
    let accepted = position(|message| matches!(message, FromVem::ClaimAccepted { .. }));
    let decide = position(|message| matches!(message, FromVem::Decide(_)));
    assert!(
        accepted < decide,
        "the claim is acknowledged before flows are asked for"
    );
}

#[test]
fn failed_write_obeys_nobody_and_is_tried_again() {
    let mut bench = Bench::new();
    bench.give(Input::Connected(A));
    bench.claim(A, epoch(1, 1), 1);
    bench.give(Input::PersistFailed(obeyed(epoch(1, 1))));
    assert_eq!(bench.vem.obeyed(), None);
    bench.take();
    bench.pass(PERSIST_AGAIN_AFTER);
    assert_eq!(bench.take(), [Output::Persist(obeyed(epoch(1, 1)))]);
    bench.give(Input::Persisted(obeyed(epoch(1, 1))));
    assert!(bench.vem.obeyed().is_some());
}

#[test]
fn failover_asks_the_new_active_and_ignores_the_old() {
    let mut bench = Bench::obeying();
    bench.hold(0, flow(0));
    let old = bench.asked();
    assert_eq!(old[0].0, A);
    bench.claim(B, epoch(2, 2), 1);
    assert_eq!(bench.vem.obeyed(), None, "the old epoch is void at once");
    let told = Output::Send {
        gateway: A,
        message: FromVem::Raised(obeyed(epoch(2, 2))),
    };
    assert!(!bench.outputs.contains(&told), "not before it is durable");
    bench.decide(A, epoch(1, 1), old[0].1.request, Verdict::Permit);
    assert_eq!(writes(&bench.take()), []);
    bench.give(Input::Persisted(obeyed(epoch(2, 2))));
    assert!(bench.outputs.contains(&told), "the old active is told");
    let new = bench.asked();
    assert_eq!((new.len(), new[0].0), (1, B));
    assert_ne!(new[0].1.request, old[0].1.request);
    bench.decide(A, epoch(1, 1), new[0].1.request, Verdict::Permit);
    bench.decide(B, epoch(1, 1), new[0].1.request, Verdict::Permit);
    bench.decide(A, epoch(2, 2), new[0].1.request, Verdict::Permit);
    assert_eq!(writes(&bench.take()), [], "wrong gateway or epoch");
    assert_eq!(bench.vem.counters().answers_ignored, 4);
    bench.decide(B, epoch(2, 2), new[0].1.request, Verdict::Permit);
    assert_eq!(writes(&bench.take()), [0]);
    bench.decide(B, epoch(2, 2), new[0].1.request, Verdict::Permit);
    assert_eq!(bench.vem.counters().answers_ignored, 5, "a duplicate");
}

#[test]
fn lower_claims_and_clones_are_refused() {
    let mut bench = Bench::obeying();
    let clone = Epoch {
        incarnation: Incarnation(2),
        ..epoch(1, 1)
    };
    for (claim, is_clone) in [(epoch(0, 9), false), (clone, true)] {
        bench.take();
        bench.claim(B, claim, 1);
        let refused = FromVem::ClaimRefused {
            epoch: claim,
            fenced: obeyed(epoch(1, 1)),
            clone: is_clone,
        };
        let expected = Output::Send {
            gateway: B,
            message: refused,
        };
        assert!(bench.take().contains(&expected));
    }
    assert_eq!(bench.vem.obeyed().map(|(gateway, ..)| gateway), Some(A));
    assert_eq!(
        (
            bench.vem.counters().claims_refused,
            bench.vem.counters().clones
        ),
        (2, 1)
    );
}

#[test]
fn broken_connection_delays_and_its_return_resumes() {
    let mut bench = Bench::obeying();
    bench.hold(0, flow(0));
    bench.give(Input::Disconnected(A));
    bench.hold(2, flow(2));
    bench.take();
    bench.give(Input::Connected(A));
    bench.claim(A, epoch(1, 1), 1);
    let asked = bench.asked();
    assert_eq!(asked.len(), 2);
    for (_, request) in asked {
        bench.decide(A, epoch(1, 1), request.request, Verdict::Permit);
    }
    assert_eq!(writes(&bench.take()), [0, 2]);
}

#[test]
fn released_vem_obeys_nobody_until_a_claim() {
    let mut bench = Bench::obeying();
    bench.say(B, ToVem::Release { epoch: epoch(1, 1) });
    assert!(
        bench.vem.obeyed().is_some(),
        "only the obeyed one can release"
    );
    bench.say(A, ToVem::Release { epoch: epoch(1, 1) });
    assert_eq!(bench.vem.obeyed(), None);
    bench.claim(B, epoch(2, 2), 1);
    bench.give(Input::Persisted(obeyed(epoch(2, 2))));
    assert_eq!(bench.vem.obeyed().map(|(gateway, ..)| gateway), Some(B));
}

#[test]
fn silent_active_is_asked_again_then_the_fail_mode_decides() {
    let mut bench = Bench::obeying();
    bench.hold(0, flow(0));
    bench.hold(1, flow(1));
    bench.take();
    bench.pass(ASK_AGAIN_AFTER);
    assert_eq!(bench.asked().len(), 2);
    bench.pass(HOLD_LIMIT);
    let outputs = bench.take();
    assert!(
        outputs.contains(&Output::Forget(flow(0))),
        "port even fails close"
    );
    assert_eq!(
        (discards(&outputs), writes(&outputs)),
        (vec![0], vec![1]),
        "port odd opens"
    );
    let counters = bench.vem.counters();
    assert_eq!((counters.failed_closed, counters.failed_open), (1, 1));
}

#[test]
fn without_gateways_new_flows_wait_once_then_fail_at_once() {
    let mut bench = Bench::new();
    bench.hold(0, flow(0));
    assert_eq!(discards(&bench.take()), []);
    bench.pass(HOLD_LIMIT);
    let outputs = bench.take();
    assert_eq!(discards(&outputs), [0]);
    assert!(outputs.contains(&Output::Log(Event::FailModeBegan)));
    bench.hold(2, flow(2));
    assert_eq!(
        discards(&bench.take()),
        [2],
        "nobody has been there for long"
    );
}

#[test]
fn flow_and_port_limits_discard_the_new() {
    let mut bench = Bench::obeying();
    let limit = HELD_PER_FLOW_MAX as u32;
    (0..limit + 2).for_each(|slot| bench.hold(slot, flow(0)));
    assert_eq!(discards(&bench.outputs), [limit, limit + 1]);
    let request = bench.asked()[0].1.request;
    bench.decide(A, epoch(1, 1), request, Verdict::Permit);
    assert!(matches!(
        bench.take()[0],
        Output::Drain { discarded: 2, .. }
    ));
    (0..HELD_PER_PORT_MAX).for_each(|n| bench.hold(10_000 + n, flow(2 + 2 * n as u16)));
    bench.take();
    let last = flow(2 + 2 * HELD_PER_PORT_MAX as u16);
    bench.hold(99_999, last);
    assert_eq!(
        bench.take(),
        [Output::Discard(SlotId(99_999)), Output::Forget(last)]
    );
    bench.vem.check();
    bench.hold(99_998, flow(1));
    assert_eq!(discards(&bench.take()), [], "another port has room");
}

#[test]
fn packet_is_taken_by_its_entry_when_nothing_waits() {
    let mut bench = Bench::obeying();
    for (slot, entry) in (0..).zip([
        EntryState::Permitted,
        EntryState::Denied,
        EntryState::Absent,
    ]) {
        bench.hold_as(slot, flow(0), entry);
    }
    let outputs = bench.take();
    assert_eq!(
        (writes(&outputs), discards(&outputs)),
        (vec![0], vec![1, 2])
    );
    // An earlier run permitted it and died: its packets go on, and it is settled.
    bench.hold_as(4, flow(0), EntryState::Draining);
    let outputs = bench.take();
    assert_eq!(writes(&outputs), [4]);
    assert!(outputs.contains(&Output::Settle {
        flow: flow(0),
        force: false
    }));
}

#[test]
fn new_life_of_a_key_voids_what_waits_of_the_old() {
    let mut bench = Bench::obeying();
    bench.hold(0, flow(0));
    let old = bench.asked()[0].1.request;
    let reborn = Flow {
        born_ns: 2,
        ..flow(0)
    };
    bench.hold(1, reborn);
    assert_eq!(discards(&bench.outputs), [0]);
    let new = bench.asked()[0].1.request;
    bench.decide(A, epoch(1, 1), old, Verdict::Permit);
    assert_eq!(writes(&bench.take()), []);
    bench.decide(A, epoch(1, 1), new, Verdict::Permit);
    assert_eq!(writes(&bench.take()), [1]);
}

#[test]
fn newer_policy_asks_for_older_verdicts_again() {
    let mut bench = Bench::obeying();
    let generation = Generation(2);
    bench.say(
        A,
        ToVem::Generation {
            epoch: epoch(1, 1),
            generation,
        },
    );
    let walk = Output::Walk {
        older_than: generation,
        after: None,
        limit: WALK_ENTRIES,
    };
    assert_eq!(bench.take(), [walk]);
    let stale = |n, verdict| StaleFlow {
        flow: flow(n),
        verdict,
        generation: Generation(1),
    };
    bench.give(Input::Walked {
        stale: vec![
            stale(0, Verdict::Permit),
            stale(2, Verdict::Drop),
            stale(4, Verdict::Permit),
        ],
        next: None,
    });
    assert!(
        bench.outputs.contains(&Output::Forget(flow(2))),
        "asks when it comes again"
    );
    let asked = bench.asked();
    assert!(asked.iter().all(|(_, request)| request.revalidation) && asked.len() == 2);
    bench.decide(A, epoch(1, 1), asked[0].1.request, Verdict::Drop);
    bench.decide(A, epoch(1, 1), asked[1].1.request, Verdict::Permit);
    let outputs = bench.take();
    let turned = |n, verdict| Output::Revalidate {
        flow: flow(n),
        verdict,
        generation: Generation(1),
        epoch_counter: 1,
    };
    assert!(outputs.contains(&turned(0, Verdict::Drop)));
    assert!(outputs.contains(&turned(4, Verdict::Permit)));
}

#[test]
fn ends_of_flows_are_reported_to_the_active() {
    let mut bench = Bench::obeying();
    let (kind, packets, bytes) = (KernelReportKind::Closed, 9, 900);
    bench.give(Input::Reported(KernelReport {
        flow: flow(0),
        kind,
        packets,
        bytes,
    }));
    assert_eq!(bench.take(), []);
    bench.pass(crate::reports::FLUSH_AFTER);
    let [
        Output::Send {
            gateway: A,
            message: FromVem::Report { flows, lost: 0 },
        },
    ] = &bench.take()[..]
    else {
        panic!("one report to the active");
    };
    assert_eq!((flows[0].packets, flows[0].flow), (9, flow(0).key()));
}

#[test]
fn probes_are_answered_with_what_is_known() {
    let mut bench = Bench::obeying();
    let alive = |sequence, active_heard| Output::Send {
        gateway: B,
        message: FromVem::Alive {
            sequence,
            fenced: obeyed(epoch(1, 1)),
            active_heard,
        },
    };
    bench.say(B, ToVem::Probe { sequence: 1 });
    bench.pass(crate::gateways::HEARD_WITHIN * 2);
    bench.say(B, ToVem::Probe { sequence: 2 });
    assert_eq!(bench.take(), [alive(1, true), alive(2, false)]);
}
