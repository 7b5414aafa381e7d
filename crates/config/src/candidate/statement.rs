//! What each statement does to a configuration.

use std::collections::BTreeMap;

use cli::{
    ConditionsLine, GroupLine, Mode, Object, ObjectKind, PolicyLine, ProfileLine, RuleLine,
    Statement,
};
use model::{Attribute, Condition, MatchCriteria, ObjectName};
use policy::PolicyModel;
use policy::object::{
    LINES_PER_OBJECT_MAX, OBJECTS_MAX, ObjectGroup, Policy, Problem, Rule, SecurityProfile, Zone,
    default_name, default_rule_name,
};
use thiserror::Error;

use crate::configuration::Configuration;

/// Why a statement cannot be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StatementError {
    /// Built in: can be neither removed nor changed.
    #[error("{name} is built in")]
    BuiltIn {
        /// The object.
        name: ObjectName,
    },
    /// The group holds another attribute.
    #[error("object-group {group} holds {attribute}")]
    GroupHolds {
        /// The group.
        group: ObjectName,
        /// What it holds.
        attribute: Attribute,
        /// What was asked for.
        asked: Attribute,
    },
    /// Something refers to it.
    #[error("{} {name} is in use by {by}", .kind.keyword())]
    InUse {
        /// Its kind.
        kind: ObjectKind,
        /// Its name.
        name: ObjectName,
        /// The kind and name of what refers to it.
        by: String,
    },
    /// No line with this number.
    #[error("no {what} {number} here")]
    NoSuchLine {
        /// `condition`, `match`, `action`.
        what: &'static str,
        /// The number, as text.
        number: String,
    },
    /// No such object.
    #[error("unknown {} {name}", .kind.keyword())]
    Unknown {
        /// Its kind.
        kind: ObjectKind,
        /// Its name.
        name: ObjectName,
    },
    /// Another rule has this rank.
    #[error("order {order} is taken by rule {rule}")]
    OrderTaken {
        /// The rank, as text.
        order: String,
        /// The rule that has it.
        rule: ObjectName,
    },
    /// What only the whole configuration shows.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The statement belongs to another mode.
    #[error("not in this mode")]
    WrongMode,
}

impl StatementError {
    /// The word of the line that is wrong, for the caret; empty if it is the whole line.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::BuiltIn { name } | Self::InUse { name, .. } | Self::Unknown { name, .. } => {
                name.as_str()
            }
            Self::GroupHolds { asked, .. } => asked.keyword(),
            Self::NoSuchLine { number, .. } => number,
            Self::OrderTaken { order, .. } => order,
            Self::WrongMode => "",
            Self::Problem(problem) => match problem {
                Problem::BuiltIn { name } => name.as_str(),
                Problem::GroupField { group, .. }
                | Problem::GroupExpression { group }
                | Problem::UnknownGroup { group } => group.as_str(),
                Problem::UnknownPolicy { policy } => policy.as_str(),
                Problem::UnknownRule { rule } | Problem::RuleTwice { rule, .. } => rule.as_str(),
                Problem::UnknownZone { zone } => zone.as_str(),
                Problem::TooMany { .. } => "",
            },
        }
    }
}

type Outcome = Result<(), StatementError>;

pub(super) fn apply(
    configuration: &mut Configuration,
    context: &Mode,
    statement: &Statement,
) -> Outcome {
    match (statement, context) {
        (Statement::Hostname(name), _) => {
            configuration.hostname = Some(name.clone());
            Ok(())
        }
        (Statement::NoHostname, _) => {
            configuration.hostname = None;
            Ok(())
        }
        (Statement::Enter(object), _) => enter(configuration, object),
        (Statement::Remove { kind, name }, _) => remove(configuration, *kind, name),
        (Statement::Conditions(line), Mode::Zone(name)) => {
            conditions_of_zone(configuration, name, line)
        }
        (Statement::Conditions(line), Mode::Rule(name)) => {
            conditions_of_rule(configuration, name, line)
        }
        (Statement::Group(line), Mode::ObjectGroup(name)) => in_group(configuration, name, line),
        (Statement::Policy(line), Mode::Policy(name)) => in_policy(configuration, name, line),
        (Statement::Profile(line), Mode::SecurityProfile(name)) => {
            in_profile(configuration, name, line)
        }
        (Statement::Rule(line), Mode::Rule(name)) => in_rule(configuration, name, line),
        (
            Statement::Conditions(_)
            | Statement::Group(_)
            | Statement::Policy(_)
            | Statement::Profile(_)
            | Statement::Rule(_),
            _,
        ) => Err(StatementError::WrongMode),
    }
}

fn unknown(kind: ObjectKind, name: &ObjectName) -> StatementError {
    StatementError::Unknown {
        kind,
        name: name.clone(),
    }
}

fn room(what: &str, count: usize, limit: usize) -> Outcome {
    if count < limit {
        return Ok(());
    }
    Err(Problem::TooMany {
        what: what.to_owned(),
        limit,
    }
    .into())
}

/// Makes the object unless it exists.
fn enter(configuration: &mut Configuration, object: &Object) -> Outcome {
    fn make<T>(
        map: &mut BTreeMap<ObjectName, T>,
        object: &Object,
        new: impl FnOnce() -> T,
    ) -> Outcome {
        if !map.contains_key(object.name()) {
            room(
                &format!("objects of the kind {}", object.kind().keyword()),
                map.len(),
                OBJECTS_MAX,
            )?;
            map.insert(object.name().clone(), new());
        }
        Ok(())
    }
    let model = &mut configuration.policy;
    match object {
        Object::ObjectGroup { name, attribute } => match model.object_groups.get(name) {
            Some(group) if group.attribute != *attribute => Err(StatementError::GroupHolds {
                group: name.clone(),
                attribute: group.attribute,
                asked: *attribute,
            }),
            Some(_) | None => make(&mut model.object_groups, object, || ObjectGroup {
                attribute: *attribute,
                matches: BTreeMap::new(),
            }),
        },
        Object::Policy(_) => make(&mut model.policies, object, Policy::default),
        Object::Rule(_) => make(&mut model.rules, object, Rule::default),
        Object::SecurityProfile(_) => make(&mut model.profiles, object, SecurityProfile::default),
        Object::Zone(_) => make(&mut model.zones, object, Zone::default),
    }
}

fn remove(configuration: &mut Configuration, kind: ObjectKind, name: &ObjectName) -> Outcome {
    let built_in = match kind {
        ObjectKind::Policy | ObjectKind::SecurityProfile => *name == default_name(),
        ObjectKind::Rule => *name == default_rule_name(),
        ObjectKind::ObjectGroup | ObjectKind::Zone => false,
    };
    if built_in {
        return Err(StatementError::BuiltIn { name: name.clone() });
    }
    if let Some(by) = user_of(configuration, kind, name) {
        return Err(StatementError::InUse {
            kind,
            name: name.clone(),
            by,
        });
    }
    let model = &mut configuration.policy;
    let found = match kind {
        ObjectKind::ObjectGroup => model.object_groups.remove(name).is_some(),
        ObjectKind::Policy => model.policies.remove(name).is_some(),
        ObjectKind::Rule => model.rules.remove(name).is_some(),
        ObjectKind::SecurityProfile => model.profiles.remove(name).is_some(),
        ObjectKind::Zone => model.zones.remove(name).is_some(),
    };
    if found {
        Ok(())
    } else {
        Err(unknown(kind, name))
    }
}

/// The first object that refers to this one, as text.
fn user_of(configuration: &Configuration, kind: ObjectKind, name: &ObjectName) -> Option<String> {
    let model = &configuration.policy;
    let shown = |kind: ObjectKind, name: &ObjectName| format!("{} {name}", kind.keyword());
    let conditions = |refers: &dyn Fn(&Condition) -> bool| {
        let zones = model
            .zones
            .iter()
            .map(|(n, z)| (ObjectKind::Zone, n, &z.conditions));
        let rules = model
            .rules
            .iter()
            .map(|(n, r)| (ObjectKind::Rule, n, &r.conditions));
        let mut users = zones
            .chain(rules)
            .filter(|(_, _, map)| map.values().any(refers));
        users.next().map(|(kind, name, _)| shown(kind, name))
    };
    match kind {
        ObjectKind::ObjectGroup => conditions(&|condition| condition.group() == Some(name)),
        ObjectKind::Zone => conditions(&|condition| condition.zone() == Some(name)),
        ObjectKind::Rule => {
            let mut users = model.policies.iter();
            let user = users.find(|(_, policy)| policy.rules.values().any(|rule| rule == name));
            user.map(|(name, _)| shown(ObjectKind::Policy, name))
        }
        ObjectKind::Policy => {
            let mut users = model.profiles.iter();
            let user = users.find(|(_, profile)| profile.policy.as_ref() == Some(name));
            user.map(|(name, _)| shown(ObjectKind::SecurityProfile, name))
        }
        ObjectKind::SecurityProfile => None,
    }
}

fn put<T>(what: &'static str, map: &mut BTreeMap<u16, T>, number: u16, line: T) -> Outcome {
    if !map.contains_key(&number) {
        room(
            &format!("lines of {what} in one object"),
            map.len(),
            LINES_PER_OBJECT_MAX,
        )?;
    }
    map.insert(number, line);
    Ok(())
}

fn take<T>(what: &'static str, map: &mut BTreeMap<u16, T>, number: u16) -> Outcome {
    let taken = map.remove(&number);
    let missing = || StatementError::NoSuchLine {
        what,
        number: number.to_string(),
    };
    taken.map(drop).ok_or_else(missing)
}

/// Applies a line to the conditions of a zone or a rule.
fn apply_conditions(
    problem: Option<Problem>,
    criteria: &mut MatchCriteria,
    conditions: &mut BTreeMap<u16, Condition>,
    line: &ConditionsLine,
) -> Outcome {
    match line {
        ConditionsLine::Criteria(wanted) => *criteria = *wanted,
        ConditionsLine::Remove(number) => take("condition", conditions, *number)?,
        ConditionsLine::Set { number, condition } => {
            if let Some(problem) = problem {
                return Err(problem.into());
            }
            put("condition", conditions, *number, condition.clone())?;
        }
    }
    Ok(())
}

fn problem_of(model: &PolicyModel, line: &ConditionsLine) -> Option<Problem> {
    match line {
        ConditionsLine::Set { condition, .. } => model.condition_problem(condition),
        ConditionsLine::Criteria(_) | ConditionsLine::Remove(_) => None,
    }
}

fn conditions_of_zone(
    configuration: &mut Configuration,
    name: &ObjectName,
    line: &ConditionsLine,
) -> Outcome {
    let model = &mut configuration.policy;
    let problem = problem_of(model, line);
    let zone = model
        .zones
        .get_mut(name)
        .ok_or_else(|| unknown(ObjectKind::Zone, name))?;
    apply_conditions(problem, &mut zone.criteria, &mut zone.conditions, line)
}

fn conditions_of_rule(
    configuration: &mut Configuration,
    name: &ObjectName,
    line: &ConditionsLine,
) -> Outcome {
    let problem = problem_of(&configuration.policy, line);
    change_rule(configuration, name, |rule| {
        apply_conditions(problem, &mut rule.criteria, &mut rule.conditions, line)
    })
}

fn in_rule(configuration: &mut Configuration, name: &ObjectName, line: &RuleLine) -> Outcome {
    change_rule(configuration, name, |rule| match line {
        RuleLine::Remove(number) => take("action", &mut rule.actions, *number),
        RuleLine::Set { number, action } => put("action", &mut rule.actions, *number, *action),
    })
}

/// Changes a copy, so that the built-in rule may be entered as it is shown, but not changed.
fn change_rule(
    configuration: &mut Configuration,
    name: &ObjectName,
    change: impl FnOnce(&mut Rule) -> Outcome,
) -> Outcome {
    let rules = &mut configuration.policy.rules;
    let place = rules
        .get_mut(name)
        .ok_or_else(|| unknown(ObjectKind::Rule, name))?;
    let mut rule = place.clone();
    change(&mut rule)?;
    if *name == default_rule_name() && rule != *place {
        return Err(StatementError::BuiltIn { name: name.clone() });
    }
    *place = rule;
    Ok(())
}

fn in_group(configuration: &mut Configuration, name: &ObjectName, line: &GroupLine) -> Outcome {
    let groups = &mut configuration.policy.object_groups;
    let group = groups
        .get_mut(name)
        .ok_or_else(|| unknown(ObjectKind::ObjectGroup, name))?;
    match line {
        GroupLine::Remove(number) => take("match", &mut group.matches, *number),
        GroupLine::Set { expression, .. } if expression.attribute() != group.attribute => {
            Err(StatementError::GroupHolds {
                group: name.clone(),
                attribute: group.attribute,
                asked: expression.attribute(),
            })
        }
        GroupLine::Set { number, expression } => {
            put("match", &mut group.matches, *number, expression.clone())
        }
    }
}

fn in_policy(configuration: &mut Configuration, name: &ObjectName, line: &PolicyLine) -> Outcome {
    let model = &mut configuration.policy;
    let place = model
        .policies
        .get_mut(name)
        .ok_or_else(|| unknown(ObjectKind::Policy, name))?;
    let mut policy = place.clone();
    match line {
        PolicyLine::Set { rule, order } => {
            if !model.rules.contains_key(rule) {
                return Err(unknown(ObjectKind::Rule, rule));
            }
            if let Some(other) = policy.rules.get(order)
                && other != rule
            {
                let order = order.to_string();
                return Err(StatementError::OrderTaken {
                    order,
                    rule: other.clone(),
                });
            }
            policy.rules.retain(|_, standing| standing != rule);
            put("rule", &mut policy.rules, *order, rule.clone())?;
        }
        PolicyLine::Remove(rule) => {
            let before = policy.rules.len();
            policy.rules.retain(|_, standing| standing != rule);
            if policy.rules.len() == before {
                return Err(unknown(ObjectKind::Rule, rule));
            }
        }
    }
    if *name == default_name() && policy != *place {
        return Err(StatementError::BuiltIn { name: name.clone() });
    }
    *place = policy;
    Ok(())
}

fn in_profile(configuration: &mut Configuration, name: &ObjectName, line: &ProfileLine) -> Outcome {
    let model = &mut configuration.policy;
    let missing = || unknown(ObjectKind::SecurityProfile, name);
    let profile = model.profiles.get_mut(name).ok_or_else(missing)?;
    match line {
        ProfileLine::Set(policy) => {
            if !model.policies.contains_key(policy) {
                return Err(unknown(ObjectKind::Policy, policy));
            }
            profile.policy = Some(policy.clone());
        }
        // The built-in profile has always one: without its own, the built-in.
        ProfileLine::Remove => {
            profile.policy = (*name == default_name()).then(default_name);
        }
    }
    Ok(())
}
