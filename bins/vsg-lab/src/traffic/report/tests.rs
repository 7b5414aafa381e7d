use super::super::connections::pack;
use super::*;
use crate::clock::NS_PER_MS;

const MS: u64 = NS_PER_MS;

fn window(from_ms: u64, to_ms: u64) -> Window {
    Window {
        from_ns: from_ms * MS,
        to_ns: to_ms * MS,
    }
}

/// A message each ms from 0 to 1,000 ms, each arriving 0.1 ms later, except as
/// `change` says.
fn steady(change: impl Fn(u64) -> Option<u64>) -> Vec<[u64; 4]> {
    (0..=1000)
        .filter_map(|i| Some([i, i * MS, change(i)?, 0]))
        .collect()
}

fn on_time(i: u64) -> u64 {
    i * MS + MS / 10
}

fn evidence() -> Evidence {
    let settled = |records: Vec<[u64; 4]>| RecordSet {
        records,
        settled_ns: 1000 * MS,
        dropped: 0,
    };
    Evidence {
        stream: settled(steady(|i| Some(on_time(i)))),
        udp_sent: settled((0..=1000).map(|i| [i, i * MS, 0, 0]).collect()),
        udp_received: settled(steady(|i| Some(on_time(i)))),
        connections: settled(
            (0..500)
                .map(|i| [i * 2 * MS, MS / 2, MS, pack(Outcome::Reached, 0, 0)])
                .collect(),
        ),
        forbidden: settled(
            (0..50)
                .map(|i| [i * 20 * MS, 0, 2000 * MS, pack(Outcome::TimedOut, 1, 0)])
                .collect(),
        ),
        end_ns: 1001 * MS,
        ..Evidence::default()
    }
}

#[test]
fn a_quiet_second_is_quiet() {
    let f = figures(&evidence(), window(0, 1000));
    assert!(f.complete && f.tcp_alive);
    assert_eq!(f.tcp_messages, 1000);
    assert!(
        (f.tcp_longest_stall_ms - 0.1).abs() < 0.001,
        "{}",
        f.tcp_longest_stall_ms
    );
    assert_eq!(
        (f.udp_sent, f.udp_lost, f.udp_reordered, f.udp_duplicated),
        (1000, 0, 0, 0)
    );
    assert_eq!(
        (f.connections, f.connections_failed, f.syn_retransmitted),
        (500, 0, 0)
    );
    assert!((f.connections_per_s - 500.0).abs() < 0.1);
    assert!((f.connect_p50_ms - 0.5).abs() < 0.001);
    assert_eq!((f.forbidden_attempts, f.forbidden_reached), (50, 0));
}

#[test]
fn a_stall_is_measured_whole_and_only_where_it_is() {
    let mut e = evidence();
    // Messages 400 to 450 arrive together at 450.1 ms.
    e.stream.records = steady(|i| Some(on_time(if (400..450).contains(&i) { 450 } else { i })));
    let f = figures(&e, window(300, 420));
    assert!(
        (f.tcp_longest_stall_ms - 50.1).abs() < 0.01,
        "{}",
        f.tcp_longest_stall_ms
    );
    assert!((f.tcp_slowest_message_ms - 50.1).abs() < 0.01);
    assert!(figures(&e, window(500, 900)).tcp_longest_stall_ms < 0.2);
}

#[test]
fn a_late_sender_makes_no_stall() {
    let mut e = evidence();
    e.stream.records = (0..=1000)
        .map(|i| {
            let sent = if (400..450).contains(&i) {
                450 * MS
            } else {
                i * MS
            };
            [i, sent, sent + MS / 10, 0]
        })
        .collect();
    assert!(figures(&e, window(300, 600)).tcp_longest_stall_ms < 0.2);
}

#[test]
fn silence_to_the_end_is_a_stall_and_no_life() {
    let mut e = evidence();
    e.stream.records = steady(|i| (i < 200).then(|| on_time(i)));
    e.end_ns = 3000 * MS;
    let f = figures(&e, window(0, 2500));
    assert!(!f.tcp_alive);
    assert!(
        f.tcp_longest_stall_ms > 2299.0,
        "{}",
        f.tcp_longest_stall_ms
    );
}

#[test]
fn a_broken_stream_is_not_alive_unless_it_broke_after_the_end() {
    let mut e = evidence();
    e.stream_sender.records.push([BROKEN, 0, 900 * MS, 104]);
    assert!(!figures(&e, window(0, 500)).tcp_alive);
    e.stream_sender.records[0][2] = 1002 * MS;
    assert!(figures(&e, window(0, 500)).tcp_alive);
}

#[test]
fn losses_reordering_and_duplicates_are_told_apart() {
    let mut e = evidence();
    let received = &mut e.udp_received.records;
    received.remove(700);
    received.swap(100, 101);
    let again = received[300];
    received.insert(301, again);
    let f = figures(&e, window(0, 1000));
    assert_eq!((f.udp_lost, f.udp_reordered, f.udp_duplicated), (1, 1, 1));
    // None of it in a window elsewhere.
    let f = figures(&e, window(800, 1000));
    assert_eq!((f.udp_lost, f.udp_reordered, f.udp_duplicated), (0, 0, 0));
}

#[test]
fn failures_and_retransmissions_belong_to_the_window_of_their_start() {
    let mut e = evidence();
    e.connections.records[250] = [500 * MS, 0, 5000 * MS, pack(Outcome::TimedOut, 2, 0)];
    e.connections.records[251] = [
        502 * MS,
        1003 * MS,
        1004 * MS,
        pack(Outcome::Reached, 1, 7000),
    ];
    let f = figures(&e, window(400, 600));
    assert_eq!(
        (f.connections, f.connections_failed, f.syn_retransmitted),
        (100, 1, 3)
    );
    assert!((f.connect_slowest_ms - 5000.0).abs() < 0.01);
    assert!((f.generator_late_ms - 7.0).abs() < 0.01);
    assert_eq!(figures(&e, window(600, 800)).connections_failed, 0);
}

#[test]
fn a_leak_counts_by_either_side() {
    let mut e = evidence();
    e.forbidden_accepted.records = vec![[100 * MS, 0, 0, 0], [110 * MS, 0, 0, 0]];
    assert_eq!(figures(&e, window(0, 1000)).forbidden_reached, 2);
    e.forbidden_accepted.records.clear();
    e.forbidden.records[3][3] = pack(Outcome::Reached, 0, 0);
    e.forbidden.records[4][3] = pack(Outcome::Refused, 0, 0);
    let f = figures(&e, window(0, 1000));
    assert_eq!((f.forbidden_reached, f.forbidden_refused), (1, 1));
}

#[test]
fn missing_records_are_admitted() {
    let mut e = evidence();
    e.udp_received.dropped = 1;
    assert!(!figures(&e, window(0, 1000)).complete);
    let mut e = evidence();
    e.connections.settled_ns = 900 * MS;
    assert!(!figures(&e, window(0, 1000)).complete);
    assert!(figures(&e, window(0, 900)).complete);
}

#[test]
fn witnesses_testify_for_what_their_span_touches() {
    let mut e = evidence();
    let testimony = |from, to, errors| Testimony {
        tool: "wrk".into(),
        from_ns: from * MS,
        to_ns: to * MS,
        errors,
        amount: 10,
        retransmits: 0,
        detail: String::new(),
    };
    e.testimonies = vec![testimony(0, 400, 3), testimony(400, 800, 0)];
    let f = figures(&e, window(300, 500));
    assert_eq!(
        (f.witness_errors, f.witness_reports, f.witness_requests),
        (3, 2, 20)
    );
    assert_eq!(figures(&e, window(500, 700)).witness_errors, 0);
    e.testified_until_ns = Some(800 * MS);
    assert!(figures(&e, window(500, 800)).complete);
    assert!(!figures(&e, window(500, 801)).complete);
}

#[test]
fn percentiles_are_nearest_rank() {
    let values: Vec<u64> = (1..=200).collect();
    assert_eq!(
        (percentile(&values, 50), percentile(&values, 99)),
        (100, 198)
    );
    assert_eq!(percentile(&[], 99), 0);
    assert_eq!(percentile(&[7], 50), 7);
}
