//! Counters of a port, shared by the tasks and threads that serve it.
//!
//! Invariant: counting neither allocates nor locks, so that the heartbeat thread may do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{DropReason, PortKind, PortTraffic};

#[derive(Debug)]
struct Counts {
    port: PortKind,
    link: String,
    received: AtomicU64,
    sent: AtomicU64,
    drops: [AtomicU64; DropReason::COUNT],
}

/// One port's counters; clones count into the same.
#[derive(Clone, Debug)]
pub struct PortCounters(Arc<Counts>);

impl PortCounters {
    /// Counters at zero; `link` is empty where there is one port of this kind.
    #[must_use]
    pub fn new(port: PortKind, link: &str) -> Self {
        Self(Arc::new(Counts {
            port,
            link: link.to_owned(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            drops: core::array::from_fn(|_| AtomicU64::new(0)),
        }))
    }

    /// A message was taken.
    pub fn received(&self) {
        self.0.received.fetch_add(1, Ordering::Relaxed);
    }

    /// A message was sent.
    pub fn sent(&self) {
        self.0.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Something was not taken.
    pub fn dropped(&self, reason: DropReason) {
        self.0.drops[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted since the last call; `None` when nothing was.
    #[must_use]
    pub fn take(&self) -> Option<PortTraffic> {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let (received, sent) = (take(&self.0.received), take(&self.0.sent));
        let drops: Vec<_> = DropReason::ALL
            .into_iter()
            .map(|reason| (reason, take(&self.0.drops[reason.index()])))
            .filter(|(_, count)| *count > 0)
            .collect();
        (received > 0 || sent > 0 || !drops.is_empty()).then(|| PortTraffic {
            port: self.0.port,
            link: self.0.link.clone(),
            received,
            sent,
            drops,
        })
    }
}

/// What all of `ports` have counted since the last call.
#[must_use]
pub fn take_all(ports: &[PortCounters]) -> Vec<PortTraffic> {
    ports.iter().filter_map(PortCounters::take).collect()
}

#[cfg(test)]
mod tests {
    use model::{DropReason, PortKind};

    use super::PortCounters;

    #[test]
    fn what_was_counted_is_taken_once() {
        let port = PortCounters::new(PortKind::Bulk, "ha0");
        assert_eq!(port.take(), None);
        let clone = port.clone();
        clone.received();
        clone.sent();
        clone.sent();
        clone.dropped(DropReason::Late);
        let taken = port.take().expect("something was counted");
        assert_eq!((taken.received, taken.sent), (1, 2));
        assert_eq!(taken.drops, [(DropReason::Late, 1)]);
        assert_eq!(port.take(), None);
    }
}
