//! Votes: who is asked, which answers count, and what is reported.

use wire::vem::Ballot;

use super::*;

const B: VemConnection = VemConnection(2);
const C: VemConnection = VemConnection(3);

/// A standby with two registered host agents, A and B.
fn standby() -> Bench {
    let mut bench = active();
    bench.connect(B, 2, epoch(3));
    bench.posture(Activity::Standby);
    bench
}

fn candidate(counter: u64) -> Epoch {
    Epoch {
        node: NodeKey([2; 32]),
        ..epoch(counter)
    }
}

fn ask(bench: &mut Bench, vote: u64) -> Vec<ServiceOutput> {
    bench.handle(ServiceInput::AskVotes {
        vote,
        candidate: Some(candidate(4)),
        within_ms: 100,
    })
}

fn ballot(vote: u64, counter: u64, ballot: Ballot) -> FromVem {
    FromVem::Ballot {
        vote,
        candidate: Some(candidate(counter)),
        ballot,
        fenced: obeyed(epoch(3)),
    }
}

/// (open, alive, silent) as reported last.
fn counted(bench: &Bench) -> (u16, u16, u16) {
    let tally = bench.service.reported.expect("reported").tally;
    (tally.open, tally.alive, tally.silent)
}

#[test]
fn every_registered_vem_is_asked_and_its_first_answer_to_the_newest_vote_counts() {
    let mut bench = standby();
    let outputs = ask(&mut bench, 7);
    let vote = ToVem::Vote {
        vote: 7,
        candidate: Some(candidate(4)),
        within_ms: 100,
    };
    assert_eq!(to_vem(&outputs), [vote.clone(), vote]);
    assert_eq!(counted(&bench), (2, 0, 0));
    bench.vem(A, ballot(6, 4, Ballot::Silent));
    bench.vem(A, ballot(7, 3, Ballot::Silent));
    assert_eq!(counted(&bench), (2, 0, 0), "stale, or for another epoch");
    bench.vem(A, ballot(7, 4, Ballot::Silent));
    assert_eq!(counted(&bench), (1, 0, 1));
    bench.vem(A, ballot(7, 4, Ballot::Silent));
    assert_eq!(counted(&bench), (1, 0, 1), "one answer each");
    bench.vem(B, ballot(7, 4, Ballot::Alive { alone: true }));
    assert_eq!(counted(&bench), (0, 1, 1));
    ask(&mut bench, 8);
    assert_eq!(counted(&bench), (2, 0, 0), "a new vote begins afresh");
    bench.vem(A, ballot(7, 4, Ballot::Silent));
    assert_eq!(counted(&bench), (2, 0, 0));
    bench.vem(B, ballot(8, 4, Ballot::Higher));
    assert_eq!(counted(&bench), (1, 0, 0), "neither alive nor silent");
}

#[test]
fn whoever_connects_late_goes_or_is_not_registered_is_absent() {
    let mut bench = standby();
    bench.connect(C, 3, epoch(3));
    ask(&mut bench, 7);
    assert_eq!(counted(&bench), (2, 0, 0), "a standby registers nobody");
    bench.vem(C, ballot(7, 4, Ballot::Silent));
    assert_eq!(counted(&bench), (2, 0, 0));
    let report = bench.service.reported.expect("reported");
    assert_eq!((report.registered, report.connected), (2, 2));
    let event = VemEvent::Closed;
    bench.handle(ServiceInput::Vem {
        connection: A,
        event,
    });
    assert_eq!(counted(&bench), (1, 0, 0));
    bench.connect(A, 1, epoch(3));
    bench.vem(A, ballot(7, 4, Ballot::Silent));
    assert_eq!(counted(&bench), (1, 0, 0), "connected anew: not asked");
    // A newer connection of one identity takes the older one's place, and its vote.
    bench.connect(VemConnection(9), 2, epoch(3));
    assert_eq!(counted(&bench), (0, 0, 0));
}

#[test]
fn only_an_active_answers_that_it_acts() {
    let mut bench = active();
    let outputs = bench.vem(A, FromVem::Inquire { question: 5 });
    let acting = ToVem::Acting {
        question: 5,
        epoch: epoch(3),
        alone: true,
    };
    assert_eq!(to_vem(&outputs), [acting]);
    for activity in [
        Activity::Quiesce(epoch(3)),
        Activity::Idle,
        Activity::Standby,
    ] {
        bench.posture(activity);
        let outputs = bench.vem(A, FromVem::Inquire { question: 6 });
        assert_eq!(to_vem(&outputs), [], "{activity:?}");
    }
    // One that has stopped to ask, and acts again, lives.
    let outputs = bench.posture(Activity::Active(epoch(4)));
    let acting = ToVem::Acting {
        question: 6,
        epoch: epoch(4),
        alone: true,
    };
    assert_eq!(to_vem(&outputs).first(), Some(&acting));
}

#[test]
fn a_promise_is_reported_apart_from_what_is_obeyed() {
    let mut bench = active();
    let promise = Fenced {
        obeyed: epoch(3),
        promised: candidate(4),
    };
    bench.vem(A, FromVem::Raised(promise));
    let report = bench.service.reported.expect("reported");
    assert_eq!(report.highest_epoch, epoch(3));
    assert_eq!(report.promised_epoch, candidate(4));
}
