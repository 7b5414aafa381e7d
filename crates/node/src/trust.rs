//! Whom a node trusts, and how that changes while it runs: pairing by a one-time code, unpairing,
//! host agents, nodes that were found and are not paired. A pure part of the System Manager, beside
//! the redundancy core, which only knows whether there is a peer.
//!
//! Invariants:
//! - P1 an identity is trusted in memory only after it is durable in the node file;
//! - P2 nobody becomes trusted but by a code that he proved (or by hand, while the node is stopped);
//! - P3 an identity that is not trusted any more is not in any set that is handed out;
//! - P4 what was proved for one purpose is good for that purpose only.
//!
//! | module | holds |
//! |---|---|
//! | `code` | how long a code is valid and how often it may be tried |
//! | `exchange` | one pairing from the first message to the pin, on either side |
//! | `rotation` | a new identity, of this node or of the peer |
//! | `unpair` | forgetting the peer on both nodes |
//! | `vems` | the host agents, merged between both nodes |
//! | `found` | who knocked and is not trusted |

mod code;
mod exchange;
mod found;
mod rotation;
mod unpair;
mod vems;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use model::{Epoch, NodeKey, PairId, Role, ServiceName, Time};
use redundancy::{Identities, NodeRecord};
use serde::{Deserialize, Serialize};
use wire::control::{TrustMessage, VemPin};
use wire::log::LogRecord;
use wire::pairing::{Code, Introduction, Purpose};
use wire::supervision::{Answer, CodeStatus, IdentityStatus, PinnedPeer, Trust as Trusted};

use code::Codes;
use exchange::Attempt;
use found::Found;
use rotation::{PeerRotation, Rotation};
use unpair::Unpairing;
use vems::Vems;

pub use code::{TRIES, VALID};
pub use found::FOUND_MAX;
pub use vems::VEMS_MAX;

/// Pause before a write that failed is tried again: a full or failing disk seldom mends sooner.
const WRITE_RETRY: Duration = Duration::from_secs(1);

/// Who asked, and under which number he waits.
pub(crate) type Asker = (ServiceName, u64);

/// What happens in pairings and at the doors, as the shell tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrustEvent {
    /// The listener for a code could not be opened.
    CodeNotOpened {
        /// The code's number.
        offer: u64,
    },
    /// Somebody connected where a code is listened for; to be answered by [`TrustOrder::Begin`].
    Begun {
        /// Chosen by the shell; below 2^63.
        attempt: u64,
        /// The code's number.
        offer: u64,
        /// Where from.
        address: String,
    },
    /// He (or whom we joined) proved the code; to be answered by [`TrustOrder::Verdict`].
    Proven {
        /// Which attempt.
        attempt: u64,
        /// His identity.
        key: NodeKey,
        /// Who he says he is.
        introduction: Introduction,
    },
    /// Both verdicts are favourable, and it is our turn to pin; to be answered by
    /// [`TrustOrder::Pinned`].
    Agreed {
        /// Which attempt.
        attempt: u64,
    },
    /// It is over.
    Ended {
        /// Which attempt.
        attempt: u64,
        /// Both have pinned, or why not.
        outcome: Result<(), String>,
    },
    /// Answers [`TrustOrder::PrepareIdentity`].
    IdentityPrepared(Result<NodeKey, String>),
    /// Answers [`TrustOrder::ExchangeIdentity`].
    IdentityExchanged(Result<(), String>),
    /// A control connection stands, under this identity of the peer.
    PeerShows {
        /// Its identity.
        key: NodeKey,
    },
    /// Somebody whose identity is not pinned showed it on an HA link.
    Found {
        /// His identity.
        key: NodeKey,
        /// Where.
        address: String,
    },
}

/// What the shell is to do about pairings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrustOrder {
    /// Draw a code, listen for those who were told it, and answer the asker with
    /// [`Answer::Code`], or say [`TrustEvent::CodeNotOpened`] and refuse.
    OpenCode {
        /// The code's number; another one ends.
        offer: u64,
        /// What it is good for.
        purpose: Purpose,
        /// Who asked.
        service: ServiceName,
        /// Under which number.
        question: u64,
    },
    /// Forget the code and stop listening.
    CloseCode {
        /// The code's number.
        offer: u64,
    },
    /// Connect and prove the code.
    Join {
        /// To be told in [`TrustEvent`]s.
        attempt: u64,
        /// Where to.
        address: std::net::SocketAddr,
        /// What was typed.
        code: Code,
        /// Who we are.
        introduction: Introduction,
    },
    /// The attempt may go on, or not.
    Begin {
        /// Which.
        attempt: u64,
        /// Who we are; `None` is no more tries.
        introduction: Option<Introduction>,
    },
    /// Tell the other side our verdict.
    Verdict {
        /// Which.
        attempt: u64,
        /// Why not, if not.
        refusal: Option<String>,
    },
    /// The other side is pinned here, durably, or cannot be.
    Pinned {
        /// Which.
        attempt: u64,
        /// Whether.
        durable: bool,
    },
    /// Make another key beside the present one; say [`TrustEvent::IdentityPrepared`].
    PrepareIdentity,
    /// Put it in the place of the present one, durably, and show it from now on; say
    /// [`TrustEvent::IdentityExchanged`].
    ExchangeIdentity,
    /// Make new control connections in the place of those that stand, if this node dials.
    Renew,
    /// From now on these are trusted: at the start, and at each change.
    Peer {
        /// The peer's identities, none if there is no peer.
        keys: Vec<NodeKey>,
        /// Of the two, this node dials.
        dials: bool,
        /// There is no peer: this node shows itself where one would be.
        knocks: bool,
    },
}

/// What [`Trust`] asks of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TrustOutput {
    /// For the shell.
    Order(TrustOrder),
    /// Send to the peer, if it is connected.
    Send(TrustMessage),
    /// Write the node file; [`Trust::durable`] with this number follows.
    Persist(u64),
    /// Tell the services whom to trust.
    Services,
    /// Tell the redundancy core.
    PeerPinned {
        /// See [`redundancy::Input::PeerPinned`].
        gives_way: bool,
        /// See there.
        above: Epoch,
    },
    /// Tell the redundancy core.
    PeerUnpinned,
    /// Answer a question.
    Answer(Asker, Answer),
    /// A line for the log.
    Log(LogRecord),
}

/// What must be known of the node to judge who may be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) role: Role,
    pub(crate) pair: Option<PairId>,
    pub(crate) acting: bool,
    pub(crate) highest_epoch: Epoch,
    /// Host agents in the inventory.
    pub(crate) vems: u16,
    /// Those connected here.
    pub(crate) vems_connected: u16,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// What peers pin of us.
    own: NodeKey,
    /// What our epochs are ordered by.
    node: NodeKey,
    name: String,
    peer: Option<NodeKey>,
    identities: Identities,
    vems: Vems,
    connected: bool,
    /// It is of a pair, or wants to be.
    sociable: bool,
    /// The wall clock, for display: seconds since 1970 at an instant.
    unix_s: (u64, Time),
    codes: Codes,
    attempts: BTreeMap<u64, Attempt>,
    joins: u64,
    unpairing: Option<Unpairing>,
    rotation: Option<Rotation>,
    peer_rotation: Option<PeerRotation>,
    /// What `own` will be.
    own_next: Option<NodeKey>,
    /// Counts its changes since the start.
    identity_changes: u64,
    found: Found,
    /// What waits for a write: its number, and what then follows.
    writes: VecDeque<(u64, Then)>,
    written: u64,
    /// When a write that failed is tried again.
    retry_at: Option<Time>,
    /// Counts our statements about host agents.
    serial: u64,
    outputs: VecDeque<TrustOutput>,
}

/// What follows a durable write.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Then {
    /// An attempt has pinned its peer.
    Pinned {
        attempt: u64,
        /// The highest epoch that it has seen, if it is a node.
        above: Option<Epoch>,
    },
    /// The peer was forgotten because it wanted so.
    ForgottenForPeer,
    /// The peer was forgotten because the operator wanted so; the peer confirmed it, or did not.
    Forgotten { asker: Asker, confirmed: bool },
    /// The node key, which is the present fingerprint, is noted.
    NodeKeyNoted,
    /// The peer's next identity is trusted.
    PeerNextPinned { key: NodeKey },
    /// Its old one is trusted no more.
    PeerOldForgotten { key: NodeKey },
    /// A host agent is trusted no more.
    VemRemoved,
    /// The peer's statement about host agents was taken over.
    VemsMerged { serial: u64 },
}

impl Trust {
    pub(crate) fn new(node: NodeKey, record: &NodeRecord) -> Self {
        Self {
            own: node,
            node,
            name: String::new(),
            peer: record.peer,
            identities: record.identities.clone(),
            vems: Vems::new(record.vems.clone()),
            connected: false,
            sociable: record.role != Role::Standalone,
            unix_s: (0, Time(0)),
            codes: Codes::default(),
            attempts: BTreeMap::new(),
            joins: 0,
            unpairing: None,
            rotation: None,
            peer_rotation: None,
            own_next: None,
            identity_changes: 0,
            found: Found::default(),
            writes: VecDeque::new(),
            written: 0,
            retry_at: None,
            serial: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Who this node is to others: the fingerprint of its identity, and its name.
    pub(crate) fn introduce(&mut self, own: NodeKey, name: String) {
        (self.own, self.name) = (own, name);
    }

    /// The wall clock, for display.
    pub(crate) fn wall_clock(&mut self, now: Time, unix_s: u64) {
        self.unix_s = (unix_s, now);
    }

    /// Puts what is trusted into a record of the redundancy core.
    pub(crate) fn stamp(&self, record: &mut NodeRecord) {
        record.peer = self.peer;
        record.identities = self.identities.clone();
        record.vems = self.vems.pins().to_vec();
    }

    pub(crate) fn poll_output(&mut self) -> Option<TrustOutput> {
        self.outputs.pop_front()
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let unpairing = self.unpairing.as_ref().map(Unpairing::deadline);
        let rotation = self.rotation.as_ref().map(Rotation::deadline);
        let peer_rotation = self.peer_rotation.map(|peer| peer.until);
        let deadlines = [
            self.codes.deadline(),
            unpairing,
            rotation,
            peer_rotation,
            self.retry_at,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// What has become due.
    pub(crate) fn tick(&mut self, now: Time) {
        if let Some(offer) = self.codes.expire(now) {
            self.order(TrustOrder::CloseCode { offer });
            self.log(5, "PAIRING_EXPIRED", "The pairing code has expired.".into());
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.written += 1;
            self.outputs.push_back(TrustOutput::Persist(self.written));
        }
        if self
            .unpairing
            .as_ref()
            .is_some_and(|unpairing| unpairing.deadline() <= now)
        {
            self.peer_confirms(false);
        }
        self.tick_rotation(now);
    }

    pub(crate) fn peer_connected(&mut self, connected: bool) {
        self.connected = connected;
        if connected {
            if self.rotation.is_none() {
                // A change that a restart broke off is taken back, or goes on.
                let key = self.own;
                self.send(TrustMessage::NextIdentity { key });
            }
            self.state_vems();
        } else {
            self.peer_confirms(false);
        }
    }

    /// A message of the peer.
    pub(crate) fn message(&mut self, message: TrustMessage) {
        match message {
            TrustMessage::Unpair => self.peer_unpairs(),
            TrustMessage::Unpaired => self.peer_confirms(true),
            TrustMessage::Vems { serial, pins } => self.peer_states_vems(serial, &pins),
            // Whoever enrols does not wait for it.
            TrustMessage::VemsPinned { .. } | TrustMessage::Renewed => {}
            TrustMessage::NextIdentity { key } => self.peer_announces(key),
            TrustMessage::NextPinned { key } => self.next_pinned(key),
            TrustMessage::IdentityChanged { .. } => self.order(TrustOrder::Renew),
            TrustMessage::OldForgotten { key } => self.old_forgotten(key),
        }
    }

    pub(crate) fn event(&mut self, now: Time, event: TrustEvent, standing: &Standing) {
        match event {
            TrustEvent::CodeNotOpened { offer } => {
                self.codes.end(offer);
            }
            TrustEvent::Begun {
                attempt,
                offer,
                address,
            } => self.begun(now, attempt, offer, address, standing),
            TrustEvent::Proven {
                attempt,
                key,
                introduction,
            } => self.proven(attempt, key, introduction, standing),
            TrustEvent::Agreed { attempt } => self.agreed(now, attempt),
            TrustEvent::Ended { attempt, outcome } => self.ended(attempt, outcome),
            TrustEvent::IdentityPrepared(result) => self.identity_prepared(result, standing),
            TrustEvent::IdentityExchanged(result) => self.identity_exchanged(now, result),
            TrustEvent::PeerShows { key } => self.peer_shows(key),
            TrustEvent::Found { key, address } => self.find(now, key, address),
        }
    }

    /// The write with this number, and all before it, are durable.
    pub(crate) fn durable(&mut self, now: Time, write: u64, standing: &Standing) {
        while let Some((number, _)) = self.writes.front()
            && *number <= write
        {
            let Some((_, then)) = self.writes.pop_front() else {
                return;
            };
            match then {
                Then::Pinned { attempt, above } => self.pinned(attempt, above),
                Then::ForgottenForPeer => self.forgotten_for_peer(),
                Then::Forgotten { asker, confirmed } => self.forgotten(asker, confirmed),
                Then::NodeKeyNoted => self.node_key_noted(),
                Then::PeerNextPinned { key } => self.peer_next_pinned(now, key, standing),
                Then::PeerOldForgotten { key } => self.peer_old_forgotten(key),
                Then::VemRemoved => {
                    self.outputs.push_back(TrustOutput::Services);
                    self.state_vems();
                }
                Then::VemsMerged { serial } => {
                    self.outputs.push_back(TrustOutput::Services);
                    self.send(TrustMessage::VemsPinned { serial });
                }
            }
        }
    }

    /// A write failed. It is tried again while something waits for it; the other side of a pairing
    /// gives up meanwhile.
    pub(crate) fn not_durable(&mut self, now: Time, write: u64) {
        if self.writes.iter().any(|(number, _)| *number <= write) {
            self.retry_at = Some(now + WRITE_RETRY);
        }
    }

    /// `show redundancy identity`.
    pub(crate) fn status(&self, now: Time) -> IdentityStatus {
        IdentityStatus {
            fingerprint: self.own,
            node: self.node,
            peer: self.peer.map(|fingerprint| PinnedPeer {
                fingerprint,
                next: self.identities.peer_next,
                since_unix_s: self.identities.peer_since_unix_s,
                connected: self.connected,
            }),
            code: self.codes.valid(now).map(|offer| CodeStatus {
                purpose: offer.purpose,
                left_s: offer.until.since(now).as_secs() as u32,
                tries: offer.tries + offer.running,
            }),
            found: self.found.rows(now),
            vems: self.vems.trusted(),
        }
    }

    /// What services with connections to the outside are told.
    pub(crate) fn trusted(&self) -> Trusted {
        Trusted {
            peer: self.peer_keys(),
            dials: self.dials(),
            vems: self.vems.trusted(),
            gateways: self.gateways(),
            identity: self.identity_changes,
        }
    }

    /// Tells the shell whom to trust: at the start, and at each change.
    pub(crate) fn hand_out_peer(&mut self) {
        let (keys, dials) = (self.peer_keys(), self.dials());
        let knocks = keys.is_empty() && self.sociable;
        self.order(TrustOrder::Peer {
            keys,
            dials,
            knocks,
        });
    }

    /// Whether this node looks for a peer at all: a standalone one does not.
    pub(crate) fn set_sociable(&mut self, sociable: bool) {
        if self.sociable != sociable {
            self.sociable = sociable;
            self.hand_out_peer();
        }
    }

    /// Checks the invariants that a value can show.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.codes.check()
    }

    /// What host agents are to trust: both nodes.
    fn gateways(&self) -> Vec<NodeKey> {
        let mut keys = self.peer_keys();
        keys.push(self.own);
        keys.extend(self.own_next);
        keys.sort();
        keys
    }

    /// An operator removed a host agent.
    pub(crate) fn remove_vem(&mut self, key: NodeKey) {
        self.vems.set(key, false);
        self.persist(Then::VemRemoved);
    }

    fn peer_keys(&self) -> Vec<NodeKey> {
        self.peer
            .into_iter()
            .chain(self.identities.peer_next)
            .collect()
    }

    /// The node with the lower key dials. By what epochs are ordered by, which never changes.
    fn dials(&self) -> bool {
        let peer = self.identities.peer_node.or(self.peer);
        peer.is_some_and(|peer| self.node < peer)
    }

    fn find(&mut self, now: Time, key: NodeKey, address: String) {
        if self.peer_keys().contains(&key) || key == self.own {
            return;
        }
        let line = format!(
            "A node was found that is not paired with this one: {key} at {address} (show \
             redundancy identity)."
        );
        if self.found.see(now, key, address) {
            self.log(4, "PEER_NOT_PAIRED", line);
        }
    }

    /// Tells the peer all that is known of host agents.
    fn state_vems(&mut self) {
        self.serial += 1;
        let (serial, pins) = (self.serial, self.vems.pins().to_vec());
        self.send(TrustMessage::Vems { serial, pins });
    }

    fn peer_states_vems(&mut self, serial: u64, pins: &[VemPin]) {
        if self.vems.merge(pins) {
            self.persist(Then::VemsMerged { serial });
        } else {
            self.send(TrustMessage::VemsPinned { serial });
        }
    }

    fn persist(&mut self, then: Then) {
        self.written += 1;
        self.writes.push_back((self.written, then));
        self.outputs.push_back(TrustOutput::Persist(self.written));
    }

    fn order(&mut self, order: TrustOrder) {
        self.outputs.push_back(TrustOutput::Order(order));
    }

    fn send(&mut self, message: TrustMessage) {
        if self.connected {
            self.outputs.push_back(TrustOutput::Send(message));
        }
    }

    fn answer(&mut self, asker: Asker, answer: Answer) {
        self.outputs.push_back(TrustOutput::Answer(asker, answer));
    }

    fn refuse(&mut self, asker: Asker, why: String) {
        self.answer(asker, Answer::Refused(why));
    }

    fn log(&mut self, severity: u8, mnemonic: &str, text: String) {
        self.outputs.push_back(TrustOutput::Log(LogRecord {
            facility: "REDUNDANCY".to_owned(),
            severity,
            mnemonic: mnemonic.to_owned(),
            text,
            service: None,
        }));
    }
}

#[cfg(test)]
mod tests;
