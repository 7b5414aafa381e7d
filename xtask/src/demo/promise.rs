//! What must hold of a repetition.
//!
//! | step | established TCP and UDP | new connections |
//! |---|---|---|
//! | switchover, service crash | alive, nothing lost or reordered, stall ≤ control + 5 ms and ≤ 20 ms | none failed, no SYN again, slowest < 50 ms |
//! | kill node, 3 × 100 ms | the same | the same, slowest < 420 ms |
//! | kill node, 3 × 10 ms | the same | the same, slowest < 80 ms |
//! | active stopped for 1 s | the same, and one active obeyed | the same, slowest < 420 ms |
//! | kill -9 vemd | the same | none failed, slowest < 300 ms |
//!
//! In each: the forbidden port is tried and never reached, every new connection is decided by a
//! gateway, and the witnesses report no error.

use super::measure::Sample;
use super::step::Step;

/// How much longer than in its control window an established flow may stall, in milliseconds.
const STALL_OVER_CONTROL_MS: f64 = 5.0;

/// The longest stall of an established flow, in milliseconds.
const STALL_MS: f64 = 20.0;

/// New connections a second that the traffic is to begin; below, the machine was too slow to
/// measure anything.
const CONNECTIONS_PER_S: f64 = 490.0;

/// The slowest connect that the step allows, in milliseconds.
const fn slowest_connect_ms(step: Step) -> f64 {
    match step {
        Step::Switchover | Step::ServiceCrash => 50.0,
        Step::NodeKillDefault | Step::Pause => 420.0,
        Step::NodeKillFast => 80.0,
        Step::VemdCrash => 300.0,
    }
}

/// Whether the step allows a SYN to be sent again: with `vemd` dead the kernel holds nothing back
/// for it, but the queue of a tap is finite.
const fn allows_retransmission(step: Step) -> bool {
    matches!(step, Step::VemdCrash)
}

/// The promises that `sample` breaks, as text.
pub(crate) fn broken(step: Step, sample: &Sample) -> Vec<String> {
    let mut broken = Vec::new();
    established(sample, &mut broken);
    new_connections(step, sample, &mut broken);
    let fault = &sample.fault;
    if fault.forbidden_attempts == 0 {
        broken.push("the forbidden port was not tried".to_owned());
    }
    if fault.forbidden_reached + sample.control.forbidden_reached > 0 {
        broken.push(format!(
            "the forbidden port was reached {} times",
            fault.forbidden_reached
        ));
    }
    if fault.witness_errors + sample.control.witness_errors > 0 {
        broken.push(format!("witnesses report {} errors", fault.witness_errors));
    }
    if fault.witness_reports == 0 {
        broken.push("the witnesses said nothing".to_owned());
    }
    if step == Step::Pause && !sample.one_active_obeyed {
        broken.push("the host agents do not all obey the one active".to_owned());
    }
    broken
}

fn established(sample: &Sample, broken: &mut Vec<String>) {
    let fault = &sample.fault;
    if !fault.tcp_alive {
        broken.push("the established TCP stream is dead".to_owned());
    }
    if fault.udp_lost + fault.udp_reordered > 0 {
        let (lost, reordered) = (fault.udp_lost, fault.udp_reordered);
        broken.push(format!("UDP: {lost} lost, {reordered} reordered"));
    }
    let (stall, control) = (sample.stall_ms(), sample.control_stall_ms());
    let limit = STALL_MS.min(control + STALL_OVER_CONTROL_MS);
    if stall > limit {
        broken.push(format!("stall {stall:.1} ms, control {control:.1} ms"));
    }
}

fn new_connections(step: Step, sample: &Sample, broken: &mut Vec<String>) {
    let fault = &sample.fault;
    if fault.connections_per_s < CONNECTIONS_PER_S {
        broken.push(format!(
            "only {:.0} new connections a second",
            fault.connections_per_s
        ));
    }
    if sample.decided_by_gateway < fault.connections {
        let (decided, begun) = (sample.decided_by_gateway, fault.connections);
        broken.push(format!("gateways decided {decided} of {begun} connections"));
    }
    if fault.connections_failed > 0 {
        broken.push(format!("{} connections failed", fault.connections_failed));
    }
    if fault.syn_retransmitted > 0 && !allows_retransmission(step) {
        broken.push(format!("{} SYN sent again", fault.syn_retransmitted));
    }
    let (slowest, limit) = (fault.connect_slowest_ms, slowest_connect_ms(step));
    if slowest >= limit {
        broken.push(format!(
            "slowest connect {slowest:.0} ms, limit {limit:.0} ms"
        ));
    }
}

#[cfg(test)]
mod tests {
    use system_tests::traffic::Window;

    use super::*;

    fn good() -> Sample {
        let window = Window {
            tcp_alive: true,
            tcp_longest_stall_ms: 3.0,
            udp_sent: 2500,
            udp_longest_stall_ms: 2.0,
            connections: 1250,
            connections_per_s: 500.0,
            connect_slowest_ms: 5.0,
            forbidden_attempts: 125,
            witness_reports: 3,
            ..Window::default()
        };
        Sample {
            control: window.clone(),
            fault: window,
            decided_by_gateway: 1251,
            takeover_ms: Some(4.0),
            one_active_obeyed: true,
        }
    }

    const ALL: [Step; 6] = [
        Step::Switchover,
        Step::ServiceCrash,
        Step::NodeKillDefault,
        Step::NodeKillFast,
        Step::Pause,
        Step::VemdCrash,
    ];

    #[test]
    fn a_good_repetition_breaks_nothing() {
        for step in ALL {
            assert_eq!(broken(step, &good()), Vec::<String>::new(), "{step:?}");
        }
    }

    #[test]
    fn each_promise_can_be_broken() {
        type Damage = fn(&mut Sample);
        let damages: [(&str, Damage); 11] = [
            ("dead", |s| s.fault.tcp_alive = false),
            ("UDP: 1 lost", |s| s.fault.udp_lost = 1),
            ("1 reordered", |s| s.fault.udp_reordered = 1),
            ("stall 8.1", |s| s.fault.tcp_longest_stall_ms = 8.1),
            ("only 400", |s| s.fault.connections_per_s = 400.0),
            ("decided 1249", |s| s.decided_by_gateway = 1249),
            ("1 connections failed", |s| s.fault.connections_failed = 1),
            ("was reached", |s| s.fault.forbidden_reached = 1),
            ("not tried", |s| s.fault.forbidden_attempts = 0),
            ("witnesses report", |s| s.fault.witness_errors = 1),
            ("witnesses said", |s| s.fault.witness_reports = 0),
        ];
        for (text, damage) in damages {
            let mut sample = good();
            damage(&mut sample);
            for step in ALL {
                let broken = broken(step, &sample);
                assert_eq!(broken.len(), 1, "{text}: {broken:?}");
                assert!(broken[0].contains(text), "{text}: {broken:?}");
            }
        }
    }

    #[test]
    fn a_noisy_control_window_excuses_no_stall_above_the_limit() {
        let mut sample = good();
        sample.control.tcp_longest_stall_ms = 30.0;
        sample.fault.tcp_longest_stall_ms = 21.0;
        assert_eq!(broken(Step::Switchover, &sample).len(), 1);
    }

    #[test]
    fn each_step_has_its_own_slowest_connect() {
        for (step, limit) in ALL.map(|step| (step, slowest_connect_ms(step))) {
            let mut sample = good();
            sample.fault.connect_slowest_ms = limit - 0.1;
            assert_eq!(broken(step, &sample), Vec::<String>::new());
            sample.fault.connect_slowest_ms = limit;
            assert_eq!(broken(step, &sample).len(), 1, "{step:?}");
        }
    }

    #[test]
    fn only_the_crash_of_vemd_may_cost_a_syn() {
        let mut sample = good();
        sample.fault.syn_retransmitted = 1;
        for step in ALL {
            assert_eq!(
                broken(step, &sample).is_empty(),
                step == Step::VemdCrash,
                "{step:?}"
            );
        }
    }
}
