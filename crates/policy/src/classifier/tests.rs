use std::net::Ipv4Addr;

use model::{Direction, FlowKey, InspectedProtocol, Protocol};
use proptest::prelude::*;

use super::*;
use crate::event::lookup_event;
use crate::interpreter;
use crate::object::{ObjectGroup, Policy, SecurityProfile};
use crate::stats::MatchStats;

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).expect("valid: the tests use plain names")
}

fn condition(side: Side, field: Field, test: Test) -> Condition {
    Condition::new(Attribute::of(side, field), test).expect("valid: the test fits the field")
}

fn network(a: u8, b: u8, c: u8, bits: u32) -> Value {
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - bits).unwrap_or(0));
    Value::network(Ipv4Addr::new(a, b, c, 0), mask).expect("contiguous")
}

fn flow(profile: &str, dst_port: u16, protocol: Protocol) -> FlowAttributes {
    FlowAttributes {
        profile: profile.to_owned(),
        direction: Direction::Ingress,
        flow: FlowKey {
            src_ip: Ipv4Addr::new(10, 8, 0, 1),
            dst_ip: Ipv4Addr::new(10, 9, 0, 2),
            src_port: 38_321,
            dst_port,
            protocol,
        },
        ethertype: 0x0800,
    }
}

/// Web servers that may be asked at port 80 and 8000 to 8100, and nothing else.
fn web_model() -> PolicyModel {
    let mut model = PolicyModel::default();
    let zone = Zone {
        conditions: BTreeMap::from([(
            1,
            condition(
                Side::Neutral,
                Field::IpAddress,
                Test::Eq(network(10, 9, 0, 16)),
            ),
        )]),
        ..Zone::default()
    };
    model.zones.insert(name("web"), zone);
    let port = |test| condition(Side::Neutral, Field::Port, test);
    let group = ObjectGroup {
        attribute: Attribute::of(Side::Neutral, Field::Port),
        matches: BTreeMap::from([
            (1, port(Test::Eq(Value::Number(80)))),
            (
                2,
                port(Test::InRange(Value::Number(8000), Value::Number(8100))),
            ),
        ]),
    };
    model.object_groups.insert(name("http-ports"), group);
    let rule = Rule {
        conditions: BTreeMap::from([
            (
                1,
                condition(
                    Side::Destination,
                    Field::ZoneName,
                    Test::Eq(Value::Zone(name("web"))),
                ),
            ),
            (
                2,
                condition(
                    Side::Destination,
                    Field::Port,
                    Test::Member(name("http-ports")),
                ),
            ),
            (
                3,
                condition(Side::Neutral, Field::Protocol, Test::Eq(Value::Number(6))),
            ),
        ]),
        actions: BTreeMap::from([(10, Action::Permit), (20, Action::Log)]),
        ..Rule::default()
    };
    model.rules.insert(name("allow-http"), rule);
    let policy = Policy {
        rules: BTreeMap::from([(10, name("allow-http"))]),
    };
    model.policies.insert(name("web"), policy);
    model.profiles.insert(
        name("web"),
        SecurityProfile {
            policy: Some(name("web")),
        },
    );
    model
}

#[test]
fn the_policy_of_the_first_slice() {
    let classifier = compile(&web_model(), Generation(7)).expect("valid");
    assert_eq!(classifier.generation(), Generation(7));
    let attributes = flow("web@root", 80, Protocol::TCP);
    let decision = classifier.classify(&attributes);
    assert_eq!((decision.verdict, decision.log), (Verdict::Permit, true));
    assert_eq!(decision.rule, Some(&name("allow-http")));
    assert_eq!(
        (decision.src_zone, decision.dst_zone),
        (None, Some(&name("web")))
    );
    for (port, verdict) in [
        (7999, Verdict::Drop),
        (8000, Verdict::Permit),
        (8101, Verdict::Drop),
    ] {
        let attributes = flow("web@root", port, Protocol::TCP);
        assert_eq!(
            classifier.classify(&attributes).verdict,
            verdict,
            "port {port}"
        );
    }
    let udp = flow("web@root", 80, Protocol::UDP);
    let decision = classifier.classify(&udp);
    assert_eq!(
        (decision.verdict, decision.rule, decision.action),
        (Verdict::Drop, None, None)
    );
}

#[test]
fn an_unknown_profile_meets_the_built_in_drop() {
    let classifier = compile(&web_model(), Generation(1)).expect("valid");
    let attributes = flow("no-such-profile", 80, Protocol::TCP);
    let decision = classifier.classify(&attributes);
    assert_eq!(decision.verdict, Verdict::Drop);
    assert_eq!(decision.policy.as_str(), "default@root");
    assert_eq!(
        decision.rule.map(ObjectName::as_str),
        Some("default/default-rule@root")
    );
}

#[test]
fn a_packet_without_ports_meets_no_condition_on_ports() {
    let mut model = web_model();
    let rule = model
        .rules
        .get_mut(&name("allow-http"))
        .expect("defined above");
    rule.conditions = BTreeMap::from([(
        1,
        condition(Side::Destination, Field::Port, Test::Neq(Value::Number(22))),
    )]);
    let classifier = compile(&model, Generation(1)).expect("valid");
    assert_eq!(
        classifier
            .classify(&flow("web@root", 80, Protocol::TCP))
            .verdict,
        Verdict::Permit
    );
    assert_eq!(
        classifier
            .classify(&flow("web@root", 0, Protocol::ICMP))
            .verdict,
        Verdict::Drop
    );
    let mut other = flow("web@root", 80, Protocol::TCP);
    other.ethertype = 0x86dd;
    assert_eq!(classifier.classify(&other).verdict, Verdict::Drop);
}

#[test]
fn what_is_missing_is_refused_by_name() {
    let mut model = web_model();
    model.zones.clear();
    let error = compile(&model, Generation(1)).expect_err("the zone is missing");
    assert_eq!(error.to_string(), "unknown zone web@root");
    let mut model = web_model();
    model.rules.remove(&crate::object::default_rule_name());
    assert!(compile(&model, Generation(1)).is_err());
}

#[test]
fn the_event_has_the_words_of_the_original() {
    let classifier = compile(&web_model(), Generation(1)).expect("valid");
    let mut attributes = flow("web@root", 80, Protocol::TCP);
    let text = lookup_event(&classifier.classify(&attributes), &attributes);
    assert_eq!(
        text,
        "policy=web@root rule=allow-http@root action=Permit direction=ingress \
         src.net.ip-address=10.8.0.1 src.net.port=38321 dst.net.ip-address=10.9.0.2 \
         dst.net.port=80 net.protocol=6 net.ethertype=800 \
         net.service=\"protocol 6 port 80\" dst.zone.name=web@root"
    );
    attributes.ethertype = 0x86dd;
    let text = lookup_event(&classifier.classify(&attributes), &attributes);
    assert_eq!(
        text,
        "policy=web@root rule=NOT_APPLICABLE action=Drop direction=ingress net.ethertype=86dd"
    );
}

#[test]
fn every_decision_is_counted_where_it_was_made() {
    let classifier = compile(&web_model(), Generation(1)).expect("valid");
    let mut stats = MatchStats::default();
    for port in [80, 80, 22] {
        stats.record(&classifier.classify(&flow("web@root", port, Protocol::TCP)));
        stats.check();
    }
    stats.record(&classifier.classify(&flow("unknown", 80, Protocol::TCP)));
    stats.check();
    let lines = stats.lines(&classifier);
    let flat: Vec<(String, u64, String)> = lines
        .iter()
        .flat_map(|policy| {
            let rules = policy
                .rules
                .iter()
                .map(|r| (r.rule.clone(), r.hits, r.actions.clone()));
            std::iter::once((policy.policy.clone(), policy.lookups, String::new())).chain(rules)
        })
        .collect();
    let line = |rule: &str, hits, actions: &str| (rule.to_owned(), hits, actions.to_owned());
    assert_eq!(
        flat,
        [
            line("default@root", 1, ""),
            line("default/default-rule@root", 1, "Drop"),
            line("NOT_APPLICABLE", 0, "Drop"),
            line("web@root", 3, ""),
            line("allow-http@root", 2, "Log, Permit"),
            line("NOT_APPLICABLE", 1, "Drop"),
        ]
    );
}

// ===== The classifier and the interpreter agree =====

fn object_name(kind: &'static str) -> impl Strategy<Value = ObjectName> {
    (0u8..3).prop_map(move |number| name(&format!("{kind}{number}")))
}

/// Addresses from few networks, so that conditions meet.
fn address() -> impl Strategy<Value = Ipv4Addr> {
    (9u8..12, 0u8..3, 0u8..4).prop_map(|(a, b, c)| Ipv4Addr::new(10, a, b, c))
}

fn value(field: Field) -> BoxedStrategy<Value> {
    match field {
        Field::IpAddress | Field::ZoneName => address().prop_map(Value::host).boxed(),
        Field::Port => prop_oneof![0u16..6, 65_530u16..=65_535]
            .prop_map(Value::Number)
            .boxed(),
        Field::Protocol => prop::sample::select(vec![1u16, 6, 17, 255])
            .prop_map(Value::Number)
            .boxed(),
        Field::Ethertype => prop::sample::select(vec![0x800u16, 0x86dd])
            .prop_map(Value::Number)
            .boxed(),
    }
}

fn equal(field: Field) -> BoxedStrategy<Value> {
    if field != Field::IpAddress {
        return value(field);
    }
    let networks = (address(), 0u32..=32).prop_map(|(ip, bits)| {
        let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - bits).unwrap_or(0));
        Value::network(ip, mask).expect("contiguous")
    });
    networks.boxed()
}

fn number_test(field: Field) -> BoxedStrategy<Test> {
    let ordered = |(a, b): (Value, Value)| if a <= b { (a, b) } else { (b, a) };
    let pair = (value(field), value(field)).prop_map(ordered);
    prop_oneof![
        equal(field).prop_map(Test::Eq),
        equal(field).prop_map(Test::Neq),
        value(field).prop_map(Test::Gt),
        value(field).prop_map(Test::Lt),
        pair.clone().prop_map(|(a, b)| Test::InRange(a, b)),
        pair.prop_map(|(a, b)| Test::NotInRange(a, b)),
    ]
    .boxed()
}

/// Object groups `ip0`, `port1` …: one field for each kind of name, so that references fit.
fn group_kind(field: Field) -> &'static str {
    match field {
        Field::IpAddress | Field::ZoneName => "ip",
        Field::Port => "port",
        Field::Protocol => "protocol",
        Field::Ethertype => "ethertype",
    }
}

fn test_of(field: Field) -> BoxedStrategy<Test> {
    if field == Field::ZoneName {
        return prop_oneof![
            object_name("zone").prop_map(|zone| Test::Eq(Value::Zone(zone))),
            object_name("zone").prop_map(|zone| Test::Neq(Value::Zone(zone))),
            prop::sample::select(vec!["zone", "1@", "none"]).prop_map(|p| Test::Contains(p.into())),
        ]
        .boxed();
    }
    prop_oneof![
        4 => number_test(field),
        1 => object_name(group_kind(field)).prop_map(Test::Member),
        1 => object_name(group_kind(field)).prop_map(Test::NotMember),
    ]
    .boxed()
}

fn any_condition() -> impl Strategy<Value = Condition> {
    prop::sample::select(Attribute::ALL.to_vec()).prop_flat_map(|attribute| {
        test_of(attribute.field)
            .prop_map(move |test| Condition::new(attribute, test).expect("made to fit"))
    })
}

fn numbered<T: std::fmt::Debug>(
    item: impl Strategy<Value = T>,
    most: usize,
) -> impl Strategy<Value = BTreeMap<u16, T>> {
    prop::collection::vec(item, 0..=most).prop_map(|items| (1u16..).zip(items).collect())
}

fn criteria() -> impl Strategy<Value = MatchCriteria> {
    prop::sample::select(vec![MatchCriteria::All, MatchCriteria::Any])
}

fn any_action() -> impl Strategy<Value = Action> {
    prop::sample::select(vec![
        Action::Permit,
        Action::Drop,
        Action::Reset,
        Action::Log,
        Action::Inspect(InspectedProtocol::Ftp),
    ])
}

fn any_model() -> impl Strategy<Value = PolicyModel> {
    let fields = [
        Field::IpAddress,
        Field::Port,
        Field::Protocol,
        Field::Ethertype,
    ];
    let groups = fields.map(|field| {
        let attribute = Attribute::of(Side::Neutral, field);
        let expression = number_test(field)
            .prop_map(move |test| Condition::new(attribute, test).expect("made to fit"));
        prop::collection::vec(numbered(expression, 3), 3).prop_map(move |lists| (attribute, lists))
    });
    let zone_condition = (test_of(Field::IpAddress))
        .prop_map(|test| condition(Side::Neutral, Field::IpAddress, test));
    let zones = prop::collection::vec((criteria(), numbered(zone_condition, 3)), 3);
    let rule = (
        criteria(),
        numbered(any_condition(), 3),
        numbered(any_action(), 2),
    );
    (groups, zones, prop::collection::vec(rule, 1..80)).prop_map(|(groups, zones, rules)| {
        let mut model = PolicyModel::default();
        for (attribute, lists) in groups {
            for (number, matches) in lists.into_iter().enumerate() {
                let name = name(&format!("{}{number}", group_kind(attribute.field)));
                model
                    .object_groups
                    .insert(name, ObjectGroup { attribute, matches });
            }
        }
        for (number, (criteria, conditions)) in zones.into_iter().enumerate() {
            model.zones.insert(
                name(&format!("zone{number}")),
                Zone {
                    criteria,
                    conditions,
                },
            );
        }
        let mut policy = Policy::default();
        for (number, (criteria, conditions, actions)) in rules.into_iter().enumerate() {
            let rule_name = name(&format!("rule{number}"));
            policy.rules.insert(number as u16 + 1, rule_name.clone());
            model.rules.insert(
                rule_name,
                Rule {
                    criteria,
                    conditions,
                    actions,
                },
            );
        }
        model.policies.insert(name("p"), policy);
        model.profiles.insert(
            name("p"),
            SecurityProfile {
                policy: Some(name("p")),
            },
        );
        model
            .profiles
            .insert(name("unbound"), SecurityProfile::default());
        model
    })
}

fn any_flow() -> impl Strategy<Value = FlowAttributes> {
    let port = || prop_oneof![0u16..7, 65_529u16..=65_535];
    let protocol = prop::sample::select(vec![1u8, 6, 17, 255]);
    let ethertype = prop::sample::select(vec![0x800u16, 0x800, 0x800, 0x86dd]);
    let profile = prop::sample::select(vec!["p@root", "p@root", "unbound@root", "?"]);
    (
        profile,
        address(),
        address(),
        port(),
        port(),
        protocol,
        ethertype,
    )
        .prop_map(
            |(profile, src_ip, dst_ip, src_port, dst_port, protocol, ethertype)| FlowAttributes {
                profile: profile.to_owned(),
                direction: Direction::Egress,
                flow: FlowKey {
                    src_ip,
                    dst_ip,
                    src_port,
                    dst_port,
                    protocol: Protocol(protocol),
                },
                ethertype,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn classifier_and_interpreter_agree(
        model in any_model(),
        flows in prop::collection::vec(any_flow(), 30),
    ) {
        prop_assert_eq!(model.problems(), []);
        let classifier = compile(&model, Generation(1)).expect("no problems");
        for flow in &flows {
            let decision = classifier.classify(flow);
            let (verdict, policy, rule) = interpreter::decide(&model, flow);
            prop_assert_eq!(
                (decision.verdict, decision.policy, decision.rule),
                (verdict, &policy, rule.as_ref())
            );
            let source = u32::from(flow.flow.src_ip);
            let first = model.zones.iter().find(|(_, zone)| {
                flow.ethertype == 0x800 && interpreter::zone_contains(&model, zone, source)
            });
            prop_assert_eq!(decision.src_zone, first.map(|(name, _)| name));
        }
    }
}
