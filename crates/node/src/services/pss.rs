//! The checkpoint store in the shape of a service.
//!
//! Besides a service's outputs it has two of its own, for the driver to look at after each
//! input: work that waits for a disk ([`Pss::poll_work`], to be run on another thread and
//! answered by [`Pss::work_done`]) and the end of trust in the storage ([`Pss::failed`], upon
//! which the process must end).

use std::collections::VecDeque;

use model::{ServiceName, Time};
use pss::{Recovery, Storage, StorageError, Store, Work};
use wire::log::LogRecord;
use wire::supervision::{Answer, FromService};

use crate::service::{Service, ServiceInput, ServiceOutput};

/// See the module.
#[derive(Debug)]
pub struct Pss {
    store: Store,
    outputs: VecDeque<ServiceOutput>,
    works: VecDeque<(u64, Work)>,
    failed: Option<String>,
}

impl Pss {
    /// Opens the store; what was found amiss is logged by its first outputs.
    ///
    /// # Errors
    /// When a storage cannot be read or repaired.
    pub fn open(
        persistent: Box<dyn Storage>,
        volatile: Box<dyn Storage>,
    ) -> Result<(Self, Recovery), StorageError> {
        let (store, recovery) = Store::open(persistent, volatile)?;
        let mut service = Self {
            store,
            outputs: VecDeque::new(),
            works: VecDeque::new(),
            failed: None,
        };
        if let Some(damage) = &recovery.damage {
            service.log(2, "STORAGE_DAMAGED", damage.to_string());
        }
        if recovery.torn_bytes > 0 {
            let text = format!(
                "{} bytes of unfinished writes were cut off",
                recovery.torn_bytes
            );
            service.log(5, "STORAGE_TORN_END", text);
        }
        Ok((service, recovery))
    }

    fn log(&mut self, severity: u8, mnemonic: &str, text: String) {
        self.outputs
            .push_back(ServiceOutput::Supervision(FromService::Log(LogRecord {
                facility: "PSS".to_owned(),
                severity,
                mnemonic: mnemonic.to_owned(),
                text,
                service: Some(ServiceName::Pss),
            })));
    }

    /// The next piece of work, with its number; fetch after [`Service::poll_output`] is drained.
    pub fn poll_work(&mut self) -> Option<(u64, Work)> {
        self.works.pop_front()
    }

    /// A piece of work has ended.
    pub fn work_done(&mut self, now: Time, work: u64, result: Result<(), String>) {
        self.store
            .handle(now, pss::Input::WorkDone { work, result });
        self.drain();
    }

    /// Why the storage cannot be trusted any more, once it cannot.
    #[must_use]
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// The store itself, to look at.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    fn drain(&mut self) {
        while let Some(output) = self.store.poll_output() {
            let message = match output {
                pss::Output::Send(message) => {
                    self.outputs.push_back(ServiceOutput::Send(message));
                    continue;
                }
                pss::Output::Work { work } => {
                    self.works
                        .extend(self.store.take_work(work).map(|taken| (work, taken)));
                    continue;
                }
                pss::Output::Failed { reason } => {
                    self.failed = Some(reason);
                    continue;
                }
                pss::Output::Sync(report) => FromService::Sync(report),
                pss::Output::AskAlone { question } => FromService::AskAlone { question },
                pss::Output::Applied { sequence } => FromService::Applied { sequence },
                pss::Output::Archived { number } => FromService::Archived { number },
                pss::Output::Log(record) => FromService::Log(record),
            };
            self.outputs.push_back(ServiceOutput::Supervision(message));
        }
    }
}

impl Service for Pss {
    fn name(&self) -> ServiceName {
        ServiceName::Pss
    }

    fn handle(&mut self, now: Time, input: ServiceInput) {
        let input = match input {
            ServiceInput::Start | ServiceInput::Tick => pss::Input::Tick,
            ServiceInput::Posture(posture) => pss::Input::Posture(posture),
            ServiceInput::Answer { question, answer } => {
                let granted = answer == Answer::Done;
                pss::Input::AloneAnswered { question, granted }
            }
            ServiceInput::BrokerConnected => pss::Input::BrokerConnected,
            ServiceInput::BrokerLost => pss::Input::BrokerLost,
            ServiceInput::PeerBroker(connected) => pss::Input::PeerConnected(connected),
            ServiceInput::Message(message) => pss::Input::Message(message),
            ServiceInput::Resync { whole } => pss::Input::Resync { whole },
            ServiceInput::Archive {
                number,
                rival,
                reason,
            } => pss::Input::Archive {
                number,
                rival,
                reason,
            },
            ServiceInput::WallClock { unix_s } => pss::Input::WallClock { unix_s },
            // Nothing to finish: what is written is written, what is not flushed is not
            // acknowledged.
            ServiceInput::Trust(_)
            | ServiceInput::Stop
            | ServiceInput::Console(_)
            | ServiceInput::AskVotes { .. }
            | ServiceInput::Vem { .. }
            | ServiceInput::Shell { .. } => return,
        };
        self.store.handle(now, input);
        self.drain();
    }

    fn poll_output(&mut self) -> Option<ServiceOutput> {
        self.outputs.pop_front()
    }

    fn next_deadline(&self) -> Option<Time> {
        self.store.next_deadline()
    }
}
