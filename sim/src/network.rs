//! What lies between the machines: HA links that carry datagrams, and connections.
//!
//! A datagram may be lost, doubled, delayed and overtaken; each direction of each link can be cut
//! by itself. A connection delivers in order or not at all: while its path is cut in either
//! direction what is sent waits, and after a while the connection breaks; each end hears of it in
//! its own time, or when it is connected anew.

use node::service::VemConnection;
use rand::Rng;
use rand::rngs::StdRng;
use wire::broker::BrokerFrame;
use wire::control::ControlMessage;
use wire::vem::{FromVem, ToVem};

/// HA links of the pair.
pub const LINKS: usize = 2;

/// One direction of a path.
#[derive(Clone, Copy, Debug)]
pub struct Direction {
    /// Nothing passes.
    pub cut: bool,
    /// The cut stays until all faults end.
    pub permanent: bool,
    /// Share of datagrams lost.
    pub loss: f64,
    /// Least delay, in nanoseconds.
    pub delay_ns: u64,
    /// Most that is added to it.
    pub jitter_ns: u64,
    /// Share of datagrams that arrive twice.
    pub doubled: f64,
    /// Share of datagrams of which a bit is inverted.
    pub damaged: f64,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            cut: false,
            permanent: false,
            loss: 0.0,
            delay_ns: 100_000,
            jitter_ns: 100_000,
            doubled: 0.0,
            damaged: 0.0,
        }
    }
}

impl Direction {
    /// A delay of one packet.
    pub fn draw_delay(&self, rng: &mut StdRng) -> u64 {
        self.delay_ns + rng.random_range(0..=self.jitter_ns)
    }
}

/// A path with its two directions; 0 is from the first end to the second.
pub type Path = [Direction; 2];

/// What a connection carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Between the System Managers.
    Control(ControlMessage),
    /// Between the brokers.
    Bulk(BrokerFrame),
    /// From a host agent.
    FromVem(FromVem),
    /// To a host agent.
    ToVem(ToVem),
}

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Between the System Managers (ends: node 0, node 1).
    Control,
    /// Between the brokers (ends: node 0, node 1).
    Bulk,
    /// Between a host (end 0) and a node (end 1).
    Vem {
        /// The host.
        host: usize,
        /// The node.
        node: usize,
    },
}

/// One connection, over and over again.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Which.
    pub kind: StreamKind,
    /// Counts its lives.
    pub life: u64,
    /// The transport lives.
    pub up: bool,
    /// What each end believes.
    pub believed: [bool; 2],
    /// HA link it runs over.
    pub link: usize,
    /// When the last thing on its way to each end arrives.
    pub last_arrival: [u64; 2],
    /// What waits for the path, towards each end.
    pub stalled: [Vec<Payload>; 2],
    /// The node's name of it (host agents only).
    pub connection: VemConnection,
    /// The number under which the node was last told of it.
    pub told_connection: VemConnection,
    /// A check whether the path has come back is under way.
    pub checking: bool,
}

impl Stream {
    /// One that was never connected.
    #[must_use]
    pub const fn new(kind: StreamKind) -> Self {
        Self {
            kind,
            life: 0,
            up: false,
            believed: [false; 2],
            link: 0,
            last_arrival: [0; 2],
            stalled: [Vec::new(), Vec::new()],
            connection: VemConnection(0),
            told_connection: VemConnection(0),
            checking: false,
        }
    }
}

/// Everything between the machines.
#[derive(Debug)]
pub struct Network {
    /// HA links, direction 0 from node 0 to node 1.
    pub links: [Path; LINKS],
    /// Service paths by host, then node; direction 0 from the host to the node.
    pub service: Vec<[Path; 2]>,
    /// Connections: control, bulk, then two for each host.
    pub streams: Vec<Stream>,
    /// Which machine answers at each gateway's addresses: a clone may take them.
    pub at: [usize; 2],
}

/// Index of the control connection.
pub const CONTROL: usize = 0;
/// Index of the brokers' connection.
pub const BULK: usize = 1;

/// Index of a host's connection to a node.
#[must_use]
pub const fn vem_stream(host: usize, node: usize) -> usize {
    2 + host * 2 + node
}

impl Network {
    /// A network without faults.
    #[must_use]
    pub fn new(hosts: usize) -> Self {
        let mut streams = vec![
            Stream::new(StreamKind::Control),
            Stream::new(StreamKind::Bulk),
        ];
        for host in 0..hosts {
            for node in 0..2 {
                streams.push(Stream::new(StreamKind::Vem { host, node }));
            }
        }
        Self {
            links: Default::default(),
            service: vec![Default::default(); hosts],
            streams,
            at: [0, 1],
        }
    }

    /// The path of a connection.
    #[must_use]
    pub fn path(&self, stream: &Stream) -> &Path {
        match stream.kind {
            StreamKind::Control | StreamKind::Bulk => &self.links[stream.link],
            StreamKind::Vem { host, node } => &self.service[host][node],
        }
    }

    /// Both directions pass.
    #[must_use]
    pub fn is_open(path: &Path) -> bool {
        path.iter().all(|direction| !direction.cut)
    }

    /// Everything mends.
    pub fn heal(&mut self) {
        self.links = Default::default();
        self.service
            .iter_mut()
            .for_each(|paths| *paths = Default::default());
    }

    /// Every HA link passes both ways and loses nothing.
    #[must_use]
    pub fn links_are_healthy(&self) -> bool {
        let fine = |d: &Direction| {
            !d.cut && d.loss == 0.0 && d.damaged == 0.0 && d.delay_ns + d.jitter_ns < 5_000_000
        };
        self.at == [0, 1] && self.links.iter().all(|path| path.iter().all(fine))
    }
}
