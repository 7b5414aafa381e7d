//! Real-time scheduling: first packets wait for us, so we do not wait for ordinary work.

/// Priority among real-time threads: above all ordinary ones, below the gateways' heartbeats.
const PRIORITY: i32 = 2;

/// What threads and processes started from here on are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Children {
    /// Real-time as well: a worker is, from its first instruction.
    Inherit,
    /// Scheduled as all others.
    Ordinary,
}

/// True if the kernel grants it to this thread.
pub(crate) fn ask(children: Children) -> bool {
    let parameters = libc::sched_param {
        sched_priority: PRIORITY,
    };
    let policy = match children {
        Children::Inherit => libc::SCHED_FIFO,
        Children::Ordinary => libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
    };
    #[allow(unsafe_code, reason = "a system call that rustix does not wrap")]
    // SAFETY: the parameters outlive the call; 0 is this thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    result == 0
}
