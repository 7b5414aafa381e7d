//! Schedule 2: B standby loses HA links and VEMs for a second, VEMs registered: it must not take over, and A
//! must not reset.

use crate::script::{A, B, Script};
use crate::world::S;

pub(super) fn play(script: &mut Script) -> Result<(), String> {
    let epoch = script.pair_led_by(A)?;
    let changes = script.role_changes();
    for again in 0..5 {
        script.all_links(true);
        script.service(0, B, true);
        script.service(1, B, true);
        script.pass(S)?;
        script.must(
            script.acting(B).is_none(),
            "the isolated standby does not act",
        )?;
        script.all_links(false);
        script.service(0, B, false);
        script.service(1, B, false);
        script.stable(A)?;
        let still = script.acting(A) == Some(epoch) && script.role_changes() == changes;
        script.must(still, &format!("A acts as before, time {again}"))?;
    }
    script.must(!script.logged(A, "RESET"), "A has not reset")
}
