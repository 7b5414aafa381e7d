//! The broker against the rules of its crate head, and against a reference model.

mod model_test;
mod rules;

use model::{Sap, ServiceName, Time};
use wire::broker::{BrokerFrame, Destination, Kind, Message};

use crate::{Broker, ClientId, Input, Output};

pub(crate) fn message(
    source: ServiceName,
    destination: Destination,
    to: ServiceName,
    kind: Kind,
    correlation: u64,
) -> Message {
    Message {
        source: source.sap(),
        from_peer: false,
        destination,
        sap: to.sap(),
        kind,
        correlation,
        body: correlation.to_le_bytes().to_vec(),
    }
}

/// A broker and what came out of it.
#[derive(Debug, Default)]
pub(crate) struct Rig {
    pub(crate) broker: Broker,
    pub(crate) now: Time,
    pub(crate) to_client: Vec<(ClientId, BrokerFrame)>,
    pub(crate) to_peer: Vec<Message>,
    pub(crate) closed: Vec<ClientId>,
    pub(crate) peer_closed: u32,
    /// Frames are taken to be written as soon as they are handed out.
    pub(crate) sockets_drain: bool,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self {
            sockets_drain: true,
            now: Time::from_ms(1),
            ..Self::default()
        }
    }

    pub(crate) fn feed(&mut self, input: Input) {
        self.broker.handle(self.now, input);
        self.broker.check().expect("an invariant of the broker");
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::ToClient { client, frame } => {
                    self.to_client.push((client, frame));
                    if self.sockets_drain {
                        self.broker
                            .handle(self.now, Input::ClientSent { client, frames: 1 });
                    }
                }
                Output::ToPeer(BrokerFrame::Message(message)) => {
                    self.to_peer.push(message);
                    if self.sockets_drain {
                        self.broker.handle(self.now, Input::PeerSent { frames: 1 });
                    }
                }
                Output::ToPeer(frame) => panic!("{frame:?} was sent to the peer"),
                Output::CloseClient { client, .. } => self.closed.push(client),
                Output::ClosePeer { .. } => self.peer_closed += 1,
            }
        }
    }

    pub(crate) fn bind(&mut self, client: u64, service: ServiceName) {
        let client = ClientId(client);
        self.feed(Input::ClientConnected { client });
        self.feed(Input::ClientFrame {
            client,
            frame: BrokerFrame::Bind(service),
        });
    }

    pub(crate) fn send(&mut self, client: u64, message: Message) {
        let frame = BrokerFrame::Message(message);
        self.feed(Input::ClientFrame {
            client: ClientId(client),
            frame,
        });
    }

    /// Messages that a client was handed, in order.
    pub(crate) fn received(&self, client: u64) -> Vec<Message> {
        let of = |(to, frame): &(ClientId, BrokerFrame)| match frame {
            BrokerFrame::Message(message) if to.0 == client => Some(message.clone()),
            _ => None,
        };
        self.to_client.iter().filter_map(of).collect()
    }

    pub(crate) fn correlations(&self, client: u64) -> Vec<u64> {
        self.received(client)
            .iter()
            .map(|message| message.correlation)
            .collect()
    }
}

pub(crate) const fn sap(service: ServiceName) -> Sap {
    service.sap()
}
