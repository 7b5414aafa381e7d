//! What happened between two moments: pure arithmetic over the records.
//!
//! Invariants:
//! - P1: a stall is a time in which something sent was waited for and nothing
//!   arrived; a sender that was late itself makes no stall.
//! - P2: what overlaps the window counts whole, never clipped to it.
//! - P3: a report says when its records are not complete.

use super::connections::{Outcome, unpack};
use super::records::RecordSet;
use super::stream::BROKEN;
use super::witness::Testimony;
use crate::clock::NS_PER_S;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Everything recorded in a run.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Messages of the stream, as received.
    pub stream: RecordSet,
    /// The stream's sender's complaints.
    pub stream_sender: RecordSet,
    /// Datagrams sent.
    pub udp_sent: RecordSet,
    /// Datagrams received.
    pub udp_received: RecordSet,
    /// Measured connections.
    pub connections: RecordSet,
    /// Forbidden attempts.
    pub forbidden: RecordSet,
    /// Connections that the forbidden port's server accepted.
    pub forbidden_accepted: RecordSet,
    /// What the witnesses said.
    pub testimonies: Vec<Testimony>,
    /// The end of the records: now, or when the traffic was stopped, ns.
    pub end_ns: u64,
    /// How far every witness has testified, ns; none in a run without them, or
    /// after its end, when no more is to come.
    pub testified_until_ns: Option<u64>,
}

/// A span of monotonic time, ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Its start.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
}

impl Window {
    fn holds(self, at_ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&at_ns)
    }

    fn overlaps(self, from_ns: u64, to_ns: u64) -> bool {
        from_ns <= self.to_ns && to_ns >= self.from_ns
    }
}

/// The figures of one window. Times are ms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Start of the window, monotonic ns.
    pub from_ns: u64,
    /// End of the window, monotonic ns.
    pub to_ns: u64,
    /// Longest time in which a message was waited for and none arrived.
    pub tcp_longest_stall_ms: f64,
    /// Longest time from sending a message to its arrival.
    pub tcp_slowest_message_ms: f64,
    /// Messages that arrived.
    pub tcp_messages: u64,
    /// The stream was never broken, and goes on after the window.
    pub tcp_alive: bool,
    /// Datagrams sent in the window.
    pub udp_sent: u64,
    /// Those that never arrived.
    pub udp_lost: u64,
    /// Those that arrived after one sent later.
    pub udp_reordered: u64,
    /// Those that arrived twice or more.
    pub udp_duplicated: u64,
    /// As for the stream.
    pub udp_longest_stall_ms: f64,
    /// Connections begun in the window.
    pub connections: u64,
    /// Their rate.
    pub connections_per_s: f64,
    /// Those without an answer within 5 s.
    pub connections_failed: u64,
    /// SYNs sent again, all connections together.
    pub syn_retransmitted: u64,
    /// Median time to connect.
    pub connect_p50_ms: f64,
    /// 99th percentile of it.
    pub connect_p99_ms: f64,
    /// The slowest.
    pub connect_slowest_ms: f64,
    /// Attempts at the forbidden port begun in the window.
    pub forbidden_attempts: u64,
    /// Those that reached it, by the client's or the server's own count,
    /// whichever is larger.
    pub forbidden_reached: u64,
    /// Those that were refused or reset rather than dropped.
    pub forbidden_refused: u64,
    /// Errors in the witnesses' own output.
    pub witness_errors: u64,
    /// Runs and intervals that the witnesses reported on.
    pub witness_reports: u64,
    /// Requests that wrk got answered.
    pub witness_requests: u64,
    /// Segments that iperf3's sender sent again.
    pub witness_retransmits: u64,
    /// How late the generators were at worst.
    pub generator_late_ms: f64,
    /// False when records are missing: a log was full, or what began in the
    /// window had not ended when the report was made, or a witness had not
    /// testified on all of it.
    pub complete: bool,
}

fn ms(ns: u64) -> f64 {
    // Whole microseconds: what user space can honestly claim.
    (ns / 1000) as f64 / 1000.0
}

/// Computes the figures of `window`.
#[must_use]
pub fn figures(evidence: &Evidence, window: Window) -> Figures {
    let stream: Vec<_> = evidence
        .stream
        .records
        .iter()
        .filter(|record| record[0] != BROKEN)
        .copied()
        .collect();
    let tcp = arrivals(&stream, window, evidence.end_ns);
    let udp = arrivals(&evidence.udp_received.records, window, evidence.end_ns);
    let flow = udp_counts(evidence, window);
    let made = connection_counts(&evidence.connections.records, window);
    let forbidden = forbidden_counts(evidence, window);
    let heard: Vec<_> = evidence
        .testimonies
        .iter()
        .filter(|one| window.overlaps(one.from_ns, one.to_ns))
        .collect();
    let seconds = (window.to_ns - window.from_ns) as f64 / NS_PER_S as f64;
    Figures {
        from_ns: window.from_ns,
        to_ns: window.to_ns,
        tcp_longest_stall_ms: ms(tcp.longest_stall_ns),
        tcp_slowest_message_ms: ms(tcp.slowest_ns),
        tcp_messages: tcp.count,
        tcp_alive: is_alive(evidence, &stream, window),
        udp_sent: flow.sent,
        udp_lost: flow.lost,
        udp_reordered: flow.reordered,
        udp_duplicated: flow.duplicated,
        udp_longest_stall_ms: ms(udp.longest_stall_ns),
        connections: made.begun,
        connections_per_s: if seconds > 0.0 {
            (made.begun as f64 / seconds * 10.0).round() / 10.0
        } else {
            0.0
        },
        connections_failed: made.failed,
        syn_retransmitted: made.retransmitted,
        connect_p50_ms: ms(percentile(&made.sorted_connect_ns, 50)),
        connect_p99_ms: ms(percentile(&made.sorted_connect_ns, 99)),
        connect_slowest_ms: ms(made.sorted_connect_ns.last().copied().unwrap_or(0)),
        forbidden_attempts: forbidden.attempts,
        forbidden_reached: forbidden.reached,
        forbidden_refused: forbidden.refused,
        witness_errors: heard.iter().map(|one| one.errors).sum(),
        witness_reports: heard.len() as u64,
        witness_requests: heard
            .iter()
            .filter(|one| one.tool == "wrk")
            .map(|one| one.amount)
            .sum(),
        witness_retransmits: heard.iter().map(|one| one.retransmits).sum(),
        generator_late_ms: (made.late_us as f64 / 1000.0).max(ms(flow.late_ns)),
        complete: is_complete(evidence, window),
    }
}

#[derive(Debug, Default)]
struct Arrivals {
    count: u64,
    longest_stall_ns: u64,
    slowest_ns: u64,
}

/// Walks over arrivals in the order they were read. `end_ns` stands for the
/// next arrival when there is none after the window.
fn arrivals(records: &[[u64; 4]], window: Window, end_ns: u64) -> Arrivals {
    let mut result = Arrivals::default();
    let mut previous_ns = 0;
    for [_, sent_ns, arrived_ns, _] in records.iter().copied() {
        // A kernel stamp may be older than the one before it (a segment that
        // waited for an earlier one): no message is there before its turn.
        let arrived_ns = arrived_ns.max(previous_ns);
        let waited_from = sent_ns.max(previous_ns).min(arrived_ns);
        if window.overlaps(waited_from, arrived_ns) {
            result.longest_stall_ns = result.longest_stall_ns.max(arrived_ns - waited_from);
        }
        if window.overlaps(sent_ns, arrived_ns) {
            result.slowest_ns = result.slowest_ns.max(arrived_ns.saturating_sub(sent_ns));
        }
        if window.holds(arrived_ns) {
            result.count += 1;
        }
        previous_ns = arrived_ns;
    }
    if previous_ns < window.to_ns {
        // Nothing arrived after the window: it ends in a stall, which lasts at
        // least until the records end.
        let waited_from = previous_ns.max(window.from_ns);
        let stall = end_ns.min(window.to_ns).saturating_sub(waited_from);
        result.longest_stall_ns = result.longest_stall_ns.max(stall);
    }
    result
}

fn is_alive(evidence: &Evidence, stream: &[[u64; 4]], window: Window) -> bool {
    let broke = evidence
        .stream
        .records
        .iter()
        .chain(&evidence.stream_sender.records)
        .any(|record| record[0] == BROKEN && record[2] <= evidence.end_ns);
    let last_ns = stream.last().map_or(0, |record| record[2]);
    // A message each ms: one second without any at the end is no life.
    !broke && last_ns + NS_PER_S >= window.to_ns.min(evidence.end_ns)
}

#[derive(Debug, Default)]
struct UdpCounts {
    sent: u64,
    lost: u64,
    reordered: u64,
    duplicated: u64,
    late_ns: u64,
}

fn udp_counts(evidence: &Evidence, window: Window) -> UdpCounts {
    let mut counts = UdpCounts::default();
    let sent = &evidence.udp_sent.records;
    // How often each datagram arrived; sequences count from 0 without gaps.
    let mut arrived = vec![0u8; sent.len()];
    let mut highest = None;
    for [sequence, sent_ns, ..] in evidence.udp_received.records.iter().copied() {
        let in_window = window.holds(sent_ns);
        let mut is_first = true;
        if let Some(times) = arrived.get_mut(sequence as usize) {
            *times = times.saturating_add(1);
            is_first = *times == 1;
            if *times == 2 && in_window {
                counts.duplicated += 1;
            }
        }
        if is_first && in_window && highest.is_some_and(|highest| sequence < highest) {
            counts.reordered += 1;
        }
        highest = highest.max(Some(sequence));
    }
    let mut previous_ns = None;
    for ([_, sent_ns, ..], times) in sent.iter().zip(&arrived) {
        if window.holds(*sent_ns) {
            counts.sent += 1;
            counts.lost += u64::from(*times == 0);
            let gap = sent_ns - previous_ns.unwrap_or(*sent_ns);
            counts.late_ns = counts.late_ns.max(gap.saturating_sub(NS_PER_S / 1000));
        }
        previous_ns = Some(*sent_ns);
    }
    counts
}

#[derive(Debug, Default)]
struct ConnectionCounts {
    begun: u64,
    failed: u64,
    retransmitted: u64,
    sorted_connect_ns: Vec<u64>,
    late_us: u64,
}

fn connection_counts(records: &[[u64; 4]], window: Window) -> ConnectionCounts {
    let mut counts = ConnectionCounts::default();
    for [start_ns, connect_ns, total_ns, word] in records.iter().copied() {
        if !window.holds(start_ns) {
            continue;
        }
        let (outcome, retransmits, late_us) = unpack(word);
        counts.begun += 1;
        counts.failed += u64::from(outcome != Outcome::Reached);
        counts.retransmitted += u64::from(retransmits);
        counts.late_us = counts.late_us.max(late_us);
        // One that never connected counts with the time it was given up after.
        counts
            .sorted_connect_ns
            .push(if connect_ns > 0 { connect_ns } else { total_ns });
    }
    counts.sorted_connect_ns.sort_unstable();
    counts
}

#[derive(Debug, Default)]
struct ForbiddenCounts {
    attempts: u64,
    reached: u64,
    refused: u64,
}

fn forbidden_counts(evidence: &Evidence, window: Window) -> ForbiddenCounts {
    let mut counts = ForbiddenCounts::default();
    for [start_ns, _, _, word] in evidence.forbidden.records.iter().copied() {
        if window.holds(start_ns) {
            counts.attempts += 1;
            match unpack(word).0 {
                Outcome::Reached => counts.reached += 1,
                Outcome::Refused => counts.refused += 1,
                Outcome::TimedOut | Outcome::Failed => {}
            }
        }
    }
    let accepted = evidence
        .forbidden_accepted
        .records
        .iter()
        .filter(|record| window.holds(record[0]))
        .count() as u64;
    counts.reached = counts.reached.max(accepted);
    counts
}

fn is_complete(evidence: &Evidence, window: Window) -> bool {
    let logs = [
        &evidence.stream,
        &evidence.udp_sent,
        &evidence.udp_received,
        &evidence.connections,
        &evidence.forbidden,
        &evidence.forbidden_accepted,
    ];
    let settled = [&evidence.connections, &evidence.forbidden]
        .iter()
        .all(|log| log.settled_ns >= window.to_ns.min(evidence.end_ns));
    let heard = evidence
        .testified_until_ns
        .is_none_or(|until_ns| until_ns >= window.to_ns);
    settled && heard && logs.iter().all(|log| log.dropped == 0)
}

/// The nearest-rank percentile of sorted values; 0 of none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    rank.checked_sub(1)
        .and_then(|index| sorted.get(index))
        .copied()
        .unwrap_or(0)
}

/// The figures for people.
#[must_use]
pub fn render(figures: &Figures, cpu_percent: &BTreeMap<String, f64>) -> String {
    let f = figures;
    let mut text = format!(
        "window          {:.1} s{}\n",
        (f.to_ns - f.from_ns) as f64 / NS_PER_S as f64,
        if f.complete {
            ""
        } else {
            "  (INCOMPLETE: records are missing)"
        }
    );
    let _ = writeln!(
        text,
        "TCP stream      {}, {} messages, longest stall {:.1} ms, slowest message {:.1} ms",
        if f.tcp_alive { "alive" } else { "BROKEN" },
        f.tcp_messages,
        f.tcp_longest_stall_ms,
        f.tcp_slowest_message_ms
    );
    let _ = writeln!(
        text,
        "UDP flow        {} sent, {} lost, {} reordered, {} duplicated, longest stall {:.1} ms",
        f.udp_sent, f.udp_lost, f.udp_reordered, f.udp_duplicated, f.udp_longest_stall_ms
    );
    let _ = writeln!(
        text,
        "new connections {} ({}/s), {} failed, {} SYNs sent again",
        f.connections, f.connections_per_s, f.connections_failed, f.syn_retransmitted
    );
    let _ = writeln!(
        text,
        "  connect       median {:.2} ms, 99 % {:.2} ms, slowest {:.1} ms",
        f.connect_p50_ms, f.connect_p99_ms, f.connect_slowest_ms
    );
    let _ = writeln!(
        text,
        "forbidden port  {} attempts, {} reached, {} refused",
        f.forbidden_attempts, f.forbidden_reached, f.forbidden_refused
    );
    let _ = writeln!(
        text,
        "witnesses       {} errors in {} reports (wrk: {} answers; iperf3: {} sent again)",
        f.witness_errors, f.witness_reports, f.witness_requests, f.witness_retransmits
    );
    let _ = writeln!(
        text,
        "generators      at most {:.1} ms late",
        f.generator_late_ms
    );
    for (role, percent) in cpu_percent {
        let _ = writeln!(text, "  CPU {role:<10}  {percent:.1} %");
    }
    text
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
