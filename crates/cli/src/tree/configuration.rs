//! Lines of configuration, by mode.
//!
//! ```text
//! hostname WORD
//! ha-pair id N
//! zone NAME                    object-group NAME net.port      rule NAME
//!   cond-match-criteria: …       match N net.port TEST           cond-match-criteria: …
//!   condition N ATTRIBUTE TEST                                   condition N ATTRIBUTE TEST
//! policy NAME                  security-profile NAME             action N ACTION
//!   rule NAME order N            policy NAME
//!
//! TEST    eq | neq VALUE · gt | lt VALUE · in-range | not-in-range VALUE VALUE
//!         member | not-member object-group NAME · contains WORD (zone names only)
//! VALUE   a number · A.B.C.D · A.B.C.D MASK (eq and neq only) · the name of a zone
//! ```
//! Each has a `no` form that needs only what identifies it.

use model::{
    Action, Attribute, Condition, Field, MatchCriteria, OBJECT_NAME_MAX_BYTES, PairId, Side, Test,
    Value,
};

use super::{BadWord, Build, Node, Token, Words, address, keyword, name, number};
use crate::command::{
    Command, ConditionsLine, GroupLine, Object, ObjectKind, PolicyLine, ProfileLine, RuleLine,
    Statement,
};

/// Longest host name: RFC 1123 allows a label of 63.
const HOSTNAME_MAX_BYTES: usize = 63;

/// Numbers of conditions, expressions and actions, and orders: as wide as the original's fields.
const NUMBER_MAX: u32 = 65_535;

fn statement(statement: Statement) -> Result<Command, BadWord> {
    Ok(Command::Statement(statement))
}

fn conditions(line: ConditionsLine) -> Result<Command, BadWord> {
    statement(Statement::Conditions(line))
}

/// In configuration modes every word is for administrators, and on the active only.
fn words<const N: usize>(nodes: [Node; N]) -> Vec<Node> {
    nodes
        .into_iter()
        .map(|node| node.administrator().active_only())
        .collect()
}

pub(super) fn global() -> Vec<Node> {
    words([
        keyword("ha-pair", "The pair this node belongs to").then(keyword("id", "Its number").then(
            number("id", 1, PairId::MAX as u32, "Shared by both nodes").ends(|words| {
                let id = PairId::try_from(words.number::<u16>("id")?);
                let id = id.map_err(|error| BadWord {
                    label: "id",
                    message: error.to_string(),
                })?;
                Ok(Command::PairId(id))
            }),
        )),
        keyword("hostname", "Name of the system").then(
            Node::new(
                Token::Word {
                    max_bytes: HOSTNAME_MAX_BYTES,
                },
                "The name",
            )
            .named("hostname")
            .ends(hostname),
        ),
        keyword("no", "Undo a line").then_all([
            keyword("hostname", "Name of the system").ends(|_| statement(Statement::NoHostname)),
            remove(ObjectKind::ObjectGroup, |w| {
                removed(ObjectKind::ObjectGroup, w)
            }),
            remove(ObjectKind::Policy, |w| removed(ObjectKind::Policy, w)),
            remove(ObjectKind::Rule, |w| removed(ObjectKind::Rule, w)),
            remove(ObjectKind::SecurityProfile, |w| {
                removed(ObjectKind::SecurityProfile, w)
            }),
            remove(ObjectKind::Zone, |w| removed(ObjectKind::Zone, w)),
        ]),
        keyword("object-group", "Values of one attribute").then(
            name("name", "Name of the group").then_all(group_attributes().map(|attribute| {
                keyword(attribute.keyword(), "What it groups")
                    .named("attribute")
                    .ends(|words| {
                        let attribute = attribute_of(words)?;
                        let name = words.name("name")?;
                        statement(Statement::Enter(Object::ObjectGroup { name, attribute }))
                    })
            })),
        ),
        enter("policy", "Rules in order", |words| {
            statement(Statement::Enter(Object::Policy(words.name("name")?)))
        }),
        enter("rule", "Conditions and actions", |words| {
            statement(Statement::Enter(Object::Rule(words.name("name")?)))
        }),
        enter("security-profile", "Binds a policy to ports", |words| {
            statement(Statement::Enter(Object::SecurityProfile(
                words.name("name")?,
            )))
        }),
        enter("zone", "A set of addresses", |words| {
            statement(Statement::Enter(Object::Zone(words.name("name")?)))
        }),
    ])
}

pub(super) fn zone() -> Vec<Node> {
    let attributes = [Attribute::of(Side::Neutral, Field::IpAddress)];
    words([
        criteria(),
        condition(&attributes),
        keyword("no", "Undo a line").then_all([no_criteria(), no_condition()]),
    ])
}

pub(super) fn object_group() -> Vec<Node> {
    let number_node = number("number", 1, NUMBER_MAX, "Number of the expression");
    let expression: Build = |words| {
        let condition = condition_of(words)?;
        statement(Statement::Group(GroupLine::Set {
            number: words.number("number")?,
            expression: condition,
        }))
    };
    words([
        keyword("match", "An expression; one that holds is enough").then(
            number_node.then_all(
                group_attributes()
                    .into_iter()
                    .map(|attribute| tests(attribute, false, expression)),
            ),
        ),
        keyword("no", "Undo a line").then(keyword("match", "An expression").then(
            number("number", 1, NUMBER_MAX, "Its number").ends(|words| {
                statement(Statement::Group(GroupLine::Remove(words.number("number")?)))
            }),
        )),
    ])
}

pub(super) fn rule() -> Vec<Node> {
    let attributes: Vec<Attribute> = Attribute::ALL
        .into_iter()
        .filter(|attribute| match (attribute.side, attribute.field) {
            (Side::Neutral, Field::Protocol | Field::Ethertype) => true,
            (Side::Neutral, Field::IpAddress | Field::Port | Field::ZoneName) => false,
            (Side::Source | Side::Destination, _) => true,
        })
        .collect();
    words([
        action(),
        criteria(),
        condition(&attributes),
        keyword("no", "Undo a line").then_all([
            keyword("action", "An action").then(
                number("number", 1, NUMBER_MAX, "Its number").ends(|words| {
                    statement(Statement::Rule(RuleLine::Remove(words.number("number")?)))
                }),
            ),
            no_criteria(),
            no_condition(),
        ]),
    ])
}

pub(super) fn policy() -> Vec<Node> {
    let order = number("order", 1, NUMBER_MAX, "Lower is asked first").ends(|words| {
        let rule = words.name("rule")?;
        statement(Statement::Policy(PolicyLine::Set {
            rule,
            order: words.number("order")?,
        }))
    });
    words([
        keyword("no", "Undo a line").then(keyword("rule", "A rule of this policy").then(
            name("rule", "Its name").ends(|words| {
                statement(Statement::Policy(PolicyLine::Remove(words.name("rule")?)))
            }),
        )),
        keyword("rule", "Puts a rule into this policy")
            .then(name("rule", "Its name").then(keyword("order", "Its rank").then(order))),
    ])
}

pub(super) fn security_profile() -> Vec<Node> {
    words([
        keyword("no", "Undo a line").then(
            keyword("policy", "The policy of this profile")
                .ends(|_| statement(Statement::Profile(ProfileLine::Remove)))
                .then(
                    name("policy", "Its name")
                        .ends(|_| statement(Statement::Profile(ProfileLine::Remove))),
                ),
        ),
        keyword("policy", "The policy of this profile").then(
            name("policy", "Its name").ends(|words| {
                statement(Statement::Profile(ProfileLine::Set(words.name("policy")?)))
            }),
        ),
    ])
}

fn hostname(words: &Words) -> Result<Command, BadWord> {
    let text = words.required("hostname")?;
    let letters = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !letters || !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let message = "begins with a letter and has only letters, digits, - and _".to_owned();
        return Err(BadWord {
            label: "hostname",
            message,
        });
    }
    statement(Statement::Hostname(text.to_owned()))
}

fn enter(word: &'static str, help: &'static str, build: Build) -> Node {
    keyword(word, help).then(name("name", "Its name").ends(build))
}

fn remove(kind: ObjectKind, build: Build) -> Node {
    keyword(kind.keyword(), "Remove it").then(name("name", "Its name").ends(build))
}

fn removed(kind: ObjectKind, words: &Words) -> Result<Command, BadWord> {
    statement(Statement::Remove {
        kind,
        name: words.name("name")?,
    })
}

fn criteria() -> Node {
    keyword("cond-match-criteria:", "How the conditions are joined").then_all([
        keyword(MatchCriteria::All.keyword(), "Every one must hold")
            .ends(|_| conditions(ConditionsLine::Criteria(MatchCriteria::All))),
        keyword(MatchCriteria::Any.keyword(), "One is enough")
            .ends(|_| conditions(ConditionsLine::Criteria(MatchCriteria::Any))),
    ])
}

fn no_criteria() -> Node {
    keyword("cond-match-criteria:", "Back to match-all")
        .ends(|_| conditions(ConditionsLine::Criteria(MatchCriteria::All)))
}

fn condition(attributes: &[Attribute]) -> Node {
    let build: Build = |words| {
        let condition = condition_of(words)?;
        conditions(ConditionsLine::Set {
            number: words.number("number")?,
            condition,
        })
    };
    let number_node = number("number", 1, NUMBER_MAX, "Number of the condition");
    keyword("condition", "What must hold").then(
        number_node.then_all(
            attributes
                .iter()
                .map(|attribute| tests(*attribute, true, build)),
        ),
    )
}

fn no_condition() -> Node {
    keyword("condition", "A condition").then(
        number("number", 1, NUMBER_MAX, "Its number")
            .ends(|words| conditions(ConditionsLine::Remove(words.number("number")?))),
    )
}

/// `inspect` is not offered: a rule that says so must not merely permit, and there is no inspector
/// on the data path yet.
fn action() -> Node {
    let actions = [
        ("drop", "Drop"),
        ("log", "Log"),
        ("permit", "Permit"),
        ("reset", "Reset TCP"),
    ];
    keyword("action", "What is done").then(
        number("number", 1, NUMBER_MAX, "Number of the action").then_all(
            actions.map(|(word, help)| keyword(word, help).named("action").ends(action_of)),
        ),
    )
}

fn action_of(words: &Words) -> Result<Command, BadWord> {
    let action = match words.required("action")? {
        "drop" => Action::Drop,
        "log" => Action::Log,
        "permit" => Action::Permit,
        "reset" => Action::Reset,
        _ => {
            return Err(BadWord {
                label: "action",
                message: "is not known".to_owned(),
            });
        }
    };
    let number = words.number("number")?;
    statement(Statement::Rule(RuleLine::Set { number, action }))
}

/// What an object group may group: zones have none, they are sets already.
fn group_attributes() -> [Attribute; 4] {
    [
        Field::IpAddress,
        Field::Port,
        Field::Protocol,
        Field::Ethertype,
    ]
    .map(|field| Attribute::of(Side::Neutral, field))
}

/// An attribute with every test that fits it.
fn tests(attribute: Attribute, with_groups: bool, build: Build) -> Node {
    let operator = |word, help| keyword(word, help).named("operator");
    let node = keyword(attribute.keyword(), "This attribute").named("attribute");
    let field = attribute.field;
    if field == Field::ZoneName {
        let part = Node::new(
            Token::Word {
                max_bytes: OBJECT_NAME_MAX_BYTES,
            },
            "Part of a name",
        );
        return node
            .then(operator("contains", "Part of its name").then(part.named("part").ends(build)))
            .then(operator("eq", "In this zone").then(name("zone", "The zone").ends(build)))
            .then(operator("neq", "Not in it").then(name("zone", "The zone").ends(build)));
    }
    let value = |label, help| match field {
        Field::IpAddress => address(label, help),
        Field::Port | Field::Protocol | Field::Ethertype | Field::ZoneName => {
            number(label, 0, field.largest(), help)
        }
    };
    let equal = |word, help| {
        let first = value("value", "The value").ends(build);
        let first = match field {
            Field::IpAddress => first.then(address("mask", "Mask of a network").ends(build)),
            Field::Port | Field::Protocol | Field::Ethertype | Field::ZoneName => first,
        };
        operator(word, help).then(first)
    };
    let single = |word, help| operator(word, help).then(value("value", "The value").ends(build));
    let double = |word, help| {
        let last = value("last", "Last of the range").ends(build);
        operator(word, help).then(value("value", "First of the range").then(last))
    };
    let node = node
        .then(equal("eq", "Equal, or in the network"))
        .then(single("gt", "Greater"))
        .then(double("in-range", "In the range, ends included"))
        .then(single("lt", "Less"))
        .then(equal("neq", "Not equal"))
        .then(double("not-in-range", "Outside the range"));
    if !with_groups {
        return node;
    }
    let member = |word, help| {
        let group = name("group", "The group").ends(build);
        operator(word, help).then(keyword("object-group", "Of an object group").then(group))
    };
    node.then(member("member", "Matches the group"))
        .then(member("not-member", "Does not"))
}

fn attribute_of(words: &Words) -> Result<Attribute, BadWord> {
    let text = words.required("attribute")?;
    let found = Attribute::ALL
        .into_iter()
        .find(|attribute| attribute.keyword() == text);
    found.ok_or_else(|| BadWord {
        label: "attribute",
        message: "is not known".to_owned(),
    })
}

fn condition_of(words: &Words) -> Result<Condition, BadWord> {
    let attribute = attribute_of(words)?;
    let value = |label: &'static str| value_of(words, attribute.field, label);
    let test = match words.required("operator")? {
        "contains" => Test::Contains(words.required("part")?.to_owned()),
        "eq" => Test::Eq(value("value")?),
        "gt" => Test::Gt(value("value")?),
        "in-range" => Test::InRange(value("value")?, value("last")?),
        "lt" => Test::Lt(value("value")?),
        "member" => Test::Member(words.name("group")?),
        "neq" => Test::Neq(value("value")?),
        "not-in-range" => Test::NotInRange(value("value")?, value("last")?),
        "not-member" => Test::NotMember(words.name("group")?),
        _ => {
            return Err(BadWord {
                label: "operator",
                message: "is not known".to_owned(),
            });
        }
    };
    let made = Condition::new(attribute, test);
    made.map_err(|error| {
        let label = if words.text("last").is_some() {
            "last"
        } else {
            "operator"
        };
        BadWord {
            label,
            message: error.to_string(),
        }
    })
}

fn value_of(words: &Words, field: Field, label: &'static str) -> Result<Value, BadWord> {
    match field {
        Field::Port | Field::Protocol | Field::Ethertype => Ok(Value::Number(words.number(label)?)),
        Field::ZoneName => Ok(Value::Zone(words.name("zone")?)),
        Field::IpAddress => {
            let ip = words.address(label)?;
            if label == "last" || words.text("mask").is_none() {
                return Ok(Value::host(ip));
            }
            let network = Value::network(ip, words.address("mask")?);
            network.ok_or_else(|| BadWord {
                label: "mask",
                message: "has holes".to_owned(),
            })
        }
    }
}
