//! Where the outputs of a node's parts go: to each other, and outside.

use model::{ServiceName, Time};
use mts::{Input as BrokerInput, Output as BrokerOutput};
use sysmgr::ExitStatus;
use wire::broker::{BrokerFrame, Kind, Message, decode_body};
use wire::service::FromCfgmgr;
use wire::supervision::{Answer, Ask, FromService, Process as ProcessRow, ToService};

use super::{Node, NodeOutput, Step};
use crate::service::{ServiceInput, ServiceOutput};
use crate::supervisor::{SupervisorInput, SupervisorOutput};

impl Node {
    pub(super) fn carry_out(&mut self, now: Time, output: SupervisorOutput) {
        match output {
            SupervisorOutput::Spawn { service } => {
                self.outputs.push_back(NodeOutput::Spawn { service });
            }
            SupervisorOutput::Kill { service } => {
                self.steps
                    .push_back(Step::Exit(service, ExitStatus::Signal(9)));
            }
            SupervisorOutput::ToService { service, message } => {
                if self.stopped.contains_key(&service) {
                    self.steps.push_back(Step::Tell(service, message));
                } else {
                    self.tell_service(service, message);
                }
            }
            SupervisorOutput::HeartbeatContent(content) => self.path.set_content(now, content),
            SupervisorOutput::HeartbeatTiming {
                interval_ms,
                misses,
            } => {
                self.path.set_timing(now, interval_ms, misses);
            }
            SupervisorOutput::Control(message) => {
                self.outputs.push_back(NodeOutput::Control(message));
            }
            SupervisorOutput::Gasp(gasp) => self.path.start_gasp(now, gasp),
            SupervisorOutput::SealGasp(gasp) => {
                self.outputs.push_back(NodeOutput::SealGasp(gasp));
            }
            SupervisorOutput::Persist { write, record } => {
                self.outputs
                    .push_back(NodeOutput::Persist { write, record });
            }
            // Connections are the driver's here, and whom it lets in.
            SupervisorOutput::Trust(_) => {}
            SupervisorOutput::Log(record) => self.log(record),
            SupervisorOutput::Reset { reason } => {
                self.outputs.push_back(NodeOutput::Reset { reason });
            }
            SupervisorOutput::Activated { epoch } => {
                self.outputs.push_back(NodeOutput::Activated { epoch });
            }
            SupervisorOutput::Query {
                service,
                question,
                ask,
            } => {
                let answer = self.answer(now, &ask);
                let input = ServiceInput::Answer { question, answer };
                self.steps.push_back(Step::Service(service, input));
            }
        }
    }

    pub(super) fn answer(&self, now: Time, ask: &Ask) -> Answer {
        match ask {
            Ask::HeartbeatStatus => Answer::HeartbeatStatus(self.path.status(now, &[], Ok(()))),
            Ask::Processes => Answer::Processes(
                self.processes
                    .iter()
                    .map(|(service, process)| ProcessRow {
                        pid: Some(process.pid),
                        state: "S".to_owned(),
                        pc: None,
                        start_count: 1,
                        tty: None,
                        name: service.to_string(),
                    })
                    .collect(),
            ),
            Ask::Logging { .. } => Answer::Logging(Vec::new()),
            Ask::RedundancyStatus
            | Ask::Traffic
            | Ask::ClearTraffic
            | Ask::Switchover
            | Ask::SetRole(_)
            | Ask::SetPairId(_)
            | Ask::SetHeartbeat { .. }
            | Ask::SetBootWait(_)
            | Ask::SetConflictPolicy(_)
            | Ask::Reload
            | Ask::ReloadStandby
            | Ask::ForceActive
            | Ask::Pair(_)
            | Ask::Join { .. }
            | Ask::Unpair
            | Ask::RotateIdentity { .. }
            | Ask::Identity => Answer::Refused("asked of the wrong one".to_owned()),
        }
    }

    pub(super) fn log(&mut self, record: wire::log::LogRecord) {
        self.outputs.push_back(NodeOutput::Log(record));
    }

    pub(super) fn tell_service(&mut self, service: ServiceName, message: ToService) {
        if service == ServiceName::Mts {
            return self.tell_broker_process(message);
        }
        let input = match message {
            ToService::Posture(posture) => {
                self.posture = Some(posture.clone());
                ServiceInput::Posture(posture)
            }
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
            // Whom a service lets in is its process's to see to.
            ToService::Trust(_) => return,
            ToService::Stop => {
                self.steps
                    .push_back(Step::Service(service, ServiceInput::Stop));
                self.steps
                    .push_back(Step::Exit(service, ExitStatus::Code(0)));
                return;
            }
        };
        self.steps.push_back(Step::Service(service, input));
    }

    /// The process of `mts` has no more of a service than this.
    pub(super) fn tell_broker_process(&mut self, message: ToService) {
        match message {
            ToService::Posture(posture) => {
                let sequence = posture.sequence;
                self.steps
                    .push_back(Step::Broker(BrokerInput::Posture(posture.activity)));
                let service = ServiceName::Mts;
                let message = FromService::Applied { sequence };
                self.supervise(SupervisorInput::FromService { service, message });
            }
            ToService::Stop => {
                self.steps
                    .push_back(Step::Exit(ServiceName::Mts, ExitStatus::Code(0)));
            }
            ToService::Answer { .. }
            | ToService::Console(_)
            | ToService::AskVotes { .. }
            | ToService::Archive { .. }
            | ToService::Resync { .. }
            | ToService::Trust(_) => {}
        }
    }

    pub(super) fn drain_service(&mut self, service: ServiceName) {
        let Some(process) = self.processes.get_mut(&service) else {
            return;
        };
        let pid = process.pid;
        let client = process.client();
        let mut outputs = Vec::new();
        while let Some(output) = process.poll_output() {
            outputs.push(output);
        }
        process.turned();
        let works = process.take_works();
        let failed = process.failed();
        for output in outputs {
            match output {
                ServiceOutput::Send(message) => {
                    self.note_change(service, &message);
                    let frame = BrokerFrame::Message(message);
                    self.steps
                        .push_back(Step::Broker(BrokerInput::ClientFrame { client, frame }));
                }
                ServiceOutput::Supervision(FromService::Log(record)) => {
                    let message = FromService::Log(record);
                    self.supervise(SupervisorInput::FromService { service, message });
                }
                ServiceOutput::Supervision(message) => {
                    self.supervise(SupervisorInput::FromService { service, message });
                }
                ServiceOutput::Vem {
                    connection,
                    message,
                } => {
                    self.outputs.push_back(NodeOutput::Vem {
                        connection,
                        message,
                    });
                }
                ServiceOutput::CloseVem(connection) => {
                    self.outputs.push_back(NodeOutput::CloseVem(connection));
                }
                ServiceOutput::Shell { session, message } => {
                    self.outputs
                        .push_back(NodeOutput::Shell { session, message });
                }
                ServiceOutput::CloseShell(session) => {
                    self.outputs.push_back(NodeOutput::CloseShell(session));
                }
            }
        }
        for work in works {
            self.outputs.push_back(NodeOutput::Work { pid, work });
        }
        if failed {
            self.steps
                .push_back(Step::Exit(service, ExitStatus::Code(1)));
        }
    }

    /// Tells the driver of a change's answer: how far it went is what a run is judged by.
    pub(super) fn note_change(&mut self, service: ServiceName, message: &Message) {
        if service == ServiceName::Cfgmgr
            && message.kind == Kind::Response
            && let Ok(FromCfgmgr::Committed { reached }) = decode_body(&message.body)
        {
            self.outputs.push_back(NodeOutput::Changed { reached });
        }
    }

    pub(super) fn deliver(&mut self, output: BrokerOutput) {
        match output {
            BrokerOutput::ToClient { client, frame } => {
                let found = self
                    .processes
                    .iter()
                    .find(|(_, process)| process.client() == client);
                let Some((service, _)) = found else { return };
                let input = match frame {
                    BrokerFrame::Message(message) => ServiceInput::Message(message),
                    BrokerFrame::PeerConnected(connected) => ServiceInput::PeerBroker(connected),
                    BrokerFrame::Bind(_) => return,
                };
                self.steps.push_back(Step::Service(*service, input));
                let sent = BrokerInput::ClientSent { client, frames: 1 };
                self.steps.push_back(Step::Broker(sent));
            }
            BrokerOutput::ToPeer(frame) => {
                self.outputs.push_back(NodeOutput::Bulk(frame));
                self.steps
                    .push_back(Step::Broker(BrokerInput::PeerSent { frames: 1 }));
            }
            BrokerOutput::CloseClient { client, .. } => {
                let found = self
                    .processes
                    .iter()
                    .find(|(_, process)| process.client() == client);
                if let Some((service, _)) = found {
                    self.steps
                        .push_back(Step::Service(*service, ServiceInput::BrokerLost));
                }
            }
            BrokerOutput::ClosePeer { .. } => self.outputs.push_back(NodeOutput::CloseBulk),
        }
    }
}
