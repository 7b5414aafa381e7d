//! Schedule 3: A active, B stable; A dies; B takes over and commits; B dies; A boots alone: it must not lead
//! with old configuration.

use crate::script::{A, B, Script};
use crate::world::S;

pub(super) fn play(script: &mut Script) -> Result<(), String> {
    script.pair_led_by(A)?;
    script.power_off(A);
    script.until("B takes over", |world| world.acts_now(B))?;
    let (change, _) = script.commit(B)?;
    script.power_off(B);
    script.power_on(A);
    script.pass(30 * S)?;
    script.must(script.acting(A).is_none(), "A waits")?;
    let reason = script.world.status(A).reason;
    script.must(!reason.is_empty(), "A says why it waits")?;
    script.power_on(B);
    script.stable(B)?;
    script.must(
        script.has(A, change) && script.has(B, change),
        "the change is on both",
    )
}
