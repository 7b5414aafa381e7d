//! L2: both gateways hold the same configuration.

use crate::world::World;

/// See the module.
///
/// # Errors
/// If a store does not run, or they differ.
pub fn holds(world: &World) -> Result<(), String> {
    let store = |index: usize| world.machines[index].node.as_ref()?.store();
    let (Some(ours), Some(theirs)) = (store(0), store(1)) else {
        return Err("L2: a store does not run".to_owned());
    };
    if ours.pairs(pss::config_namespace()) == theirs.pairs(pss::config_namespace()) {
        Ok(())
    } else {
        Err("L2: the configurations differ".to_owned())
    }
}
