//! Schedule 6: Acknowledgements lost one way; A answers a commit `local`; A dies: B takes over only with an
//! alarm naming the gap, or not at all; on A's return the commit is merged or archived, never
//! silently gone (S5 is looked at when the script ends).

use crate::script::{A, B, Script};
use crate::world::S;

pub(super) fn play(script: &mut Script) -> Result<(), String> {
    script.pair_led_by(A)?;
    let (before, _) = script.commit(A)?;
    // Nothing comes back from B; what A sends arrives, as far as datagrams go.
    script.links(1, true);
    let (change, reached) = script.commit(A)?;
    script.must(
        reached.as_deref() == Some("Local"),
        "the commit is answered `local`",
    )?;
    script.power_off(A);
    script.links(1, false);
    script.pass(20 * S)?;
    if script.acting(B).is_some() {
        let alarm = script.logged(B, "COMMITS_MISSING");
        script.must(
            alarm || script.has(B, change),
            "B names the gap, or has the commit",
        )?;
    }
    script.power_on(A);
    script.until("one leads", |world| world.acts_now(A) || world.acts_now(B))?;
    script.pass(5 * S)?;
    let leads = if script.acting(A).is_some() { A } else { B };
    script.stable(leads)?;
    script.must(script.has(leads, before), "what both had is there")
}
