//! One service's process.

use core::time::Duration;
use std::collections::BTreeMap;

use model::{ServiceName, Time};
use mts::{Broker, ClientId};
use pss::Work;
use sysmgr::catalogue::HEARTBEAT_PERIOD_MS;

use crate::service::{Service, ServiceInput, ServiceOutput};
use crate::services::cfgmgr::Cfgmgr;
use crate::services::policy_engine::PolicyEngine;
use crate::services::pss::Pss;
use crate::services::vem_mgr::VemMgr;
use crate::services::vshd::{Facts, Vshd};

/// What runs in it.
pub(super) enum Body {
    Mts(Box<Broker>),
    Pss(Box<Pss>),
    Service(Box<dyn Service + Send>),
}

impl core::fmt::Debug for Body {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Mts(_) => "mts",
            Self::Pss(_) => "pss",
            Self::Service(service) => service.name().as_str(),
        })
    }
}

impl Body {
    pub(super) fn broker() -> Self {
        Self::Mts(Box::new(Broker::new()))
    }

    /// The value of a service other than the broker and the store.
    pub(super) fn service(now: Time, service: ServiceName, node: &str) -> Self {
        Self::Service(match service {
            ServiceName::Cfgmgr => Box::new(Cfgmgr::new(now)),
            ServiceName::PolicyEngine => Box::new(PolicyEngine::new(now)),
            ServiceName::VemMgr => Box::new(VemMgr::new(now)),
            ServiceName::Vshd | ServiceName::Mts | ServiceName::Pss => {
                let facts = Facts {
                    hostname: node.to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    kernel: String::new(),
                    started: now,
                };
                Box::new(Vshd::new(now, facts))
            }
        })
    }
}

/// A running process, its heartbeats to the System Manager included.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) body: Body,
    pub(super) works: BTreeMap<u64, Work>,
    turns: u64,
    beat_at: Time,
    /// The body's deadline, looked up after each of its turns: it is asked for far more often.
    deadline: Option<Time>,
}

impl Process {
    pub(super) const fn new(now: Time, pid: u32, body: Body) -> Self {
        Self {
            pid,
            body,
            works: BTreeMap::new(),
            turns: 0,
            beat_at: now,
            deadline: Some(now),
        }
    }

    /// Its connection to the broker.
    pub(super) fn client(&self) -> ClientId {
        ClientId(u64::from(self.pid))
    }

    pub(super) fn handle(&mut self, now: Time, input: ServiceInput) {
        self.turns += 1;
        match &mut self.body {
            Body::Mts(_) => {}
            Body::Pss(pss) => pss.handle(now, input),
            Body::Service(service) => service.handle(now, input),
        }
    }

    /// To be called after each turn of the body.
    pub(super) fn turned(&mut self) {
        self.deadline = match &self.body {
            Body::Mts(broker) => broker.next_deadline(),
            Body::Pss(pss) => pss.next_deadline(),
            Body::Service(service) => service.next_deadline(),
        };
    }

    pub(super) fn poll_output(&mut self) -> Option<ServiceOutput> {
        match &mut self.body {
            Body::Mts(_) => None,
            Body::Pss(pss) => pss.poll_output(),
            Body::Service(service) => service.poll_output(),
        }
    }

    /// Numbers of the work it wants done from now on.
    pub(super) fn take_works(&mut self) -> Vec<u64> {
        let Body::Pss(pss) = &mut self.body else {
            return Vec::new();
        };
        let mut numbers = Vec::new();
        while let Some((number, work)) = pss.poll_work() {
            self.works.insert(number, work);
            numbers.push(number);
        }
        numbers
    }

    /// It cannot go on.
    pub(super) fn failed(&self) -> bool {
        match &self.body {
            Body::Pss(pss) => pss.failed().is_some(),
            Body::Mts(_) | Body::Service(_) => false,
        }
    }

    /// Turns of its loop, when a heartbeat is due.
    pub(super) fn beat(&mut self, now: Time) -> Option<u64> {
        if now < self.beat_at {
            return None;
        }
        self.beat_at = now + Duration::from_millis(u64::from(HEARTBEAT_PERIOD_MS));
        self.turns += 1;
        Some(self.turns)
    }

    /// Its body wants a tick.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.deadline.is_some_and(|at| at <= now)
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadline.into_iter().chain([self.beat_at]).min()
    }
}
