//! Watching a file descriptor from the event loop.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers `fd` with the running event loop.
#[allow(
    unsafe_code,
    reason = "registration needs a promise about the descriptor's lifetime"
)]
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names one open descriptor until it is dropped, and the `AsyncFd` owns
    // it: it is deregistered before it is closed, and nobody can exchange it in between.
    let watched = unsafe { AsyncFd::register(fd) };
    Ok(watched?)
}
