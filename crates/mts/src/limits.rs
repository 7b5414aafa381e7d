//! Every bound of the broker, with its reason.

use core::time::Duration;

/// Messages that wait for one bound service. A service that is this far behind is stuck: at the
/// decision rate of one node (some 20,000/s) this is 0.2 s of backlog. Full: undeliverable.
pub const SAP_QUEUE_MESSAGES: usize = 4096;

/// Bytes of bodies that wait for one service, so that 4096 large bodies cannot take half a
/// gigabyte. Full: undeliverable.
pub const SAP_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Messages kept for a service that is restarting. A restart takes some 50 ms; what its clients
/// ask meanwhile is a handful each. Full: undeliverable.
pub const HELD_MESSAGES: usize = 256;

/// How long a message waits for a service that is not there. Below the shortest deadline of a
/// requester (2 s), so that "not delivered" is heard before the requester gives up.
pub const HELD_AGE: Duration = Duration::from_millis(1500);

/// Frames handed to the shell for one client and not yet written to its socket. Enough to keep
/// a seqpacket socket busy, little enough to keep the backlog in the queue where it is counted.
pub const CLIENT_WINDOW_FRAMES: u32 = 64;

/// Messages from one SAP that wait for the peer's connection. Full: undeliverable.
pub const PEER_QUEUE_MESSAGES: usize = 4096;

/// Bytes of bodies from one SAP that wait for the peer. Above the replication window of `pss`
/// (4 MiB), so that replication limits itself before the broker has to.
pub const PEER_QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// Frames handed to the shell for the peer and not yet written to the connection. Sources take
/// turns frame by frame, so a request waits behind at most this many frames of replication.
pub const PEER_WINDOW_FRAMES: u32 = 32;

/// Room kept beyond a queue's message limit for "undeliverable" answers, so that a sender with
/// a full queue still hears of its failures.
pub const UNDELIVERABLE_RESERVE: usize = 256;

/// Clients connected at once: every service, and one more of each while the old process's
/// socket has not been seen to close. More: the newest is closed.
pub const CLIENTS_MAX: usize = 32;
