//! Schedule 1: B active; all links cut, votes absent; A takes over at a higher epoch; heal; A resets: B must
//! decide again at once, under a new epoch above all, accepted by every VEM.

use crate::script::{A, B, Script, obeys};
use crate::world::{MS, S};

pub(super) fn play(script: &mut Script) -> Result<(), String> {
    let first = script.pair_led_by(B)?;
    // Each host hears one gateway only, so that no vote tells A that B lives.
    script.service(0, B, true);
    script.service(1, A, true);
    script.all_links(true);
    script.until("A takes over", |world| world.acts_now(A))?;
    let second = script.acting(A).unwrap_or_default();
    script.must(second > first, "A's epoch is above B's")?;
    script.must(script.acting(B) == Some(first), "B acts still")?;
    script.pass(2 * S)?;
    script.all_links(false);
    // B survives: A, the primary, resets.
    script.pass(600 * MS)?;
    script.must(script.acting(A).is_none(), "A does not act any more")?;
    let third = script.acting(B).unwrap_or_default();
    script.must(third > second, "B acts under an epoch above all")?;
    script.service(0, B, false);
    script.service(1, A, false);
    script.pass(S)?;
    for host in 0..2 {
        let obeyed = obeys(&script.world, host);
        script.must(
            obeyed.is_some_and(|(node, _)| node == B),
            "every host obeys B",
        )?;
    }
    script.stable(B)?;
    Ok(())
}
