//! The AEAD envelope of datagrams on HA links.
//!
//! ```text
//! 0        8         16
//! +--------+---------+------------+----------+
//! | key id | counter | ciphertext | tag (16) |     ChaCha20-Poly1305 (RFC 8439)
//! +--------+---------+------------+----------+     nonce = space (4) ‖ counter (8)
//! ```
//!
//! Invariants:
//! - a key comes from the exporter of one TLS connection, one for each direction, and no
//!   (key, nonce) is used twice: counters only grow, and the guardian's gasps have a space of
//!   their own ([`GUARDIAN_COUNTERS`]);
//! - nothing behind the counter is looked at before the tag has been verified;
//! - a datagram is accepted once (a window of [`WINDOW_BITS`] per key and space);
//! - a key may be received under from its installation; the server sends under it only once
//!   the client is known to have it ([`Envelope::activate`]), and the client sends under whatever
//!   key the server last used. So neither ever sends what the other cannot read, and while TLS
//!   reconnects the old key goes on;
//! - keys are given up by number only ([`KEYS_MAX`]), never the one being sent under: the two
//!   ends may see the connections of several links in different orders, so that neither can know
//!   from one datagram which other keys the peer has finished with.

use model::DropReason;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use thiserror::Error;
use wire::heartbeat::DATAGRAM_MAX_BYTES;

/// Exporter label (RFC 5705 asks for the prefix).
pub const EXPORT_LABEL: &str = "EXPORTER-twinwall-heartbeat";
/// Bytes exported: key id, the client's key, the server's key.
pub const EXPORT_BYTES: usize = 8 + 32 + 32;
/// What both ends of one TLS connection exported from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ExportedKeys([u8; EXPORT_BYTES]);

impl ExportedKeys {
    /// The exporter's bytes for [`EXPORT_LABEL`].
    #[must_use]
    pub const fn new(bytes: [u8; EXPORT_BYTES]) -> Self {
        Self(bytes)
    }

    /// The key id: public, it stands in every datagram.
    #[must_use]
    pub fn id(&self) -> u64 {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(id)
    }
}

impl std::fmt::Debug for ExportedKeys {
    /// The key id only; keys appear nowhere.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExportedKeys({:x})", self.id())
    }
}

/// Key id and counter.
const HEADER_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// What the envelope adds to a message.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// Counters from here on belong to gasps sealed for the guardian.
pub const GUARDIAN_COUNTERS: u64 = 1 << 63;
/// Keys that may be received under at once: one per HA link, since each link's connection brings
/// its own. A further one replaces the oldest that is not being sent under.
const KEYS_MAX: usize = 5;
/// How far a datagram may be overtaken and still be accepted. At the fastest profile and four
/// links 1024 counters are 2.5 s.
const WINDOW_BITS: usize = 1024;
const WINDOW_WORDS: usize = WINDOW_BITS / 64;

/// Why a datagram is not accepted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// Too short to be ours.
    #[error("shorter than any datagram of ours")]
    TooShort,
    /// Too long to be ours.
    #[error("longer than any datagram of ours")]
    TooLong,
    /// No such key here (any more, or yet).
    #[error("unknown key")]
    UnknownKey,
    /// Seen before.
    #[error("replayed")]
    Replayed,
    /// So old that whether it was seen is no longer known.
    #[error("too old")]
    TooOld,
    /// The tag does not verify.
    #[error("forged or damaged")]
    Tag,
}

impl Refused {
    /// Under which reason it is counted.
    #[must_use]
    pub const fn reason(self) -> DropReason {
        match self {
            Self::TooShort => DropReason::Truncated,
            Self::TooLong => DropReason::Oversized,
            Self::UnknownKey => DropReason::UnknownKey,
            Self::Replayed => DropReason::Replayed,
            Self::TooOld => DropReason::Late,
            Self::Tag => DropReason::NotAuthenticated,
        }
    }
}

struct Keys {
    id: u64,
    server: bool,
    send: LessSafeKey,
    receive: LessSafeKey,
    next_counter: u64,
    next_guardian_counter: u64,
    seen: ReplayWindow,
    seen_guardian: ReplayWindow,
}

impl Keys {
    fn new(exported: &ExportedKeys, server: bool) -> Self {
        let key = |offset: usize| {
            let bytes = &exported.0[offset..offset + 32];
            let unbound = UnboundKey::new(&CHACHA20_POLY1305, bytes);
            LessSafeKey::new(unbound.expect("invariant: the cipher's keys have 32 bytes"))
        };
        let (client, own) = (key(8), key(40));
        let (send, receive) = if server { (own, client) } else { (client, own) };
        Self {
            id: exported.id(),
            server,
            send,
            receive,
            next_counter: 1,
            next_guardian_counter: GUARDIAN_COUNTERS + 1,
            seen: ReplayWindow::default(),
            seen_guardian: ReplayWindow::default(),
        }
    }

    fn seal(&self, counter: u64, plain: &[u8], out: &mut [u8]) -> Option<usize> {
        let end = HEADER_BYTES + plain.len();
        let out = out.get_mut(..end + TAG_BYTES)?;
        out[..8].copy_from_slice(&self.id.to_le_bytes());
        out[8..HEADER_BYTES].copy_from_slice(&counter.to_le_bytes());
        out[HEADER_BYTES..end].copy_from_slice(plain);
        let (header, body) = out.split_at_mut(HEADER_BYTES);
        let (body, tag_out) = body.split_at_mut(plain.len());
        let aad = Aad::from(&*header);
        let tag = self
            .send
            .seal_in_place_separate_tag(nonce(counter), aad, body)
            .ok()?;
        tag_out.copy_from_slice(tag.as_ref());
        Some(end + TAG_BYTES)
    }
}

/// All keys shared with the peer, oldest first.
#[derive(Default)]
pub struct Envelope {
    keys: Vec<Keys>,
    sending: Option<u64>,
}

impl std::fmt::Debug for Envelope {
    /// Key ids only; keys appear nowhere.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|keys| keys.id))
            .finish()
    }
}

impl Envelope {
    /// Accepts datagrams under the keys of a new TLS connection from now on.
    /// Returns the key id, for [`Self::activate`].
    pub fn install(&mut self, exported: &ExportedKeys, server: bool) -> u64 {
        let keys = Keys::new(exported, server);
        let id = keys.id;
        if self.keys.iter().all(|known| known.id != id) {
            if self.keys.len() >= KEYS_MAX {
                let oldest = self
                    .keys
                    .iter()
                    .position(|keys| Some(keys.id) != self.sending);
                self.keys.remove(oldest.unwrap_or(0));
            }
            self.keys.push(keys);
        }
        id
    }

    /// Forgets every key: nobody is heard and nothing is sent until another is installed.
    pub fn forget_all(&mut self) {
        self.keys.clear();
        self.sending = None;
    }

    /// The server's side: the client is known to have installed these keys; send under them.
    pub fn activate(&mut self, id: u64) {
        if self.keys.iter().any(|keys| keys.id == id && keys.server) {
            self.sending = Some(id);
        }
    }

    /// The key that is sent under; `None` before the first.
    #[must_use]
    pub const fn sending(&self) -> Option<u64> {
        self.sending
    }

    /// Seals `plain` into `out`, returning the datagram's length; `None` while there is no key,
    /// or when it does not fit.
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Option<usize> {
        let keys = self.sending_keys()?;
        let counter = keys.next_counter;
        // Not reached in the life of a key (292 years at a beat per nanosecond).
        if counter >= GUARDIAN_COUNTERS {
            return None;
        }
        keys.next_counter += 1;
        keys.seal(counter, plain, out)
    }

    /// As [`Self::seal`], in the guardian's space: for a datagram that is kept for later.
    pub fn seal_for_guardian(&mut self, plain: &[u8], out: &mut [u8]) -> Option<usize> {
        let keys = self.sending_keys()?;
        let counter = keys.next_guardian_counter;
        keys.next_guardian_counter = counter.checked_add(1)?;
        keys.seal(counter, plain, out)
    }

    fn sending_keys(&mut self) -> Option<&mut Keys> {
        let id = self.sending?;
        self.keys.iter_mut().find(|keys| keys.id == id)
    }

    /// Verifies and opens a datagram in place; returns the message inside.
    ///
    /// # Errors
    /// [`Refused`]; nothing inside the datagram has then been trusted.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], Refused> {
        if datagram.len() < OVERHEAD_BYTES {
            return Err(Refused::TooShort);
        }
        if datagram.len() > DATAGRAM_MAX_BYTES {
            return Err(Refused::TooLong);
        }
        let (header, rest) = datagram.split_at_mut(HEADER_BYTES);
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let (id, counter) = (word(0), word(8));
        let position = self
            .keys
            .iter()
            .position(|keys| keys.id == id)
            .ok_or(Refused::UnknownKey)?;
        let keys = &mut self.keys[position];
        let guardian = counter >= GUARDIAN_COUNTERS;
        let window = if guardian {
            &mut keys.seen_guardian
        } else {
            &mut keys.seen
        };
        if !window.is_new(counter) {
            return Err(if window.reaches(counter) {
                Refused::Replayed
            } else {
                Refused::TooOld
            });
        }
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
        let tag = Tag::try_from(&*tag).map_err(|_| Refused::Tag)?;
        let aad = Aad::from(&*header);
        let opened = keys
            .receive
            .open_in_place_separate_tag(nonce(counter), aad, tag, body, 0..);
        let plain = opened.map_err(|_| Refused::Tag)?;
        window.mark(counter);
        if !guardian && !keys.server {
            self.sending = Some(id);
        }
        Ok(plain)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(if counter >= GUARDIAN_COUNTERS {
        b"gasp"
    } else {
        b"beat"
    });
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Which of the last [`WINDOW_BITS`] counters have been seen (the sliding window of RFC 4303,
/// appendix A2).
#[derive(Clone, Debug, Default)]
struct ReplayWindow {
    highest: u64,
    seen: [u64; WINDOW_WORDS],
}

impl ReplayWindow {
    fn bit(counter: u64) -> (usize, u64) {
        let position = (counter % WINDOW_BITS as u64) as usize;
        (position / 64, 1 << (position % 64))
    }

    fn is_new(&self, counter: u64) -> bool {
        if counter > self.highest {
            return true;
        }
        let (word, bit) = Self::bit(counter);
        self.reaches(counter) && self.seen[word] & bit == 0
    }

    /// Whether it is known of `counter` if it was seen.
    const fn reaches(&self, counter: u64) -> bool {
        self.highest.saturating_sub(counter) < WINDOW_BITS as u64
    }

    fn mark(&mut self, counter: u64) {
        if counter > self.highest {
            if counter - self.highest >= WINDOW_BITS as u64 {
                self.seen = [0; WINDOW_WORDS];
            } else {
                for skipped in self.highest + 1..counter {
                    let (word, bit) = Self::bit(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = counter;
        }
        let (word, bit) = Self::bit(counter);
        self.seen[word] |= bit;
    }
}

#[cfg(test)]
mod tests;
