//! Schedule 8: The whole host stalls 400 ms, both nodes at once, 100 times: no role change.

use crate::script::{A, B, Script};
use crate::world::MS;

pub(super) fn play(script: &mut Script) -> Result<(), String> {
    let epoch = script.pair_led_by(A)?;
    let changes = script.role_changes();
    for time in 0..100 {
        script.pause(A, 400 * MS);
        script.pause(B, 400 * MS);
        script.pass((600 + time * 7) * MS)?;
    }
    script.stable(A)?;
    let same = script.acting(A) == Some(epoch) && script.role_changes() == changes;
    script.must(same, "no role has changed")
}
