//! L1: exactly one gateway acts, and the other is its stable standby.

use model::Epoch;
use wire::supervision::RedundancyStatus;

use crate::world::World;

/// Which gateway acts, and under which epoch.
///
/// # Errors
/// What is missing, in words.
pub fn holds(world: &World) -> Result<(usize, Epoch), String> {
    let (a, b) = (&world.machines[0], &world.machines[1]);
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
        let (status, actives) = (world.status(1 - active), world.status(active));
        return Err(format!(
            "L1: the standby is not stable: {}; the active: {}",
            reasons(&status),
            reasons(&actives)
        ));
    }
    Ok((active, epoch))
}

fn reasons(status: &RedundancyStatus) -> String {
    format!(
        "{} / {} ({}) epoch {}",
        status.this.redundancy_state, status.this.internal_state, status.reason, status.epoch
    )
}
