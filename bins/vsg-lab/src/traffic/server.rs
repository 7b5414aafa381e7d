//! The serving side of all measured traffic in one VM: one thread, one epoll.

use super::connections::REQUEST_LEN;
use super::records::RecordLog;
use super::stream::StreamReceiver;
use super::udp::UdpReceiver;
use crate::clock::{NS_PER_S, now_ns, timespec};
use anyhow::Context;
use rustix::event::epoll;
use rustix::io::Errno;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

/// Most connections held at a time; a further one is closed at once, which the
/// client records as a failure.
const CONNECTIONS_MAX: usize = 8192;
/// Pending connections: one second of them at the measured rate, and more.
const BACKLOG: i32 = 4096;
/// Events taken at a time.
const EVENTS: usize = 256;

/// What one VM serves.
#[derive(Debug, Default)]
pub struct Services {
    /// The measured stream's port, and the log of its messages.
    pub stream: Option<(u16, RecordLog)>,
    /// The measured connections' port.
    pub connections: Option<u16>,
    /// The UDP flow's port, and the log of its datagrams.
    pub udp: Option<(u16, RecordLog)>,
    /// The forbidden port, and the log of those who reached it.
    pub forbidden: Option<(u16, RecordLog)>,
}

/// What a token of the epoll stands for.
#[derive(Debug)]
enum Source {
    StreamListener(TcpListener),
    Stream(StreamReceiver),
    ConnectionsListener(TcpListener),
    Connection(TcpStream),
    Udp(UdpReceiver),
    ForbiddenListener(TcpListener),
}

struct Server {
    epoll: OwnedFd,
    sources: Vec<Option<Source>>,
    free: Vec<usize>,
    stream_log: Option<RecordLog>,
    udp_log: Option<RecordLog>,
    forbidden_log: Option<RecordLog>,
}

/// Serves until `until_ns`.
///
/// # Errors
/// When a port is taken.
pub fn serve(services: Services, until_ns: u64) -> anyhow::Result<()> {
    let mut server = Server {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?,
        sources: Vec::new(),
        free: Vec::new(),
        stream_log: None,
        udp_log: None,
        forbidden_log: None,
    };
    if let Some((port, log)) = services.stream {
        server.listen(port, Source::StreamListener)?;
        server.stream_log = Some(log);
    }
    if let Some(port) = services.connections {
        server.listen(port, Source::ConnectionsListener)?;
    }
    if let Some((port, log)) = services.forbidden {
        server.listen(port, Source::ForbiddenListener)?;
        server.forbidden_log = Some(log);
    }
    if let Some((port, log)) = services.udp {
        let receiver = UdpReceiver::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        let slot = server.slot();
        server.watch(receiver.socket(), slot, epoll::EventFlags::IN)?;
        server.sources[slot] = Some(Source::Udp(receiver));
        server.udp_log = Some(log);
    }
    server.run(until_ns)
}

impl Server {
    fn slot(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.sources.push(None);
            self.sources.len() - 1
        })
    }

    fn watch(
        &self,
        source: &impl AsFd,
        slot: usize,
        flags: epoll::EventFlags,
    ) -> anyhow::Result<()> {
        epoll::add(
            &self.epoll,
            source,
            epoll::EventData::new_u64(slot as u64),
            flags,
        )
        .context("epoll_ctl")
    }

    fn listen(&mut self, port: u16, make: fn(TcpListener) -> Source) -> anyhow::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .with_context(|| format!("cannot listen at port {port}"))?;
        // The standard library listens with a backlog of 128: raised here.
        rustix::net::listen(&listener, BACKLOG).context("listen")?;
        listener.set_nonblocking(true).context("non-blocking")?;
        let slot = self.slot();
        self.watch(&listener, slot, epoll::EventFlags::IN)?;
        self.sources[slot] = Some(make(listener));
        Ok(())
    }

    fn run(&mut self, until_ns: u64) -> anyhow::Result<()> {
        let mut events = vec![
            epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0)
            };
            EVENTS
        ];
        loop {
            let now = now_ns();
            if now >= until_ns {
                return Ok(());
            }
            let wait = timespec((until_ns - now).min(NS_PER_S));
            let ready = match epoll::wait(&self.epoll, &mut events[..], Some(&wait)) {
                Ok(ready) => ready,
                Err(Errno::INTR) => 0,
                Err(error) => return Err(error).context("epoll_wait"),
            };
            for event in &events[..ready] {
                self.serve_one(event.data.u64() as usize);
            }
        }
    }

    fn serve_one(&mut self, slot: usize) {
        // Taken out while it is served, put back unless it is over.
        let Some(mut source) = self.sources.get_mut(slot).and_then(Option::take) else {
            return;
        };
        let stays = match &mut source {
            Source::StreamListener(listener) => {
                for receiver in accepted(listener).filter_map(|one| StreamReceiver::new(one).ok()) {
                    self.adopt(Source::Stream(receiver));
                }
                true
            }
            Source::ConnectionsListener(listener) => {
                for connection in accepted(listener) {
                    self.adopt(Source::Connection(connection));
                }
                true
            }
            Source::ForbiddenListener(listener) => {
                for _ in accepted(listener) {
                    if let Some(log) = &mut self.forbidden_log {
                        log.push([now_ns(), 0, 0, 0]);
                    }
                }
                true
            }
            Source::Stream(receiver) => self
                .stream_log
                .as_mut()
                .is_some_and(|log| receiver.read(log)),
            Source::Udp(receiver) => {
                if let Some(log) = &mut self.udp_log {
                    receiver.read(log);
                }
                true
            }
            Source::Connection(connection) => answer(connection),
        };
        if stays {
            self.sources[slot] = Some(source);
        } else {
            // Dropping closes it, which takes it out of the epoll.
            self.free.push(slot);
        }
    }

    fn adopt(&mut self, source: Source) {
        if self.sources.len() - self.free.len() >= CONNECTIONS_MAX {
            return;
        }
        let slot = self.slot();
        let watched = match &source {
            Source::Stream(receiver) => {
                self.watch(receiver.connection(), slot, epoll::EventFlags::IN)
            }
            Source::Connection(connection) => self.watch(connection, slot, epoll::EventFlags::IN),
            Source::StreamListener(_)
            | Source::ConnectionsListener(_)
            | Source::ForbiddenListener(_)
            | Source::Udp(_) => Ok(()),
        };
        if watched.is_ok() {
            self.sources[slot] = Some(source);
        } else {
            self.free.push(slot);
        }
    }
}

/// The connections that wait at a listener, made non-blocking.
fn accepted(listener: &TcpListener) -> impl Iterator<Item = TcpStream> + '_ {
    std::iter::from_fn(move || listener.accept().ok())
        .map(|(connection, _)| connection)
        .filter(|connection| connection.set_nonblocking(true).is_ok())
}

/// Answers one request, if it is there; false when the connection is over.
fn answer(connection: &mut TcpStream) -> bool {
    let mut request = [0; REQUEST_LEN];
    match connection.read(&mut request) {
        // Requests are smaller than any segment, so they arrive whole; a
        // client that sends less is no measured client.
        Ok(REQUEST_LEN) => connection.write_all(&request).is_ok(),
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
