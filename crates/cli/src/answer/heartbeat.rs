//! `show redundancy heartbeat`. No text of the original is known;
//! the field names follow its `show system internal redundancy info` where they fit.

use serde::{Deserialize, Serialize};

use super::heading;

/// One HA link, as the heartbeats see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkHeartbeat {
    /// `control`, `management`, or as configured.
    pub name: String,
    /// True if a heartbeat was heard within the hold time.
    pub heard: bool,
    /// Milliseconds since the last one; `None` if there never was one.
    pub last_heard_ms: Option<u64>,
    /// Heartbeats sent since start.
    pub sent: u64,
    /// Genuine heartbeats received since start.
    pub received: u64,
    /// Gaps in the peer's sequence numbers since start.
    pub lost: u64,
    /// Datagrams refused: bad tag, replayed, malformed, another pair.
    pub refused: u64,
    /// Last round trip, in microseconds; 0 before one.
    pub round_trip_us: u64,
    /// Mean of the last 500 to 1000 round trips, in microseconds.
    pub round_trip_mean_us: u64,
    /// What 99 of 100 of them did not exceed, in microseconds.
    pub round_trip_p99_us: u64,
    /// Largest lateness of the last 500 to 1000 arrivals, in microseconds.
    pub jitter_us: u64,
    /// What 99 of 100 of them did not exceed, in microseconds.
    pub jitter_p99_us: u64,
}

/// The answer to `show redundancy heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatStatus {
    /// `default`, `fast`, `vm-safe` or `explicit`.
    pub profile: String,
    /// This node's configured interval, in milliseconds.
    pub interval_ms: u32,
    /// Misses until silence.
    pub misses: u8,
    /// The interval the peer states; `None` before contact.
    pub peer_interval_ms: Option<u32>,
    /// The time of silence that counts as death, from the larger interval.
    pub hold_time_ms: u32,
    /// True while the other supervisor has not confirmed this timing: it states another.
    pub awaits_confirmation: bool,
    /// Why real-time scheduling was refused; `None` if it was granted.
    pub realtime_refused: Option<String>,
    /// The machine's watchdog: `not configured`, its device, or `unavailable: ` and why.
    pub watchdog: String,
    /// Canaries that went through the decision path of this node since it started.
    pub canaries: u64,
    /// Each link, in the order of the configuration.
    pub links: Vec<LinkHeartbeat>,
}

impl HeartbeatStatus {
    /// Own layout.
    #[must_use]
    pub fn text(&self) -> String {
        let peer = self
            .peer_interval_ms
            .map_or("-".to_owned(), |ms| format!("{ms} ms"));
        let real_time = self
            .realtime_refused
            .as_ref()
            .map_or("granted".to_owned(), |why| format!("refused: {why}"));
        let mut text = heading("Redundancy heartbeat");
        let mut line = |label: &str, value: &str| text += &format!("{label:>20}:   {value}\n");
        line("Profile", &self.profile);
        line(
            "Interval",
            &format!("{} ms, {} misses", self.interval_ms, self.misses),
        );
        line("Peer interval", &peer);
        let confirmed = match (self.peer_interval_ms, self.awaits_confirmation) {
            (None, _) => "-",
            (Some(_), false) => "confirmed by both supervisors",
            (Some(_), true) => "awaits the other supervisor; the larger hold time counts",
        };
        line("Change", confirmed);
        line("Hold time", &format!("{} ms", self.hold_time_ms));
        line("Real-time", &real_time);
        line("Watchdog", &self.watchdog);
        line("Decision canaries", &self.canaries.to_string());
        text += &self.table();
        text
    }

    fn table(&self) -> String {
        let mut text = String::from(
            "\n                                  Round trip (us)          Jitter (us)\n\
             Link          State   Last heard      last     mean      p99      p99      max        Sent    Received      Lost  Loss %   Refused\n\
             ------------  ------  ----------  -------  -------  -------  -------  -------  ----------  ----------  --------  ------  --------\n",
        );
        for link in &self.links {
            let last = link
                .last_heard_ms
                .map_or("never".to_owned(), |ms| format!("{ms} ms"));
            text += &format!(
                "{:<12}  {:<6}  {last:>10}  {:>7}  {:>7}  {:>7}  {:>7}  {:>7}  {:>10}  {:>10}  {:>8}  {:>6}  {:>8}\n",
                link.name,
                if link.heard { "up" } else { "silent" },
                link.round_trip_us,
                link.round_trip_mean_us,
                link.round_trip_p99_us,
                link.jitter_p99_us,
                link.jitter_us,
                link.sent,
                link.received,
                link.lost,
                link.loss_percent(),
                link.refused,
            );
        }
        text
    }
}

impl LinkHeartbeat {
    /// Of the peer's heartbeats, those that did not arrive: `0.00` to `100.00`.
    fn loss_percent(&self) -> String {
        let all = self.received.saturating_add(self.lost).max(1);
        let hundredths = u128::from(self.lost) * 10_000 / u128::from(all);
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    }
}
