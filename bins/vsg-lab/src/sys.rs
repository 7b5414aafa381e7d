//! The system calls that no safe interface offers: kernel time stamps,
//! TCP_INFO, real-time scheduling and a shared mapping.
//!
//! The only module of the lab with unsafe code.

#![allow(
    unsafe_code,
    reason = "each call is a syscall or mapping without a safe interface"
)]

use crate::clock::{NS_PER_S, now_ns, wall_ns};
use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::AtomicU64;

/// A kernel time stamp older than this is not believed: the wall clock was
/// stepped between the stamp and its reading.
const STAMP_AGE_MAX_NS: u64 = 10 * NS_PER_S;

fn set_int(socket: &impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open (it is borrowed), and the option's value
    // is an int of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes the kernel stamp what this socket receives.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn enable_stamps(socket: &impl AsFd) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// Room for one control message with one time stamp, aligned as `cmsghdr`.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Receives into `buffer`; gives the length and when the kernel got it,
/// monotonic ns. Without a stamp that is when it was read.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` when there is nothing.
pub(crate) fn receive_stamped(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, u64)> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all-zero is a valid msghdr: null pointers and zero lengths.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Control>();
    // SAFETY: `header` points to one iovec over `buffer` and to `control`,
    // all alive and exclusively borrowed during the call.
    let length = unsafe {
        libc::recvmsg(
            socket.as_fd().as_raw_fd(),
            &raw mut header,
            libc::MSG_DONTWAIT,
        )
    };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let (wall, now) = (wall_ns(), now_ns());
    let age = stamp_of(&header)
        .map(|stamp| wall.saturating_sub(stamp))
        .filter(|age| *age <= STAMP_AGE_MAX_NS)
        .unwrap_or(0);
    Ok((length as usize, now.saturating_sub(age)))
}

fn stamp_of(header: &libc::msghdr) -> Option<u64> {
    // SAFETY: the header was filled by a successful recvmsg, so its control
    // area is valid for CMSG_FIRSTHDR/CMSG_NXTHDR, which stay inside it.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_SOCKET
                && (*message).cmsg_type == libc::SCM_TIMESTAMPNS
            {
                let time: libc::timespec =
                    std::ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                return Some(time.tv_sec as u64 * NS_PER_S + time.tv_nsec as u64);
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

/// How many segments, SYNs included, this TCP socket has sent again
/// (`tcpi_total_retrans`).
///
/// # Errors
/// When it is no TCP socket.
pub(crate) fn total_retransmits(socket: &impl AsFd) -> io::Result<u32> {
    // SAFETY: all-zero is a valid tcp_info: integers only.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open, `info` has room for `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(info.tcpi_total_retrans)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Real-time priority of what measures: above the gateways' services and System Managers, which
/// share the lab's processors with it but would not share a VM's, and below their heartbeats.
const MEASURING_PRIORITY: i32 = 20;

/// Asks for [`MEASURING_PRIORITY`] for the calling thread.
///
/// # Errors
/// When the system refuses; measuring then goes on, less exactly.
pub(crate) fn ask_real_time() -> io::Result<()> {
    // SAFETY: all-zero is a valid sched_param, and 0 is the calling thread.
    let result = unsafe {
        let mut parameters: libc::sched_param = zeroed();
        parameters.sched_priority = MEASURING_PRIORITY;
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A file of words, shared between the process that writes it and those that
/// read it. Every access is atomic, so a concurrent change is never undefined.
#[derive(Debug)]
pub(crate) struct SharedWords {
    mapping: memmap2::MmapRaw,
}

impl SharedWords {
    /// Maps the whole file, which must be open for reading and writing and
    /// must not be shortened while it is mapped.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        Ok(Self {
            mapping: memmap2::MmapRaw::map_raw(file)?,
        })
    }

    /// The words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let length = self.mapping.len() / size_of::<u64>();
        // SAFETY: the mapping is page-aligned, lives as long as `self`, is
        // readable and writable over `length` words, and is only ever reached
        // as atomics.
        unsafe { std::slice::from_raw_parts(self.mapping.as_mut_ptr().cast(), length) }
    }
}
