//! Trust of two nodes that meet, and the writes between.

use core::net::SocketAddr;

use model::{Epoch, NodeKey, PairId, Role, ServiceName, Time};
use redundancy::NodeRecord;
use wire::control::TrustMessage;
use wire::pairing::{Code, Introduction, Purpose};
use wire::supervision::Answer;

use super::exchange::JOINS;
use super::{Standing, TRIES, Trust, TrustEvent, TrustOrder, TrustOutput, VALID};

const ASKER: (ServiceName, u64) = (ServiceName::Vshd, 7);
const NOW: Time = Time(1_000);

/// One node: what it asked for and was not done yet, and what it told.
struct Side {
    trust: Trust,
    standing: Standing,
    writes: Vec<u64>,
    orders: Vec<TrustOrder>,
    sent: Vec<TrustMessage>,
    answers: Vec<Answer>,
    told_core: Vec<TrustOutput>,
    logs: Vec<String>,
}

impl Side {
    fn new(number: u8, role: Role) -> Self {
        let key = NodeKey([number; 32]);
        let record = NodeRecord {
            role,
            pair: PairId::try_from(7).ok(),
            ..NodeRecord::default()
        };
        let mut trust = Trust::new(key, &record);
        trust.introduce(key, format!("sup-{number}"));
        Self {
            trust,
            standing: Standing {
                role,
                pair: record.pair,
                acting: false,
                highest_epoch: Epoch::default(),
                vems: 0,
                vems_connected: 0,
            },
            writes: Vec::new(),
            orders: Vec::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            told_core: Vec::new(),
            logs: Vec::new(),
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.trust.poll_output() {
            match output {
                TrustOutput::Order(order) => self.orders.push(order),
                TrustOutput::Send(message) => self.sent.push(message),
                TrustOutput::Persist(write) => self.writes.push(write),
                TrustOutput::Answer(_, answer) => self.answers.push(answer),
                TrustOutput::Log(record) => self.logs.push(record.mnemonic),
                TrustOutput::Services => {}
                told @ (TrustOutput::PeerPinned { .. } | TrustOutput::PeerUnpinned) => {
                    self.told_core.push(told);
                }
            }
        }
        self.trust.check().expect("invariants");
    }

    fn event(&mut self, event: TrustEvent) {
        self.trust.event(NOW, event, &self.standing);
        self.drain();
    }

    fn durable(&mut self) {
        for write in core::mem::take(&mut self.writes) {
            self.trust.durable(NOW, write, &self.standing);
        }
        self.drain();
    }

    fn offer(&mut self, purpose: Purpose) -> u64 {
        self.trust.offer(NOW, ASKER, purpose, &self.standing);
        self.drain();
        let opened = self.orders.iter().rev().find_map(|order| match order {
            TrustOrder::OpenCode { offer, .. } => Some(*offer),
            _ => None,
        });
        opened.unwrap_or_else(|| panic!("{:?}", self.answers))
    }

    fn begun(&mut self, attempt: u64, offer: u64) -> Option<Introduction> {
        self.event(TrustEvent::Begun {
            attempt,
            offer,
            address: "10.0.0.2".to_owned(),
        });
        match self.orders.last() {
            Some(TrustOrder::Begin { introduction, .. }) => introduction.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn verdict(&mut self, attempt: u64, key: u8, introduction: Introduction) -> Option<String> {
        self.event(TrustEvent::Proven {
            attempt,
            key: NodeKey([key; 32]),
            introduction,
        });
        match self.orders.last() {
            Some(TrustOrder::Verdict { refusal, .. }) => refusal.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn trusts(&self) -> Vec<NodeKey> {
        self.trust.trusted().peer
    }

    fn join(&mut self) -> Introduction {
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        let code = Code::from_random([1; 9]);
        self.trust.join(ASKER, (address, code), &self.standing);
        self.drain();
        match self.orders.last() {
            Some(TrustOrder::Join { introduction, .. }) => introduction.clone(),
            other => panic!("{other:?}: {:?}", self.answers),
        }
    }
}

const ATTEMPT: u64 = 1;
const JOIN: u64 = JOINS | 1;

/// Both prove; nobody is trusted before it is durable, and the typing side only when the other
/// has pinned it too.
fn pair() -> (Side, Side) {
    let (mut one, mut two) = (Side::new(1, Role::Primary), Side::new(2, Role::Secondary));
    let offer = one.offer(Purpose::Node);
    let theirs = two.join();
    let ours = one.begun(ATTEMPT, offer).expect("a try");
    assert_eq!(one.verdict(ATTEMPT, 2, theirs), None);
    assert_eq!(two.verdict(JOIN, 1, ours), None);
    two.event(TrustEvent::Agreed { attempt: JOIN });
    assert!(
        !two.orders
            .iter()
            .any(|o| matches!(o, TrustOrder::Pinned { .. }))
    );
    two.durable();
    assert!(two.told_core.is_empty(), "the other has not pinned yet");
    one.event(TrustEvent::Agreed { attempt: ATTEMPT });
    assert!(one.told_core.is_empty(), "not durable");
    one.durable();
    one.event(TrustEvent::Ended {
        attempt: ATTEMPT,
        outcome: Ok(()),
    });
    two.event(TrustEvent::Ended {
        attempt: JOIN,
        outcome: Ok(()),
    });
    (one, two)
}

#[test]
fn both_trust_each_other_once_it_is_durable_on_both() {
    let (one, two) = pair();
    assert_eq!(
        (one.trusts(), two.trusts()),
        (vec![NodeKey([2; 32])], vec![NodeKey([1; 32])])
    );
    for side in [&one, &two] {
        assert!(matches!(
            side.told_core.as_slice(),
            [TrustOutput::PeerPinned {
                gives_way: false,
                ..
            }]
        ));
        let mut record = NodeRecord::default();
        side.trust.stamp(&mut record);
        assert!(record.peer.is_some());
    }
    assert!(
        one.orders.contains(&TrustOrder::CloseCode { offer: 1 }),
        "used once"
    );
    assert!(matches!(two.answers.as_slice(), [Answer::Noted(_)]));
    assert!(one.trust.dials() && !two.trust.dials());
}

#[test]
fn who_does_not_know_the_code_costs_a_try_and_the_last_one_burns_it() {
    let mut one = Side::new(1, Role::Primary);
    let offer = one.offer(Purpose::Node);
    for attempt in 1..=u64::from(TRIES) {
        assert!(one.begun(attempt, offer).is_some());
        let outcome = Err("no".to_owned());
        one.event(TrustEvent::Ended { attempt, outcome });
    }
    assert!(one.orders.contains(&TrustOrder::CloseCode { offer }));
    assert!(one.logs.contains(&"PAIRING_BURNT".to_owned()));
    assert_eq!(one.begun(9, offer), None);
    assert_eq!(one.trust.status(NOW).code, None);
}

#[test]
fn a_code_expires() {
    let mut one = Side::new(1, Role::Primary);
    let offer = one.offer(Purpose::Node);
    let end = one.trust.next_deadline().expect("an end");
    assert_eq!(end, NOW + VALID);
    one.trust.tick(end);
    one.drain();
    assert!(one.orders.contains(&TrustOrder::CloseCode { offer }));
}

/// The refusals of two nodes that both know the code.
#[test]
fn nodes_that_do_not_fit_are_refused_with_the_reason() {
    type Change = fn(&mut wire::pairing::NodeIntroduction);
    let cases: [(Change, &str); 5] = [
        (
            |node| node.role = Role::Primary,
            "both have the role primary",
        ),
        (|node| node.role = Role::Standalone, "standalone"),
        (
            |node| node.pair = PairId::try_from(8).ok(),
            "differ: 7 on sup-1, 8 on sup-2",
        ),
        (|node| node.pair = None, "differ: 7 on sup-1, none on sup-2"),
        (|node| node.node = NodeKey([1; 32]), "clone"),
    ];
    for (change, why) in cases {
        let (mut one, mut two) = (Side::new(1, Role::Primary), Side::new(2, Role::Secondary));
        let offer = one.offer(Purpose::Node);
        let Introduction::Node(mut node) = two.join() else {
            panic!("a node");
        };
        change(&mut node);
        one.begun(ATTEMPT, offer).expect("a try");
        let refusal = one.verdict(ATTEMPT, 2, Introduction::Node(node));
        assert!(
            refusal.as_ref().is_some_and(|r| r.contains(why)),
            "{refusal:?}"
        );
        one.event(TrustEvent::Ended {
            attempt: ATTEMPT,
            outcome: Err("refused".into()),
        });
        assert_eq!(
            one.trust.status(NOW).code.map(|code| code.tries),
            Some(TRIES)
        );
        one.event(TrustEvent::Agreed { attempt: ATTEMPT });
        assert!(one.writes.is_empty(), "whoever was refused is not pinned");
    }
}

#[test]
fn a_code_is_good_for_its_purpose_only() {
    let (mut one, mut two) = (Side::new(1, Role::Primary), Side::new(2, Role::Secondary));
    one.standing.acting = true;
    let offer = one.offer(Purpose::Vem);
    one.begun(ATTEMPT, offer).expect("a try");
    let refusal = one.verdict(ATTEMPT, 2, two.join());
    assert!(refusal.expect("refused").contains("for a host agent"));
    let host = Introduction::Vem { host: "h".into() };
    one.begun(2, offer).expect("a try");
    assert_eq!(one.verdict(2, 9, host.clone()), None);
    one.event(TrustEvent::Agreed { attempt: 2 });
    one.durable();
    assert_eq!(one.trust.trusted().vems, [NodeKey([9; 32])]);
    assert_eq!(one.trusts(), []);
    assert!(one.told_core.is_empty());
    let mut one = Side::new(1, Role::Primary);
    let offer = one.offer(Purpose::Node);
    one.begun(ATTEMPT, offer).expect("a try");
    assert!(one.verdict(ATTEMPT, 9, host).is_some());
}

#[test]
fn unpairing_is_confirmed_by_the_other_which_forgets_first() {
    let (mut one, mut two) = pair();
    one.trust.peer_connected(true);
    two.trust.peer_connected(true);
    one.trust.unpair(NOW, ASKER);
    one.drain();
    assert!(one.sent.contains(&TrustMessage::Unpair) && one.writes.is_empty());
    two.trust.message(TrustMessage::Unpair);
    two.drain();
    assert!(!two.sent.contains(&TrustMessage::Unpaired), "not durable");
    two.durable();
    assert!(two.sent.contains(&TrustMessage::Unpaired));
    one.trust.message(TrustMessage::Unpaired);
    one.drain();
    one.durable();
    for side in [&one, &two] {
        assert_eq!(side.trusts(), []);
        assert!(matches!(
            side.told_core.last(),
            Some(TrustOutput::PeerUnpinned)
        ));
        assert!(matches!(
            side.orders.last(),
            Some(TrustOrder::Peer { keys, knocks: true, .. }) if keys.is_empty()
        ));
    }
    assert!(matches!(one.answers.last(), Some(Answer::Noted(text)) if text.contains("too")));
}

#[test]
fn a_peer_that_does_not_confirm_is_forgotten_all_the_same() {
    let (mut one, _) = pair();
    one.trust.peer_connected(true);
    one.trust.unpair(NOW, ASKER);
    one.drain();
    let end = one.trust.next_deadline().expect("an end");
    one.trust.tick(end);
    one.drain();
    one.durable();
    assert_eq!(one.trusts(), []);
    assert!(matches!(one.answers.last(), Some(Answer::Noted(text)) if text.contains("there too")));
}

#[test]
fn a_host_agent_is_trusted_on_both_nodes_until_it_is_removed() {
    let (mut one, mut two) = pair();
    let vem = NodeKey([9; 32]);
    one.trust.vems.set(vem, true);
    for side in [&mut one, &mut two] {
        side.trust.peer_connected(true);
        side.drain();
    }
    pass(&mut one, &mut two);
    pass(&mut two, &mut one);
    assert_eq!(two.trust.trusted().vems, [vem]);
    one.trust.remove_vem(vem);
    one.drain();
    one.durable();
    pass(&mut one, &mut two);
    assert_eq!(
        (one.trust.trusted().vems, two.trust.trusted().vems),
        (vec![], vec![])
    );
}

/// Messages of `from` to `to`, and the writes they cause.
fn pass(from: &mut Side, to: &mut Side) {
    for message in core::mem::take(&mut from.sent) {
        to.trust.message(message);
    }
    to.drain();
    to.durable();
}

fn connected() -> (Side, Side) {
    let (mut one, mut two) = pair();
    for side in [&mut one, &mut two] {
        side.trust.peer_connected(true);
        side.drain();
    }
    pass(&mut one, &mut two);
    pass(&mut two, &mut one);
    (one, two)
}

const NEXT: NodeKey = NodeKey([11; 32]);

/// The peer trusts the next key before it is used, and the old one until the next is seen; the
/// order of the node keys, and so who dials, stays.
#[test]
fn an_identity_is_changed_without_a_moment_of_distrust() {
    let (mut one, mut two) = connected();
    let dials = (one.trust.dials(), two.trust.dials());
    one.trust.rotate(NOW, ASKER, false, &one.standing.clone());
    one.drain();
    assert_eq!(one.orders.last(), Some(&TrustOrder::PrepareIdentity));
    one.event(TrustEvent::IdentityPrepared(Ok(NEXT)));
    assert!(!one.orders.contains(&TrustOrder::ExchangeIdentity));
    pass(&mut one, &mut two);
    assert_eq!(two.trusts(), [NodeKey([1; 32]), NEXT]);
    assert!(two.sent.contains(&TrustMessage::NextPinned { key: NEXT }));
    pass(&mut two, &mut one);
    assert_eq!(one.orders.last(), Some(&TrustOrder::ExchangeIdentity));
    let mut record = NodeRecord::default();
    one.trust.stamp(&mut record);
    assert_eq!(record.identities.node, Some(NodeKey([1; 32])));
    one.event(TrustEvent::IdentityExchanged(Ok(())));
    assert_eq!(one.trust.trusted().identity, 1, "services show the new one");
    // A connection under the old identity changes nothing.
    two.event(TrustEvent::PeerShows {
        key: NodeKey([1; 32]),
    });
    two.durable();
    assert_eq!(two.trusts(), [NodeKey([1; 32]), NEXT]);
    two.event(TrustEvent::PeerShows { key: NEXT });
    assert!(
        !two.sent.contains(&TrustMessage::OldForgotten { key: NEXT }),
        "not durable"
    );
    two.durable();
    assert_eq!(two.trusts(), [NEXT]);
    pass(&mut two, &mut one);
    assert!(matches!(one.answers.last(), Some(Answer::Noted(_))));
    assert_eq!(one.trust.status(NOW).fingerprint, NEXT);
    assert_eq!(one.trust.status(NOW).node, NodeKey([1; 32]));
    assert_eq!((one.trust.dials(), two.trust.dials()), dials);
}

/// A peer that does not confirm: nothing was exchanged, and what was announced is taken back.
#[test]
fn an_identity_that_is_not_confirmed_is_taken_back() {
    let (mut one, mut two) = connected();
    one.trust.rotate(NOW, ASKER, false, &one.standing.clone());
    one.drain();
    one.event(TrustEvent::IdentityPrepared(Ok(NEXT)));
    pass(&mut one, &mut two);
    two.sent.clear();
    let end = one.trust.next_deadline().expect("an end");
    one.trust.tick(end);
    one.drain();
    assert!(!one.orders.contains(&TrustOrder::ExchangeIdentity));
    assert!(matches!(one.answers.last(), Some(Answer::Refused(_))));
    pass(&mut one, &mut two);
    assert_eq!(two.trusts(), [NodeKey([1; 32])]);
    // A confirmation that comes too late finds nothing.
    one.trust.message(TrustMessage::NextPinned { key: NEXT });
    one.drain();
    one.durable();
    assert!(!one.orders.contains(&TrustOrder::ExchangeIdentity));
}

#[test]
fn an_identity_is_not_changed_behind_the_back_of_those_who_are_away() {
    let (mut one, _) = connected();
    one.standing.acting = true;
    one.standing.vems = 2;
    one.standing.vems_connected = 1;
    one.trust.rotate(NOW, ASKER, false, &one.standing.clone());
    one.drain();
    assert!(matches!(one.answers.last(), Some(Answer::Refused(why)) if why.contains("1 host")));
    one.trust.peer_connected(false);
    one.trust.rotate(NOW, ASKER, true, &one.standing.clone());
    one.drain();
    assert!(
        matches!(one.answers.last(), Some(Answer::Refused(why)) if why.contains("not connected"))
    );
    // With force, and the host agent that is there has to confirm first.
    one.trust.peer_connected(true);
    one.trust.rotate(NOW, ASKER, true, &one.standing.clone());
    one.drain();
    one.event(TrustEvent::IdentityPrepared(Ok(NEXT)));
    one.trust.message(TrustMessage::NextPinned { key: NEXT });
    one.drain();
    one.durable();
    assert!(!one.orders.contains(&TrustOrder::ExchangeIdentity));
    let keys = one.trust.trusted().gateways;
    one.trust.vems_told(&keys, 1);
    one.drain();
    assert!(one.writes.is_empty());
    one.trust.vems_told(&keys, 0);
    one.drain();
    one.durable();
    assert_eq!(one.orders.last(), Some(&TrustOrder::ExchangeIdentity));
}

/// A change that a restart of this node broke off is taken back when the two meet again.
#[test]
fn a_change_that_was_broken_off_leaves_no_second_key_trusted() {
    let (mut one, mut two) = connected();
    one.trust.rotate(NOW, ASKER, false, &one.standing.clone());
    one.drain();
    one.event(TrustEvent::IdentityPrepared(Ok(NEXT)));
    pass(&mut one, &mut two);
    assert_eq!(two.trusts(), [NodeKey([1; 32]), NEXT]);
    let mut record = NodeRecord::default();
    one.trust.stamp(&mut record);
    one.trust = Trust::new(NodeKey([1; 32]), &record);
    one.sent.clear();
    for side in [&mut one, &mut two] {
        side.trust.peer_connected(false);
        side.trust.peer_connected(true);
        side.drain();
    }
    pass(&mut one, &mut two);
    assert_eq!(two.trusts(), [NodeKey([1; 32])]);
}

/// Whoever acts and is told of the peer's next identity confirms it when its host agents have.
#[test]
fn the_peers_next_identity_is_confirmed_with_the_host_agents() {
    let (_, mut two) = connected();
    two.sent.clear();
    two.standing.acting = true;
    (two.standing.vems, two.standing.vems_connected) = (1, 1);
    two.trust.message(TrustMessage::NextIdentity { key: NEXT });
    two.drain();
    two.durable();
    let confirmed = TrustMessage::NextPinned { key: NEXT };
    assert!(!two.sent.contains(&confirmed));
    let keys = two.trust.trusted().gateways;
    assert!(keys.contains(&NEXT));
    two.trust.vems_told(&keys, 0);
    two.drain();
    assert!(two.sent.contains(&confirmed));
}
