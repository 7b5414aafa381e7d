//! Cut links: who leads, and who must not.

use std::thread;
use std::time::Duration;

use system_tests::{bench, site};

/// Far longer than the hold time of 300 ms: whoever wanted to take over has done so.
const LONG_AFTER_THE_HOLD_TIME: Duration = Duration::from_secs(3);

#[test]
fn one_cut_link_changes_no_role() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    for link in ["ha0", "ha1"] {
        lab.fault(&["cut", link]).expect("cut");
        // That nothing happens can only be seen by giving it the time to happen.
        thread::sleep(LONG_AFTER_THE_HOLD_TIME);
        assert_eq!(lab.active().expect("one active"), active, "{link} is cut");
        lab.fault(&["heal", link]).expect("healed");
        assert_eq!(
            lab.await_redundant().expect("redundant"),
            active,
            "{link} is healed"
        );
    }
    lab.down().expect("down");
}

#[test]
fn an_isolated_standby_does_not_take_over() {
    if !bench::may_run() {
        return;
    }
    let (lab, active) = bench::pair_with_policy();
    let standby = site::other(active);
    lab.fault(&["cut", &format!("all:{standby}")]).expect("cut");
    thread::sleep(LONG_AFTER_THE_HOLD_TIME);
    assert_eq!(lab.active().expect("one active"), active);
    let state = lab
        .internal_state(standby)
        .expect("state")
        .expect("it answers");
    assert!(!state.starts_with("Active"), "{standby} says {state}");
    lab.fault(&["heal", &format!("all:{standby}")])
        .expect("healed");
    assert_eq!(lab.await_redundant().expect("redundant"), active);
    lab.down().expect("down");
}
