//! Every word of the original's displays (behaviour §1) is reached, on this or on the other
//! supervisor's side, and no other word is.

use std::collections::BTreeSet;

use model::Role;

use super::pair::{A, B, Pair};
use crate::{Command, ServicesHealth};

/// Redundancy state, supervisor state, internal state, of this and of the other supervisor.
#[derive(Default)]
struct Seen {
    redundancy: BTreeSet<String>,
    supervisor: BTreeSet<String>,
    internal: BTreeSet<String>,
    /// "this → other", as each node shows it.
    both: BTreeSet<(String, String)>,
}

impl Seen {
    fn look(&mut self, pair: &Pair) {
        for node in [A, B] {
            if pair.sides[node].core.is_none() {
                continue;
            }
            let status = pair.core(node).status(pair.now);
            // The operational mode is None while not synchronised.
            let internal = status.this.internal_state.as_str();
            if ["HA standby", "Active with HA standby"].contains(&internal) {
                assert!(status.mode_ha, "{status:?}");
            } else if !["HA switchover in progress", "Other"].contains(&internal) {
                assert!(!status.mode_ha, "{status:?}");
            }
            let other = status.other.clone();
            let other_state = other.as_ref().map_or("Not present".to_owned(), |other| {
                other.redundancy_state.clone()
            });
            self.redundancy.insert(other_state.clone());
            self.both
                .insert((status.this.redundancy_state.clone(), other_state));
            for side in [Some(status.this), other].into_iter().flatten() {
                self.redundancy.insert(side.redundancy_state);
                self.supervisor.insert(side.supervisor_state);
                self.internal.insert(side.internal_state);
            }
        }
    }

    fn run(&mut self, pair: &mut Pair, ms: u64) {
        for _ in 0..ms {
            pair.run(1);
            self.look(pair);
        }
    }
}

fn words(set: &BTreeSet<String>) -> Vec<&str> {
    set.iter().map(String::as_str).collect()
}

/// Boot, switchover, one way only, a node that is not of the pair, a standby that fails, and a
/// pair that is restarted too often.
fn live(seen: &mut Seen) {
    let mut pair = Pair::new(1);
    pair.boot(A);
    pair.boot(B);
    seen.run(&mut pair, 3_000);
    pair.command(A, Command::Switchover);
    seen.run(&mut pair, 3_000);
    pair.fail_service(B);
    seen.run(&mut pair, 3_000);

    // A peer whose heartbeats do not get through, but whose connection stands.
    let mut pair = Pair::new(1);
    pair.boot(A);
    pair.boot(B);
    pair.deaf = true;
    seen.run(&mut pair, 200);

    let mut pair = Pair::new(1);
    pair.sides[B].durable.role = Role::Primary;
    pair.boot(A);
    pair.boot(B);
    seen.run(&mut pair, 1_000);

    // A standby that reaches neither its peer nor any VEM.
    let mut pair = Pair::stable(1).with_vems();
    pair.run(100);
    pair.cut();
    for vem in &mut pair.vems {
        vem.reaches[B] = false;
    }
    seen.run(&mut pair, 1_000);

    // The standby starts again and again and never becomes stable.
    let mut pair = Pair::stable(1);
    for _ in 0..5 {
        pair.kill(B);
        seen.run(&mut pair, 400);
        pair.boot(B);
        pair.set_health(B, ServicesHealth::Starting);
        seen.run(&mut pair, 400);
    }
    pair.set_health(B, ServicesHealth::Ready);
    pair.run_until("it is stable after all", 5_000, |pair| {
        pair.core(A).status(pair.now).this.internal_state == "Active with HA standby"
    });

    let mut pair = Pair::stable(1);
    for _ in 0..4 {
        pair.set_health(B, ServicesHealth::Starting);
        pair.run(300);
        pair.kill(A);
        seen.run(&mut pair, 6_000);
        pair.boot(A);
        pair.run_until("A leads", 30_000, |pair| pair.actives() == [A]);
        pair.run(2_000);
    }
}

#[test]
fn every_state_of_the_original_is_reached_and_no_other_is_shown() {
    let mut seen = Seen::default();
    live(&mut seen);
    assert_eq!(
        words(&seen.redundancy),
        [
            "Active",
            "At BIOS",
            "Failed",
            "Initializing",
            "Not present",
            "Offline",
            "Standby",
            "Unknown",
        ]
    );
    assert_eq!(
        words(&seen.supervisor),
        ["Active", "HA standby", "Offline", "Unknown"]
    );
    assert_eq!(
        words(&seen.internal),
        [
            "Active with HA standby",
            "Active with failed standby",
            "Active with no standby",
            "HA standby",
            "HA switchover in progress",
            "HA synchronization in progress",
            "Offline",
            "Other",
            "Shutting down",
            "Standby (failed)",
        ]
    );
    for (this, other) in [
        ("Active", "Standby"),
        ("Standby", "Active"),
        ("Active", "Initializing"),
        ("Initializing", "Active"),
        ("Active", "Not present"),
        ("Active", "Failed"),
        ("Failed", "Not present"),
    ] {
        let pair = (this.to_owned(), other.to_owned());
        assert!(seen.both.contains(&pair), "{pair:?} of {:?}", seen.both);
    }
}

#[test]
fn a_standalone_node_is_not_redundant_and_shows_no_other() {
    let mut pair = Pair::new(1);
    pair.sides[A].durable.role = Role::Standalone;
    pair.boot(A);
    pair.run(500);
    let status = pair.core(A).status(pair.now);
    assert_eq!(status.this.internal_state, "Active with no standby");
    assert!(!status.mode_ha && status.other.is_none());
}
