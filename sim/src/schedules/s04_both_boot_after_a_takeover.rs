//! Schedule 4: As 3, but both boot together: B's commits survive, then A leads or follows.

use crate::invariants::l1_one_active_with_standby;
use crate::script::{A, B, Script};

pub(super) fn play(script: &mut Script) -> Result<(), String> {
    script.pair_led_by(A)?;
    script.power_off(A);
    script.until("B takes over", |world| world.acts_now(B))?;
    let (change, _) = script.commit(B)?;
    script.power_off(B);
    script.power_on(A);
    script.power_on(B);
    script.until("one leads, the other is stable", |world| {
        l1_one_active_with_standby::holds(world).is_ok()
    })?;
    script.must(
        script.has(A, change) && script.has(B, change),
        "the change is on both",
    )?;
    // Now that both have the same history, the primary may be told to lead.
    if script.acting(B).is_some() {
        script.operator(B, &["system switchover"])?;
    }
    script.stable(A)?;
    script.must(script.has(A, change), "A leads with B's change")
}
