//! Votes and promises.

use core::time::Duration;

use wire::vem::Ballot;

use super::*;

const INTERVAL: Duration = Duration::from_millis(100);

fn vote(bench: &mut Bench, gateway: GatewayId, candidate: Option<Epoch>) {
    let within_ms = INTERVAL.as_millis() as u32;
    let vote = 7;
    bench.say(
        gateway,
        ToVem::Vote {
            vote,
            candidate,
            within_ms,
        },
    );
}

/// Gateways that were inquired, with the question.
fn inquired(outputs: &[Output]) -> Vec<(GatewayId, u64)> {
    let inquiry = |output: &Output| match output {
        Output::Send {
            gateway,
            message: FromVem::Inquire { question },
        } => Some((*gateway, *question)),
        _ => None,
    };
    outputs.iter().filter_map(inquiry).collect()
}

fn acting(question: u64, epoch: Epoch) -> ToVem {
    ToVem::Acting {
        question,
        epoch,
        alone: false,
    }
}

fn ballots(outputs: &[Output]) -> Vec<(GatewayId, Ballot)> {
    let ballot = |output: &Output| match output {
        Output::Send {
            gateway,
            message: FromVem::Ballot {
                vote: 7, ballot, ..
            },
        } => Some((*gateway, *ballot)),
        _ => None,
    };
    outputs.iter().filter_map(ballot).collect()
}

fn persisted(outputs: &[Output]) -> Vec<Fenced> {
    let write = |output: &Output| match output {
        Output::Persist(fenced) => Some(*fenced),
        _ => None,
    };
    outputs.iter().filter_map(write).collect()
}

#[test]
fn an_active_that_answers_is_alive_and_nothing_is_promised() {
    let mut bench = Bench::obeying();
    vote(&mut bench, B, Some(epoch(2, 2)));
    let asked = inquired(&bench.take());
    let [(A, question)] = asked[..] else {
        panic!("only the other gateway is asked: {asked:?}");
    };
    let epoch = epoch(1, 1);
    bench.say(A, acting(question, epoch));
    assert_eq!(
        ballots(&bench.take()),
        [(B, Ballot::Alive { alone: false })]
    );
    bench.pass(INTERVAL * 2);
    assert_eq!(ballots(&bench.take()), [], "one answer to one vote");
    assert_eq!(bench.vem.fenced(), obeyed(epoch));
    assert!(bench.vem.obeyed().is_some());
}

#[test]
fn a_silent_active_is_waited_for_no_longer_than_asked_and_the_promise_is_durable_first() {
    let mut bench = Bench::obeying();
    vote(&mut bench, B, Some(epoch(2, 2)));
    bench.take();
    bench.pass(INTERVAL - Duration::from_millis(1));
    assert_eq!(bench.take(), []);
    bench.pass(Duration::from_millis(1));
    let outputs = bench.take();
    let promise = Fenced {
        obeyed: epoch(1, 1),
        promised: epoch(2, 2),
    };
    assert_eq!(persisted(&outputs), [promise]);
    let sends = |outputs: &[Output]| {
        let send = |output: &&Output| matches!(output, Output::Send { .. });
        outputs.iter().filter(send).count()
    };
    assert_eq!(sends(&outputs), 0, "nothing leaves before it is durable");
    bench.give(Input::PersistFailed(promise));
    assert_eq!(sends(&bench.take()), 0);
    bench.pass(PERSIST_AGAIN_AFTER);
    assert_eq!(persisted(&bench.take()), [promise]);
    bench.give(Input::Persisted(promise));
    let outputs = bench.take();
    assert_eq!(ballots(&outputs), [(B, Ballot::Silent)]);
    let told = Output::Send {
        gateway: A,
        message: FromVem::Raised(promise),
    };
    assert!(outputs.contains(&told), "the active is told: {outputs:?}");
}

#[test]
fn after_a_promise_the_old_active_is_refused_until_it_takes_a_higher_epoch() {
    let mut bench = Bench::obeying();
    bench.hold(0, flow(0));
    let old = bench.asked();
    vote(&mut bench, B, Some(epoch(2, 2)));
    bench.pass(INTERVAL);
    let promise = bench.vem.fenced();
    bench.give(Input::Persisted(promise));
    assert_eq!(bench.vem.obeyed(), None);
    bench.take();
    bench.decide(A, epoch(1, 1), old[0].1.request, Verdict::Permit);
    assert_eq!(writes(&bench.take()), [], "its verdicts count nothing");
    bench.claim(A, epoch(1, 1), 1);
    let refused = FromVem::ClaimRefused {
        epoch: epoch(1, 1),
        fenced: promise,
        clone: false,
    };
    let refused = Output::Send {
        gateway: A,
        message: refused,
    };
    assert!(bench.take().contains(&refused));
    // It lives after all, and the candidate did not take over.
    bench.claim(A, epoch(3, 1), 1);
    bench.give(Input::Persisted(bench.vem.fenced()));
    assert_eq!(
        bench
            .vem
            .obeyed()
            .map(|(gateway, epoch, _)| (gateway, epoch)),
        Some((A, epoch(3, 1)))
    );
    vote(&mut bench, B, Some(epoch(2, 2)));
    bench.pass(INTERVAL);
    assert_eq!(
        ballots(&bench.take()),
        [(B, Ballot::Higher)],
        "the old candidate is outdone"
    );
    assert!(bench.vem.obeyed().is_some());
}

#[test]
fn the_candidate_is_obeyed_at_once_and_that_it_was_is_written_too() {
    let mut bench = Bench::obeying();
    bench.give(Input::Disconnected(A));
    bench.take();
    vote(&mut bench, B, Some(epoch(2, 2)));
    assert_eq!(persisted(&bench.take()).len(), 1, "nobody is left to ask");
    bench.give(Input::Persisted(bench.vem.fenced()));
    bench.take();
    bench.claim(B, epoch(2, 2), 1);
    let outputs = bench.take();
    let accepted = Output::Send {
        gateway: B,
        message: FromVem::ClaimAccepted { epoch: epoch(2, 2) },
    };
    assert!(outputs.contains(&accepted), "{outputs:?}");
    let both = Fenced {
        obeyed: epoch(2, 2),
        promised: epoch(2, 2),
    };
    assert_eq!(persisted(&outputs), [both]);
}

#[test]
fn a_mere_question_promises_nothing() {
    let mut bench = Bench::obeying();
    vote(&mut bench, B, None);
    bench.pass(INTERVAL);
    let outputs = bench.take();
    assert_eq!(ballots(&outputs), [(B, Ballot::Silent)]);
    assert_eq!(persisted(&outputs), []);
    assert!(bench.vem.obeyed().is_some());
}

#[test]
fn an_active_whose_connection_breaks_is_waited_for_no_longer() {
    let mut bench = Bench::obeying();
    vote(&mut bench, B, None);
    bench.take();
    bench.give(Input::Disconnected(A));
    assert_eq!(ballots(&bench.take()), [(B, Ballot::Silent)]);
}

#[test]
fn a_deposed_node_an_old_question_and_a_lost_standby_count_nothing() {
    let mut bench = Bench::obeying();
    bench.claim(B, epoch(2, 2), 1);
    bench.give(Input::Persisted(obeyed(epoch(2, 2))));
    // A returns as standby; B's connection is slow.
    vote(&mut bench, A, Some(epoch(3, 1)));
    let question = inquired(&bench.take())[0].1;
    bench.say(B, acting(question, epoch(1, 2)));
    bench.say(B, acting(question + 1, epoch(2, 2)));
    bench.say(A, acting(question, epoch(3, 1)));
    assert_eq!(ballots(&bench.take()), []);
    bench.give(Input::Disconnected(A));
    bench.pass(INTERVAL * 3);
    assert_eq!(
        bench.vem.fenced(),
        obeyed(epoch(2, 2)),
        "nothing is promised"
    );
    assert_eq!(bench.vem.obeyed().map(|(gateway, ..)| gateway), Some(B));
}

#[test]
fn a_newer_vote_replaces_an_older_one() {
    let mut bench = Bench::obeying();
    vote(&mut bench, B, Some(epoch(2, 2)));
    let first = inquired(&bench.take())[0].1;
    let second = ToVem::Vote {
        vote: 8,
        candidate: Some(epoch(3, 2)),
        within_ms: 100,
    };
    bench.say(B, second);
    let epoch = epoch(1, 1);
    let question = first;
    bench.say(A, acting(question, epoch));
    assert_eq!(
        ballots(&bench.take()),
        [],
        "an answer to the older question"
    );
}

#[test]
fn a_vem_that_was_stopped_itself_asks_again_before_it_promises() {
    let mut bench = Bench::obeying();
    vote(&mut bench, B, Some(epoch(2, 2)));
    bench.take();
    bench.pass(INTERVAL * 5);
    let asked = inquired(&bench.take());
    let [(A, question)] = asked[..] else {
        panic!("asked again: {asked:?}");
    };
    let epoch = epoch(1, 1);
    bench.say(A, acting(question, epoch));
    assert_eq!(
        ballots(&bench.take()),
        [(B, Ballot::Alive { alone: false })]
    );
    // But only once.
    vote(&mut bench, B, None);
    bench.pass(INTERVAL * 5);
    bench.pass(INTERVAL * 5);
    assert_eq!(ballots(&bench.take()), [(B, Ballot::Silent)]);
}

#[test]
fn a_claim_that_waits_for_its_write_is_refused_by_a_higher_promise() {
    let mut bench = Bench::new();
    bench.give(Input::Connected(A));
    bench.give(Input::Connected(B));
    bench.claim(A, epoch(1, 1), 1);
    vote(&mut bench, B, Some(epoch(2, 2)));
    bench.pass(INTERVAL);
    bench.give(Input::Persisted(obeyed(epoch(1, 1))));
    assert_eq!(bench.vem.obeyed(), None);
    bench.give(Input::Persisted(bench.vem.fenced()));
    let refused = |output: &Output| {
        matches!(
            output,
            Output::Send {
                gateway: A,
                message: FromVem::ClaimRefused { .. }
            }
        )
    };
    assert!(bench.take().iter().any(refused));
    assert_eq!(bench.vem.obeyed(), None);
}

#[test]
fn a_vote_that_follows_a_question_in_vain_is_answered_at_once_unless_the_active_spoke() {
    for speaks in [false, true] {
        let mut bench = Bench::obeying();
        vote(&mut bench, B, None);
        bench.pass(INTERVAL);
        assert_eq!(ballots(&bench.take()), [(B, Ballot::Silent)]);
        if speaks {
            bench.say(A, ToVem::Probe { sequence: 1 });
            bench.take();
        }
        vote(&mut bench, B, Some(epoch(2, 2)));
        let outputs = bench.take();
        assert_eq!(inquired(&outputs).is_empty(), !speaks);
        assert_eq!(persisted(&outputs).len(), usize::from(!speaks));
    }
    // Nor does it count for long, or for another standby.
    let mut bench = Bench::obeying();
    vote(&mut bench, B, None);
    bench.pass(INTERVAL);
    bench.pass(INTERVAL + Duration::from_millis(1));
    bench.take();
    vote(&mut bench, B, Some(epoch(2, 2)));
    assert_eq!(inquired(&bench.take()).len(), 1);
}
