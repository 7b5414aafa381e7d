//! What protects the datagrams on HA links, as shipped, and a ledger of what was really sent.
//!
//! Each machine has the [`Envelope`] of its heartbeat thread. The keys come from the number of the
//! control connection's life: nobody outside the pair can make them, and what an attacker does
//! have (what passed, what a foreign pair sends, noise) is thrown at the machines by
//! [`crate::faults`].

use runtime::envelope::{Envelope, ExportedKeys};
use wire::Channel;
use wire::heartbeat::{DATAGRAM_MAX_BYTES, Datagram, Gasp};

use crate::network::LINKS;

/// Datagrams kept for replaying; the oldest make room.
const HEARD_MAX: usize = 64;

/// What both ends of one life of the control connection exported from it.
#[must_use]
pub fn exported(life: u64) -> ExportedKeys {
    let mut bytes = [0x5a; 8 + 32 + 32];
    bytes[..8].copy_from_slice(&life.to_le_bytes());
    bytes[8..16].copy_from_slice(&life.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    bytes[40..48].copy_from_slice(&(!life).to_le_bytes());
    ExportedKeys::new(bytes)
}

/// Lives of a pair that is not ours are numbered from here.
pub const FOREIGN: u64 = 1 << 40;

/// One machine's end.
#[derive(Debug, Default)]
pub struct WirePath {
    envelope: Envelope,
    gasp: Option<Gasp>,
    sealed_under: Option<u64>,
    sealed: Option<Vec<u8>>,
}

impl WirePath {
    /// The control connection stands.
    pub fn connected(&mut self, life: u64, server: bool) {
        self.envelope.install(&exported(life), server);
    }

    /// The other end is known to have the keys.
    pub fn heard_on(&mut self, life: u64) {
        self.envelope.activate(exported(life).id());
        self.reseal();
    }

    /// A datagram as it goes out, once there is a key.
    pub fn seal(&mut self, datagram: &Datagram) -> Option<Vec<u8>> {
        let plain = wire::encode(Channel::Heartbeat, datagram);
        let mut bytes = [0; DATAGRAM_MAX_BYTES];
        let length = self.envelope.seal(&plain, &mut bytes)?;
        Some(bytes[..length].to_vec())
    }

    /// A datagram that came in; nothing if it is not one of the peer's, or came before.
    pub fn open(&mut self, mut bytes: Vec<u8>) -> Option<Datagram> {
        let datagram = {
            let plain = self.envelope.open(&mut bytes).ok()?;
            wire::decode(Channel::Heartbeat, plain).ok()
        };
        self.reseal();
        datagram
    }

    /// What the guardian is to send if the processes die.
    pub fn keep_gasp(&mut self, gasp: Option<Gasp>) {
        self.gasp = gasp;
        self.sealed = None;
        self.sealed_under = None;
        self.reseal();
    }

    fn reseal(&mut self) {
        let Some(gasp) = &self.gasp else { return };
        let sending = self.envelope.sending();
        if sending.is_none() || sending == self.sealed_under {
            return;
        }
        let plain = wire::encode(Channel::Heartbeat, &Datagram::Gasp(gasp.clone()));
        let mut bytes = [0; DATAGRAM_MAX_BYTES];
        let length = self.envelope.seal_for_guardian(&plain, &mut bytes);
        self.sealed = length.map(|length| bytes[..length].to_vec());
        self.sealed_under = sending;
    }

    /// The sealed gasp, once.
    pub fn take_gasp(&mut self) -> Option<Vec<u8>> {
        self.gasp = None;
        self.sealed.take()
    }
}

/// What passed on the HA links, for whoever listens there and sends it again.
#[derive(Debug, Default)]
pub struct Overheard {
    heard: std::collections::VecDeque<(usize, Vec<u8>, u64)>,
}

impl Overheard {
    /// A datagram towards a slot, and its number.
    pub fn note(&mut self, to: usize, bytes: &[u8], sent: u64) {
        if self.heard.len() >= HEARD_MAX * LINKS {
            self.heard.pop_front();
        }
        self.heard.push_back((to, bytes.to_vec(), sent));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heard.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heard.is_empty()
    }

    /// Where one of them went, itself, and its number.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&(usize, Vec<u8>, u64)> {
        self.heard.get(index)
    }
}
