//! Every input in every state.

use model::ModuleNumber;

use super::*;

/// Every input in every state of the fence and the gateways: nothing panics, every invariant
/// holds, and only the obeyed gateway's word changes anything.
#[test]
fn every_input_in_every_state() {
    let states: [fn() -> Bench; 5] = [
        Bench::new,
        || {
            let mut bench = Bench::new();
            bench.give(Input::Connected(A));
            bench.give(Input::Connected(B));
            bench.claim(A, epoch(1, 1), 1);
            bench
        },
        Bench::obeying,
        || {
            let mut bench = Bench::obeying();
            bench.say(A, ToVem::Release { epoch: epoch(1, 1) });
            bench
        },
        || {
            let mut bench = Bench::obeying();
            let (vote, candidate, within_ms) = (1, Some(epoch(2, 2)), 100);
            bench.say(
                B,
                ToVem::Vote {
                    vote,
                    candidate,
                    within_ms,
                },
            );
            bench
        },
    ];
    for (number, state) in states.iter().enumerate() {
        for input in all_inputs() {
            let mut bench = state();
            (0..3).for_each(|slot| bench.hold(slot, flow(slot as u16)));
            let before = bench.vem.highest_epoch();
            bench.take();
            bench.give(input.clone());
            assert!(
                bench.vem.highest_epoch() >= before,
                "state {number}, {input:?}"
            );
            let decides = matches!(
                input,
                Input::Received {
                    gateway: A,
                    message: ToVem::Decided { .. }
                }
            );
            let permitted = bench
                .outputs
                .iter()
                .any(|output| matches!(output, Output::Drain { .. }));
            assert!(
                !permitted || (decides && [2, 4].contains(&number)),
                "state {number}, {input:?}"
            );
        }
    }
}

fn all_inputs() -> Vec<Input> {
    let received = |gateway, message| Input::Received { gateway, message };
    let decided = |epoch| {
        let decision = |request| Decision {
            request,
            verdict: Verdict::Permit,
            generation: Generation(1),
        };
        ToVem::Decided {
            epoch,
            decisions: (0..9).map(decision).collect(),
        }
    };
    let generation = Generation(2);
    let mut inputs = vec![
        Input::Tick,
        Input::Persisted(obeyed(epoch(1, 1))),
        Input::Persisted(obeyed(epoch(9, 9))),
        Input::PersistFailed(obeyed(epoch(1, 1))),
        Input::Settled {
            flow: flow(0),
            outcome: SettleOutcome::Gone,
            tap_empty: true,
        },
        Input::Walked {
            stale: Vec::new(),
            next: Some(flow(0).id),
        },
        Input::Reported(KernelReport {
            flow: flow(0),
            kind: KernelReportKind::Idle,
            packets: 1,
            bytes: 1,
        }),
    ];
    for gateway in [A, B, GatewayId(7)] {
        inputs.push(Input::Connected(gateway));
        inputs.push(Input::Disconnected(gateway));
        inputs.push(received(
            gateway,
            ToVem::Welcome {
                module: ModuleNumber(3),
            },
        ));
        inputs.push(received(gateway, ToVem::Probe { sequence: 1 }));
        for candidate in [None, Some(epoch(1, 1)), Some(epoch(2, 2))] {
            let (vote, within_ms) = (1, 100);
            inputs.push(received(
                gateway,
                ToVem::Vote {
                    vote,
                    candidate,
                    within_ms,
                },
            ));
        }
        for epoch in [epoch(0, 1), epoch(1, 1), epoch(2, 2)] {
            inputs.push(received(gateway, ToVem::Claim { epoch, generation }));
            inputs.push(received(gateway, ToVem::Release { epoch }));
            inputs.push(received(
                gateway,
                ToVem::Acting {
                    question: 1,
                    epoch,
                    alone: true,
                },
            ));
            inputs.push(received(gateway, decided(epoch)));
            inputs.push(received(gateway, ToVem::Generation { epoch, generation }));
        }
    }
    for entry in [
        EntryState::Absent,
        EntryState::Pending,
        EntryState::Draining,
        EntryState::Permitted,
        EntryState::Denied,
    ] {
        inputs.push(Input::Held {
            slot: SlotId(50),
            flow: flow(0),
            entry,
            bytes: 60,
        });
    }
    inputs
}
