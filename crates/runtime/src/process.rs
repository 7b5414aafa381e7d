//! Child processes: started with an inherited socket, watched by pidfd, dead with their parent.
//!
//! Invariants:
//! - a child gains no privileges and gets SIGKILL when the thread that started it dies;
//! - of the parent's descriptors a child inherits its standard streams and the one socket named;
//! - the end of a child is known from its pidfd, so no signal handler and no polling is needed
//!   and a reused process number is never mistaken for it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use tokio::io::unix::AsyncFd;

use crate::descriptor::watch;

/// Environment variable that tells a child the number of its inherited socket.
pub const INHERITED_SOCKET: &str = "TWINWALL_SUPERVISION_FD";

/// Our own program, to be started again in another part. Works also if the file was replaced.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// What to start.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Shown as the process's name; the program is always our own.
    pub name: &'a str,
    /// Arguments after the name.
    pub arguments: Vec<&'a OsStr>,
    /// Further environment.
    pub environment: Vec<(&'a str, String)>,
    /// The socket to inherit.
    pub socket: BorrowedFd<'a>,
    /// Make the child the first process of a new PID namespace: when it dies, the kernel kills
    /// all that it has started.
    pub new_pid_namespace: bool,
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    pidfd: OwnedFd,
    pid: u32,
    // Kept for nothing but its standard streams and number; it is reaped through the pidfd.
    _child: Child,
}

impl Spawn<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// When the system refuses: too many processes, or no right to make a PID namespace.
    pub fn start(&self) -> io::Result<Process> {
        if self.new_pid_namespace {
            children_in_new_pid_namespace()?;
        }
        let socket = self.socket.as_raw_fd();
        let mut command = Command::new(OWN_PROGRAM);
        command
            .arg0(self.name)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(INHERITED_SOCKET, socket.to_string())
            .stdin(Stdio::null());
        prepare(&mut command, socket, rustix::process::getpid());
        let child = command.spawn()?;
        let raw = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = raw.ok_or_else(|| io::Error::other("process number out of range"))?;
        // The child is not reaped yet, so its number is still its own.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let pid = child.id();
        Ok(Process {
            pidfd,
            pid,
            _child: child,
        })
    }
}

/// Sets what must hold in the child before its program starts.
#[allow(unsafe_code, reason = "code between fork and exec")]
fn prepare(command: &mut Command, socket: i32, parent: Pid) {
    let prepare_child = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above: then nobody would ever end us. In a
        // new PID namespace the parent is not visible and shows as none.
        if rustix::process::getppid().is_some_and(|now| now != parent) {
            return Err(io::Error::other("parent died"));
        }
        rustix::thread::set_no_new_privs(true)?;
        // SAFETY: the number was taken from a `BorrowedFd` that outlives the call of `spawn`.
        let inherited = unsafe { BorrowedFd::borrow_raw(socket) };
        rustix::io::fcntl_setfd(inherited, rustix::io::FdFlags::empty())?;
        Ok(())
    };
    // SAFETY: the closure makes plain system calls only; it neither allocates (the error built
    // when the parent has died is of a child that is about to end) nor takes locks.
    unsafe { command.pre_exec(prepare_child) };
}

/// The next child becomes the first process of a new PID namespace.
#[allow(
    unsafe_code,
    reason = "the system call is unsafe for flags that we do not use"
)]
fn children_in_new_pid_namespace() -> io::Result<()> {
    // A namespace whose first process has died takes no more children, and a second one can be
    // made only from our own: go back to it first.
    let own = std::fs::File::open("/proc/self/ns/pid")?;
    rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    // SAFETY: only `CLONE_NEWPID` is asked for, which changes nothing about this process; the
    // dangers of the call are those of un-sharing memory, files and signal handlers.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID)? };
    Ok(())
}

impl Process {
    /// Its number in our own PID namespace.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Its number as the mounted `/proc` counts, which is what an operator sees: the host's,
    /// even when we ourselves live in a PID namespace.
    #[must_use]
    pub fn host_pid(&self) -> Option<u32> {
        let path = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
        let info = std::fs::read_to_string(path).ok()?;
        let number = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        number.trim().parse().ok().filter(|number| *number > 0)
    }

    /// Sends it a signal; a process that has ended is not an error.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Kills it at once.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// The pidfd: readable when the process has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How it ended, if it has; reaps it.
    ///
    /// # Errors
    /// When it has been reaped before.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options)?;
        Ok(status.map(|status| {
            // The encoding of `wait` (wait(2)): exit code in the second byte, signal in the first.
            let raw = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => (code & 0xff) << 8,
                (None, Some(signal)) => signal & 0x7f,
                (None, None) => 0,
            };
            ExitStatus::from_raw(raw)
        }))
    }

    /// Something to await its end with, while the process itself stays usable.
    ///
    /// # Errors
    /// When the descriptor cannot be watched. Must be called inside a runtime.
    pub fn exit_notice(&self) -> io::Result<ExitNotice> {
        Ok(ExitNotice(watch(self.pidfd.try_clone()?)?))
    }
}

/// Becomes ready when a process has ended.
#[derive(Debug)]
pub struct ExitNotice(AsyncFd<OwnedFd>);

impl ExitNotice {
    /// Completes when the process has ended; it must then be reaped by [`Process::try_wait`].
    pub async fn ended(&self) {
        // An error would mean that the event loop is shutting down.
        let _ = self.0.readable().await;
    }
}

/// Why there is no inherited socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "started by hand: {INHERITED_SOCKET} names no open socket (this verb is started by the node)"
)]
pub struct NoInheritedSocket;

/// The socket that [`Spawn::socket`] passed to this process. Call it once.
///
/// # Errors
/// [`NoInheritedSocket`] when this process was not started that way.
#[allow(unsafe_code, reason = "a descriptor known by its number")]
pub fn inherited_socket() -> Result<OwnedFd, NoInheritedSocket> {
    use std::os::fd::FromRawFd;
    let number: i32 = std::env::var(INHERITED_SOCKET)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|number| *number > 2)
        .ok_or(NoInheritedSocket)?;
    // SAFETY: `fcntl` on a number that may not be open only yields an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::net::sockopt::socket_type(borrowed).map_err(|_| NoInheritedSocket)?;
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)
        .map_err(|_| NoInheritedSocket)?;
    // SAFETY: the descriptor is open (checked above), was put there for us by our parent, and
    // this function is the only one that takes it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// What the heartbeat's deadline and the locking of memory need, as far as the system grants it.
///
/// # Errors
/// In words for the operator: which right is missing.
#[allow(unsafe_code, reason = "no safe wrapper of sched_setscheduler")]
pub fn become_real_time(priority: i32) -> Result<(), String> {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread, and the parameter lives through the call.
    let refused = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) } != 0;
    if refused {
        let error = io::Error::last_os_error();
        return Err(format!("real-time scheduling refused: {error}"));
    }
    Ok(())
}

/// Keeps all memory of this process from being paged out.
///
/// # Errors
/// In words for the operator.
pub fn lock_memory() -> Result<(), String> {
    use rustix::mm::MlockAllFlags;
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
        .map_err(|errno| format!("locking memory refused: {errno}"))
}

#[cfg(test)]
mod tests;
