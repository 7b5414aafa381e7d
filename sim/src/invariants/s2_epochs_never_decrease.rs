//! S2: the epoch of a node or host never decreases, and is durable before its first use.

use model::Epoch;

use crate::host::Host;
use crate::machine::Machine;

/// A node begins to act.
///
/// # Errors
/// If it has acted in a higher epoch, or a loss of power now would forget this one.
pub fn node_acts(machine: &Machine, epoch: Epoch) -> Result<(), String> {
    if epoch < machine.acted {
        return Err(format!("S2: acts in epoch {epoch} after {}", machine.acted));
    }
    let durable = machine
        .record
        .reserved_epoch
        .max(machine.record.highest_epoch);
    if durable < epoch {
        return Err(format!(
            "S2: acts in epoch {epoch} while {durable} is durable"
        ));
    }
    Ok(())
}

/// A host has told a gateway that it obeys an epoch.
///
/// # Errors
/// If it has told of a higher one, or a crash now would forget this one.
pub fn host_obeys(host: &Host, epoch: Epoch) -> Result<(), String> {
    if epoch < host.told {
        return Err(format!("S2: a host obeys {epoch} after {}", host.told));
    }
    let durable = host.durable.floor();
    if epoch > durable {
        return Err(format!(
            "S2: a host obeys {epoch} while {durable} is durable"
        ));
    }
    Ok(())
}
