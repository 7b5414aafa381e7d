//! Every byte that crosses a process or node boundary.
//!
//! A message is a frame: a fixed 12-byte header, then the postcard encoding of one closed enum.
//! The header names the [`Channel`], so bytes sent to the wrong socket are refused before they
//! are parsed. Enum variants are only ever appended; golden bytes pin what is released.
//!
//! | module | between | over |
//! |---|---|---|
//! | [`heartbeat`] | System Managers of a pair | UDP, AEAD |
//! | [`control`] | System Managers of a pair | TLS on an HA link |
//! | [`supervision`] | System Manager and one service | inherited socket pair |
//! | [`guardian`] | System Manager and guardian | inherited socket pair |
//! | [`broker`] | a service and `mts`; `mts` and `mts` | Unix seqpacket; TLS |
//! | [`checkpoint`] | a service and `pss`; `pss` and `pss` | inside broker frames |
//! | [`conflict`] | what `pss` keeps of a node that lost, for `vshd` and the other `pss` | inside broker frames |
//! | [`service`] | services among themselves | inside broker frames |
//! | [`pairing`] | parts of a site that do not know each other yet | TLS, nobody pinned |
//! | [`vem`] | host agent and `vem_mgr` | TLS on the service network |
//! | [`console`] | `vsh` and `vshd` | Unix stream |

pub mod broker;
pub mod checkpoint;
pub mod conflict;
pub mod console;
pub mod control;
mod frame;
pub mod guardian;
pub mod heartbeat;
pub mod log;
pub mod pairing;
pub mod service;
pub mod supervision;
pub mod vem;

pub use frame::{
    Channel, DecodeError, FRAME_MAX_BYTES, FrameBuffer, HEADER_BYTES, decode, encode, encode_into,
};
