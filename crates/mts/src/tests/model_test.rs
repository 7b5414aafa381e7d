//! Random runs against a reference: per pair of services a list, nothing lost but what was told.

use std::collections::BTreeMap;

use model::ServiceName;
use proptest::prelude::*;
use wire::broker::{Destination, Kind};

use super::{Rig, message};
use crate::{ClientId, Input};

const SERVICES: [ServiceName; 4] = [
    ServiceName::Pss,
    ServiceName::PolicyEngine,
    ServiceName::VemMgr,
    ServiceName::Cfgmgr,
];

#[derive(Clone, Debug)]
enum Step {
    Send { from: usize, to: usize, kind: bool },
    Restart { service: usize },
    Die { service: usize },
    Drain { service: usize, frames: u32 },
    Wait { ms: u16 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        8 => (0..4_usize, 0..4_usize, any::<bool>())
            .prop_map(|(from, to, kind)| Step::Send { from, to, kind }),
        1 => (0..4_usize).prop_map(|service| Step::Restart { service }),
        1 => (0..4_usize).prop_map(|service| Step::Die { service }),
        3 => (0..4_usize, 1..64_u32).prop_map(|(service, frames)| Step::Drain { service, frames }),
        1 => (0..2000_u16).prop_map(|ms| Step::Wait { ms }),
    ];
    prop::collection::vec(one, 1..400)
}

/// What became of every message, by correlation.
#[derive(Default)]
struct Reference {
    sent: BTreeMap<u64, (usize, usize, Kind)>,
}

proptest! {
    /// Between any two services messages arrive in the order of sending, at most once, as they
    /// were sent; one that does not arrive is told of, unless its sender has died meanwhile.
    #[test]
    fn nothing_is_lost_in_silence_doubled_or_overtaken(steps in steps()) {
        let mut rig = Rig::new();
        rig.sockets_drain = false;
        let mut reference = Reference::default();
        let mut clients = [0_u64; 4];
        let mut owners: BTreeMap<u64, usize> = BTreeMap::new();
        let mut next_client = 1;
        let mut bind = |rig: &mut Rig, clients: &mut [u64; 4], owners: &mut BTreeMap<u64, usize>, service: usize| {
            rig.bind(next_client, SERVICES[service]);
            clients[service] = next_client;
            owners.insert(next_client, service);
            next_client += 1;
        };
        (0..4).for_each(|service| bind(&mut rig, &mut clients, &mut owners, service));
        let mut correlation = 0;
        for step in steps {
            match step {
                Step::Send { from, to, kind } => {
                    if clients[from] == 0 {
                        continue;
                    }
                    correlation += 1;
                    let kind = if kind { Kind::Request } else { Kind::Notification };
                    reference.sent.insert(correlation, (from, to, kind));
                    let sent = message(SERVICES[from], Destination::Local, SERVICES[to], kind, correlation);
                    rig.send(clients[from], sent);
                }
                Step::Restart { service } => bind(&mut rig, &mut clients, &mut owners, service),
                Step::Die { service } => {
                    rig.feed(Input::ClientGone { client: ClientId(clients[service]) });
                    clients[service] = 0;
                }
                Step::Drain { service, frames } => {
                    rig.feed(Input::ClientSent { client: ClientId(clients[service]), frames });
                }
                Step::Wait { ms } => {
                    rig.now = rig.now + core::time::Duration::from_millis(u64::from(ms));
                    rig.feed(Input::Tick);
                }
            }
        }
        // Everything is drained, everybody alive.
        for service in 0..4 {
            if clients[service] == 0 {
                bind(&mut rig, &mut clients, &mut owners, service);
            }
        }
        for _ in 0..200 {
            for client in clients {
                rig.feed(Input::ClientSent { client: ClientId(client), frames: 64 });
            }
        }
        let mut fate: BTreeMap<u64, u32> = BTreeMap::new();
        let mut newest: BTreeMap<(u16, usize), u64> = BTreeMap::new();
        for (client, frame) in &rig.to_client {
            let wire::broker::BrokerFrame::Message(found) = frame else { continue };
            *fate.entry(found.correlation).or_default() += 1;
            let (from, to, kind) = reference.sent[&found.correlation];
            let reader = owners[&client.0];
            if found.kind == Kind::Undeliverable {
                prop_assert_eq!((reader, found.source), (from, SERVICES[to].sap()));
                continue;
            }
            prop_assert_eq!((reader, found.source, found.kind), (to, SERVICES[from].sap(), kind));
            prop_assert_eq!(&found.body, &found.correlation.to_le_bytes().to_vec());
            let last = newest.insert((found.source.0, reader), found.correlation);
            prop_assert!(last < Some(found.correlation), "overtaken");
        }
        prop_assert!(fate.values().all(|times| *times == 1), "told twice");
        // Only the news of a failure may find nobody, when its sender has died too.
        let unheard = rig.broker.counters().dropped;
        prop_assert_eq!(fate.len() as u64 + unheard, reference.sent.len() as u64);
    }
}
