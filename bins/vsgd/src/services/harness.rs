//! Drives one pure service with its sockets.
//!
//! One turn: take what happened (System Manager, broker, edge, time), hand it to the service,
//! carry out all it asks for, in order. Nothing is handled concurrently, so a service needs no
//! locks and its log of inputs replays it.

use model::Time;
use node::service::{Service, ServiceInput, ServiceOutput};
use runtime::clock;
use tokio::sync::mpsc;
use wire::broker::BrokerFrame;
use wire::log::LogRecord;
use wire::supervision::{FromService, ToService, Trust};

use super::broker_client::{BrokerClient, BrokerEvent};
use super::supervision::Supervision;

/// Inputs of an edge that wait for the work loop; a full channel makes the edge's readers wait,
/// and so its peers.
pub(crate) const EDGE_QUEUE_MAX: usize = 1024;
/// Inputs of an edge taken in one turn.
const EDGE_BATCH_MAX: usize = 64;

/// What a service has besides the broker: its connections to the outside.
pub(crate) trait Edge {
    /// Carries out an output that is neither for the broker nor for the System Manager.
    fn perform(&mut self, output: ServiceOutput);

    /// Whom to let in from now on; an error ends the process.
    fn trust(&mut self, _trust: &Trust) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A service without an outside.
pub(crate) struct NoEdge;

impl Edge for NoEdge {
    fn perform(&mut self, _output: ServiceOutput) {}
}

/// Runs `service` until the System Manager stops it or is gone.
pub(crate) async fn run<S: Service, E: Edge>(
    mut service: S,
    mut supervision: Supervision,
    mut broker: BrokerClient,
    mut edge: E,
    mut edge_inputs: mpsc::Receiver<ServiceInput>,
) -> anyhow::Result<()> {
    let mut inputs = vec![ServiceInput::Start];
    let mut stopping = false;
    loop {
        let now = clock::now();
        for input in inputs.drain(..) {
            stopping |= input == ServiceInput::Stop;
            service.handle(now, input);
            while let Some(output) = service.poll_output() {
                match output {
                    ServiceOutput::Send(message) => broker.send(message),
                    ServiceOutput::Supervision(message) => supervision.send(message)?,
                    ServiceOutput::Vem { .. }
                    | ServiceOutput::CloseVem(_)
                    | ServiceOutput::Shell { .. }
                    | ServiceOutput::CloseShell(_) => edge.perform(output),
                }
            }
        }
        if supervision.next_deadline() <= now {
            let dropped = broker.take_dropped();
            if dropped > 0 {
                supervision.send(FromService::Log(LogRecord {
                    facility: "MTS".to_owned(),
                    severity: 4,
                    mnemonic: "MTS_DROP".to_owned(),
                    text: format!("{dropped} messages were dropped: the broker does not read"),
                    service: Some(service.name()),
                }))?;
            }
        }
        supervision.turn(now)?;
        if stopping {
            return Ok(());
        }
        let deadline = earliest(service.next_deadline(), supervision.next_deadline());
        tokio::select! {
            biased;
            message = supervision.receive() => match message? {
                Some(ToService::Trust(trust)) => {
                    edge.trust(&trust)?;
                    inputs.push(ServiceInput::Trust(trust));
                }
                Some(message) => inputs.extend(supervised(message)),
                None => return Ok(()),
            },
            event = broker.next() => brokered(event, &mut inputs),
            Some(input) = edge_inputs.recv() => {
                inputs.push(input);
                while inputs.len() < EDGE_BATCH_MAX && let Ok(input) = edge_inputs.try_recv() {
                    inputs.push(input);
                }
            }
            () = clock::sleep_until(Some(deadline)) => {}
        }
        if service
            .next_deadline()
            .is_some_and(|deadline| deadline <= clock::now())
        {
            inputs.push(ServiceInput::Tick);
        }
    }
}

pub(crate) fn earliest(service: Option<Time>, supervision: Time) -> Time {
    service.map_or(supervision, |service| Ord::min(service, supervision))
}

/// What the service itself is told of it.
pub(crate) fn supervised(message: ToService) -> Option<ServiceInput> {
    Some(match message {
        ToService::Posture(posture) => ServiceInput::Posture(posture),
        ToService::Answer { question, answer } => ServiceInput::Answer { question, answer },
        ToService::Console(line) => ServiceInput::Console(line),
        ToService::AskVotes {
            vote,
            candidate,
            within_ms,
        } => ServiceInput::AskVotes {
            vote,
            candidate,
            within_ms,
        },
        ToService::Archive {
            number,
            rival,
            reason,
        } => ServiceInput::Archive {
            number,
            rival,
            reason,
        },
        ToService::Resync { whole } => ServiceInput::Resync { whole },
        ToService::Stop => ServiceInput::Stop,
        ToService::Trust(_) => return None,
    })
}

pub(crate) fn brokered(event: BrokerEvent, inputs: &mut Vec<ServiceInput>) {
    match event {
        BrokerEvent::Connected => inputs.push(ServiceInput::BrokerConnected),
        BrokerEvent::Lost => inputs.push(ServiceInput::BrokerLost),
        BrokerEvent::Frames(frames) => {
            inputs.extend(frames.into_iter().filter_map(|frame| match frame {
                BrokerFrame::Message(message) => Some(ServiceInput::Message(message)),
                BrokerFrame::PeerConnected(connected) => Some(ServiceInput::PeerBroker(connected)),
                BrokerFrame::Bind(_) => None,
            }));
        }
    }
}
