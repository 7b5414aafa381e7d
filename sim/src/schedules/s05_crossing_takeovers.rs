//! Schedule 5: A and B reserve epochs at the same counter; takeovers cross; a rolled-back machine uses an old
//! reservation; a clone appears: every VEM obeys one, no epoch is used twice (S1, S2, S3 are looked
//! at in every step).

use model::Epoch;

use crate::faults::{FaultClass, end_clone, strike};
use crate::script::{A, B, Script, obeys};
use crate::world::S;

fn hosts_obey_an_acting_gateway(script: &Script) -> Result<(), String> {
    for host in 0..2 {
        if let Some((node, epoch)) = obeys(&script.world, host) {
            let acts = script.acting(node) == Some(epoch);
            script.must(
                acts,
                &format!("host {host} obeys {node} under {epoch}, which acts so"),
            )?;
        }
    }
    Ok(())
}

pub(super) fn play(script: &mut Script) -> Result<(), String> {
    let mut highest = Epoch::default();
    for turn in 0..4 {
        let (leader, other) = if turn % 2 == 0 { (A, B) } else { (B, A) };
        if turn == 0 {
            script.pair_led_by(A)?;
        }
        let image = (
            script.world.machines[other].record.clone(),
            script.world.machines[other].platters.after_power_loss(),
        );
        // The takeovers cross: the standby takes over while the active, cut off, comes to need
        // a new epoch itself.
        script.service(0, other, true);
        script.service(1, leader, true);
        script.all_links(true);
        script.until("the standby takes over", |world| world.acts_now(other))?;
        script.tell(
            leader,
            node::node::NodeInput::Kill {
                service: model::ServiceName::PolicyEngine,
            },
        );
        script.pass(3 * S)?;
        script.service(0, other, false);
        script.service(1, leader, false);
        script.all_links(false);
        script.pass(5 * S)?;
        hosts_obey_an_acting_gateway(script)?;
        // The machine that took over is set back to before it did, with its old reservation.
        script.power_off(other);
        script.world.lost_disk(other);
        let machine = &mut script.world.machines[other];
        (machine.record, machine.platters) = image;
        machine.acted = Epoch::default();
        script.pass(S)?;
        script.power_on(other);
        script.until("one leads", |world| world.acts_now(A) || world.acts_now(B))?;
        let leads = if script.acting(A).is_some() { A } else { B };
        script.stable(leads)?;
        if leads != other {
            script.operator(leads, &["system switchover"])?;
        }
        let epoch = script.stable(other)?;
        script.must(epoch > highest, "epochs only grow")?;
        highest = epoch;
    }
    // A clone of the standby, and then of the active, takes addresses back and forth.
    for _ in 0..2 {
        let begun = strike(&mut script.world, FaultClass::Clone);
        script.must(begun, "a clone starts")?;
        script.pass(8 * S)?;
        hosts_obey_an_acting_gateway(script)?;
        end_clone(&mut script.world);
        script.pass(20 * S)?;
    }
    let leads = if script.acting(A).is_some() { A } else { B };
    script.stable(leads)?;
    Ok(())
}
