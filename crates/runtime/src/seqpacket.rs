//! Framed messages over Unix sequenced packets: one packet is one frame.
//!
//! Invariants:
//! - a packet arrives whole or ends the connection: what does not fit a frame is an error;
//! - a listening socket is reachable by its owner only (mode 0600), and binding replaces a
//!   leftover socket file, never another kind of file;
//! - sending never blocks the caller's thread; [`Seqpacket::try_send`] tells when the peer does
//!   not read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::DropReason;
use rustix::fs::{AtFlags, CWD, FileType, Mode, chmodat, lstat, unlink};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, connect, listen, recv, send, socket_with, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use wire::{Channel, DecodeError};

use crate::descriptor::watch;

/// Kernel buffer asked for: room for a largest broker message beside smaller ones. The kernel
/// grants at most `net.core.wmem_max` (212,992 by default, counted twice).
const BUFFER_BYTES: usize = 1024 * 1024;
/// Connections waiting to be accepted: every service of a node at once.
const BACKLOG: i32 = 32;
/// Largest packet received: a broker message of 128 KiB with its header, and no more than fits
/// the kernel's buffer.
pub const PACKET_MAX_BYTES: usize = 192 * 1024;

/// Why no message came.
#[derive(Debug, Error)]
pub enum PacketError {
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// The packet is no frame of the expected channel.
    #[error("packet: {0}")]
    Malformed(#[from] DecodeError),
    /// The packet was longer than [`PACKET_MAX_BYTES`].
    #[error("packet longer than {PACKET_MAX_BYTES} bytes")]
    TooLong,
}

/// One connection.
#[derive(Debug)]
pub struct Seqpacket {
    fd: AsyncFd<OwnedFd>,
}

impl PacketError {
    /// Under which reason it is counted; `None` for a socket that failed.
    #[must_use]
    pub const fn reason(&self) -> Option<DropReason> {
        match self {
            Self::Socket(_) => None,
            Self::Malformed(error) => Some(error.reason()),
            Self::TooLong => Some(DropReason::Oversized),
        }
    }
}

impl Seqpacket {
    /// Takes over a connected socket, inherited or accepted.
    ///
    /// # Errors
    /// When it cannot be made non-blocking or watched. Must be called inside a runtime.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // The kernel caps both silently, and smaller buffers only mean earlier waiting.
        let _ = sockopt::set_socket_send_buffer_size(&fd, BUFFER_BYTES);
        let _ = sockopt::set_socket_recv_buffer_size(&fd, BUFFER_BYTES);
        Ok(Self { fd: watch(fd)? })
    }

    /// A connected pair: one end to keep, one to be inherited by a child.
    ///
    /// # Errors
    /// When the system has no more sockets. Must be called inside a runtime.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = raw_pair()?;
        Ok((Self::from_fd(ours)?, theirs))
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// When nobody listens there, or its queue is full (`WouldBlock`).
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = unix_socket()?;
        connect(&fd, &SocketAddrUnix::new(path)?)?;
        Self::from_fd(fd)
    }

    /// Sends one frame, waiting while the peer's buffer is full. Dropping the future sends
    /// nothing.
    ///
    /// # Errors
    /// When the peer has gone.
    pub async fn send<T: Serialize>(&self, channel: Channel, message: &T) -> io::Result<()> {
        let frame = wire::encode(channel, message);
        loop {
            let mut guard = self.fd.writable().await?;
            if let Ok(sent) = guard.try_io(|fd| send_packet(fd.as_fd(), &frame)) {
                return sent;
            }
        }
    }

    /// Sends one frame now.
    ///
    /// # Errors
    /// `WouldBlock` when the peer does not read, another error when it has gone.
    pub fn try_send<T: Serialize>(&self, channel: Channel, message: &T) -> io::Result<()> {
        send_packet(self.fd.get_ref().as_fd(), &wire::encode(channel, message))
    }

    /// The next frame, `None` when the peer has closed. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`PacketError`]; after a malformed packet the connection should be closed.
    pub async fn receive<T: DeserializeOwned>(
        &self,
        channel: Channel,
        buffer: &mut PacketBuffer,
    ) -> Result<Option<T>, PacketError> {
        loop {
            let mut guard = self.fd.readable().await.map_err(PacketError::Socket)?;
            if let Ok(received) = guard.try_io(|fd| receive_packet(fd.as_fd(), buffer)) {
                return decode(channel, buffer, received?);
            }
        }
    }

    /// The next frame if one is there: `None` means none now, `Some(None)` that the peer closed.
    ///
    /// # Errors
    /// [`PacketError`], as [`Self::receive`].
    pub fn try_receive<T: DeserializeOwned>(
        &self,
        channel: Channel,
        buffer: &mut PacketBuffer,
    ) -> Result<Option<Option<T>>, PacketError> {
        match receive_packet(self.fd.get_ref().as_fd(), buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            received => decode(channel, buffer, received?).map(Some),
        }
    }

    /// Process and user of the peer, as the kernel noted them at connect time. The process
    /// number is in our own PID namespace.
    ///
    /// # Errors
    /// When the kernel does not know.
    pub fn peer(&self) -> io::Result<PeerProcess> {
        let credentials = sockopt::socket_peercred(self.fd.get_ref())?;
        let pid = credentials.pid.as_raw_pid().unsigned_abs();
        Ok(PeerProcess {
            pid,
            uid: credentials.uid.as_raw(),
        })
    }
}

/// Who is at the other end of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProcess {
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
}

/// Receive buffer of one connection; reused, so that receiving allocates nothing.
#[derive(Debug)]
pub struct PacketBuffer(Box<[u8]>);

impl Default for PacketBuffer {
    fn default() -> Self {
        Self(vec![0; PACKET_MAX_BYTES].into_boxed_slice())
    }
}

/// A socket pair that no runtime watches yet; both ends close on exec.
///
/// # Errors
/// When the system has no more sockets.
pub fn raw_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

fn send_packet(fd: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    send(fd, frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// Length of the packet before cutting: `TRUNC` makes the kernel tell it.
fn receive_packet(fd: BorrowedFd<'_>, buffer: &mut PacketBuffer) -> io::Result<usize> {
    let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    match recv(fd, &mut *buffer.0, flags) {
        Ok((_, length)) => Ok(length),
        Err(Errno::CONNRESET) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

fn decode<T: DeserializeOwned>(
    channel: Channel,
    buffer: &PacketBuffer,
    length: usize,
) -> Result<Option<T>, PacketError> {
    if length == 0 {
        return Ok(None);
    }
    let packet = buffer.0.get(..length).ok_or(PacketError::TooLong)?;
    Ok(Some(wire::decode(channel, packet)?))
}

/// A listening socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct SeqpacketListener {
    fd: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl SeqpacketListener {
    /// Listens at `path`, replacing a leftover socket file.
    ///
    /// # Errors
    /// When the path is taken by something else than a socket, or cannot be bound.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match lstat(path) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => unlink(path)?,
            Ok(_) => return Err(Errno::EXIST.into()),
            Err(_) => {}
        }
        let fd = unix_socket()?;
        bind(&fd, &SocketAddrUnix::new(path)?)?;
        chmodat(CWD, path, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        listen(&fd, BACKLOG)?;
        Ok(Self {
            fd: watch(fd)?,
            path: path.to_owned(),
        })
    }

    /// The next connection. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the system refuses, for instance for want of file descriptors.
    pub async fn accept(&self) -> io::Result<Seqpacket> {
        loop {
            let mut guard = self.fd.readable().await?;
            let accepted =
                guard.try_io(|fd| accept_with(fd, SocketFlags::CLOEXEC).map_err(io::Error::from));
            if let Ok(fd) = accepted {
                return Seqpacket::from_fd(fd?);
            }
        }
    }
}

impl Drop for SeqpacketListener {
    fn drop(&mut self) {
        // It may have been replaced or removed already; then there is nothing to tidy.
        let _ = unlink(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use wire::Channel;

    use super::{PacketBuffer, PacketError, Seqpacket, SeqpacketListener, send_packet};
    use std::os::fd::AsFd;

    #[tokio::test]
    async fn messages_pass_whole_and_the_end_is_seen() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("mts.sock");
        let listener = SeqpacketListener::bind(&path).expect("a listener");
        let client = Seqpacket::connect(&path).expect("a connection");
        let server = listener.accept().await.expect("a peer");
        assert_eq!(server.peer().expect("credentials").pid, std::process::id());
        let mut buffer = PacketBuffer::default();
        let large = vec![7_u8; wire::broker::BODY_MAX_BYTES];
        client.send(Channel::Broker, &large).await.expect("sent");
        client.try_send(Channel::Broker, &vec![1_u8]).expect("sent");
        let first: Option<Vec<u8>> = server
            .receive(Channel::Broker, &mut buffer)
            .await
            .expect("received");
        assert_eq!(first, Some(large));
        let second: Option<Option<Vec<u8>>> = server
            .try_receive(Channel::Broker, &mut buffer)
            .expect("received");
        assert_eq!(second, Some(Some(vec![1])));
        let none: Option<Option<Vec<u8>>> = server
            .try_receive(Channel::Broker, &mut buffer)
            .expect("nothing");
        assert_eq!(none, None);
        drop(client);
        let end: Option<Vec<u8>> = server
            .receive(Channel::Broker, &mut buffer)
            .await
            .expect("the end");
        assert_eq!(end, None);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn rubbish_and_a_foreign_file_are_refused() {
        let (ours, theirs) = Seqpacket::pair().expect("a pair");
        send_packet(theirs.as_fd(), b"rubbish rubbish").expect("sent");
        let mut buffer = PacketBuffer::default();
        let received = ours.receive::<u32>(Channel::Broker, &mut buffer).await;
        assert!(matches!(received, Err(PacketError::Malformed(_))));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "precious").expect("a file");
        assert!(SeqpacketListener::bind(&path).is_err());
        assert_eq!(
            std::fs::read_to_string(&path).expect("still there"),
            "precious"
        );
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_noticed() {
        let (ours, _theirs) = Seqpacket::pair().expect("a pair");
        let message = vec![7_u8; 10_000];
        let sent = (0..10_000).take_while(|_| ours.try_send(Channel::Broker, &message).is_ok());
        assert!(sent.count() < 1_000);
    }
}
