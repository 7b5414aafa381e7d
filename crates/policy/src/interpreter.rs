//! What a policy means, evaluated word by word: the specification of the classifier, which a
//! property test holds against it. Too slow for use.

use std::net::Ipv4Addr;

use model::{
    Attribute, Condition, Field, FlowAttributes, MatchCriteria, ObjectName, Protocol, Side, Test,
    Value, Verdict,
};

use crate::object::{ObjectGroup, PolicyModel, Rule, Zone, default_name};

/// Ethernet type of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;

/// Whether a protocol has ports: TCP, UDP, DCCP, SCTP, UDP-Lite (IANA protocol numbers).
#[must_use]
pub const fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol.0, 6 | 17 | 33 | 132 | 136)
}

/// The number that `attributes` have for a numeric attribute; `None` if the packet lacks it.
#[must_use]
pub fn numeric(attributes: &FlowAttributes, attribute: Attribute) -> Option<u32> {
    let flow = &attributes.flow;
    let ipv4 = attributes.ethertype == ETHERTYPE_IPV4;
    let ports = ipv4 && has_ports(flow.protocol);
    match (attribute.field, attribute.side) {
        (Field::Ethertype, _) => Some(u32::from(attributes.ethertype)),
        (Field::Protocol, _) => ipv4.then_some(u32::from(flow.protocol.0)),
        (Field::IpAddress | Field::ZoneName, Side::Source) => ipv4.then(|| flow.src_ip.into()),
        (Field::IpAddress | Field::ZoneName, Side::Destination) => ipv4.then(|| flow.dst_ip.into()),
        (Field::Port, Side::Source) => ports.then_some(u32::from(flow.src_port)),
        (Field::Port, Side::Destination) => ports.then_some(u32::from(flow.dst_port)),
        (Field::IpAddress | Field::Port | Field::ZoneName, Side::Neutral) => None,
    }
}

/// The verdict of `model` on a flow, with the policy asked and the rule that decided.
#[must_use]
pub fn decide(
    model: &PolicyModel,
    attributes: &FlowAttributes,
) -> (Verdict, ObjectName, Option<ObjectName>) {
    let profile = ObjectName::new(&attributes.profile).ok();
    let bound = profile.and_then(|name| model.profiles.get(&name));
    let bound = bound.or_else(|| model.profiles.get(&default_name()));
    let name = bound
        .and_then(|profile| profile.policy.clone())
        .unwrap_or_else(default_name);
    let rules = model
        .policies
        .get(&name)
        .into_iter()
        .flat_map(|policy| policy.rules.values());
    for rule_name in rules {
        let Some(rule) = model.rules.get(rule_name) else {
            continue;
        };
        let Some((_, verdict)) = rule.deciding() else {
            continue;
        };
        if rule_matches(model, rule, attributes) {
            return (verdict, name, Some(rule_name.clone()));
        }
    }
    (Verdict::Drop, name, None)
}

fn rule_matches(model: &PolicyModel, rule: &Rule, attributes: &FlowAttributes) -> bool {
    let mut holding = rule
        .conditions
        .values()
        .map(|c| holds(model, c, attributes));
    match rule.criteria {
        MatchCriteria::All => holding.all(|holds| holds),
        MatchCriteria::Any => rule.conditions.is_empty() || holding.any(|holds| holds),
    }
}

fn holds(model: &PolicyModel, condition: &Condition, attributes: &FlowAttributes) -> bool {
    let Some(number) = numeric(attributes, condition.attribute()) else {
        return false;
    };
    let in_zone = |name: &ObjectName| {
        model
            .zones
            .get(name)
            .is_some_and(|zone| zone_contains(model, zone, number))
    };
    match condition.test() {
        Test::Contains(part) => model.zones.iter().any(|(name, zone)| {
            name.as_str().contains(part.as_str()) && zone_contains(model, zone, number)
        }),
        Test::Eq(Value::Zone(name)) => in_zone(name),
        Test::Neq(Value::Zone(name)) => !in_zone(name),
        Test::Member(name) => in_group(model.object_groups.get(name), number),
        Test::NotMember(name) => !in_group(model.object_groups.get(name), number),
        test => compare(test, number),
    }
}

/// Whether `address` is in the zone.
#[must_use]
pub fn zone_contains(model: &PolicyModel, zone: &Zone, address: u32) -> bool {
    let mut holding = zone
        .conditions
        .values()
        .map(|condition| match condition.test() {
            Test::Member(name) => in_group(model.object_groups.get(name), address),
            Test::NotMember(name) => !in_group(model.object_groups.get(name), address),
            test => compare(test, address),
        });
    match zone.criteria {
        MatchCriteria::All => !zone.conditions.is_empty() && holding.all(|holds| holds),
        MatchCriteria::Any => holding.any(|holds| holds),
    }
}

fn in_group(group: Option<&ObjectGroup>, number: u32) -> bool {
    group.is_some_and(|group| group.matches.values().any(|c| compare(c.test(), number)))
}

fn compare(test: &Test, number: u32) -> bool {
    let equal = |value: &Value| match value {
        Value::Address { ip, mask } => Ipv4Addr::from(number & u32::from(*mask)) == *ip,
        Value::Number(wanted) => number == u32::from(*wanted),
        Value::Zone(_) => false,
    };
    let bound = |value: &Value| match value {
        Value::Address { ip, .. } => u32::from(*ip),
        Value::Number(number) => u32::from(*number),
        Value::Zone(_) => 0,
    };
    match test {
        Test::Eq(value) => equal(value),
        Test::Gt(value) => number > bound(value),
        Test::InRange(from, to) => (bound(from)..=bound(to)).contains(&number),
        Test::Lt(value) => number < bound(value),
        Test::Neq(value) => !equal(value),
        Test::NotInRange(from, to) => !(bound(from)..=bound(to)).contains(&number),
        Test::Contains(_) | Test::Member(_) | Test::NotMember(_) => false,
    }
}
