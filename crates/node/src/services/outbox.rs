//! What every service does with its outputs: queue them, number requests, answer.

use std::collections::VecDeque;

use model::{ServiceName, Time};
use serde::Serialize;
use wire::broker::{Destination, Kind, Message, encode_body};
use wire::log::LogRecord;
use wire::supervision::FromService;

use crate::service::ServiceOutput;

/// Outputs of one service in order, and the numbers of its requests.
///
/// Bounded by use: the driver drains it after each input, and an input yields at most one output
/// for each session, connection or pending request, all of which are bounded.
#[derive(Debug)]
pub(crate) struct Outbox {
    service: ServiceName,
    outputs: VecDeque<ServiceOutput>,
    next_correlation: u64,
}

impl Outbox {
    /// Numbers begin at the time of start, so that a late answer to an earlier run of the service
    /// is nobody's. The top bit is the checkpoint client's.
    pub(crate) const fn new(service: ServiceName, now: Time) -> Self {
        Self {
            service,
            outputs: VecDeque::new(),
            next_correlation: now.0 & !(1 << 63),
        }
    }

    pub(crate) fn push(&mut self, output: ServiceOutput) {
        self.outputs.push_back(output);
    }

    pub(crate) fn pop(&mut self) -> Option<ServiceOutput> {
        self.outputs.pop_front()
    }

    pub(crate) fn supervise(&mut self, message: FromService) {
        self.push(ServiceOutput::Supervision(message));
    }

    /// A fresh number, for requests and questions.
    pub(crate) const fn number(&mut self) -> u64 {
        self.next_correlation = (self.next_correlation + 1) & !(1 << 63);
        self.next_correlation
    }

    /// Sends a request to a service of this node; gives its correlation.
    pub(crate) fn request<T: Serialize>(&mut self, to: ServiceName, body: &T) -> u64 {
        let correlation = self.number();
        self.message(to, Kind::Request, correlation, body);
        correlation
    }

    /// Sends a request again under its number.
    pub(crate) fn repeat<T: Serialize>(&mut self, to: ServiceName, correlation: u64, body: &T) {
        self.message(to, Kind::Request, correlation, body);
    }

    /// Sends a notification to a service of this node.
    pub(crate) fn notify<T: Serialize>(&mut self, to: ServiceName, body: &T) {
        self.message(to, Kind::Notification, 0, body);
    }

    /// Sends a notification to the same service of the other node; it comes back undeliverable
    /// under `number` if it cannot be delivered.
    pub(crate) fn notify_peer<T: Serialize>(&mut self, number: u64, body: &T) {
        self.push(ServiceOutput::Send(Message {
            source: self.service.sap(),
            from_peer: false,
            destination: Destination::Peer,
            sap: self.service.sap(),
            kind: Kind::Notification,
            correlation: number,
            body: encode_body(body),
        }));
    }

    /// Answers `request`.
    pub(crate) fn respond<T: Serialize>(&mut self, request: &Message, body: &T) {
        self.push(ServiceOutput::Send(Message {
            source: self.service.sap(),
            from_peer: false,
            destination: if request.from_peer {
                Destination::Peer
            } else {
                Destination::Local
            },
            sap: request.source,
            kind: Kind::Response,
            correlation: request.correlation,
            body: encode_body(body),
        }));
    }

    pub(crate) fn log(&mut self, facility: &str, severity: u8, mnemonic: &str, text: String) {
        self.supervise(FromService::Log(LogRecord {
            facility: facility.to_owned(),
            severity,
            mnemonic: mnemonic.to_owned(),
            text,
            service: Some(self.service),
        }));
    }

    fn message<T: Serialize>(&mut self, to: ServiceName, kind: Kind, correlation: u64, body: &T) {
        self.push(ServiceOutput::Send(Message {
            source: self.service.sap(),
            from_peer: false,
            destination: Destination::Local,
            sap: to.sap(),
            kind,
            correlation,
            body: encode_body(body),
        }));
    }
}
