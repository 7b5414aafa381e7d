//! Once all faults have ended: one active, its peer a stable standby with the same content, every
//! host attached to the active, and traffic decided (L1, L2, L3, L7).

use wire::supervision::RedundancyStatus;

use crate::world::World;

/// Whether the site serves.
///
/// # Errors
/// What is missing, in words.
pub fn serves(world: &World) -> Result<(), String> {
    let [a, b] = &world.machines;
    let (Some(first), Some(second)) = (&a.node, &b.node) else {
        return Err("L1: a node does not run".to_owned());
    };
    let (active, epoch, standby) = match (first.acting(), second.acting()) {
        (Some(epoch), None) => (0, epoch, second),
        (None, Some(epoch)) => (1, epoch, first),
        (first_acts, second_acts) => {
            let why = |index: usize| reasons(&world.status(index));
            let acts = [first_acts, second_acts].iter().flatten().count();
            return Err(format!("L1: {acts} nodes act: 0 {}; 1 {}", why(0), why(1)));
        }
    };
    if !standby.is_stable_standby() {
        let status = world.status(1 - active);
        return Err(format!(
            "L1: the standby is not stable: {}",
            reasons(&status)
        ));
    }
    let (Some(ours), Some(theirs)) = (first.store(), second.store()) else {
        return Err("L2: a store does not run".to_owned());
    };
    if ours.pairs(pss::config_namespace()) != theirs.pairs(pss::config_namespace()) {
        return Err("L2: the configurations differ".to_owned());
    }
    for (index, host) in world.hosts.iter().enumerate() {
        let obeyed = host.agent.as_ref().and_then(|agent| agent.obeyed());
        if obeyed.map(|(gateway, obeyed, _)| (usize::from(gateway.0), obeyed))
            != Some((active, epoch))
        {
            return Err(format!(
                "L7: host {index} obeys {obeyed:?} and not {active} {epoch}"
            ));
        }
        if host.decided == 0 {
            return Err(format!("L7: no flow of host {index} is decided"));
        }
    }
    Ok(())
}

fn reasons(status: &RedundancyStatus) -> String {
    format!(
        "{} / {} ({}) epoch {}",
        status.this.redundancy_state, status.this.internal_state, status.reason, status.epoch
    )
}
