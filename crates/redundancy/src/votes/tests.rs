//! Counting, in every proportion.

use core::time::Duration;

use model::{Epoch, Incarnation, NodeKey, Time};
use wire::supervision::Tally;

use super::{Finding, Round, judge};

fn epoch(counter: u64) -> Epoch {
    Epoch {
        counter,
        node: NodeKey([2; 32]),
        incarnation: Incarnation(1),
    }
}

const ASKED: Time = Time::from_ms(1_000);

fn round() -> Round {
    Round {
        vote: 3,
        candidate: Some(epoch(5)),
        asked: ASKED,
        until: ASKED + Duration::from_millis(100),
    }
}

fn tally(open: u16, alive: u16, silent: u16) -> Tally {
    Tally {
        vote: 3,
        candidate: Some(epoch(5)),
        open,
        alive,
        silent,
        alone: false,
    }
}

#[test]
fn a_majority_of_alive_forbids_and_a_tie_does_not_whatever_is_still_open() {
    for alive in 0..4 {
        for silent in 0..4 {
            let at_the_end = if alive + silent == 0 {
                Finding::Isolated
            } else if alive > silent {
                Finding::Alive { alive, silent }
            } else {
                Finding::Dead
            };
            let late = round().until;
            assert_eq!(judge(ASKED, round(), tally(0, alive, silent)), at_the_end);
            for open in 1..4 {
                let missing = tally(open, alive, silent);
                assert_eq!(judge(late, round(), missing), at_the_end, "absent");
                let early = judge(ASKED, round(), missing);
                let sure = early != Finding::Asking;
                // Every way in which the open ones may yet be answered.
                for more_alive in 0..=open {
                    for more_silent in 0..=open - more_alive {
                        let end = tally(0, alive + more_alive, silent + more_silent);
                        let end = judge(ASKED, round(), end);
                        let same = matches!(
                            (early, end),
                            (Finding::Dead, Finding::Dead)
                                | (Finding::Alive { .. }, Finding::Alive { .. })
                        );
                        assert!(!sure || same, "{missing:?}: {early:?}, then {end:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_answer_to_an_older_vote_or_for_another_epoch_counts_nothing() {
    let stale = [
        Tally {
            vote: 2,
            ..tally(0, 0, 2)
        },
        Tally {
            candidate: Some(epoch(4)),
            ..tally(0, 0, 2)
        },
        Tally {
            candidate: Some(Epoch {
                incarnation: Incarnation(9),
                ..epoch(5)
            }),
            ..tally(0, 0, 2)
        },
        Tally {
            candidate: None,
            ..tally(0, 0, 2)
        },
    ];
    for stale in stale {
        assert_eq!(judge(ASKED, round(), stale), Finding::Asking, "{stale:?}");
        let late = round().until;
        assert_eq!(judge(late, round(), stale), Finding::Isolated, "{stale:?}");
    }
    assert_eq!(judge(ASKED, round(), tally(0, 0, 2)), Finding::Dead);
}
