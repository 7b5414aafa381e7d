//! A port's tap: where undecided packets come out of the kernel and go back into it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};

/// Packets that wait in the kernel for vemd to read them, per port: 2 s of 500 new connections a
/// second while a worker restarts. Above it the kernel drops, and counts at the tap.
const QUEUE_PACKETS: libc::c_int = 1024;

/// `struct virtio_net_hdr`: what stands before each packet.
pub(crate) const VNET_HEADER_BYTES: usize = 10;

const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO_ECN: libc::c_uint = 0x08;
/// Since Linux 6.2; both or none.
const TUN_F_USO: libc::c_uint = 0x20 | 0x40;

/// Name of the tap of a port: its interface names may be 15 bytes long themselves.
pub(crate) fn name(port_ifindex: u32) -> String {
    format!("vt{port_ifindex}")
}

/// Creates or finds the persistent tap `name`, and sets it up. The descriptor is inherited by
/// children.
pub(crate) fn open(name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK;
    let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).context("/dev/net/tun")?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    ioctl_request(&tap, libc::TUNSETIFF, &mut request).with_context(|| format!("tap {name}"))?;
    ioctl_number(&tap, libc::TUNSETPERSIST, 1)?;
    let offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN;
    // TSO4 with the tunnel of UDP segments, where the kernel knows it.
    ioctl_number(&tap, libc::TUNSETOFFLOAD, offloads | TUN_F_USO)
        .or_else(|_| ioctl_number(&tap, libc::TUNSETOFFLOAD, offloads))
        .context("TUNSETOFFLOAD")?;
    bring_up(name).with_context(|| format!("tap {name}"))?;
    Ok(tap)
}

/// Removes the persistent tap that `tap` is attached to, once it is closed.
pub(crate) fn remove(tap: &OwnedFd) -> io::Result<()> {
    ioctl_number(tap, libc::TUNSETPERSIST, 0)
}

fn bring_up(name: &str) -> Result<()> {
    // Otherwise the kernel announces itself with IPv6 on it.
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if let Ok(mut file) = File::options().write(true).open(ipv6) {
        io::Write::write_all(&mut file, b"1").context("disable_ipv6")?;
    }
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    let mut length = request(name)?;
    length.ifr_ifru.ifru_metric = QUEUE_PACKETS;
    ioctl_request(&socket, libc::SIOCSIFTXQLEN, &mut length).context("SIOCSIFTXQLEN")?;
    let mut up = request(name)?;
    up.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    ioctl_request(&socket, libc::SIOCSIFFLAGS, &mut up).context("SIOCSIFFLAGS")
}

fn request(name: &str) -> Result<libc::ifreq> {
    #[allow(unsafe_code, reason = "the C structure has no constructor")]
    // SAFETY: integers, arrays and a union of them: zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    anyhow::ensure!(
        name.len() < request.ifr_name.len(),
        "interface name {name} is too long"
    );
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn ioctl_request(fd: &OwnedFd, operation: libc::Ioctl, request: &mut libc::ifreq) -> Result<()> {
    #[allow(unsafe_code, reason = "an ioctl that rustix does not wrap")]
    // SAFETY: these operations read and write one `ifreq`, which outlives the call.
    let result = unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            operation,
            std::ptr::from_mut(request),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error().into())
    } else {
        Ok(())
    }
}

fn ioctl_number(fd: &OwnedFd, operation: libc::Ioctl, number: libc::c_uint) -> io::Result<()> {
    #[allow(unsafe_code, reason = "an ioctl that rustix does not wrap")]
    // SAFETY: these operations take their argument by value.
    let result = unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            operation,
            libc::c_ulong::from(number),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
