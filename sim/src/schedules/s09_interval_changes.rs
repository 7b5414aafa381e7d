//! Schedule 9: Interval changed from 10 s to 10 ms and back on a live pair: no role change.

use crate::script::{A, Script};
use crate::world::S;

pub(super) fn play(script: &mut Script) -> Result<(), String> {
    let epoch = script.pair_led_by(A)?;
    let changes = script.role_changes();
    for interval in [10_000, 10, 10_000, 10, 100] {
        let line = format!("system redundancy heartbeat interval {interval} misses 3");
        script.operator(A, &[&line])?;
        script.pass(45 * S)?;
        let in_force = script.world.machines[A].record.interval_ms;
        script.must(
            in_force == interval,
            &format!("the interval is {interval} ms"),
        )?;
        let same = script.acting(A) == Some(epoch) && script.role_changes() == changes;
        script.must(same, &format!("no role has changed at {interval} ms"))?;
    }
    script.stable(A)?;
    Ok(())
}
