//! L7: every host is attached to the active, and new flows are decided by it.

use crate::network::vem_stream;
use crate::world::World;

/// See the module.
///
/// # Errors
/// Which host is not.
pub fn holds(world: &World, active: usize) -> Result<(), String> {
    for (index, host) in world.hosts.iter().enumerate() {
        if world.net.streams[vem_stream(index, active)].believed != [true; 2] {
            return Err(format!("L7: host {index} is not attached to the active"));
        }
        if host.decided == 0 {
            return Err(format!("L7: no flow of host {index} is decided"));
        }
    }
    Ok(())
}
