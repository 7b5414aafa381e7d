//! Forgetting the peer, on both nodes where both are reachable.
//!
//! The order matters: the peer forgets first and confirms, while it can still be told; then this
//! node forgets. A peer that does not confirm within [`CONFIRM_WITHIN`] keeps our identity, and
//! the operator is told to unpair there too: nothing it does with it passes here any more.

use core::time::Duration;

use model::Time;
use wire::control::TrustMessage;
use wire::supervision::Answer;

use super::{Asker, Then, Trust, TrustOutput};

/// What the peer may take to forget and to say so: a write of its node file and a round trip. The
/// operator waits for it.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

/// An unpairing that the peer has been told of.
#[derive(Clone, Debug)]
pub(super) struct Unpairing {
    asker: Asker,
    until: Time,
}

impl Unpairing {
    pub(super) const fn deadline(&self) -> Time {
        self.until
    }
}

impl Trust {
    /// `redundancy unpair`.
    pub(crate) fn unpair(&mut self, now: Time, asker: Asker) {
        if self.peer.is_none() {
            return self.refuse(asker, "This supervisor is not paired".to_owned());
        }
        if self.unpairing.is_some() {
            return self.refuse(asker, "An unpairing is in progress".to_owned());
        }
        if self.connected {
            let until = now + CONFIRM_WITHIN;
            self.unpairing = Some(Unpairing { asker, until });
            self.send(TrustMessage::Unpair);
        } else {
            self.forget(Then::Forgotten {
                asker,
                confirmed: false,
            });
        }
    }

    /// The peer has confirmed, or will not.
    pub(super) fn peer_confirms(&mut self, confirmed: bool) {
        if let Some(Unpairing { asker, .. }) = self.unpairing.take() {
            self.forget(Then::Forgotten { asker, confirmed });
        }
    }

    /// The peer forgets us, and we are to forget it.
    pub(super) fn peer_unpairs(&mut self) {
        if self.peer.is_some() {
            self.forget(Then::ForgottenForPeer);
        }
    }

    pub(super) fn forgotten_for_peer(&mut self) {
        self.send(TrustMessage::Unpaired);
        self.void();
        self.log(
            3,
            "UNPAIRED",
            "The other supervisor unpaired this one: nobody is trusted any more.".to_owned(),
        );
    }

    pub(super) fn forgotten(&mut self, asker: Asker, confirmed: bool) {
        self.void();
        self.log(3, "UNPAIRED", "The other supervisor was unpaired.".into());
        let text = if confirmed {
            "Unpaired. The other supervisor has forgotten this one too."
        } else {
            "Unpaired here. The other supervisor did not confirm: run redundancy unpair there too."
        };
        self.answer(asker, Answer::Noted(text.to_owned()));
    }

    fn forget(&mut self, then: Then) {
        self.peer = None;
        self.identities.peer_node = None;
        self.identities.peer_next = None;
        self.identities.peer_since_unix_s = 0;
        self.persist(then);
    }

    /// Everything that stood on the peer's identity ends.
    fn void(&mut self) {
        self.outputs.push_back(TrustOutput::PeerUnpinned);
        self.hand_out_peer();
        self.outputs.push_back(TrustOutput::Services);
        self.connected = false;
    }
}
