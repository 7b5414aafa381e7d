//! New TCP connections at an open-loop rate, and attempts at a forbidden port:
//! one epoll loop, one thread.
//!
//! A measured connection connects, sends a request, reads the answer and
//! closes. A forbidden attempt only connects, and stays open long enough for
//! the kernel to send its SYN again, so that the server would see a late leak
//! too.
//!
//! Records: start ns, time to connect ns, time to the end ns, and a packed word
//! (see [`pack`]).
//!
//! Invariants:
//! - C1: attempts start by the clock, whether earlier ones are answered or not.
//! - C2: every attempt gets exactly one record.
//! - C3: no source port of a measured connection is used again within its
//!   TIME_WAIT (60 s): ports are taken in turn, and the range lasts 100 s at
//!   500 a second.

use super::records::RecordLog;
use crate::clock::{NS_PER_S, now_ns, timespec};
use crate::sys;
use anyhow::Context;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

/// Bytes of a request, and of its answer.
pub const REQUEST_LEN: usize = 16;
/// How long a connection may take before it counts as failed: beyond two
/// retransmitted SYNs (1 s and 3 s).
const ANSWER_LIMIT_NS: u64 = 5 * NS_PER_S;
/// How long a forbidden attempt stays open: beyond its first retransmitted SYN.
const FORBIDDEN_LIMIT_NS: u64 = 2 * NS_PER_S;
/// Most attempts in flight: 5 s at 500/s and 2 s at 50/s, with room. A further
/// one is recorded as failed.
const IN_FLIGHT_MAX: usize = 4096;
/// Source ports of measured connections (C3). Ephemeral ports are above.
const SOURCE_PORTS: std::ops::Range<u16> = 10_000..61_000;
/// Most ports tried for one connection.
const PORT_TRIES: usize = 8;
/// Events taken at a time.
const EVENTS: usize = 256;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered (measured), or connected (forbidden).
    Reached,
    /// Not within its limit.
    TimedOut,
    /// Refused or reset.
    Refused,
    /// Any other error, or no room to try.
    Failed,
}

/// Packs an outcome (8 bits), retransmitted segments (8 bits, saturating) and
/// how late the attempt started (µs, 48 bits) into a word.
#[must_use]
pub fn pack(outcome: Outcome, retransmits: u32, late_us: u64) -> u64 {
    let code = match outcome {
        Outcome::Reached => 0,
        Outcome::TimedOut => 1,
        Outcome::Refused => 2,
        Outcome::Failed => 3,
    };
    code | u64::from(retransmits.min(255)) << 8 | late_us.min((1 << 48) - 1) << 16
}

/// Undoes [`pack`].
#[must_use]
pub fn unpack(word: u64) -> (Outcome, u32, u64) {
    let outcome = match word & 0xff {
        0 => Outcome::Reached,
        1 => Outcome::TimedOut,
        2 => Outcome::Refused,
        _ => Outcome::Failed,
    };
    (outcome, (word >> 8 & 0xff) as u32, word >> 16)
}

/// What the loop drives.
#[derive(Debug)]
pub struct Plan {
    /// Where measured connections go.
    pub server: SocketAddrV4,
    /// Their rate, per second.
    pub rate: u64,
    /// Where forbidden attempts go.
    pub forbidden: SocketAddrV4,
    /// Their rate, per second.
    pub forbidden_rate: u64,
    /// When to end, monotonic ns.
    pub until_ns: u64,
}

/// One kind of attempt: its clock, its log, and those in flight by start.
#[derive(Debug)]
struct Lane {
    server: SocketAddrV4,
    interval_ns: u64,
    limit_ns: u64,
    next_ns: u64,
    log: RecordLog,
    in_flight: VecDeque<(usize, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Measured,
    Forbidden,
}

#[derive(Debug)]
struct Attempt {
    socket: TcpStream,
    kind: Kind,
    start_ns: u64,
    late_us: u64,
    connect_ns: Option<u64>,
    retransmits: u32,
}

/// The loop's state.
#[derive(Debug)]
pub struct Connections {
    epoll: std::os::fd::OwnedFd,
    measured: Lane,
    forbidden: Lane,
    attempts: Vec<Option<Attempt>>,
    free: Vec<usize>,
    next_port: u16,
    until_ns: u64,
}

impl Connections {
    /// Prepares the loop; the first attempts start at once.
    ///
    /// # Errors
    /// When there is no epoll instance to be had.
    pub fn new(plan: &Plan, measured: RecordLog, forbidden: RecordLog) -> anyhow::Result<Self> {
        let start_ns = now_ns();
        let lane = |server, rate: u64, limit_ns, log| Lane {
            server,
            interval_ns: NS_PER_S / rate.max(1),
            limit_ns,
            next_ns: if rate == 0 { u64::MAX } else { start_ns },
            log,
            in_flight: VecDeque::with_capacity(IN_FLIGHT_MAX),
        };
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?,
            measured: lane(plan.server, plan.rate, ANSWER_LIMIT_NS, measured),
            forbidden: lane(
                plan.forbidden,
                plan.forbidden_rate,
                FORBIDDEN_LIMIT_NS,
                forbidden,
            ),
            attempts: (0..IN_FLIGHT_MAX).map(|_| None).collect(),
            free: (0..IN_FLIGHT_MAX).rev().collect(),
            next_port: SOURCE_PORTS.start,
            until_ns: plan.until_ns,
        })
    }

    /// Runs until the plan's end.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let mut events = vec![
            epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0)
            };
            EVENTS
        ];
        loop {
            let now = now_ns();
            if now >= self.until_ns {
                return Ok(());
            }
            self.start_due(now);
            self.end_overdue(now);
            self.measured.settle(&self.attempts, now);
            self.forbidden.settle(&self.attempts, now);
            let wait = timespec(self.next_deadline().saturating_sub(now_ns()));
            let ready = match epoll::wait(&self.epoll, &mut events[..], Some(&wait)) {
                Ok(ready) => ready,
                Err(Errno::INTR) => 0,
                Err(error) => return Err(error).context("epoll_wait"),
            };
            for event in &events[..ready] {
                self.advance(event.data.u64() as usize);
            }
        }
    }

    fn lane(&mut self, kind: Kind) -> &mut Lane {
        match kind {
            Kind::Measured => &mut self.measured,
            Kind::Forbidden => &mut self.forbidden,
        }
    }

    fn next_deadline(&self) -> u64 {
        [&self.measured, &self.forbidden]
            .into_iter()
            .flat_map(|lane| {
                let overdue = lane
                    .in_flight
                    .front()
                    .map_or(u64::MAX, |(_, start)| start + lane.limit_ns);
                [lane.next_ns, overdue]
            })
            .fold(self.until_ns, u64::min)
    }

    fn start_due(&mut self, now: u64) {
        for kind in [Kind::Measured, Kind::Forbidden] {
            while self.lane(kind).next_ns <= now {
                let lane = self.lane(kind);
                let due_ns = lane.next_ns;
                lane.next_ns += lane.interval_ns;
                self.start(kind, due_ns);
            }
        }
    }

    fn start(&mut self, kind: Kind, due_ns: u64) {
        let start_ns = now_ns();
        let late_us = (start_ns - due_ns.min(start_ns)) / 1000;
        let Some(slot) = self.free.pop() else {
            let word = pack(Outcome::Failed, 0, late_us);
            self.lane(kind).log.push([start_ns, 0, 0, word]);
            return;
        };
        match self.open(kind, slot) {
            Ok(socket) => {
                self.attempts[slot] = Some(Attempt {
                    socket,
                    kind,
                    start_ns,
                    late_us,
                    connect_ns: None,
                    retransmits: 0,
                });
                self.lane(kind).in_flight.push_back((slot, start_ns));
            }
            Err(_) => {
                self.free.push(slot);
                let word = pack(Outcome::Failed, 0, late_us);
                self.lane(kind)
                    .log
                    .push([start_ns, 0, now_ns() - start_ns, word]);
            }
        }
    }

    fn open(&mut self, kind: Kind, slot: usize) -> Result<TcpStream, Errno> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        if kind == Kind::Measured {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            let mut tries = 0;
            loop {
                let port = self.next_port;
                self.next_port = if port + 1 < SOURCE_PORTS.end {
                    port + 1
                } else {
                    SOURCE_PORTS.start
                };
                match bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)) {
                    Err(Errno::ADDRINUSE) if tries < PORT_TRIES => tries += 1,
                    other => break other?,
                }
            }
        }
        let server = self.lane(kind).server;
        match connect(&socket, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        // Edge-triggered for both: one registration serves "connected" and
        // "answered". After the connect, since a socket that has not begun one
        // reports itself hung up.
        epoll::add(
            &self.epoll,
            &socket,
            epoll::EventData::new_u64(slot as u64),
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET,
        )?;
        Ok(TcpStream::from(socket))
    }

    /// Takes an attempt as far as it goes.
    fn advance(&mut self, slot: usize) {
        let Some(attempt) = self.attempts.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        if attempt.connect_ns.is_none() {
            match attempt.socket.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => {
                    let refused = matches!(
                        error.kind(),
                        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset
                    );
                    let outcome = if refused {
                        Outcome::Refused
                    } else {
                        Outcome::Failed
                    };
                    return self.end(slot, outcome);
                }
            }
            attempt.connect_ns = Some(now_ns() - attempt.start_ns);
            attempt.retransmits = sys::total_retransmits(&attempt.socket).unwrap_or(0);
            if attempt.kind == Kind::Forbidden {
                return self.end(slot, Outcome::Reached);
            }
            if attempt.socket.write_all(&[0x51; REQUEST_LEN]).is_err() {
                return self.end(slot, Outcome::Failed);
            }
        }
        let mut answer = [0; REQUEST_LEN];
        match attempt.socket.read(&mut answer) {
            Ok(REQUEST_LEN) => self.end(slot, Outcome::Reached),
            Ok(_) => self.end(slot, Outcome::Failed),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.end(slot, Outcome::Failed),
        }
    }

    fn end(&mut self, slot: usize, outcome: Outcome) {
        let Some(attempt) = self.attempts.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.free.push(slot);
        let mut retransmits = attempt.retransmits;
        if attempt.connect_ns.is_none() {
            retransmits = sys::total_retransmits(&attempt.socket).unwrap_or(0);
        }
        let record = [
            attempt.start_ns,
            attempt.connect_ns.unwrap_or(0),
            now_ns() - attempt.start_ns,
            pack(outcome, retransmits, attempt.late_us),
        ];
        self.lane(attempt.kind).log.push(record);
    }

    fn end_overdue(&mut self, now: u64) {
        for kind in [Kind::Measured, Kind::Forbidden] {
            loop {
                let lane = self.lane(kind);
                let limit_ns = lane.limit_ns;
                let Some((slot, start_ns)) = lane.in_flight.front().copied() else {
                    break;
                };
                if start_ns + limit_ns > now {
                    break;
                }
                lane.in_flight.pop_front();
                if is_same(&self.attempts, slot, start_ns) {
                    self.end(slot, Outcome::TimedOut);
                }
            }
        }
    }
}

/// True while the attempt of `slot` that began at `start_ns` is in flight.
fn is_same(attempts: &[Option<Attempt>], slot: usize, start_ns: u64) -> bool {
    attempts[slot]
        .as_ref()
        .is_some_and(|attempt| attempt.start_ns == start_ns)
}

impl Lane {
    /// Forgets the attempts that ended, and states how far the log is complete.
    fn settle(&mut self, attempts: &[Option<Attempt>], now: u64) {
        while let Some((slot, start_ns)) = self.in_flight.front().copied() {
            if is_same(attempts, slot, start_ns) {
                break;
            }
            self.in_flight.pop_front();
        }
        self.log.settle(
            self.in_flight
                .front()
                .map_or(now, |(_, start_ns)| *start_ns),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::records;
    use std::net::TcpListener;

    #[test]
    fn the_packed_word_holds_all_three() {
        for outcome in [
            Outcome::Reached,
            Outcome::TimedOut,
            Outcome::Refused,
            Outcome::Failed,
        ] {
            assert_eq!(unpack(pack(outcome, 3, 123_456)), (outcome, 3, 123_456));
        }
        assert_eq!(unpack(pack(Outcome::Failed, 999, u64::MAX)).1, 255);
    }

    /// Answers `REQUEST_LEN` bytes to each connection.
    fn answer_all(listener: TcpListener) {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                return;
            };
            let mut request = [0; REQUEST_LEN];
            if connection.read_exact(&mut request).is_ok() {
                let _ = connection.write_all(&request);
                let _ = connection.read(&mut request);
            }
        }
    }

    #[test]
    fn every_attempt_is_recorded_once_and_a_refusal_told_from_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        // A port that was just given back: nobody listens there.
        let closed = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr());
        let closed = closed.expect("an address").port();
        std::thread::spawn(|| answer_all(listener));
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (folder.path().join("1"), folder.path().join("2"));
        let plan = Plan {
            server: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            rate: 200,
            forbidden: SocketAddrV4::new(Ipv4Addr::LOCALHOST, closed),
            forbidden_rate: 100,
            until_ns: now_ns() + NS_PER_S / 2,
        };
        let mut connections = Connections::new(
            &plan,
            RecordLog::create(&one, 1000).expect("a log"),
            RecordLog::create(&two, 1000).expect("a log"),
        )
        .expect("a loop");
        connections.run().expect("the loop");
        let measured = records::read(&one).expect("the log").records;
        let forbidden = records::read(&two).expect("the log").records;
        assert!((90..=101).contains(&measured.len()), "{}", measured.len());
        assert!((45..=51).contains(&forbidden.len()), "{}", forbidden.len());
        assert!(
            measured
                .iter()
                .all(|record| unpack(record[3]).0 == Outcome::Reached)
        );
        assert!(
            forbidden
                .iter()
                .all(|record| unpack(record[3]).0 == Outcome::Refused)
        );
    }
}
