//! Connections to the gateways, and the one that is obeyed.
//!
//! Invariants:
//! - The obeyed gateway is connected.
//! - `lost_at` is set exactly while nobody is obeyed.

use core::time::Duration;

use model::{Epoch, Generation, ModuleNumber, Time};
use serde::{Deserialize, Serialize};

use crate::types::GatewayId;

/// The active counts as heard for this long after its last message: the default hold time.
pub(crate) const HEARD_WITHIN: Duration = Duration::from_millis(300);

/// A gateway as `show status` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayView {
    /// The connection stands.
    pub connected: bool,
    /// The number it gave this VEM.
    pub module: Option<ModuleNumber>,
    /// It is the one obeyed.
    pub obeyed: bool,
}

/// Whom we obey.
///
/// | state | claim obeyed | its release or its loss |
/// |---|---|---|
/// | nobody | → obeying | – |
/// | obeying | → obeying the claimant | → nobody |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Obeyed {
    pub(crate) gateway: GatewayId,
    pub(crate) epoch: Epoch,
    pub(crate) generation: Generation,
    heard: Time,
}

/// When the newest claim was accepted, and what followed; kept when nobody is obeyed any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// The newest claim was accepted.
    pub claim_accepted: Option<Time>,
    /// The first verdict under it arrived.
    pub first_decision: Option<Time>,
}

/// A claim whose epoch is being made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub(crate) gateway: GatewayId,
    pub(crate) epoch: Epoch,
    pub(crate) generation: Generation,
}

#[derive(Debug)]
pub(crate) struct Gateways {
    connected: Vec<Option<Option<ModuleNumber>>>,
    obeyed: Option<Obeyed>,
    claimant: Option<Claimant>,
    lost_at: Time,
    takeover: Takeover,
}

impl Gateways {
    pub(crate) fn new(now: Time, count: usize) -> Self {
        Self {
            connected: vec![None; count],
            obeyed: None,
            claimant: None,
            lost_at: now,
            takeover: Takeover::default(),
        }
    }

    /// False if there is no such gateway.
    pub(crate) fn connect(&mut self, gateway: GatewayId) -> bool {
        let known = self.connected.get_mut(usize::from(gateway.0));
        known.map(|slot| *slot = Some(None)).is_some()
    }

    pub(crate) fn welcome(&mut self, gateway: GatewayId, module: ModuleNumber) {
        if let Some(Some(slot)) = self.connected.get_mut(usize::from(gateway.0)) {
            *slot = Some(module);
        }
    }

    /// True if it was the one obeyed.
    pub(crate) fn disconnect(&mut self, now: Time, gateway: GatewayId) -> bool {
        if let Some(slot) = self.connected.get_mut(usize::from(gateway.0)) {
            *slot = None;
        }
        if self
            .claimant
            .is_some_and(|claimant| claimant.gateway == gateway)
        {
            self.claimant = None;
        }
        self.obeyed.is_some_and(|obeyed| obeyed.gateway == gateway) && self.obey_nobody(now)
    }

    /// True if somebody was obeyed.
    pub(crate) fn obey_nobody(&mut self, now: Time) -> bool {
        let was = self.obeyed.take().is_some();
        if was {
            self.lost_at = now;
        }
        was
    }

    pub(crate) fn is_connected(&self, gateway: GatewayId) -> bool {
        self.connected
            .get(usize::from(gateway.0))
            .is_some_and(Option::is_some)
    }

    pub(crate) fn await_claim(&mut self, claimant: Claimant) {
        self.claimant = Some(claimant);
    }

    /// The claim that waits, if one does, is not awaited any more.
    pub(crate) fn drop_claimant(&mut self) -> Option<Claimant> {
        self.claimant.take()
    }

    /// Those that are connected, but for one.
    pub(crate) fn connected_but(&self, one: GatewayId) -> Vec<GatewayId> {
        let ids = (0..).map(GatewayId).zip(&self.connected);
        ids.filter(|(id, slot)| *id != one && slot.is_some())
            .map(|(id, _)| id)
            .collect()
    }

    /// The claim that waited for `epoch`, if its gateway is still there.
    pub(crate) fn take_claimant(&mut self, epoch: Epoch) -> Option<Claimant> {
        self.claimant.take_if(|claimant| claimant.epoch == epoch)
    }

    pub(crate) fn obey(&mut self, now: Time, claim: Claimant) {
        let Claimant {
            gateway,
            epoch,
            generation,
        } = claim;
        self.claimant = None;
        self.takeover = Takeover {
            claim_accepted: Some(now),
            first_decision: None,
        };
        self.obeyed = Some(Obeyed {
            gateway,
            epoch,
            generation,
            heard: now,
        });
    }

    pub(crate) fn heard(&mut self, now: Time, gateway: GatewayId) {
        if let Some(obeyed) = self
            .obeyed
            .as_mut()
            .filter(|obeyed| obeyed.gateway == gateway)
        {
            obeyed.heard = now;
        }
    }

    /// A verdict of the obeyed gateway arrived.
    pub(crate) fn decided(&mut self, now: Time) {
        self.takeover.first_decision.get_or_insert(now);
    }

    pub(crate) const fn takeover(&self) -> Takeover {
        self.takeover
    }

    pub(crate) fn raise_generation(&mut self, generation: Generation) {
        if let Some(obeyed) = &mut self.obeyed {
            obeyed.generation = obeyed.generation.max(generation);
        }
    }

    pub(crate) const fn obeyed(&self) -> Option<Obeyed> {
        self.obeyed
    }

    /// The obeyed gateway, if this is it and this is its epoch.
    pub(crate) fn obeyed_as(&self, gateway: GatewayId, epoch: Epoch) -> Option<Obeyed> {
        self.obeyed
            .filter(|obeyed| obeyed.gateway == gateway && obeyed.epoch == epoch)
    }

    pub(crate) fn active_heard(&self, now: Time) -> bool {
        self.obeyed
            .is_some_and(|obeyed| now.since(obeyed.heard) <= HEARD_WITHIN)
    }

    /// Since when nobody is obeyed.
    pub(crate) fn lost_at(&self) -> Option<Time> {
        self.obeyed.is_none().then_some(self.lost_at)
    }

    pub(crate) fn views(&self) -> Vec<GatewayView> {
        let obeyed = self.obeyed.map(|obeyed| usize::from(obeyed.gateway.0));
        let view = |(index, slot): (usize, &Option<Option<ModuleNumber>>)| GatewayView {
            connected: slot.is_some(),
            module: slot.flatten(),
            obeyed: obeyed == Some(index),
        };
        self.connected.iter().enumerate().map(view).collect()
    }

    pub(crate) fn check(&self, highest: Epoch) {
        if let Some(obeyed) = self.obeyed {
            assert!(
                self.is_connected(obeyed.gateway),
                "obeying a gateway that is gone"
            );
            assert_eq!(
                obeyed.epoch, highest,
                "obeying an epoch that is not the highest"
            );
        }
        if let Some(claimant) = self.claimant {
            assert!(
                self.is_connected(claimant.gateway),
                "awaiting a claim of nobody"
            );
            assert!(self.obeyed.is_none(), "awaiting a claim and obeying");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_is_timed_from_its_claim_to_its_first_verdict() {
        let mut gateways = Gateways::new(Time(0), 2);
        assert_eq!(gateways.takeover(), Takeover::default());
        let claim = Claimant {
            gateway: GatewayId(1),
            epoch: Epoch::default(),
            generation: Generation(1),
        };
        gateways.obey(Time(10), claim);
        gateways.decided(Time(12));
        gateways.decided(Time(15));
        let first = Takeover {
            claim_accepted: Some(Time(10)),
            first_decision: Some(Time(12)),
        };
        assert_eq!(gateways.takeover(), first);
        gateways.obey_nobody(Time(20));
        assert_eq!(gateways.takeover(), first, "kept for whoever asks later");
        gateways.obey(Time(30), claim);
        assert_eq!(gateways.takeover().first_decision, None);
    }
}
