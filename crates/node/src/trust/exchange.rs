//! One pairing, on the side that printed the code or on the side where it was typed.
//!
//! ```text
//!   printed:  Begun ─► Proven ─► Agreed ─► (durable) ─► Ended
//!   typed:    join ──► Proven ─► Agreed ─► (durable) ─► Ended
//! ```
//!
//! The typing side pins first and says so; only then the printing side pins. So a connection that
//! breaks in between leaves at most the typing side with a pin, and its operator at the terminal
//! where he reads what to do.

use model::{Epoch, NodeKey, Role, Time};
use wire::pairing::{Code, Introduction, NodeIntroduction, Purpose};
use wire::supervision::Answer;

use super::{Asker, Standing, Then, Trust, TrustOrder, TrustOutput};

/// Numbers of attempts from here on are ours, for joins; those below are the shell's.
pub(super) const JOINS: u64 = 1 << 63;
/// Attempts under way. The shell lets one through at a time; the rest is slack for ends that are
/// still to be told.
const ATTEMPTS_MAX: usize = 16;

/// One pairing under way.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    side: Side,
    /// Who he is, once proved.
    peer: Option<(NodeKey, Introduction)>,
    /// He knows the code, whether or not he is trusted for it.
    proven: bool,
    pinned: bool,
    /// The other side leads: should we lead by the time we meet, we restart and follow. Where the
    /// code was printed, only if we did not lead before.
    gives_way: bool,
    /// We lead now, and give way.
    restarts: bool,
}

#[derive(Clone, Debug)]
enum Side {
    /// We printed the code.
    Printed {
        offer: u64,
        purpose: Purpose,
        address: String,
    },
    /// It was typed here.
    Typed { asker: Asker },
}

impl Trust {
    /// `redundancy pair`, `vem enroll`.
    pub(crate) fn offer(&mut self, now: Time, asker: Asker, purpose: Purpose, standing: &Standing) {
        let refusal = match purpose {
            Purpose::Node => self.not_to_pair(standing),
            Purpose::Vem if !standing.acting => {
                Some("Host agents are enrolled at the active supervisor".to_owned())
            }
            Purpose::Vem if self.vems.is_full() => Some(format!(
                "{} host agents are enrolled already",
                super::VEMS_MAX
            )),
            Purpose::Vem => None,
        };
        if let Some(refusal) = refusal {
            return self.refuse(asker, refusal);
        }
        if let Some(before) = self.codes.valid(now) {
            let offer = before.number;
            self.order(TrustOrder::CloseCode { offer });
        }
        let offer = self.codes.make(now, purpose);
        let (service, question) = asker;
        self.order(TrustOrder::OpenCode {
            offer,
            purpose,
            service,
            question,
        });
    }

    /// `redundancy join`.
    pub(crate) fn join(
        &mut self,
        asker: Asker,
        (address, code): (std::net::SocketAddr, Code),
        standing: &Standing,
    ) {
        let serves = standing.acting && standing.vems > 0;
        let refusal = self.not_to_pair(standing).or_else(|| {
            serves.then(|| {
                format!(
                    "This supervisor leads {} host agents and would restart: run redundancy pair \
                     here and redundancy join on the other one",
                    standing.vems
                )
            })
        });
        if let Some(refusal) = refusal {
            return self.refuse(asker, refusal);
        }
        let busy = self
            .attempts
            .values()
            .any(|attempt| matches!(attempt.side, Side::Typed { .. }));
        if busy {
            return self.refuse(asker, "Another join is in progress".to_owned());
        }
        self.joins += 1;
        let attempt = JOINS | self.joins;
        self.attempts
            .insert(attempt, Attempt::new(Side::Typed { asker }));
        let introduction = self.introduction(standing);
        self.order(TrustOrder::Join {
            attempt,
            address,
            code,
            introduction,
        });
    }

    /// Why this node pairs with nobody now.
    fn not_to_pair(&self, standing: &Standing) -> Option<String> {
        if let Some(peer) = self.peer {
            return Some(format!(
                "Already paired with {peer}: run redundancy unpair first"
            ));
        }
        if standing.role == Role::Standalone {
            return Some(
                "This supervisor is standalone: run system redundancy role {primary|secondary} \
                 first"
                    .to_owned(),
            );
        }
        standing
            .pair
            .is_none()
            .then(|| "No pair ID is set here: run ha-pair id N first".to_owned())
    }

    fn introduction(&self, standing: &Standing) -> Introduction {
        Introduction::Node(NodeIntroduction {
            name: self.name.clone(),
            node: self.node,
            pair: standing.pair,
            role: standing.role,
            acting: standing.acting,
            highest_epoch: standing.highest_epoch,
            other: self.peer,
        })
    }

    pub(super) fn begun(
        &mut self,
        now: Time,
        attempt: u64,
        offer: u64,
        address: String,
        standing: &Standing,
    ) {
        let purpose = self.codes.valid(now).map(|offer| offer.purpose);
        let room = self.attempts.len() < ATTEMPTS_MAX;
        let introduction = match purpose {
            Some(purpose) if room && self.codes.take_try(now, offer) => {
                let side = Side::Printed {
                    offer,
                    purpose,
                    address,
                };
                self.attempts.insert(attempt, Attempt::new(side));
                Some(self.introduction(standing))
            }
            Some(_) | None => None,
        };
        self.order(TrustOrder::Begin {
            attempt,
            introduction,
        });
    }

    pub(super) fn proven(
        &mut self,
        attempt: u64,
        key: NodeKey,
        introduction: Introduction,
        standing: &Standing,
    ) {
        let Some(known) = self.attempts.get(&attempt) else {
            return;
        };
        let refusal = match &known.side {
            Side::Printed { offer, purpose, .. } => {
                let (offer, purpose) = (*offer, *purpose);
                self.codes.give_back(offer);
                self.objection(purpose, key, &introduction, standing)
            }
            Side::Typed { .. } => self.objection(Purpose::Node, key, &introduction, standing),
        };
        let other_acts = matches!(&introduction, Introduction::Node(node) if node.acting);
        if let Some(known) = self.attempts.get_mut(&attempt) {
            known.proven = true;
            let typed = matches!(known.side, Side::Typed { .. });
            known.gives_way = other_acts && (typed || !standing.acting);
            known.restarts = known.gives_way && standing.acting;
            known.peer = refusal.is_none().then_some((key, introduction));
        }
        self.order(TrustOrder::Verdict { attempt, refusal });
    }

    /// Why somebody who knows the code is not trusted all the same. Read on both terminals, so it
    /// names this node.
    fn objection(
        &self,
        purpose: Purpose,
        key: NodeKey,
        introduction: &Introduction,
        standing: &Standing,
    ) -> Option<String> {
        let ours = &self.name;
        let theirs = introduction.purpose();
        if theirs != purpose {
            return Some(format!(
                "{ours}: the code is for a {purpose}, not for a {theirs}"
            ));
        }
        if key == self.own {
            return Some(format!("{ours}: that is this supervisor itself"));
        }
        let Introduction::Node(node) = introduction else {
            let full = self.vems.is_full() && !self.vems.trusts(&key);
            return full.then(|| format!("{ours}: {} host agents are enrolled", super::VEMS_MAX));
        };
        if let Some(why) = self.not_to_pair(standing) {
            return Some(format!("{ours}: {why}"));
        }
        let (other, number) = (&node.name, |pair: Option<model::PairId>| {
            pair.map_or("none".to_owned(), |pair| pair.number().to_string())
        });
        if node.node == self.node {
            return Some(format!(
                "{ours} and {other} have the same node key: one is a clone of the other (vsgd \
                 init --force makes a node of its own)"
            ));
        }
        if node.role == Role::Standalone {
            return Some(format!("{other} is standalone"));
        }
        if node.role == standing.role {
            return Some(format!(
                "{ours} and {other} both have the role {}: change one by system redundancy role",
                node.role
            ));
        }
        (node.pair != standing.pair).then(|| {
            format!(
                "The pair IDs differ: {} on {ours}, {} on {other} (ha-pair id)",
                number(standing.pair),
                number(node.pair)
            )
        })
    }

    pub(super) fn agreed(&mut self, now: Time, attempt: u64) {
        let peer = self
            .attempts
            .get(&attempt)
            .and_then(|known| known.peer.clone());
        // Another pairing may have come about meanwhile.
        let taken = match &peer {
            Some((_, Introduction::Node(_))) => self.peer.is_some(),
            Some((_, Introduction::Vem { .. })) => false,
            None => true,
        };
        let (Some((key, introduction)), false) = (peer, taken) else {
            let durable = false;
            return self.order(TrustOrder::Pinned { attempt, durable });
        };
        let above = match introduction {
            Introduction::Node(node) => {
                self.peer = Some(key);
                self.identities.peer_node = (node.node != key).then_some(node.node);
                let (unix_s, at) = self.unix_s;
                self.identities.peer_since_unix_s = unix_s + now.since(at).as_secs();
                Some(node.highest_epoch)
            }
            Introduction::Vem { .. } => {
                self.vems.set(key, true);
                None
            }
        };
        self.persist(Then::Pinned { attempt, above });
    }

    /// The pin is durable.
    pub(super) fn pinned(&mut self, attempt: u64, above: Option<Epoch>) {
        let Some(known) = self.attempts.get_mut(&attempt) else {
            // The other side gave up in the meantime: what is pinned is pinned, and shown.
            self.take_effect(above, false);
            return;
        };
        known.pinned = true;
        let typed = matches!(known.side, Side::Typed { .. });
        let gives_way = known.gives_way;
        self.order(TrustOrder::Pinned {
            attempt,
            durable: true,
        });
        // The typing side goes on once the other has pinned it too: it may restart.
        if !typed {
            self.end_code(attempt);
            self.take_effect(above, gives_way);
        }
    }

    fn end_code(&mut self, attempt: u64) {
        if let Some(Attempt {
            side: Side::Printed { offer, .. },
            ..
        }) = self.attempts.get(&attempt)
        {
            let offer = *offer;
            if self.codes.end(offer) {
                self.order(TrustOrder::CloseCode { offer });
            }
        }
    }

    /// What was pinned is handed out.
    fn take_effect(&mut self, above: Option<Epoch>, gives_way: bool) {
        self.peer_keys()
            .iter()
            .for_each(|key| self.found.forget(key));
        self.hand_out_peer();
        self.outputs.push_back(TrustOutput::Services);
        if let Some(above) = above {
            self.outputs
                .push_back(TrustOutput::PeerPinned { gives_way, above });
        }
        self.state_vems();
    }

    pub(super) fn ended(&mut self, attempt: u64, outcome: Result<(), String>) {
        let Some(known) = self.attempts.remove(&attempt) else {
            return;
        };
        match known.side.clone() {
            Side::Printed { offer, address, .. } => {
                self.printed_ended(&known, offer, &address, outcome)
            }
            Side::Typed { asker } => self.typed_ended(&known, asker, outcome),
        }
    }

    fn printed_ended(
        &mut self,
        known: &Attempt,
        offer: u64,
        address: &str,
        outcome: Result<(), String>,
    ) {
        match (outcome, &known.peer) {
            (_, Some((key, introduction))) if known.pinned => {
                let what = introduction.purpose();
                let text = format!("Paired with the {what} {key} at {address}.");
                self.log(5, "PAIRED", text);
            }
            (Ok(()), _) => {}
            (Err(why), _) if known.proven => {
                let text = format!("{address} knows the pairing code, but: {why}.");
                self.log(4, "PAIRING_REFUSED", text);
            }
            (Err(why), _) => {
                let text = format!("Pairing with {address} failed: {why}.");
                self.log(4, "PAIRING_FAILED", text);
                if self.codes.failed(offer) {
                    self.order(TrustOrder::CloseCode { offer });
                    let text = format!("The pairing code is void after {} failures.", super::TRIES);
                    self.log(3, "PAIRING_BURNT", text);
                }
            }
        }
    }

    fn typed_ended(&mut self, known: &Attempt, asker: Asker, outcome: Result<(), String>) {
        let Some((key, introduction)) = known.peer.as_ref().filter(|_| known.pinned) else {
            let why = outcome.err().unwrap_or_default();
            return self.refuse(asker, format!("Not paired: {why}"));
        };
        let name = match introduction {
            Introduction::Node(node) => format!("{} ({})", node.name, node.role),
            Introduction::Vem { host } => host.clone(),
        };
        let restarts = if known.restarts {
            " This supervisor restarts and follows it."
        } else {
            ""
        };
        let text = match outcome {
            Ok(()) => format!("Paired with {name}, {key}.{restarts}"),
            Err(why) => format!(
                "{name}, {key}, is trusted here but has not confirmed ({why}): see show redundancy \
                 identity there. redundancy unpair undoes it."
            ),
        };
        self.log(5, "PAIRED", format!("Paired with the supervisor {key}."));
        self.answer(asker, Answer::Noted(text));
        let above = match introduction {
            Introduction::Node(node) => Some(node.highest_epoch),
            Introduction::Vem { .. } => None,
        };
        self.take_effect(above, known.gives_way);
    }
}

impl Attempt {
    const fn new(side: Side) -> Self {
        Self {
            side,
            peer: None,
            proven: false,
            pinned: false,
            gives_way: false,
            restarts: false,
        }
    }
}
