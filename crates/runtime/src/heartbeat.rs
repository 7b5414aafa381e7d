//! The heartbeat thread: a [`HeartbeatPath`] driven over UDP sockets, below everything else.
//!
//! Invariants:
//! - the loop waits for its sockets, its commands and its deadline, and for nothing else: no
//!   disk, no log, no lock, no allocation in its steady path;
//! - commands reach it and events leave it through bounded queues of preallocated slots; a full
//!   event queue (the main loop is stuck) drops events and counts them, a full command queue
//!   (this thread is stuck) is an error to the main loop;
//! - a datagram is parsed only after the envelope has verified it;
//! - a gasp is acknowledged here, at once.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

use model::{DropReason, LinkId, PortKind, Time};
use redundancy::HeartbeatPath;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use wire::Channel;
use wire::heartbeat::{Content, DATAGRAM_MAX_BYTES, Datagram, Gasp};
use wire::supervision::HeartbeatStatus;

use crate::clock;
use crate::descriptor::watch;
use crate::envelope::{Envelope, ExportedKeys, OVERHEAD_BYTES, Refused};
use crate::process::{become_real_time, lock_memory};
use crate::traffic::PortCounters;

/// Commands waiting for the thread, which takes them within a scheduling delay. A turn of the main
/// loop makes a handful.
const COMMANDS_MAX: usize = 256;
/// Events waiting for the main loop: more than half a second of the fastest profile on four
/// links. What comes then is dropped: the main loop is stuck, and the beats stop too.
const EVENTS_MAX: usize = 256;
/// Datagrams read from one socket before the next thing is looked at, so that a flood on one link
/// delays neither the other link nor our own beats.
const RECEIVE_BURST: usize = 32;
/// Static priority among real-time threads: above the main loop, below the kernel's own.
const PRIORITY: i32 = 50;
/// Longest wait: what bounds the effect of a lost wake-up.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// One HA link.
#[derive(Clone, Debug)]
pub struct HeartbeatLink {
    /// Its name in the configuration file.
    pub name: String,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
}

/// Why the heartbeat cannot be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// A link's address cannot be used.
    #[error("HA link {name}: cannot bind {local}: {source}")]
    Bind {
        /// The link.
        name: String,
        /// Our address on it.
        local: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no resources for it.
    #[error("heartbeat thread: {0}")]
    System(#[from] io::Error),
}

/// The thread is stuck or dead: this node must not go on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the heartbeat thread does not answer")]
pub struct ThreadStuck;

/// What the main loop tells the thread.
#[allow(
    clippy::large_enum_variant,
    reason = "a box would be freed in the heartbeat thread"
)]
#[derive(Debug)]
enum Command {
    Install {
        exported: ExportedKeys,
        server: bool,
    },
    Activate {
        key: u64,
    },
    Forget,
    Content(Content),
    Timing {
        interval_ms: u32,
        misses: u8,
    },
    Gasp(Gasp),
    SealGasp(Option<Gasp>),
    Status {
        question: u64,
    },
}

/// A gasp for the guardian to send if everything else is dead.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedGasp {
    bytes: [u8; SEALED_GASP_MAX_BYTES],
    length: usize,
}

/// Room for a sealed gasp: an epoch and an incarnation take at most 65 bytes.
const SEALED_GASP_MAX_BYTES: usize = 192;

impl SealedGasp {
    /// The datagram.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl std::fmt::Debug for SealedGasp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedGasp({} bytes)", self.length)
    }
}

/// What the thread tells the main loop.
#[allow(
    clippy::large_enum_variant,
    reason = "a box would be allocated in the heartbeat thread"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeartbeatEvent {
    /// A verified, new heartbeat.
    Heartbeat {
        /// Where it arrived.
        link: LinkId,
        /// What the peer says.
        content: Content,
        /// The peer's interval times its misses.
        peer_hold_time: Duration,
        /// When the newest of our beats that the peer had received was sent.
        echo: Time,
    },
    /// The peer gasped; it has been told that we heard.
    Gasp(Gasp),
    /// The peer heard our gasp.
    GaspHeard(Gasp),
    /// The guardian's gasp is now this one.
    Sealed(Option<SealedGasp>),
    /// Answers [`Heartbeats::ask_status`].
    Status {
        /// The question's number.
        question: u64,
        /// The answer.
        status: Box<HeartbeatStatus>,
    },
}

/// The main loop's handle. Dropping it ends the thread.
#[derive(Debug)]
pub struct Heartbeats {
    commands: SyncSender<Command>,
    wake: Arc<OwnedFd>,
    turned: Arc<AtomicU64>,
    events: Receiver<HeartbeatEvent>,
    notice: AsyncFd<OwnedFd>,
    real_time: Result<(), String>,
    addresses: Vec<SocketAddr>,
    ports: Vec<PortCounters>,
}

impl Heartbeats {
    /// Binds the links and starts the thread. Must be called inside a runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(links: Vec<HeartbeatLink>) -> Result<Self, StartError> {
        let mut sockets = Vec::with_capacity(links.len());
        for link in &links {
            let bound = UdpSocket::bind(link.local).and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            sockets.push(bound.map_err(|source| StartError::Bind {
                name: link.name.clone(),
                local: link.local,
                source,
            })?);
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(io::Error::from)?);
        let notice = eventfd(0, flags).map_err(io::Error::from)?;
        let (commands, from_main) = sync_channel(COMMANDS_MAX);
        let (to_main, events) = sync_channel(EVENTS_MAX);
        let turned = Arc::new(AtomicU64::new(clock::now().0));
        let addresses = links.iter().map(|link| link.local).collect();
        let ports: Vec<_> = links
            .iter()
            .map(|link| PortCounters::new(PortKind::Heartbeat, &link.name))
            .collect();
        let mut beating = Beating {
            path: HeartbeatPath::new(clock::now(), links.len() as u8),
            envelope: Envelope::default(),
            gasp_to_seal: None,
            sealed_under: None,
            sockets,
            links,
            ports: ports.clone(),
            commands: from_main,
            wake: Arc::clone(&wake),
            turned: Arc::clone(&turned),
            events: to_main,
            notice: notice.try_clone()?,
            real_time: Ok(()),
        };
        let (started, ready) = sync_channel(1);
        std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || {
                beating.real_time = become_real_time(PRIORITY).and_then(|()| lock_memory());
                // The receiver waits for exactly this message.
                let _ = started.send(beating.real_time.clone());
                beating.run();
            })?;
        let real_time = ready
            .recv()
            .map_err(|_| io::Error::other("it ended at once"))?;
        Ok(Self {
            commands,
            wake,
            turned,
            events,
            notice: watch(notice)?,
            real_time,
            addresses,
            ports,
        })
    }

    /// What came in on the links, and what was not taken.
    #[must_use]
    pub fn ports(&self) -> &[PortCounters] {
        &self.ports
    }

    /// Whether the thread got real-time scheduling and locked memory, or why not.
    pub const fn real_time(&self) -> &Result<(), String> {
        &self.real_time
    }

    /// Our address on a link.
    ///
    /// # Panics
    /// When there is no such link.
    #[must_use]
    pub fn link_address(&self, link: LinkId) -> SocketAddr {
        self.addresses[usize::from(link.0)]
    }

    /// The main loop has finished a turn. At the end of every turn, and at least every interval.
    pub fn turned(&self, now: Time) {
        self.turned.store(now.0, Ordering::Release);
    }

    /// The next event. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ThreadStuck`] when the thread has ended.
    pub async fn next_event(&mut self) -> Result<HeartbeatEvent, ThreadStuck> {
        loop {
            match self.events.try_recv() {
                Ok(event) => return Ok(event),
                Err(TryRecvError::Disconnected) => return Err(ThreadStuck),
                Err(TryRecvError::Empty) => {}
            }
            let mut guard = self.notice.readable().await.map_err(|_| ThreadStuck)?;
            drain(self.notice.get_ref());
            // An event put in between is found by the next look at the queue.
            guard.clear_ready();
            match self.events.try_recv() {
                Ok(event) => return Ok(event),
                Err(TryRecvError::Disconnected) => return Err(ThreadStuck),
                Err(TryRecvError::Empty) => {}
            }
        }
    }

    /// Keys of a new control connection: received under from now on.
    ///
    /// # Errors
    /// [`ThreadStuck`], as for all commands.
    pub fn install_keys(&self, exported: ExportedKeys, server: bool) -> Result<(), ThreadStuck> {
        self.command(Command::Install { exported, server })
    }

    /// The server's side: the client has spoken on that connection, so it has these keys.
    ///
    /// # Errors
    /// [`ThreadStuck`].
    pub fn activate_keys(&self, key: u64) -> Result<(), ThreadStuck> {
        self.command(Command::Activate { key })
    }

    /// Forgets every key: the peer is not trusted any more.
    ///
    /// # Errors
    /// [`ThreadStuck`].
    pub fn forget_keys(&self) -> Result<(), ThreadStuck> {
        self.command(Command::Forget)
    }

    /// What beats say from now on.
    ///
    /// # Errors
    /// [`ThreadStuck`].
    pub fn set_content(&self, content: Content) -> Result<(), ThreadStuck> {
        self.command(Command::Content(content))
    }

    /// Our timing from now on.
    ///
    /// # Errors
    /// [`ThreadStuck`].
    pub fn set_timing(&self, interval_ms: u32, misses: u8) -> Result<(), ThreadStuck> {
        self.command(Command::Timing {
            interval_ms,
            misses,
        })
    }

    /// Gasps until heard.
    ///
    /// # Errors
    /// [`ThreadStuck`].
    pub fn gasp(&self, gasp: Gasp) -> Result<(), ThreadStuck> {
        self.command(Command::Gasp(gasp))
    }

    /// Keeps a gasp sealed for the guardian; [`HeartbeatEvent::Sealed`] follows now and whenever
    /// the key changes.
    ///
    /// # Errors
    /// [`ThreadStuck`].
    pub fn seal_gasp(&self, gasp: Option<Gasp>) -> Result<(), ThreadStuck> {
        self.command(Command::SealGasp(gasp))
    }

    /// Asks for the figures of `show redundancy heartbeat`.
    ///
    /// # Errors
    /// [`ThreadStuck`].
    pub fn ask_status(&self, question: u64) -> Result<(), ThreadStuck> {
        self.command(Command::Status { question })
    }

    fn command(&self, command: Command) -> Result<(), ThreadStuck> {
        self.commands.try_send(command).map_err(|_| ThreadStuck)?;
        notify(&self.wake);
        Ok(())
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        // The thread finds its command queue closed as soon as it wakes.
        let (closed, _) = sync_channel(1);
        self.commands = closed;
        notify(&self.wake);
    }
}

/// Makes an eventfd readable.
fn notify(fd: &OwnedFd) {
    // The only failure is a counter at its maximum: then it is readable already.
    let _ = rustix::io::write(fd, &1_u64.to_ne_bytes());
}

fn drain(fd: &OwnedFd) {
    // Nothing to read is fine.
    let _ = rustix::io::read(fd, &mut [0; 8]);
}

/// The thread's own state.
struct Beating {
    path: HeartbeatPath,
    envelope: Envelope,
    gasp_to_seal: Option<Gasp>,
    sealed_under: Option<u64>,
    sockets: Vec<UdpSocket>,
    links: Vec<HeartbeatLink>,
    ports: Vec<PortCounters>,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    turned: Arc<AtomicU64>,
    events: SyncSender<HeartbeatEvent>,
    notice: OwnedFd,
    real_time: Result<(), String>,
}

impl Beating {
    fn run(&mut self) {
        loop {
            let now = clock::now();
            loop {
                match self.commands.try_recv() {
                    Ok(command) => self.obey(now, command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.path
                .main_loop_turned(Time(self.turned.load(Ordering::Acquire)));
            while let Some((link, datagram)) = self.path.poll_send(now) {
                self.send(link, &datagram);
            }
            self.wait(self.path.next_deadline());
            drain(&self.wake);
            for index in 0..self.sockets.len() {
                self.receive(index);
            }
        }
    }

    /// Until the deadline, a datagram or a command.
    fn wait(&self, deadline: Time) {
        let wait = clock::until(deadline).min(WAIT_MAX);
        let timeout = Timespec {
            tv_sec: wait.as_secs().cast_signed(),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let none = PollFd::new(&self.wake, PollFlags::empty());
        let mut fds: [PollFd<'_>; redundancy::LINKS_MAX + 1] =
            core::array::from_fn(|_| none.clone());
        fds[0] = PollFd::new(&self.wake, PollFlags::IN);
        let used = self.sockets.len().min(redundancy::LINKS_MAX) + 1;
        for (fd, socket) in fds[1..].iter_mut().zip(&self.sockets) {
            *fd = PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN);
        }
        // Interrupted or not, the loop looks at everything.
        let _ = poll(&mut fds[..used], Some(&timeout));
    }

    fn obey(&mut self, now: Time, command: Command) {
        match command {
            Command::Install { exported, server } => {
                self.envelope.install(&exported, server);
            }
            Command::Activate { key } => {
                self.envelope.activate(key);
                self.reseal();
            }
            Command::Forget => {
                self.envelope.forget_all();
                self.reseal();
            }
            Command::Content(content) => self.path.set_content(now, content),
            Command::Timing {
                interval_ms,
                misses,
            } => {
                self.path.set_timing(now, interval_ms, misses);
            }
            Command::Gasp(gasp) => self.path.start_gasp(now, gasp),
            Command::SealGasp(gasp) => {
                self.gasp_to_seal = gasp;
                self.sealed_under = None;
                self.reseal();
                if self.gasp_to_seal.is_none() {
                    self.tell(HeartbeatEvent::Sealed(None));
                }
            }
            Command::Status { question } => {
                let names: Vec<String> = self.links.iter().map(|link| link.name.clone()).collect();
                let status = self.path.status(now, &names, self.real_time.clone());
                self.tell(HeartbeatEvent::Status {
                    question,
                    status: Box::new(status),
                });
            }
        }
    }

    /// Seals the guardian's gasp if it is not sealed under the key in use.
    fn reseal(&mut self) {
        let Some(gasp) = &self.gasp_to_seal else {
            return;
        };
        if self.envelope.sending().is_none() || self.envelope.sending() == self.sealed_under {
            return;
        }
        let mut plain = [0; SEALED_GASP_MAX_BYTES - OVERHEAD_BYTES];
        let mut bytes = [0; SEALED_GASP_MAX_BYTES];
        let message = Datagram::Gasp(gasp.clone());
        let sealed = wire::encode_into(Channel::Heartbeat, &message, &mut plain)
            .and_then(|length| {
                self.envelope
                    .seal_for_guardian(&plain[..length], &mut bytes)
            })
            .map(|length| SealedGasp { bytes, length });
        self.sealed_under = self.envelope.sending();
        self.tell(HeartbeatEvent::Sealed(sealed));
    }

    fn send(&mut self, link: LinkId, datagram: &Datagram) {
        let index = usize::from(link.0);
        let (Some(socket), Some(to)) = (self.sockets.get(index), self.links.get(index)) else {
            return;
        };
        let mut plain = [0; DATAGRAM_MAX_BYTES - OVERHEAD_BYTES];
        let mut bytes = [0; DATAGRAM_MAX_BYTES];
        let sealed = wire::encode_into(Channel::Heartbeat, datagram, &mut plain)
            .and_then(|length| self.envelope.seal(&plain[..length], &mut bytes));
        if let Some(length) = sealed {
            // A beat that the network does not take is a lost beat; the next one follows.
            if socket.send_to(&bytes[..length], to.peer).is_ok() {
                self.ports[index].sent();
            }
        }
    }

    fn receive(&mut self, index: usize) {
        let link = LinkId(index as u8);
        // One byte more than the largest, so that a longer datagram is seen to be longer.
        let mut bytes = [0; DATAGRAM_MAX_BYTES + 1];
        for _ in 0..RECEIVE_BURST {
            let Ok((length, _)) = self.sockets[index].recv_from(&mut bytes) else {
                return;
            };
            let opened = self.envelope.open(&mut bytes[..length]);
            let taken = opened.map_err(Refused::reason).and_then(|plain| {
                wire::decode(Channel::Heartbeat, plain).map_err(|error| error.reason())
            });
            match taken {
                Ok(datagram) => self.take(link, datagram),
                Err(reason) => {
                    self.path.refused(link);
                    self.ports[index].dropped(reason);
                }
            }
        }
    }

    fn take(&mut self, link: LinkId, datagram: Datagram) {
        self.reseal();
        let port = &self.ports[usize::from(link.0)];
        match datagram {
            Datagram::Heartbeat(frame) => {
                // What a stranger says is passed on too: why it is none is for the core to say.
                let stranger = self.path.stranger(&frame.content);
                let received = self.path.received(clock::now(), link, &frame);
                let Some(received) = received else {
                    port.dropped(DropReason::Late);
                    return;
                };
                let told = self.tell(HeartbeatEvent::Heartbeat {
                    link,
                    content: frame.content,
                    peer_hold_time: received.peer_hold_time,
                    echo: received.echo,
                });
                match (told, stranger) {
                    (false, _) => port.dropped(DropReason::QueueFull),
                    (true, Some(reason)) => port.dropped(reason),
                    (true, None) => port.received(),
                }
            }
            Datagram::Gasp(gasp) => {
                port.received();
                self.send(link, &Datagram::GaspHeard(gasp.clone()));
                self.tell(HeartbeatEvent::Gasp(gasp));
            }
            Datagram::GaspHeard(gasp) => {
                port.received();
                if self.path.gasp_heard(&gasp) {
                    self.tell(HeartbeatEvent::GaspHeard(gasp));
                }
            }
        }
    }

    /// False when there is no room: the event is dropped, and made up for by the next beat or the
    /// repeated gasp.
    fn tell(&self, event: HeartbeatEvent) -> bool {
        match self.events.try_send(event) {
            Ok(()) => {
                notify(&self.notice);
                true
            }
            Err(TrySendError::Full(_)) => {
                notify(&self.notice);
                false
            }
            Err(TrySendError::Disconnected(_)) => true,
        }
    }
}

#[cfg(test)]
mod tests;
