//! Lookup events: `%POLICY_ENGINE-6-POLICY_LOOKUP_EVENT`, in the original's words, and the limit
//! on how many are written.

use std::fmt::Write;

use model::{Action, FlowAttributes, Time};

use crate::classifier::Decision;
use crate::interpreter::{ETHERTYPE_IPV4, has_ports};

/// Facility of the policy engine's log records.
pub const FACILITY: &str = "POLICY_ENGINE";

/// Severity of a lookup event: informational.
pub const LOOKUP_SEVERITY: u8 = 6;

/// Mnemonic of a lookup event.
pub const LOOKUP_MNEMONIC: &str = "POLICY_LOOKUP_EVENT";

/// Name of an action in events and statistics.
#[must_use]
pub const fn action_name(action: Action) -> &'static str {
    match action {
        Action::Drop => "Drop",
        Action::Inspect(_) => "Inspect",
        Action::Log => "Log",
        Action::Permit => "Permit",
        Action::Reset => "Reset",
    }
}

/// The text of the event, after the mnemonic. Attributes that the packet lacks are left out.
#[must_use]
pub fn lookup_event(decision: &Decision<'_>, attributes: &FlowAttributes) -> String {
    let rule = decision.rule.map_or("NOT_APPLICABLE", |rule| rule.as_str());
    let action = decision.action.map_or("Drop", action_name);
    let direction = attributes.direction;
    let ethertype = attributes.ethertype;
    let mut text = format!(
        "policy={} rule={rule} action={action} direction={direction}",
        decision.policy
    );
    if ethertype != ETHERTYPE_IPV4 {
        push(&mut text, format_args!(" net.ethertype={ethertype:x}"));
        return text;
    }
    let flow = &attributes.flow;
    let protocol = flow.protocol.0;
    let ports = has_ports(flow.protocol);
    push(
        &mut text,
        format_args!(" src.net.ip-address={}", flow.src_ip),
    );
    if ports {
        push(&mut text, format_args!(" src.net.port={}", flow.src_port));
    }
    push(
        &mut text,
        format_args!(" dst.net.ip-address={}", flow.dst_ip),
    );
    if ports {
        push(&mut text, format_args!(" dst.net.port={}", flow.dst_port));
    }
    push(
        &mut text,
        format_args!(" net.protocol={protocol} net.ethertype={ethertype:x}"),
    );
    if ports {
        push(
            &mut text,
            format_args!(
                " net.service=\"protocol {protocol} port {}\"",
                flow.dst_port
            ),
        );
    }
    if let Some(zone) = decision.dst_zone {
        push(&mut text, format_args!(" dst.zone.name={zone}"));
    }
    if let Some(zone) = decision.src_zone {
        push(&mut text, format_args!(" src.zone.name={zone}"));
    }
    text
}

fn push(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part)
        .expect("invariant: writing to a String does not fail");
}

/// A token bucket: lets so many events through, counts the others.
///
/// Invariant: `credit_ns` is at most one burst's worth.
#[derive(Clone, Debug)]
pub struct EventLimiter {
    cost_ns: u64,
    burst_ns: u64,
    credit_ns: u64,
    filled: Time,
    unreported: u64,
    total: u64,
}

impl EventLimiter {
    /// Events a second that the log can take from a flood without losing what else it says.
    pub const EVENTS_PER_S: u32 = 100;

    /// Events at once after a quiet time: a page of a browser opens as many flows.
    pub const BURST: u32 = 200;

    /// A full bucket at `now`.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self::with_rate(now, Self::EVENTS_PER_S, Self::BURST)
    }

    /// A full bucket of `burst` events that refills with `events_per_s`; a rate of 0 counts as 1.
    #[must_use]
    pub fn with_rate(now: Time, events_per_s: u32, burst: u32) -> Self {
        let cost_ns = 1_000_000_000 / u64::from(events_per_s.max(1));
        let burst_ns = cost_ns * u64::from(burst);
        Self {
            cost_ns,
            burst_ns,
            credit_ns: burst_ns,
            filled: now,
            unreported: 0,
            total: 0,
        }
    }

    /// Whether one more event may be written at `now`.
    pub fn admit(&mut self, now: Time) -> bool {
        let passed = u64::try_from(now.since(self.filled).as_nanos()).unwrap_or(u64::MAX);
        self.filled = self.filled.max(now);
        self.credit_ns = self.credit_ns.saturating_add(passed).min(self.burst_ns);
        if self.credit_ns < self.cost_ns {
            self.unreported += 1;
            self.total += 1;
            return false;
        }
        self.credit_ns -= self.cost_ns;
        true
    }

    /// Events suppressed since the last call, for a line that says so.
    pub fn take_suppressed(&mut self) -> u64 {
        std::mem::take(&mut self.unreported)
    }

    /// Events suppressed since the start.
    #[must_use]
    pub const fn suppressed_total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::Time;

    use super::EventLimiter;

    #[test]
    fn a_flood_passes_the_burst_then_the_rate_and_the_rest_is_counted() {
        let mut limiter = EventLimiter::with_rate(Time(0), 10, 5);
        let passed = (0..20).filter(|_| limiter.admit(Time(0))).count();
        assert_eq!(passed, 5);
        assert_eq!(
            (limiter.take_suppressed(), limiter.take_suppressed()),
            (15, 0)
        );
        // One second of a flood: ten more pass.
        let times = (1..=1000).map(Time::from_ms);
        assert_eq!(times.filter(|now| limiter.admit(*now)).count(), 10);
        assert_eq!(limiter.suppressed_total(), 15 + 990);
        // A long quiet time gives no more than the burst.
        let later = Time::from_ms(1000) + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| limiter.admit(later)).count(), 5);
        // Time that seems to go back gives nothing.
        assert!(!limiter.admit(Time(0)));
    }
}
