//! The one home of async and system calls: what the pure cores are driven with.
//!
//! | module | what it is |
//! |---|---|
//! | [`clock`] | monotonic time, and wall time for display |
//! | [`identity`] | a node's or host agent's key pair and fingerprint |
//! | [`tls`] | TLS 1.3 with pinned identities on both sides |
//! | [`pairing`] | two strangers prove to each other that they were told the same code |
//! | [`node_file`] | two checksummed slots that survive a torn write |
//! | [`process`] | children with an inherited socket, watched by pidfd |
//! | [`envelope`] | AEAD, replay windows and keys of heartbeat datagrams |
//! | [`heartbeat`] | the real-time thread that beats on every HA link |
//! | [`log_writer`] | log lines to a file and to memory |
//! | [`entropy`] | randomness |
//! | [`stream`] | framed messages over a byte stream, with a bounded outgoing queue |
//! | [`seqpacket`] | framed messages over Unix sequenced packets, inherited or named |
//! | [`traffic`] | counters of what came in on a port, and of what was not taken |
//! | [`watchdog`] | the device that resets a machine which has stopped |
//! | [`gate`] | how many unauthenticated connections there may be |

pub mod clock;
mod descriptor;
pub mod entropy;
pub mod envelope;
pub mod gate;
pub mod heartbeat;
pub mod identity;
pub mod log_writer;
pub mod node_file;
pub mod pairing;
pub mod process;
pub mod seqpacket;
pub mod stream;
pub mod tls;
pub mod traffic;
pub mod watchdog;
