//! Random sequences, answered as the datapath would, against the invariants.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What the random test does next.
#[derive(Clone, Debug)]
enum Step {
    Packet(u16),
    Connect(u8),
    Disconnect(u8),
    Claim(u8, u64),
    Release(u8),
    Decide {
        gateway: u8,
        counter: u64,
        back: u64,
        permit: bool,
    },
    Generation(u8, u64),
    Vote(u8, Option<u64>),
    Acting(u8, u64, u64),
    FailNextWrite,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = 0..2_u8;
    prop_oneof![
        8 => (0..12_u16).prop_map(Step::Packet),
        1 => gateway.clone().prop_map(Step::Connect),
        1 => gateway.clone().prop_map(Step::Disconnect),
        2 => (gateway.clone(), 1..6_u64).prop_map(|(gateway, counter)| Step::Claim(gateway, counter)),
        1 => gateway.clone().prop_map(Step::Release),
        8 => (gateway.clone(), 1..6_u64, 0..8_u64, any::<bool>()).prop_map(
            |(gateway, counter, back, permit)| Step::Decide { gateway, counter, back, permit }
        ),
        1 => (gateway.clone(), 1..5_u64)
            .prop_map(|(gateway, number)| Step::Generation(gateway, number)),
        2 => (gateway.clone(), proptest::option::of(1..6_u64))
            .prop_map(|(gateway, candidate)| Step::Vote(gateway, candidate)),
        1 => (gateway, 1..4_u64, 1..6_u64)
            .prop_map(|(gateway, question, counter)| Step::Acting(gateway, question, counter)),
        1 => Just(Step::FailNextWrite),
        3 => (0..4_000_u64).prop_map(Step::Wait),
    ]
}

/// A shell that answers as the datapath would, and watches from outside.
struct Model {
    bench: Bench,
    next_slot: u32,
    /// Flow of each slot that the core holds.
    slots: BTreeMap<u32, u16>,
    /// Last slot written of each flow: order.
    written: BTreeMap<u16, u32>,
    /// What the kernel's entries say.
    entries: BTreeMap<u16, EntryState>,
    highest_applied: u64,
    /// What a crash now would leave of the fence.
    durable: Fenced,
    /// Highest candidate that was told *silent*.
    promised: Epoch,
    write_fails: bool,
}

impl Model {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Packet(n) => {
                let entry = *self.entries.entry(n).or_insert(EntryState::Pending);
                if matches!(entry, EntryState::Pending | EntryState::Draining) {
                    let slot = self.next_slot;
                    self.next_slot += 1;
                    self.slots.insert(slot, n);
                    self.bench.hold_as(slot, flow(n), entry);
                }
            }
            Step::Connect(gateway) => self.bench.give(Input::Connected(GatewayId(gateway))),
            Step::Disconnect(gateway) => self.bench.give(Input::Disconnected(GatewayId(gateway))),
            Step::Claim(gateway, counter) => {
                self.bench
                    .claim(GatewayId(gateway), epoch(counter, gateway), 1);
            }
            Step::Release(gateway) => {
                let epoch = self.bench.vem.highest_epoch();
                self.bench.say(GatewayId(gateway), ToVem::Release { epoch });
            }
            Step::Decide {
                gateway,
                counter,
                back,
                permit,
            } => {
                let request = self.bench.vem.next_request.saturating_sub(back);
                let verdict = if permit {
                    Verdict::Permit
                } else {
                    Verdict::Drop
                };
                self.bench.decide(
                    GatewayId(gateway),
                    epoch(counter, gateway),
                    request,
                    verdict,
                );
            }
            Step::Generation(gateway, number) => {
                let (epoch, generation) = (self.bench.vem.highest_epoch(), Generation(number));
                self.bench
                    .say(GatewayId(gateway), ToVem::Generation { epoch, generation });
            }
            Step::Vote(gateway, candidate) => self.bench.say(
                GatewayId(gateway),
                ToVem::Vote {
                    vote: 1,
                    candidate: candidate.map(|counter| epoch(counter, gateway)),
                    within_ms: 100,
                },
            ),
            Step::Acting(gateway, question, counter) => {
                let epoch = epoch(counter, gateway);
                self.bench.say(
                    GatewayId(gateway),
                    ToVem::Acting {
                        question,
                        epoch,
                        alone: true,
                    },
                );
            }
            Step::FailNextWrite => self.write_fails = true,
            Step::Wait(ms) => self.bench.pass(core::time::Duration::from_millis(ms)),
        }
        self.answer();
    }

    fn answer(&mut self) {
        while !self.bench.outputs.is_empty() {
            for output in self.bench.take() {
                self.carry_out(output);
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        let fenced = |counter: u64, model: &mut Self| {
            if counter != 0 {
                let (_, obeyed, _) = model.bench.vem.obeyed().expect("a verdict of nobody");
                assert_eq!(counter, obeyed.counter, "a verdict of another epoch");
                assert!(
                    counter >= model.highest_applied,
                    "below an epoch applied before"
                );
                model.highest_applied = counter;
            }
        };
        match output {
            Output::Persist(fenced) if core::mem::take(&mut self.write_fails) => {
                self.bench.give(Input::PersistFailed(fenced));
            }
            Output::Persist(fenced) => {
                self.durable = self.durable.max(fenced);
                self.bench.give(Input::Persisted(fenced));
            }
            Output::Send { message, .. } => self.told(&message),
            Output::Drain {
                flow,
                epoch_counter,
                ..
            } => {
                fenced(epoch_counter, self);
                self.entries.insert(flow.id.vm_port, EntryState::Draining);
            }
            Output::Deny {
                flow,
                epoch_counter,
                ..
            } => {
                fenced(epoch_counter, self);
                self.entries.insert(flow.id.vm_port, EntryState::Denied);
            }
            Output::Forget(flow) => {
                self.entries.remove(&flow.id.vm_port);
            }
            Output::Settle { flow, .. } => {
                self.entries.insert(flow.id.vm_port, EntryState::Permitted);
                let outcome = SettleOutcome::Settled;
                self.bench.give(Input::Settled {
                    flow,
                    outcome,
                    tap_empty: true,
                });
            }
            Output::Write(slot) => {
                let n = self.slots.remove(&slot.0).expect("given back twice");
                let entry = self.entries.get(&n).copied();
                assert_eq!(
                    entry,
                    Some(EntryState::Draining),
                    "written without a permit"
                );
                let last = self.written.insert(n, slot.0);
                assert!(last.is_none_or(|last| last < slot.0), "out of order");
            }
            Output::Discard(slot) => {
                self.slots.remove(&slot.0).expect("given back twice");
            }
            Output::Walk { .. } => {
                self.bench.give(Input::Walked {
                    stale: Vec::new(),
                    next: None,
                });
            }
            Output::Revalidate { .. } | Output::Log(_) | Output::Restart | Output::Trust { .. } => {
            }
        }
    }
}

impl Model {
    /// What leaves is durable, and nothing below a promise is obeyed.
    fn told(&mut self, message: &FromVem) {
        match message {
            FromVem::Ballot {
                candidate: Some(candidate),
                ballot: wire::vem::Ballot::Silent,
                ..
            } => {
                assert!(self.durable.floor() >= *candidate, "a promise not durable");
                self.promised = self.promised.max(*candidate);
            }
            FromVem::ClaimAccepted { epoch } => {
                assert!(self.durable.floor() >= *epoch, "obeyed, not durable");
                assert!(*epoch >= self.promised, "below a promise");
            }
            FromVem::Hello { .. }
            | FromVem::ClaimRefused { .. }
            | FromVem::Decide(_)
            | FromVem::Report { .. }
            | FromVem::Alive { .. }
            | FromVem::Inquire { .. }
            | FromVem::Ballot { .. }
            | FromVem::Raised(_)
            | FromVem::GatewaysPinned { .. } => {}
        }
    }
}

proptest! {
    #[test]
    fn random_sequences_keep_the_invariants(steps in proptest::collection::vec(step(), 1..120)) {
        let mut model = Model {
            bench: Bench::new(),
            next_slot: 0,
            slots: BTreeMap::new(),
            written: BTreeMap::new(),
            entries: BTreeMap::new(),
            highest_applied: 0,
            durable: Fenced::default(),
            promised: Epoch::default(),
            write_fails: false,
        };
        let mut highest = model.bench.vem.highest_epoch();
        for step in &steps {
            model.apply(step);
            prop_assert!(model.bench.vem.highest_epoch() >= highest);
            highest = model.bench.vem.highest_epoch();
        }
        // Faults end: every packet is given back within the hold limit and a little.
        model.apply(&Step::Wait(21_000));
        prop_assert_eq!(model.slots.len(), 0, "packets held for ever");
    }
}
