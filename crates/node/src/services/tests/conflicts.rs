//! A lost conflict from the fork to `clear redundancy conflicts`, as operators of both nodes see
//! it.

use core::time::Duration;

use model::ServiceName;
use wire::supervision::Activity;

use super::pair::{Pair, epoch};
use super::{apply, led, running, shell};

/// Both led: node 0 under the lower epoch committed two lines, node 1 one. Node 0 has lost and is
/// standby again.
fn forked(asked: bool) -> Pair {
    let mut pair = led();
    apply(&mut pair, 0, &["hostname common"]);
    pair.advance(Duration::from_millis(100));
    pair.cut();
    pair.posture(0, Activity::Active(epoch(1)), false);
    apply(&mut pair, 0, &["zone lost"]);
    apply(&mut pair, 0, &["hostname mine"]);
    pair.posture(1, Activity::Active(epoch(2)), false);
    pair.advance(Duration::from_secs(1));
    apply(&mut pair, 1, &["hostname theirs"]);
    if asked {
        // It has stopped acting first.
        pair.posture(0, Activity::Idle, false);
        pair.archive(0);
    }
    // The loser's start: nothing in memory.
    pair.restart(0, ServiceName::Pss);
    pair.posture(0, Activity::Standby, false);
    pair.join();
    pair.advance(Duration::from_secs(3));
    pair
}

#[test]
fn the_losers_configuration_is_listed_shown_and_diffed_on_both_nodes() {
    for asked in [false, true] {
        let mut pair = forked(asked);
        assert!(running(&mut pair, 0).contains("hostname theirs"));
        for node in [1, 0] {
            pair.open_shell(node);
            let (text, failed, _) = shell(&mut pair, node, "show redundancy conflicts");
            assert!(!failed, "{text}");
            let reason = if asked {
                "both were active"
            } else {
                "the active did not have these commits"
            };
            for part in [
                "Conflict 1\n",
                "                Node:   sup-1\n",
                "        Commits lost:   2\n",
                reason,
                "records of cfgmgr (archived)",
            ] {
                assert!(text.contains(part), "{part} is not in {text}");
            }
            let (text, failed, _) = shell(&mut pair, node, "show redundancy conflicts 1");
            assert!(
                !failed && text.contains("hostname mine") && text.contains("zone lost"),
                "{text}"
            );
            assert!(
                text.contains("!Command: show redundancy conflicts 1"),
                "{text}"
            );
            let (text, failed, _) = shell(&mut pair, node, "show redundancy conflicts 1 diff");
            assert!(
                !failed
                    && text.starts_with("*** Archived-config\n--- Running-config\n")
                    && text.contains("! hostname mine")
                    && text.contains("! hostname theirs"),
                "{text}"
            );
            let (json, ..) = shell(&mut pair, node, "show redundancy conflicts | json");
            assert!(json.contains("\"commits\": 2"), "{json}");
        }
    }
}

#[test]
fn a_conflict_is_cleared_on_the_active_and_gone_on_both() {
    let mut pair = forked(true);
    pair.posture(1, Activity::Active(epoch(2)), true);
    for node in [0, 1] {
        pair.open_shell(node);
    }
    let (text, failed, _) = shell(&mut pair, 0, "clear redundancy conflicts 1");
    assert!(failed && text.contains("% Invalid command"), "{text}");
    let (text, failed, _) = shell(&mut pair, 1, "clear redundancy conflicts 7");
    assert!(
        failed && text.contains("% there is no conflict 7"),
        "{text}"
    );
    let (text, failed, _) = shell(&mut pair, 1, "clear redundancy conflicts 1");
    assert!(!failed, "{text}");
    pair.advance(Duration::from_secs(1));
    for node in [0, 1] {
        let (text, ..) = shell(&mut pair, node, "show redundancy conflicts");
        assert_eq!(text, "No conflict is archived.\n");
        let (text, failed, _) = shell(&mut pair, node, "show redundancy conflicts 1");
        assert!(failed && text.contains("There is no conflict 1"), "{text}");
    }
}

#[test]
fn an_ordinary_takeover_leaves_no_conflict() {
    let mut pair = led();
    apply(&mut pair, 0, &["hostname common"]);
    pair.advance(Duration::from_millis(100));
    pair.posture(0, Activity::Standby, false);
    pair.archive(0);
    pair.posture(1, Activity::Active(epoch(2)), false);
    apply(&mut pair, 1, &["hostname after"]);
    pair.advance(Duration::from_secs(3));
    pair.open_shell(1);
    let (text, ..) = shell(&mut pair, 1, "show redundancy conflicts");
    assert_eq!(text, "No conflict is archived.\n");
}
