//! Carrying out what the cores ask for about whom to trust.

use std::path::PathBuf;

use node::supervisor::{SupervisorInput, TrustEvent, TrustOrder};
use runtime::identity::Identity;
use wire::supervision::{Answer, ToService};

use super::doors::Conduct;
use super::pairing::Places;
use super::{Event, Manager};
use crate::configuration::Configuration;

impl Manager {
    /// Whom to trust, and pairings.
    pub(super) fn trust(&mut self, order: TrustOrder) -> anyhow::Result<()> {
        match order {
            TrustOrder::OpenCode {
                offer,
                purpose,
                service,
                question,
            } => {
                let answer = match self.pairing.open(offer, purpose) {
                    Ok(code) => Answer::Code(code),
                    Err(problem) => {
                        let event = TrustEvent::CodeNotOpened { offer };
                        self.inputs.push_back(SupervisorInput::Trust(event));
                        Answer::Refused(problem)
                    }
                };
                self.children
                    .send(service, ToService::Answer { question, answer });
            }
            TrustOrder::CloseCode { offer } => self.pairing.close(offer),
            TrustOrder::Join {
                attempt,
                address,
                code,
                introduction,
            } => self.pairing.join(attempt, (address, code), introduction),
            order @ (TrustOrder::Begin { .. }
            | TrustOrder::Verdict { .. }
            | TrustOrder::Pinned { .. }) => self.pairing.reply(order),
            TrustOrder::PrepareIdentity => self.prepare_identity(),
            TrustOrder::ExchangeIdentity => self.exchange_identity(),
            TrustOrder::Renew => self.doors.renew(),
            TrustOrder::Peer {
                keys,
                dials,
                knocks,
            } => {
                let conduct = match (dials, knocks) {
                    (true, _) => Conduct::Dials,
                    (false, true) => Conduct::Knocks,
                    (false, false) => Conduct::Listens,
                };
                self.doors.trust(&keys, conduct);
                let known = self.trusted.iter().any(|key| keys.contains(key));
                if !self.trusted.is_empty() && !known {
                    self.heartbeats.forget_keys()?;
                    let changes = self.connections.leave_all();
                    self.changed(changes);
                }
                self.trusted = keys;
            }
        }
        Ok(())
    }

    /// Makes a key beside the present one, off the loop; one that an earlier change left is lost.
    fn prepare_identity(&self) {
        let next = self.next_identity_file();
        self.off_the_loop(move || {
            let result = match std::fs::remove_file(&next) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error.to_string())
                }
                Ok(()) | Err(_) => Identity::create(&next)
                    .map(|identity| identity.fingerprint())
                    .map_err(|error| error.to_string()),
            };
            TrustEvent::IdentityPrepared(result)
        });
    }

    /// Puts it in the place of the present one, off the loop.
    fn exchange_identity(&self) {
        let (path, next) = (self.identity_file.clone(), self.next_identity_file());
        let (doors, pairing) = (self.doors.clone(), self.pairing.endpoint());
        self.off_the_loop(move || {
            let exchange = || -> anyhow::Result<()> {
                Identity::load(&next)?;
                Identity::replace(&path, &next)?;
                let identity = Identity::load(&path)?;
                doors.change_identity(&identity)?;
                pairing.change_identity(&identity)?;
                Ok(())
            };
            let result = exchange().map_err(|error| format!("{error:#}"));
            TrustEvent::IdentityExchanged(result)
        });
    }

    fn next_identity_file(&self) -> PathBuf {
        self.identity_file.with_extension("key.next")
    }

    fn off_the_loop(&self, work: impl FnOnce() -> TrustEvent + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            if let Ok(event) = tokio::task::spawn_blocking(work).await {
                // The loop ends with the process only.
                let _ = events.send(Event::Trust(event)).await;
            }
        });
    }
}

/// Where this node listens while a code is valid.
pub(super) fn places(configuration: &Configuration) -> Places {
    let service = configuration.service.as_ref();
    Places {
        nodes: configuration
            .links
            .iter()
            .map(|link| link.local.ip())
            .collect(),
        vems: service.map(|service| service.listen.ip()),
        port: configuration.pairing.port,
    }
}
