//! Schedule 7: VEM-1 hears only A, VEM-2 only B, then contact by any one path: one active within a hold time.

use crate::script::{A, B, Script};
use crate::world::{MS, S};

/// How the two come into contact again.
#[derive(Clone, Copy, Debug)]
enum Contact {
    Link(usize),
    Service(usize, usize),
}

/// A hold time of the default profile, a host's dialling (200 ms in this world) and the round
/// trips that follow.
const WITHIN_NS: u64 = 300 * MS + 500 * MS;

pub(super) fn play(script: &mut Script) -> Result<(), String> {
    let paths = [
        Contact::Link(0),
        Contact::Link(1),
        Contact::Service(0, B),
        Contact::Service(1, A),
    ];
    script.pair_led_by(A)?;
    for path in paths {
        let leader = if script.acting(A).is_some() { A } else { B };
        script.stable(leader)?;
        script.service(0, B, true);
        script.service(1, A, true);
        script.all_links(true);
        script.until("both act", |world| world.acts_now(A) && world.acts_now(B))?;
        script.pass(3 * S)?;
        match path {
            Contact::Link(link) => {
                for direction in &mut script.world.net.links[link] {
                    direction.cut = false;
                }
            }
            Contact::Service(host, node) => script.service(host, node, false),
        }
        script.pass(WITHIN_NS)?;
        let acting = [A, B]
            .into_iter()
            .filter(|node| script.acting(*node).is_some());
        let count = acting.count();
        script.must(
            count <= 1,
            &format!("at most one acts after contact by {path:?}"),
        )?;
        script.service(0, B, false);
        script.service(1, A, false);
        script.all_links(false);
        script.until("one leads", |world| world.acts_now(A) != world.acts_now(B))?;
        script.pass(5 * S)?;
    }
    Ok(())
}
