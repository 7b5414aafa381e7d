//! Changing this node's identity while it runs, without a moment in which somebody who is
//! connected does not trust it.
//!
//! ```text
//!   this node                                        the peer
//!   a new key is made (Preparing)
//!   NextIdentity ──────────────────────────────────► trusts it beside the old, durably, and has
//!   the host agents that obey this node              the host agents that obey it trust it
//!   trust it too (Announced)       ◄────────────────  NextPinned
//!   the key's file is exchanged (Exchanging)
//!   IdentityChanged ───────────────────────────────► (whoever of both dials, dials anew)
//!   a connection under the new identity, beside the old one (Changed)
//!                                  ◄────────────────  OldForgotten: the old is trusted no more
//! ```
//!
//! The node key, by which epochs are ordered, stays. Until the exchange everything can be taken
//! back, and is when somebody does not answer within [`ANNOUNCE_WITHIN`]. What is sealed with the
//! keys of the old connection goes on until the new one is in use.
//!
//! Not done here: host agents that are away while it happens keep the old identity; they are
//! counted beforehand, and enrolled anew.

use core::time::Duration;

use model::{NodeKey, Time};
use wire::control::TrustMessage;
use wire::supervision::Answer;

use super::{Asker, Standing, Then, Trust, TrustOrder, TrustOutput};

/// What the peer and the host agents may take to trust the next identity: writes of three disks
/// and some round trips.
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(4);
/// What it may take until the peer has forgotten the old one: a handshake or two and a write.
const CHANGE_WITHIN: Duration = Duration::from_secs(6);
/// The peer's host agents get so long; then it confirms all the same, since those who do not
/// answer are not there.
const VEMS_WITHIN: Duration = Duration::from_secs(2);

/// How far a change of our own identity is.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    asker: Asker,
    state: State,
    until: Time,
    /// Host agents that were away.
    away: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Preparing,
    Announced {
        next: NodeKey,
        peer: bool,
        vems: bool,
    },
    Exchanging {
        next: NodeKey,
    },
    Changed,
}

impl Rotation {
    pub(super) const fn deadline(&self) -> Time {
        self.until
    }
}

/// The peer's next identity, while the host agents that obey us are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerRotation {
    key: NodeKey,
    pub(super) until: Time,
}

impl Trust {
    /// `redundancy identity rotate`.
    pub(crate) fn rotate(&mut self, now: Time, asker: Asker, force: bool, standing: &Standing) {
        // Host agents are told by the active, whichever node changes its identity; a standby does
        // not know how many are away.
        let away = if standing.acting {
            standing.vems.saturating_sub(standing.vems_connected)
        } else {
            0
        };
        let refusal = if self.rotation.is_some() || self.unpairing.is_some() {
            Some("The identity, or the pairing, is being changed already".to_owned())
        } else if self.peer.is_some() && !self.connected {
            Some(
                "The other supervisor is not connected: it could not learn the new identity".into(),
            )
        } else if away > 0 && !force {
            Some(format!(
                "{away} host agents are away and would have to be enrolled anew (redundancy \
                 identity rotate force does it nevertheless)"
            ))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.refuse(asker, refusal);
        }
        self.rotation = Some(Rotation {
            asker,
            state: State::Preparing,
            until: now + ANNOUNCE_WITHIN,
            away,
        });
        self.order(TrustOrder::PrepareIdentity);
    }

    /// The new key is made.
    pub(super) fn identity_prepared(
        &mut self,
        result: Result<NodeKey, String>,
        standing: &Standing,
    ) {
        let Some(rotation) = &mut self.rotation else {
            return;
        };
        match (rotation.state, result) {
            (State::Preparing, Ok(next)) => {
                rotation.state = State::Announced {
                    next,
                    peer: self.peer.is_none(),
                    vems: !standing.acting || standing.vems_connected == 0,
                };
                self.own_next = Some(next);
                self.outputs.push_back(TrustOutput::Services);
                self.send(TrustMessage::NextIdentity { key: next });
                self.exchange_if_known();
            }
            (State::Preparing, Err(why)) => {
                self.give_up(&format!("no new key could be made: {why}"))
            }
            (State::Announced { .. } | State::Exchanging { .. } | State::Changed, _) => {}
        }
    }

    /// The peer trusts our next identity.
    pub(super) fn next_pinned(&mut self, key: NodeKey) {
        if let Some(Rotation {
            state: State::Announced { next, peer, .. },
            ..
        }) = &mut self.rotation
            && *next == key
        {
            *peer = true;
            self.exchange_if_known();
        }
    }

    /// How far the host agents that obey this node are with what they are to trust.
    pub(crate) fn vems_told(&mut self, keys: &[NodeKey], pending: u16) {
        if pending > 0 || keys != self.gateways() {
            return;
        }
        if let Some(Rotation {
            state: State::Announced { vems, .. },
            ..
        }) = &mut self.rotation
        {
            *vems = true;
            self.exchange_if_known();
        }
        self.confirm_peers_next();
    }

    fn exchange_if_known(&mut self) {
        if let Some(rotation) = &mut self.rotation
            && let State::Announced {
                next,
                peer: true,
                vems: true,
            } = rotation.state
        {
            rotation.state = State::Exchanging { next };
            // Known in the node file before the key is another.
            self.identities.node = Some(self.node);
            self.persist(Then::NodeKeyNoted);
        }
    }

    pub(super) fn node_key_noted(&mut self) {
        self.order(TrustOrder::ExchangeIdentity);
    }

    /// The key's file was exchanged, and what is shown of it.
    pub(super) fn identity_exchanged(&mut self, now: Time, result: Result<(), String>) {
        let Some(rotation) = &mut self.rotation else {
            return;
        };
        let State::Exchanging { next } = rotation.state else {
            return;
        };
        if let Err(why) = result {
            return self.give_up(&format!("the key could not be exchanged: {why}"));
        }
        rotation.state = State::Changed;
        rotation.until = now + CHANGE_WITHIN;
        self.own = next;
        self.own_next = None;
        self.identity_changes += 1;
        self.outputs.push_back(TrustOutput::Services);
        if self.peer.is_none() {
            return self.rotated(true);
        }
        self.send(TrustMessage::IdentityChanged { key: next });
        self.order(TrustOrder::Renew);
    }

    /// The peer trusts only `key` of ours.
    pub(super) fn old_forgotten(&mut self, key: NodeKey) {
        let changed = self
            .rotation
            .as_ref()
            .is_some_and(|rotation| rotation.state == State::Changed);
        if changed && key == self.own {
            self.rotated(true);
        }
    }

    fn rotated(&mut self, complete: bool) {
        let Some(Rotation { asker, away, .. }) = self.rotation.take() else {
            return;
        };
        let own = self.own;
        let peer = match (self.peer, complete) {
            (None, _) => "",
            (Some(_), true) => " The other supervisor trusts only that one.",
            (Some(_), false) => " The other supervisor has not confirmed it yet.",
        };
        let away = if away == 0 {
            String::new()
        } else {
            format!(" {away} host agents that were away must be enrolled anew.")
        };
        self.log(5, "IDENTITY_CHANGED", format!("The identity is {own} now."));
        let text = format!("The identity is {own} now.{peer}{away}");
        self.answer(asker, Answer::Noted(text));
    }

    /// Takes back what was announced.
    fn give_up(&mut self, why: &str) {
        let Some(Rotation { asker, .. }) = self.rotation.take() else {
            return;
        };
        if self.own_next.take().is_some() {
            let key = self.own;
            self.send(TrustMessage::NextIdentity { key });
            self.outputs.push_back(TrustOutput::Services);
        }
        self.refuse(asker, format!("The identity is as it was: {why}"));
    }

    pub(super) fn tick_rotation(&mut self, now: Time) {
        if self.peer_rotation.is_some_and(|peer| peer.until <= now) {
            self.confirm_peers_next();
        }
        let Some(rotation) = self
            .rotation
            .as_ref()
            .filter(|rotation| rotation.until <= now)
        else {
            return;
        };
        match rotation.state {
            State::Preparing => self.give_up("no new key was made in time"),
            State::Announced { peer: false, .. } => {
                self.give_up("the other supervisor did not confirm the new one");
            }
            State::Announced { .. } => self.give_up("host agents did not confirm the new one"),
            State::Exchanging { .. } => self.give_up("the node file could not be written in time"),
            State::Changed => self.rotated(false),
        }
    }

    // ---- the peer's side ----------------------------------------------------------------------

    /// The peer will change its identity, or not any more, or is as it was.
    pub(super) fn peer_announces(&mut self, key: NodeKey) {
        if self.peer.is_none() {
            return;
        }
        let known = [self.peer, self.identities.peer_next];
        if known == [Some(key), None] {
            return;
        }
        self.peer_rotation = None;
        self.identities.peer_next = (self.peer != Some(key)).then_some(key);
        if self.identities.peer_next.is_some() && self.identities.peer_node.is_none() {
            // What its epochs are ordered by stays, and is its fingerprint no more.
            self.identities.peer_node = self.peer;
        }
        self.persist(Then::PeerNextPinned { key });
    }

    pub(super) fn peer_next_pinned(&mut self, now: Time, key: NodeKey, standing: &Standing) {
        self.hand_out_peer();
        self.peer_rotation = Some(PeerRotation {
            key,
            until: now + VEMS_WITHIN,
        });
        self.outputs.push_back(TrustOutput::Services);
        if !standing.acting || standing.vems_connected == 0 {
            self.confirm_peers_next();
        }
    }

    fn confirm_peers_next(&mut self) {
        if let Some(PeerRotation { key, .. }) = self.peer_rotation.take() {
            self.send(TrustMessage::NextPinned { key });
        }
    }

    /// The peer is connected under this identity.
    pub(super) fn peer_shows(&mut self, key: NodeKey) {
        if self.identities.peer_next == Some(key) {
            self.peer = Some(key);
            self.identities.peer_next = None;
            self.persist(Then::PeerOldForgotten { key });
        }
    }

    pub(super) fn peer_old_forgotten(&mut self, key: NodeKey) {
        self.hand_out_peer();
        self.outputs.push_back(TrustOutput::Services);
        self.log(
            5,
            "IDENTITY_CHANGED",
            format!("The other supervisor's identity is {key} now."),
        );
        self.send(TrustMessage::OldForgotten { key });
    }
}
