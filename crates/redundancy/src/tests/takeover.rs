//! What holds right after a takeover.

use core::time::Duration;

use model::{Incarnation, LinkId};
use wire::control::ControlMessage;
use wire::heartbeat::{Gasp, State};

use super::pair::{A, B, Pair};
use crate::{Input, Output};

/// A node that takes over was told, as a standby, that its bulk sync is done. That says nothing
/// about the standby that it has now, which is there before `pss` has reported anew.
#[test]
fn a_report_from_when_it_followed_does_not_grant_leave() {
    let pair = Pair::stable(1);
    let mut core = pair.core(B).clone();
    let now = pair.now;
    let said = pair.core(A).ctx.said.clone().expect("A speaks");
    let gasp = Gasp {
        epoch: said.epoch,
        incarnation: said.incarnation,
    };
    core.handle(now, Input::Gasp(gasp));
    let epoch = core.acting().expect("B takes over");
    let mut granted = false;
    let mut sequence = 0;
    let follows = Input::Heartbeat {
        link: LinkId(0),
        content: wire::heartbeat::Content {
            revision: 1,
            incarnation: Incarnation(900),
            state: State::Synchronizing,
            epoch,
            grant: false,
            ..said
        },
        peer_hold_time: Duration::from_millis(300),
        echo: now,
    };
    let mut give = |core: &mut crate::Core, input: Input| {
        core.handle(now, input);
        let mut write = None;
        while let Some(output) = core.poll_output() {
            match output {
                Output::Persist { write: number, .. } => write = Some(number),
                Output::HeartbeatContent(content) => granted |= content.grant,
                Output::Control(ControlMessage::Grant { .. }) => granted = true,
                Output::Posture { sequence: told, .. } => sequence = told,
                _ => {}
            }
        }
        (write, granted, sequence)
    };
    give(&mut core, Input::PeerConnected);
    let (write, ..) = give(&mut core, follows);
    if let Some(write) = write {
        give(&mut core, Input::Persisted { write });
    }
    let (_, granted, sequence) = give(&mut core, Input::Tick);
    assert!(
        !granted,
        "nobody has said that the new standby holds anything"
    );
    // With the posture in force, what `pss` said last counts.
    let (write, ..) = give(&mut core, Input::PostureApplied { sequence });
    let write = write.expect("the alone mark is being cleared");
    let (_, granted, _) = give(&mut core, Input::Persisted { write });
    assert!(granted);
}

/// An active that resets says whether its grant stands: it may have taken it back and committed
/// alone, unheard.
#[test]
fn the_last_words_of_a_reset_say_whether_the_grant_stands() {
    for grant in [true, false] {
        let pair = Pair::stable(1);
        let mut core = pair.core(B).clone();
        let said = pair.core(A).ctx.said.clone().expect("A speaks");
        let last = Input::Heartbeat {
            link: LinkId(0),
            content: wire::heartbeat::Content {
                revision: said.revision + 1,
                state: State::Resetting,
                grant,
                ..said
            },
            peer_hold_time: Duration::from_millis(300),
            echo: pair.now,
        };
        core.handle(pair.now, last);
        assert_eq!(core.acting().is_some(), grant);
    }
}
