//! What measured traffic met in a window of time.

use serde::Deserialize;

/// The figures of `vsg-lab traffic report`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Window {
    /// The longest wait for the next message of the TCP stream, in milliseconds.
    pub tcp_longest_stall_ms: f64,
    /// Whether the TCP stream still delivers at the end of the window.
    pub tcp_alive: bool,
    /// Datagrams sent.
    pub udp_sent: u64,
    /// Datagrams that never arrived.
    pub udp_lost: u64,
    /// Datagrams that arrived after a later one.
    pub udp_reordered: u64,
    /// The longest wait for the next datagram, in milliseconds.
    pub udp_longest_stall_ms: f64,
    /// New TCP connections begun.
    pub connections: u64,
    /// The same, a second.
    pub connections_per_s: f64,
    /// Those that were refused, timed out, or got no answer.
    pub connections_failed: u64,
    /// SYN segments that were sent again.
    pub syn_retransmitted: u64,
    /// The slowest connect, in milliseconds.
    pub connect_slowest_ms: f64,
    /// Connects to the forbidden port that were tried.
    pub forbidden_attempts: u64,
    /// Those that arrived, as the server there counted them.
    pub forbidden_reached: u64,
    /// Errors that the witnesses (wrk, iperf3) report.
    pub witness_errors: u64,
    /// Runs and intervals that they reported on.
    pub witness_reports: u64,
    /// False while something that began in the window has not ended, or when records were lost.
    pub complete: bool,
}

impl Window {
    /// The longest stall of an established flow, in milliseconds.
    #[must_use]
    pub fn stall_ms(&self) -> f64 {
        self.tcp_longest_stall_ms.max(self.udp_longest_stall_ms)
    }
}
