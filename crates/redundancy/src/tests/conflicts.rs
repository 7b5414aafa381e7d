//! Conflicts on two cores: who resets, what is archived, and that never both end.

use model::ConflictPolicy;
use proptest::prelude::*;
use wire::heartbeat::State;

use super::pair::{A, B, Pair};
use crate::Command;

/// A pair that was cut: A, the primary, acts on, and B has taken over.
fn split(vems: [[bool; 2]; 2]) -> Pair {
    let mut pair = Pair::stable(1).with_vems();
    pair.commit(A);
    pair.run(100);
    for (vem, reaches) in pair.vems.iter_mut().zip(vems) {
        vem.reaches = reaches;
    }
    pair.run(100);
    pair.cut();
    pair.run_until("both act", 2_000, |pair| pair.actives().len() == 2);
    pair.run(1_500);
    pair
}

const EACH_ITS_OWN: [[bool; 2]; 2] = [[true, false], [false, true]];

/// Heals, and says who reset.
fn heal(pair: &mut Pair) -> usize {
    let highest = pair.acts.last().expect("both act").2;
    pair.heal();
    let took = pair.run_until("one acts under a new epoch", 1_000, |pair| {
        pair.actives().len() == 1 && pair.sides[pair.actives()[0]].acting() > Some(highest)
    });
    assert!(
        took.as_millis() <= 300,
        "within a hold time of contact: {took:?}"
    );
    let survivor = pair.actives()[0];
    let loser = 1 - survivor;
    for vem in &mut pair.vems {
        vem.reaches = [true; 2];
    }
    pair.run_until("the other follows", 10_000, |pair| {
        pair.is_stable(loser) && pair.mode_ha(survivor)
    });
    assert_eq!(pair.actives(), [survivor]);
    assert_eq!(pair.sides[loser].resets.len(), 1);
    assert!(pair.sides[survivor].resets.is_empty());
    let acting = pair.sides[survivor].acting().expect("acts");
    pair.run(100);
    assert!(pair.vems.iter().all(|vem| vem.obeys(acting)));
    loser
}

fn told_policy(vems: [[bool; 2]; 2], policy: ConflictPolicy) -> Pair {
    let mut pair = Pair::stable(1).with_vems();
    let command = pair.command(A, Command::SetConflictPolicy(policy));
    pair.run(100);
    assert_eq!(pair.result(A, command), Some(Ok(String::new())));
    assert_eq!(
        pair.sides[B].durable.conflict_policy, policy,
        "the standby is told"
    );
    pair.commit(A);
    pair.run(100);
    for (vem, reaches) in pair.vems.iter_mut().zip(vems) {
        vem.reaches = reaches;
    }
    pair.run(100);
    pair.cut();
    pair.run_until("both act", 2_000, |pair| pair.actives().len() == 2);
    pair.run(1_500);
    pair
}

#[test]
fn a_side_that_has_committed_nothing_since_resets_be_it_primary_or_secondary() {
    let mut pair = split(EACH_ITS_OWN);
    pair.commit(B);
    pair.run(1_500);
    assert_eq!(heal(&mut pair), A);
    assert!(pair.sides[A].archives.is_empty(), "nothing was lost");
    assert!(pair.sides[A].resets[0].contains("part of the other's"));

    let mut pair = split(EACH_ITS_OWN);
    pair.commit(A);
    pair.run(1_500);
    assert_eq!(heal(&mut pair), B, "the primary survives, since it has all");
    assert!(pair.sides[B].archives.is_empty(), "nothing was lost");
}

#[test]
fn of_two_that_have_committed_the_primary_resets_and_its_commits_are_archived() {
    let mut pair = split(EACH_ITS_OWN);
    pair.commit(A);
    pair.commit(B);
    pair.run(1_500);
    let forked = pair.sides[A].history;
    assert_eq!(heal(&mut pair), A);
    assert_eq!(pair.sides[A].archives, [forked]);
}

#[test]
fn with_nothing_committed_on_either_side_the_primary_resets() {
    assert_eq!(heal(&mut split(EACH_ITS_OWN)), A);
}

#[test]
fn newest_config_lets_the_side_survive_that_was_configured_last() {
    for (first, last) in [(A, B), (B, A)] {
        let mut pair = told_policy(EACH_ITS_OWN, ConflictPolicy::NewestConfig);
        pair.commit(first);
        pair.run(3_000);
        pair.commit(last);
        pair.run(2_000);
        let forked = pair.sides[first].history;
        assert_eq!(heal(&mut pair), first);
        assert_eq!(pair.sides[first].archives, [forked]);
    }
}

#[test]
fn most_vems_lets_the_side_survive_that_more_of_them_obey() {
    let (ours, theirs) = ([true, false], [false, true]);
    let cases = [
        (vec![ours, ours, theirs], B),
        (vec![ours, theirs, theirs], A),
        // A tie.
        (vec![ours, theirs], A),
    ];
    for (vems, loser) in cases {
        let mut pair = Pair::stable(1).with_vems();
        pair.vems.resize(vems.len(), pair.vems[0]);
        pair.command(A, Command::SetConflictPolicy(ConflictPolicy::MostVems));
        pair.run(100);
        for (vem, reaches) in pair.vems.iter_mut().zip(&vems) {
            vem.reaches = *reaches;
        }
        pair.run(100);
        pair.cut();
        pair.run_until("both act", 2_000, |pair| pair.actives().len() == 2);
        pair.run(1_500);
        pair.commit(A);
        pair.commit(B);
        pair.run(100);
        assert_eq!(heal(&mut pair), loser, "{vems:?}");
    }
}

#[test]
fn policies_that_differ_leave_it_to_the_chapter() {
    let mut pair = split(EACH_ITS_OWN);
    pair.command(A, Command::SetConflictPolicy(ConflictPolicy::NewestConfig));
    pair.commit(B);
    pair.run(3_000);
    pair.commit(A);
    pair.run(1_000);
    assert_eq!(heal(&mut pair), A);
    assert_eq!(
        pair.sides[A].durable.conflict_policy,
        ConflictPolicy::PrimaryResets,
        "the survivor's policy is taken over"
    );
}

#[test]
fn an_active_told_by_a_vem_of_a_higher_epoch_stops_at_once_archives_and_returns_as_standby() {
    let mut pair = split(EACH_ITS_OWN);
    pair.commit(A);
    pair.commit(B);
    pair.run(100);
    let forked = pair.sides[A].history;
    // Contact by one path only: a VEM of B reaches A.
    pair.vems[1].reaches = [true, true];
    pair.run_until("A stops", 50, |pair| pair.actives() == [B]);
    pair.run_until("A resets", 6_000, |pair| !pair.sides[A].resets.is_empty());
    assert_eq!(pair.sides[A].archives, [forked]);
    // It does not negotiate who leads: B cannot be asked, and A waits.
    pair.run(20_000);
    assert_eq!(pair.actives(), [B]);
    assert!(
        pair.reason(A).contains("waiting for it"),
        "{}",
        pair.reason(A)
    );
    pair.heal();
    pair.run_until("A follows", 10_000, |pair| pair.is_stable(A));
    assert_eq!(pair.actives(), [B]);
    assert_eq!(pair.sides[A].resets.len(), 1);
}

#[derive(Clone, Debug)]
enum Contact {
    Up(usize, usize),
    Down(usize, usize),
    All,
    None,
    Commit(usize),
    Vem(usize, usize, bool),
}

fn contact() -> impl Strategy<Value = Contact> {
    let two = 0..2_usize;
    prop_oneof![
        4 => (two.clone(), two.clone()).prop_map(|(link, from)| Contact::Up(link, from)),
        4 => (two.clone(), two.clone()).prop_map(|(link, from)| Contact::Down(link, from)),
        2 => Just(Contact::All),
        3 => Just(Contact::None),
        1 => two.clone().prop_map(Contact::Commit),
        1 => (two.clone(), two, any::<bool>())
            .prop_map(|(vem, node, up)| Contact::Vem(vem, node, up)),
    ]
}

fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        asked.cases
    } else {
        64
    };
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..asked
    }
}

proptest! {
    #![proptest_config(config())]

    /// However late, briefly or one-sidedly each hears of the other: C2, and one survives.
    #[test]
    fn never_do_both_sides_end_and_one_survives(
        policies in (0..3_usize, 0..3_usize),
        contacts in proptest::collection::vec((contact(), 1..40_u64), 1..40),
    ) {
        let all = [
            ConflictPolicy::PrimaryResets,
            ConflictPolicy::NewestConfig,
            ConflictPolicy::MostVems,
        ];
        let mut pair = split(EACH_ITS_OWN);
        pair.command(A, Command::SetConflictPolicy(all[policies.0]));
        pair.command(B, Command::SetConflictPolicy(all[policies.1]));
        pair.commit(A);
        pair.commit(B);
        pair.run(50);
        for (contact, ms) in contacts {
            match contact {
                Contact::Up(link, from) => pair.links[link][from] = true,
                Contact::Down(link, from) => pair.links[link][from] = false,
                Contact::All => pair.heal(),
                Contact::None => pair.cut(),
                Contact::Commit(node) => {
                    pair.commit(node);
                }
                Contact::Vem(vem, node, up) => pair.vems[vem].reaches[node] = up,
            }
            for _ in 0..ms {
                pair.run(1);
                let ending = [A, B].map(|node| pair.says(node) == Some(State::Resetting));
                prop_assert_ne!(ending, [true, true], "both end: {}", pair.describe());
            }
        }
        pair.heal();
        for vem in &mut pair.vems {
            vem.reaches = [true; 2];
        }
        pair.run_until("the pair is whole", 60_000, |pair| {
            let actives = pair.actives();
            actives.len() == 1 && pair.is_stable(1 - actives[0]) && pair.mode_ha(actives[0])
        });
        let acting = pair.sides[pair.actives()[0]].acting().expect("acts");
        pair.run(10);
        prop_assert!(pair.vems.iter().all(|vem| vem.obeys(acting)));
        prop_assert_eq!(pair.gone(), vec![], "S5");
    }
}
