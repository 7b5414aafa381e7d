//! Random faults, then quiet: the invariants hold throughout, and the pair comes back.

use core::time::Duration;

use proptest::prelude::*;

use super::pair::{A, B, Pair};
use crate::{Command, ServicesHealth};

/// Longest time until a pair without faults is whole again: a boot, a look for a peer, one reset.
const WHOLE_WITHIN_MS: u64 = 60_000;

#[derive(Clone, Debug)]
enum Fault {
    Kill(usize),
    Boot(usize),
    Pause(usize, u64),
    PauseBoth(u64),
    Cut,
    CutLink(usize),
    OneWay(usize),
    Heal,
    Loss(u64),
    FailService(usize),
    Starting(usize),
    Ready(usize),
    Switchover,
    Reload(usize),
    ForceActive(usize),
    Commit(usize),
    AskAlone(usize),
    Reach(usize, usize, bool),
    SlowDisk(usize, u64),
}

fn fault() -> impl Strategy<Value = Fault> {
    let node = 0..2_usize;
    prop_oneof![
        2 => node.clone().prop_map(Fault::Kill),
        4 => node.clone().prop_map(Fault::Boot),
        2 => (node.clone(), 50..3_000_u64).prop_map(|(node, ms)| Fault::Pause(node, ms)),
        1 => (50..1_500_u64).prop_map(Fault::PauseBoth),
        2 => Just(Fault::Cut),
        1 => (0..2_usize).prop_map(Fault::CutLink),
        1 => node.clone().prop_map(Fault::OneWay),
        4 => Just(Fault::Heal),
        1 => (0..400_u64).prop_map(Fault::Loss),
        2 => node.clone().prop_map(Fault::FailService),
        1 => node.clone().prop_map(Fault::Starting),
        2 => node.clone().prop_map(Fault::Ready),
        2 => Just(Fault::Switchover),
        1 => node.clone().prop_map(Fault::Reload),
        1 => node.clone().prop_map(Fault::ForceActive),
        2 => node.clone().prop_map(Fault::Commit),
        1 => node.clone().prop_map(Fault::AskAlone),
        2 => (0..2_usize, node.clone(), any::<bool>())
            .prop_map(|(vem, node, up)| Fault::Reach(vem, node, up)),
        1 => (node, 1..500_u64).prop_map(|(node, ms)| Fault::SlowDisk(node, ms)),
    ]
}

fn inject(pair: &mut Pair, fault: &Fault) {
    let runs = |pair: &Pair, node: usize| pair.sides[node].core.is_some();
    match *fault {
        Fault::Kill(node) => pair.kill(node),
        Fault::Boot(node) => {
            if !runs(pair, node) {
                pair.boot(node);
            }
        }
        Fault::Pause(node, ms) => pair.pause(node, ms),
        Fault::PauseBoth(ms) => {
            pair.pause(A, ms);
            pair.pause(B, ms);
        }
        Fault::Cut => pair.cut(),
        Fault::CutLink(link) => pair.links[link] = [false; 2],
        Fault::OneWay(sender) => {
            for link in &mut pair.links {
                link[sender] = false;
            }
        }
        Fault::Heal => pair.heal(),
        Fault::Loss(per_mille) => pair.loss = per_mille,
        Fault::FailService(node) => pair.fail_service(node),
        Fault::Starting(node) => pair.set_health(node, ServicesHealth::Starting),
        Fault::Ready(node) => pair.set_health(node, ServicesHealth::Ready),
        Fault::Switchover => {
            if let Some(node) = pair.actives().first() {
                pair.command(*node, Command::Switchover);
            }
        }
        Fault::Reload(node) => {
            pair.command(node, Command::Reload);
        }
        Fault::ForceActive(node) => {
            pair.command(node, Command::ForceActive);
        }
        Fault::Commit(node) => {
            pair.commit(node);
        }
        Fault::AskAlone(node) => {
            pair.ask_alone(node);
        }
        Fault::Reach(vem, node, up) => pair.vems[vem].reaches[node] = up,
        Fault::SlowDisk(node, ms) => pair.sides[node].write_time = Duration::from_millis(ms),
    }
}

fn quiet(pair: &mut Pair) {
    pair.heal();
    pair.loss = 0;
    for vem in &mut pair.vems {
        vem.reaches = [true; 2];
    }
    for node in [A, B] {
        pair.sides[node].write_time = Duration::from_millis(2);
        pair.sides[node].paused_until = pair.now;
        if pair.sides[node].core.is_none() {
            pair.boot(node);
        } else if pair.sides[node].health == ServicesHealth::Starting {
            pair.set_health(node, ServicesHealth::Ready);
        }
    }
}

/// Few cases in the ordinary tests; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        asked.cases
    } else {
        96
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

    #[test]
    fn invariants_hold_under_random_faults_and_the_pair_comes_back(
        seed in 1..u64::MAX,
        interval in prop_oneof![Just(10_u32), Just(100), Just(1000)],
        faults in proptest::collection::vec((fault(), 1..1_500_u64), 1..30),
    ) {
        let mut pair = Pair::new(seed).with_vems();
        pair.set_timing(interval, 3);
        pair.boot(A);
        pair.boot(B);
        pair.run_until("the pair starts", 30_000, |pair| pair.is_stable(B));
        for (fault, ms) in &faults {
            inject(&mut pair, fault);
            pair.run(*ms);
        }
        quiet(&mut pair);
        pair.run_until("the pair is whole", WHOLE_WITHIN_MS, |pair| {
            let actives = pair.actives();
            actives.len() == 1 && pair.is_stable(1 - actives[0]) && pair.mode_ha(actives[0])
        });
        // Beats lost just before the quiet may still be missed.
        pair.run(u64::from(interval) * 4);
        prop_assert!(pair.actives().len() <= 1);
        pair.run_until("the pair is whole", WHOLE_WITHIN_MS, |pair| {
            let actives = pair.actives();
            actives.len() == 1 && pair.is_stable(1 - actives[0]) && pair.mode_ha(actives[0])
        });
        prop_assert_eq!(pair.gone(), vec![], "S5");
        let leader = pair.actives()[0];
        pair.run(10_000);
        prop_assert_eq!(pair.actives(), vec![leader], "it stays so");
        prop_assert!(pair.is_stable(1 - leader));
        let acting = pair.sides[leader].acting().expect("just seen");
        prop_assert!(pair.vems.iter().all(|vem| vem.obeys(acting)), "L7");
    }
}
