//! The traffic of a soak: hours of it, in segments, because each look at a run reads all its
//! records.

use std::time::Duration;

use anyhow::Result;

use crate::lab::Lab;
use crate::traffic::Window;
use crate::{clock, wait};

/// Length of a segment, in seconds: a look reads 100 KB for each second of it.
const SEGMENT_SECONDS: u64 = 240;
/// A segment in which no window begins after so many of its seconds: a round takes less than the
/// rest.
const USED_SECONDS: u64 = 180;
/// Longest wait for the first clean second.
const CLEAN_LIMIT: Duration = Duration::from_secs(30);
/// One second.
const NS_PER_S: u64 = 1_000_000_000;

/// Running traffic.
#[derive(Debug)]
pub struct Load<'lab> {
    lab: &'lab Lab,
    rate: u64,
    started_ns: u64,
    clean_ns: u64,
}

impl<'lab> Load<'lab> {
    /// Starts the first segment, `rate` new connections a second, and waits until it is clean.
    ///
    /// # Errors
    /// When there is no clean second within a bound.
    pub fn start(lab: &'lab Lab, rate: u64) -> Result<Self> {
        let mut load = Self {
            lab,
            rate,
            started_ns: 0,
            clean_ns: 0,
        };
        load.begin()?;
        Ok(load)
    }

    /// Starts the next segment when this one has been used; all windows of this one must have been
    /// looked at.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn refresh(&mut self) -> Result<()> {
        if !self.is_used() {
            return Ok(());
        }
        self.lab.stop_traffic()?;
        self.begin()
    }

    /// Whether it is time for the next segment.
    #[must_use]
    pub fn is_used(&self) -> bool {
        clock::now_ns() > self.started_ns + USED_SECONDS * NS_PER_S
    }

    /// What the traffic met since its segment began.
    ///
    /// # Errors
    /// What `vsg-lab traffic report` says.
    pub fn so_far(&self) -> Result<Window> {
        self.lab.settled_traffic(self.clean_ns, clock::now_ns())
    }

    /// Ends the traffic.
    ///
    /// # Errors
    /// What `vsg-lab traffic stop` says.
    pub fn stop(self) -> Result<()> {
        self.lab.stop_traffic().map(drop)
    }

    fn begin(&mut self) -> Result<()> {
        self.started_ns = clock::now_ns();
        self.lab.start_traffic_with(
            SEGMENT_SECONDS,
            &["--no-witness", "--rate", &self.rate.to_string()],
        )?;
        wait::until("a clean second of traffic", CLEAN_LIMIT, || {
            let now_ns = clock::now_ns();
            let window = self.lab.traffic(now_ns - NS_PER_S, now_ns)?;
            Ok(is_clean(&window).then_some(()))
        })?;
        self.clean_ns = clock::now_ns();
        Ok(())
    }
}

fn is_clean(window: &Window) -> bool {
    let broken = window.connections_failed + window.udp_lost + window.syn_retransmitted;
    window.tcp_alive && window.connections > 0 && window.forbidden_attempts > 0 && broken == 0
}
