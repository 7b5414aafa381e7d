//! Schedule 10: Crash between any two steps of yield, gasp, takeover, epoch write, archive, reset: power fails
//! after each number of effects, of either node, while the pair goes through each of them; then
//! both come back and serve, and nothing acknowledged is gone.

use model::ServiceName;
use node::node::NodeInput;

use crate::invariants::l1_one_active_with_standby;
use crate::script::{A, B, Script};
use crate::world::S;

/// What the pair is going through when power fails.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// The active's policy engine dies: it yields, gasps and resets; the standby takes over.
    Yield,
    /// The active's System Manager is killed: its guardian gasps.
    Gasp,
    /// A switchover: quiesce, hand over, epoch write, reset.
    Switchover,
    /// A split heals: both act, one archives and resets.
    Conflict,
}

/// Effects after which power fails: beyond these a course is over.
const STEPS: u32 = 24;

pub(super) fn play(script: &mut Script) -> Result<(), String> {
    script.pair_led_by(A)?;
    for course in [
        Course::Yield,
        Course::Gasp,
        Course::Switchover,
        Course::Conflict,
    ] {
        for victim in [A, B] {
            for steps in 0..STEPS {
                once(script, course, victim, steps)
                    .map_err(|what| format!("{course:?}, {victim} after {steps}: {what}"))?;
            }
        }
    }
    Ok(())
}

fn once(script: &mut Script, course: Course, victim: usize, steps: u32) -> Result<(), String> {
    let leader = if script.acting(A).is_some() { A } else { B };
    script.stable(leader)?;
    script.commit(leader)?;
    if matches!(course, Course::Conflict) {
        script.service(0, 1 - leader, true);
        script.service(1, leader, true);
        script.all_links(true);
        script.until("both act", |world| world.acts_now(A) && world.acts_now(B))?;
        script.commit(1 - leader)?;
    }
    script.world.machines[victim].dies_after = Some(steps);
    match course {
        Course::Yield => {
            let service = ServiceName::PolicyEngine;
            script.tell(leader, NodeInput::Kill { service });
        }
        Course::Gasp => script.world.kill_system_manager(leader),
        Course::Switchover => {
            script.world.type_at(leader, &["system switchover"]);
        }
        Course::Conflict => {
            script.service(0, 1 - leader, false);
            script.service(1, leader, false);
            script.all_links(false);
        }
    }
    script.pass(2 * S)?;
    script.world.machines[victim].dies_after = None;
    for node in [A, B] {
        if script.world.machines[node].node.is_none() {
            script.power_on(node);
        }
    }
    script.until("the pair serves", |world| {
        l1_one_active_with_standby::holds(world).is_ok()
    })
}
