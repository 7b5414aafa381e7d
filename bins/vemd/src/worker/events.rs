//! What wakes the worker: one epoll set for taps, reports and its timer.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use anyhow::Result;
use model::Time;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use vem::PortIndex;

/// Sources told of in one turn; the others follow in the next.
const READY_MAX: usize = 32;

const REPORTS: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// A source that has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// A packet waits in the tap of a port.
    Tap(PortIndex),
    /// The datapath reports.
    Reports,
    /// The core's deadline has passed.
    Timer,
}

/// The set.
pub(super) struct Sources {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed: Option<Time>,
}

impl AsRawFd for Sources {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

impl Sources {
    pub(super) fn open(taps: &[OwnedFd], reports: RawFd) -> Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let add = |fd: BorrowedFd<'_>, data: u64| {
            epoll::add(
                &set,
                fd,
                epoll::EventData::new_u64(data),
                epoll::EventFlags::IN,
            )
        };
        for (port, tap) in (0..).zip(taps) {
            add(tap.as_fd(), port)?;
        }
        #[allow(
            unsafe_code,
            reason = "the ring buffer lends its descriptor as a number only"
        )]
        // SAFETY: the ring buffer is open in the caller's hands during this call.
        add(unsafe { BorrowedFd::borrow_raw(reports) }, REPORTS)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        add(timer.as_fd(), TIMER)?;
        Ok(Self {
            epoll: set,
            timer,
            armed: None,
        })
    }

    /// What is ready now.
    pub(super) fn wait(&self) -> Result<Vec<Ready>> {
        let mut events = Vec::with_capacity(READY_MAX);
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&at_once))?;
        let ready = |event: &epoll::Event| match event.data.u64() {
            REPORTS => Ready::Reports,
            TIMER => Ready::Timer,
            port => Ready::Tap(PortIndex(port as u16)),
        };
        let ready: Vec<_> = events.iter().map(ready).collect();
        if ready.contains(&Ready::Timer) {
            let mut number = [0; 8];
            // Not readable if it has been set anew meanwhile: no matter.
            let _ = rustix::io::read(&self.timer, &mut number);
        }
        Ok(ready)
    }

    /// Wakes the worker at `deadline`.
    pub(super) fn set_timer(&mut self, deadline: Option<Time>) -> Result<()> {
        if self.armed == deadline && deadline.is_none_or(|at| at > runtime::clock::now()) {
            return Ok(());
        }
        self.armed = deadline;
        // Zero would disarm; a deadline in the past fires at once.
        let at = deadline.map_or(0, |at| at.0.max(1));
        let it_value = Timespec {
            tv_sec: (at / 1_000_000_000) as i64,
            tv_nsec: (at % 1_000_000_000) as i64,
        };
        let it_interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec {
                it_interval,
                it_value,
            },
        )?;
        Ok(())
    }
}
