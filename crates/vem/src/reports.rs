//! What the active is told of flows: batched, bounded, counted when lost.
//!
//! Invariant: at most [`QUEUED_MAX`] reports wait.

use std::collections::VecDeque;

use core::time::Duration;
use model::Time;
use wire::vem::{BATCH_MAX, FlowReport, FromVem};

/// Reports kept while nobody can be told: about two seconds at 2,000 flows a second. Above it the
/// new ones are dropped and counted; the next message says how many.
pub(crate) const QUEUED_MAX: usize = 4096;

/// A batch waits at most this long to fill up. Reports only feed displays and idle cleaning.
pub(crate) const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    queue: VecDeque<FlowReport>,
    lost: u64,
    flush_at: Option<Time>,
}

impl Reports {
    pub(crate) fn push(&mut self, now: Time, report: FlowReport) {
        if self.queue.len() == QUEUED_MAX {
            self.lost += 1;
            return;
        }
        self.queue.push_back(report);
        self.flush_at.get_or_insert(now + FLUSH_AFTER);
    }

    /// The next message, if a batch is full or has waited long enough.
    pub(crate) fn take(&mut self, now: Time) -> Option<FromVem> {
        let due = self.flush_at.is_some_and(|at| at <= now) || self.queue.len() >= BATCH_MAX;
        if !due {
            return None;
        }
        let flows: Vec<_> = self
            .queue
            .drain(..self.queue.len().min(BATCH_MAX))
            .collect();
        let lost = core::mem::take(&mut self.lost);
        self.flush_at = (!self.queue.is_empty()).then_some(now);
        Some(FromVem::Report { flows, lost })
    }

    pub(crate) const fn next_deadline(&self) -> Option<Time> {
        self.flush_at
    }

    pub(crate) fn check(&self) {
        assert!(self.queue.len() <= QUEUED_MAX, "too many reports wait");
        assert_eq!(
            self.queue.is_empty(),
            self.flush_at.is_none(),
            "reports without a deadline"
        );
    }
}

#[cfg(test)]
mod tests {
    use model::{FlowKey, Protocol};
    use wire::vem::FlowEvent;

    use super::*;

    fn report(n: u16) -> FlowReport {
        let ip = [10, 0, 0, 1].into();
        let flow = FlowKey {
            src_ip: ip,
            dst_ip: ip,
            src_port: n,
            dst_port: 80,
            protocol: Protocol::TCP,
        };
        FlowReport {
            port: "web".into(),
            flow,
            event: FlowEvent::Closed,
            packets: 1,
            bytes: 1,
        }
    }

    #[test]
    fn waits_for_its_time_or_for_a_full_batch() {
        let mut reports = Reports::default();
        let start = Time::from_ms(1);
        reports.push(start, report(0));
        assert_eq!(reports.take(start), None);
        assert!(reports.take(start + FLUSH_AFTER).is_some());
        (0..BATCH_MAX as u16).for_each(|n| reports.push(start, report(n)));
        assert!(reports.take(start).is_some());
        reports.check();
    }

    #[test]
    fn drops_the_new_when_full_and_says_so() {
        let mut reports = Reports::default();
        (0..QUEUED_MAX + 3).for_each(|n| reports.push(Time(0), report(n as u16)));
        reports.check();
        let Some(FromVem::Report { flows, lost }) = reports.take(Time(0)) else {
            panic!("a full batch is due");
        };
        assert_eq!(
            (flows.len(), lost, flows[0].flow.src_port),
            (BATCH_MAX, 3, 0)
        );
        let Some(FromVem::Report { lost, .. }) = reports.take(Time(0)) else {
            panic!("the rest is due");
        };
        assert_eq!(lost, 0);
    }
}
