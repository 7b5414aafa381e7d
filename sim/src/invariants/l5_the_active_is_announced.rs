//! L5: whoever acts has said so to every host, and every host obeys it.

use model::Epoch;

use crate::world::World;

/// See the module.
///
/// # Errors
/// Which host obeys somebody else.
pub fn holds(world: &World, active: usize, epoch: Epoch) -> Result<(), String> {
    for (index, host) in world.hosts.iter().enumerate() {
        let obeyed = host.agent.as_ref().and_then(|agent| agent.obeyed());
        let told = obeyed.map(|(gateway, obeyed, _)| (usize::from(gateway.0), obeyed));
        if told != Some((active, epoch)) {
            return Err(format!(
                "L5: host {index} obeys {told:?} and not {active} {epoch}"
            ));
        }
    }
    Ok(())
}
