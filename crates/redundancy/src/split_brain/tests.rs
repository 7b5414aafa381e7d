use model::{ConflictPolicy, Epoch, Incarnation, Lsn, NodeKey, Role};
use wire::heartbeat::Contest;

use super::{Rule, contained, fate};

fn epoch(counter: u64, node: u8) -> Epoch {
    Epoch {
        counter,
        node: NodeKey([node; 32]),
        incarnation: Incarnation(u64::from(node)),
    }
}

const POLICIES: [ConflictPolicy; 3] = [
    ConflictPolicy::PrimaryResets,
    ConflictPolicy::NewestConfig,
    ConflictPolicy::MostVems,
];

/// Every contest that a rule can tell from another.
fn contests(rival: Epoch, own: Epoch) -> Vec<Contest> {
    let common = epoch(1, 1);
    let positions = [
        (Epoch::default(), Lsn(0)),
        (common, Lsn(5)),
        (common, Lsn(9)),
        (own, Lsn(9)),
        (own, Lsn(12)),
    ];
    let mut all = Vec::new();
    for history in positions {
        for base in positions {
            for policy in POLICIES {
                for config_age_s in [None, Some(0), Some(7)] {
                    for vems in [0, 3] {
                        all.push(Contest {
                            rival,
                            history,
                            base,
                            policy,
                            config_age_s,
                            vems,
                        });
                    }
                }
            }
        }
    }
    all
}

#[test]
fn of_any_two_contests_exactly_one_side_survives_by_one_rule() {
    let (a, b) = (epoch(2, 1), epoch(3, 2));
    let mut rules = std::collections::BTreeSet::new();
    for primary in contests(b, a) {
        for secondary in contests(a, b) {
            let one = fate(Role::Primary, &primary, &secondary);
            let other = fate(Role::Secondary, &secondary, &primary);
            assert_ne!(one.survives, other.survives, "{primary:?} {secondary:?}");
            assert_eq!(one.rule, other.rule, "{primary:?} {secondary:?}");
            rules.insert(format!("{:?} {}", one.rule, one.survives));
        }
    }
    // Every rule decides some of them, each way where it can.
    let expected = [
        "History false",
        "History true",
        "Policy(MostVems) false",
        "Policy(MostVems) true",
        "Policy(NewestConfig) false",
        "Policy(NewestConfig) true",
        "Policy(PrimaryResets) false",
        "Primary false",
    ];
    assert_eq!(rules.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_history_is_contained_only_where_two_positions_prove_it() {
    let (one, two) = (epoch(1, 1), epoch(2, 2));
    assert!(contained((Epoch::default(), Lsn(0)), (two, Lsn(1))));
    assert!(contained((one, Lsn(5)), (one, Lsn(5))));
    assert!(contained((one, Lsn(4)), (one, Lsn(5))));
    assert!(!contained((one, Lsn(6)), (one, Lsn(5))));
    // The other may have gone on from an earlier commit of that epoch.
    assert!(!contained((one, Lsn(4)), (two, Lsn(5))));
    assert!(!contained((two, Lsn(4)), (one, Lsn(5))));
}

fn forked(policy: ConflictPolicy, config_age_s: Option<u32>, vems: u16, node: u8) -> Contest {
    Contest {
        rival: epoch(9, 3 - node),
        history: (epoch(8, node), Lsn(9)),
        base: (epoch(1, 1), Lsn(5)),
        policy,
        config_age_s,
        vems,
    }
}

#[test]
fn policies_decide_between_forked_histories() {
    let judge = |primary: &Contest, secondary: &Contest| {
        let fate = fate(Role::Primary, primary, secondary);
        (fate.survives, fate.rule)
    };
    use ConflictPolicy::{MostVems, NewestConfig, PrimaryResets};
    let newest = |age, node| forked(NewestConfig, age, 0, node);
    let most = |vems, node| forked(MostVems, None, vems, node);
    let cases = [
        (
            forked(PrimaryResets, Some(1), 9, 1),
            forked(PrimaryResets, None, 0, 2),
            false,
            Rule::Policy(PrimaryResets),
        ),
        (
            newest(Some(3), 1),
            newest(Some(4), 2),
            true,
            Rule::Policy(NewestConfig),
        ),
        (
            newest(Some(3), 1),
            newest(None, 2),
            true,
            Rule::Policy(NewestConfig),
        ),
        (
            newest(None, 1),
            newest(Some(3), 2),
            false,
            Rule::Policy(NewestConfig),
        ),
        (newest(Some(3), 1), newest(Some(3), 2), false, Rule::Primary),
        (newest(None, 1), newest(None, 2), false, Rule::Primary),
        (most(2, 1), most(1, 2), true, Rule::Policy(MostVems)),
        (most(1, 1), most(2, 2), false, Rule::Policy(MostVems)),
        (most(2, 1), most(2, 2), false, Rule::Primary),
        (most(2, 1), newest(None, 2), false, Rule::Primary),
    ];
    for (primary, secondary, survives, rule) in cases {
        assert_eq!(
            judge(&primary, &secondary),
            (survives, rule),
            "{primary:?} {secondary:?}"
        );
    }
}
