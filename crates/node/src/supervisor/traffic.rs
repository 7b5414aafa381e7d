//! The books of `show redundancy traffic`: what the ports of all processes have counted.
//!
//! Invariants:
//! - of each port and reason at most one line a [`LOG_PERIOD`] goes to the log, whoever sends what:
//!   the first drop is told at once, those that follow as a count when the period is over;
//! - at most [`BOOKED_MAX`] ports are booked, so that nothing that is reported grows this.

use core::time::Duration;
use std::collections::BTreeMap;

use model::{DropReason, PortKind, PortTraffic, Time};
use wire::log::LogRecord;

/// Of one port and reason.
const LOG_PERIOD: Duration = Duration::from_secs(60);
/// Three ports on each of four links, and those that there is one of, are 15.
const BOOKED_MAX: usize = 32;

type Port = (PortKind, String);

/// Drops of one port and reason that the log has, and has not yet, been told of.
#[derive(Clone, Debug)]
struct Told {
    at: Time,
    waiting: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    ports: BTreeMap<Port, PortTraffic>,
    told: BTreeMap<(Port, DropReason), Told>,
}

impl Traffic {
    /// Books what was counted since the last report; returns what the log is to be told.
    pub(super) fn book(&mut self, now: Time, report: Vec<PortTraffic>) -> Vec<LogRecord> {
        let mut lines = Vec::new();
        for counted in report {
            let port = (counted.port, counted.link.clone());
            if !self.ports.contains_key(&port) && self.ports.len() >= BOOKED_MAX {
                continue;
            }
            for (reason, count) in &counted.drops {
                lines.extend(self.note(now, &port, *reason, *count));
            }
            self.add(port, counted);
        }
        lines
    }

    fn add(&mut self, port: Port, counted: PortTraffic) {
        let Some(sum) = self.ports.get_mut(&port) else {
            self.ports.insert(port, counted);
            return;
        };
        sum.received = sum.received.saturating_add(counted.received);
        sum.sent = sum.sent.saturating_add(counted.sent);
        for (reason, count) in counted.drops {
            match sum.drops.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, total)) => *total = total.saturating_add(count),
                None => sum.drops.push((reason, count)),
            }
        }
        sum.drops.sort_unstable();
    }

    fn note(
        &mut self,
        now: Time,
        port: &Port,
        reason: DropReason,
        count: u64,
    ) -> Option<LogRecord> {
        // Networks reorder: that is counted, and no news.
        if count == 0 || reason == DropReason::Late {
            return None;
        }
        let key = (port.clone(), reason);
        match self.told.get_mut(&key) {
            Some(told) => {
                told.waiting = told.waiting.saturating_add(count);
                None
            }
            None => {
                let told = Told {
                    at: now,
                    waiting: 0,
                };
                self.told.insert(key, told);
                Some(line(port, reason, count))
            }
        }
    }

    /// What the log is to be told because a period is over.
    pub(super) fn tick(&mut self, now: Time) -> Vec<LogRecord> {
        let mut lines = Vec::new();
        self.told.retain(|(port, reason), told| {
            if now.since(told.at) < LOG_PERIOD {
                return true;
            }
            if told.waiting == 0 {
                return false;
            }
            lines.push(line(port, *reason, told.waiting));
            (told.at, told.waiting) = (now, 0);
            true
        });
        lines
    }

    /// When [`Self::tick`] is wanted.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.told.values().map(|told| told.at + LOG_PERIOD).min()
    }

    /// All ports that have counted anything since the start or [`Self::clear`].
    pub(super) fn show(&self) -> Vec<PortTraffic> {
        self.ports.values().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.ports.clear();
    }
}

fn line((port, link): &Port, reason: DropReason, count: u64) -> LogRecord {
    let at = if link.is_empty() {
        port.to_string()
    } else {
        format!("{port} {link}")
    };
    LogRecord {
        facility: "TRAFFIC".to_owned(),
        severity: 4,
        mnemonic: "RX_DROPS".to_owned(),
        text: format!("Port {at}: {count} dropped as {reason}."),
        service: None,
    }
}

#[cfg(test)]
mod tests {
    use model::{DropReason, PortKind, PortTraffic, Time};

    use super::{BOOKED_MAX, LOG_PERIOD, Traffic};

    fn report(link: &str, drops: &[(DropReason, u64)]) -> Vec<PortTraffic> {
        vec![PortTraffic {
            port: PortKind::Heartbeat,
            link: link.to_owned(),
            received: 1,
            sent: 2,
            drops: drops.to_vec(),
        }]
    }

    #[test]
    fn counts_add_up_until_they_are_cleared() {
        let mut traffic = Traffic::default();
        for drops in [
            vec![],
            vec![(DropReason::Replayed, 3)],
            vec![(DropReason::Malformed, 1)],
        ] {
            traffic.book(Time(0), report("ha0", &drops));
        }
        let shown = traffic.show();
        assert_eq!((shown[0].received, shown[0].sent), (3, 6));
        assert_eq!(
            shown[0].drops,
            [(DropReason::Malformed, 1), (DropReason::Replayed, 3)]
        );
        traffic.clear();
        assert_eq!(traffic.show(), []);
    }

    #[test]
    fn a_flood_is_one_line_a_minute_for_each_port_and_reason() {
        let mut traffic = Traffic::default();
        let mut lines = Vec::new();
        for ms in (0..180_000).step_by(10) {
            let now = Time::from_ms(ms);
            lines.extend(traffic.book(now, report("ha0", &[(DropReason::UnknownKey, 100)])));
            if traffic.next_deadline().is_some_and(|at| at <= now) {
                lines.extend(traffic.tick(now));
            }
        }
        let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "Port heartbeat ha0: 100 dropped as unknown_key.",
                "Port heartbeat ha0: 600000 dropped as unknown_key.",
                "Port heartbeat ha0: 600000 dropped as unknown_key.",
            ]
        );
        let over = Time::from_ms(180_000) + LOG_PERIOD;
        assert_eq!(traffic.tick(over).len(), 1);
        assert_eq!(traffic.tick(over + LOG_PERIOD).len(), 0);
        assert_eq!(traffic.next_deadline(), None);
    }

    #[test]
    fn ports_without_end_are_not_booked() {
        let mut traffic = Traffic::default();
        for link in 0..10_000 {
            traffic.book(
                Time(0),
                report(&link.to_string(), &[(DropReason::Malformed, 1)]),
            );
        }
        assert_eq!(traffic.show().len(), BOOKED_MAX);
        assert_eq!(traffic.told.len(), BOOKED_MAX);
    }
}
