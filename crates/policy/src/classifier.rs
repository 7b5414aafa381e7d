//! The compiled form of a policy.
//!
//! Each rule becomes one *term* (all conditions must hold: the sets of one attribute are
//! intersected) or several (any is enough: a term for each condition). A term is a set of numbers
//! for some of six dimensions. For each dimension a policy keeps the numbers where any set begins
//! or ends, and for each stretch between them a bit per term: set if the term allows it. A
//! decision finds six stretches by bisection, intersects their bits, and takes the lowest: terms
//! stand in the order of their rules. (Known as the bit-vector scheme; Lakshman and Stiliadis,
//! SIGCOMM 1998.)

use std::collections::BTreeMap;

use model::{
    Action, Attribute, Condition, Field, FlowAttributes, Generation, MatchCriteria, ObjectName,
    Side, Test, Value, Verdict,
};
use thiserror::Error;

use crate::interpreter::numeric;
use crate::object::{PolicyModel, Problem, Rule, Zone, default_name};
use crate::ranges::Ranges;

/// Most terms of one policy. Its bit maps grow with the square of it: at this size they are 8 MB
/// a dimension at the worst. One more is refused.
pub const TERMS_PER_POLICY_MAX: usize = 8_192;

/// The dimensions in which terms differ. A zone is a set of addresses, so it needs none.
const DIMENSIONS: [Attribute; 6] = [
    Attribute::of(Side::Source, Field::IpAddress),
    Attribute::of(Side::Destination, Field::IpAddress),
    Attribute::of(Side::Source, Field::Port),
    Attribute::of(Side::Destination, Field::Port),
    Attribute::of(Side::Neutral, Field::Protocol),
    Attribute::of(Side::Neutral, Field::Ethertype),
];

/// Why a policy cannot be compiled.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompileError {
    /// Something is missing or does not fit.
    #[error(transparent)]
    Invalid(Problem),
    /// A policy has more alternatives than the bit maps can hold.
    #[error("policy {policy} has {terms} alternatives, {TERMS_PER_POLICY_MAX} are allowed")]
    TooManyTerms {
        /// The policy.
        policy: ObjectName,
        /// How many it has.
        terms: usize,
    },
}

/// What was decided, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What to do with the flow.
    pub verdict: Verdict,
    /// The action that says so; `None` if no rule matched.
    pub action: Option<Action>,
    /// The policy that was asked.
    pub policy: &'a ObjectName,
    /// The rule that matched; `None` if none did.
    pub rule: Option<&'a ObjectName>,
    /// Whether the rule wants the lookup logged.
    pub log: bool,
    /// The first zone, by name, that the source is in.
    pub src_zone: Option<&'a ObjectName>,
    /// The first zone, by name, that the destination is in.
    pub dst_zone: Option<&'a ObjectName>,
}

/// A compiled rule.
#[derive(Clone, Debug)]
struct CompiledRule {
    name: ObjectName,
    action: Action,
    verdict: Verdict,
    log: bool,
    actions: Vec<Action>,
}

/// One dimension of a policy: where stretches begin, and each stretch's bits.
#[derive(Clone, Debug)]
struct Dimension {
    /// First numbers of the stretches, ascending; the first is 0.
    starts: Vec<u32>,
    /// `words` of 64 terms for each stretch.
    bits: Vec<u64>,
    /// The terms that do not ask about this dimension.
    absent: Vec<u64>,
}

#[derive(Clone, Debug)]
struct CompiledPolicy {
    name: ObjectName,
    rules: Vec<CompiledRule>,
    /// For each term, its rule.
    term_rules: Vec<usize>,
    words: usize,
    dimensions: Vec<Dimension>,
}

/// A policy in force.
#[derive(Clone, Debug)]
pub struct Classifier {
    generation: Generation,
    policies: Vec<CompiledPolicy>,
    profiles: BTreeMap<String, usize>,
    default_policy: usize,
    zone_names: Vec<ObjectName>,
    /// First addresses of stretches with the same first zone.
    zone_starts: Vec<(u32, Option<usize>)>,
}

type Term = [Option<Ranges>; DIMENSIONS.len()];

/// Compiles `model`.
///
/// # Errors
/// [`CompileError`] if the model is not valid or too large; nothing is compiled then.
pub fn compile(model: &PolicyModel, generation: Generation) -> Result<Classifier, CompileError> {
    if let Some(problem) = model.problems().into_iter().next() {
        return Err(CompileError::Invalid(problem));
    }
    let zones: BTreeMap<&ObjectName, Ranges> = model
        .zones
        .iter()
        .map(|(name, zone)| (name, zone_set(model, zone)))
        .collect();
    let mut policies = Vec::with_capacity(model.policies.len());
    let mut positions = BTreeMap::new();
    for (name, policy) in &model.policies {
        positions.insert(name, policies.len());
        policies.push(compile_policy(model, &zones, name, policy.rules.values())?);
    }
    let default_policy = positions[&default_name()];
    let position = |bound: &Option<ObjectName>| match bound {
        Some(policy) => positions[policy],
        None => default_policy,
    };
    let profiles: BTreeMap<String, usize> = model
        .profiles
        .iter()
        .map(|(name, profile)| (name.to_string(), position(&profile.policy)))
        .collect();
    Ok(Classifier {
        generation,
        policies,
        default_policy: profiles
            .get(default_name().as_str())
            .copied()
            .unwrap_or(default_policy),
        profiles,
        zone_starts: zone_stretches(&zones),
        zone_names: zones.into_keys().cloned().collect(),
    })
}

fn compile_policy<'a>(
    model: &PolicyModel,
    zones: &BTreeMap<&ObjectName, Ranges>,
    name: &ObjectName,
    rule_names: impl Iterator<Item = &'a ObjectName>,
) -> Result<CompiledPolicy, CompileError> {
    let mut rules = Vec::new();
    let mut terms: Vec<Term> = Vec::new();
    let mut term_rules = Vec::new();
    for rule_name in rule_names {
        let rule = &model.rules[rule_name];
        let Some((action, verdict)) = rule.deciding() else {
            continue;
        };
        for term in terms_of(model, zones, rule) {
            terms.push(term);
            term_rules.push(rules.len());
        }
        rules.push(CompiledRule {
            name: rule_name.clone(),
            action,
            verdict,
            log: rule.logs(),
            actions: rule.actions.values().copied().collect(),
        });
    }
    if terms.len() > TERMS_PER_POLICY_MAX {
        return Err(CompileError::TooManyTerms {
            policy: name.clone(),
            terms: terms.len(),
        });
    }
    let words = terms.len().div_ceil(64);
    let dimensions = (0..DIMENSIONS.len())
        .map(|dimension| Dimension::new(terms.iter().map(|term| term[dimension].as_ref()), words))
        .collect();
    Ok(CompiledPolicy {
        name: name.clone(),
        rules,
        term_rules,
        words,
        dimensions,
    })
}

/// The alternatives of a rule.
fn terms_of(model: &PolicyModel, zones: &BTreeMap<&ObjectName, Ranges>, rule: &Rule) -> Vec<Term> {
    const UNRESTRICTED: Term = [const { None }; DIMENSIONS.len()];
    let sets = rule.conditions.values().map(|condition| {
        let attribute = condition.attribute();
        let field = match attribute.field {
            Field::ZoneName => Field::IpAddress,
            field @ (Field::IpAddress | Field::Port | Field::Protocol | Field::Ethertype) => field,
        };
        let wanted = Attribute::of(attribute.side, field);
        let dimension = DIMENSIONS.iter().position(|dimension| *dimension == wanted);
        (dimension, condition_set(model, zones, condition))
    });
    if rule.criteria == MatchCriteria::Any && !rule.conditions.is_empty() {
        // A condition on an attribute without a side never holds: it is no alternative.
        return sets
            .filter_map(|(dimension, set)| {
                let mut term = UNRESTRICTED;
                term[dimension?] = Some(set);
                Some(term)
            })
            .collect();
    }
    let mut term = UNRESTRICTED;
    for (dimension, set) in sets {
        let Some(dimension) = dimension else {
            return Vec::new();
        };
        term[dimension] = Some(match &term[dimension] {
            Some(before) => before.intersection(&set),
            None => set,
        });
    }
    vec![term]
}

fn condition_set(
    model: &PolicyModel,
    zones: &BTreeMap<&ObjectName, Ranges>,
    condition: &Condition,
) -> Ranges {
    let zone = |name| zones.get(name).cloned().unwrap_or_default();
    match condition.test() {
        Test::Contains(part) => zones
            .iter()
            .filter(|(name, _)| name.as_str().contains(part.as_str()))
            .fold(Ranges::empty(), |all, (_, set)| all.union(set)),
        Test::Eq(Value::Zone(name)) => zone(name),
        Test::Neq(Value::Zone(name)) => zone(name).complement(u32::MAX),
        Test::Member(_)
        | Test::NotMember(_)
        | Test::Eq(_)
        | Test::Gt(_)
        | Test::InRange(..)
        | Test::Lt(_)
        | Test::Neq(_)
        | Test::NotInRange(..) => number_set(model, condition),
    }
}

fn number_set(model: &PolicyModel, condition: &Condition) -> Ranges {
    if let Some(set) = Ranges::of(condition) {
        return set;
    }
    let group = condition
        .group()
        .and_then(|name| model.object_groups.get(name));
    let expressions = group.into_iter().flat_map(|group| group.matches.values());
    let members = expressions
        .filter_map(Ranges::of)
        .fold(Ranges::empty(), |a, b| a.union(&b));
    match condition.test() {
        Test::NotMember(_) => members.complement(condition.attribute().field.largest()),
        Test::Contains(_)
        | Test::Eq(_)
        | Test::Gt(_)
        | Test::InRange(..)
        | Test::Lt(_)
        | Test::Member(_)
        | Test::Neq(_)
        | Test::NotInRange(..) => members,
    }
}

fn zone_set(model: &PolicyModel, zone: &Zone) -> Ranges {
    let sets = zone
        .conditions
        .values()
        .map(|condition| number_set(model, condition));
    match zone.criteria {
        MatchCriteria::All => sets.reduce(|a, b| a.intersection(&b)).unwrap_or_default(),
        MatchCriteria::Any => sets.fold(Ranges::empty(), |a, b| a.union(&b)),
    }
}

/// Where the first zone of an address changes. Zones overlap seldom and are few: quadratic work
/// at compile time, one bisection at use.
fn zone_stretches(zones: &BTreeMap<&ObjectName, Ranges>) -> Vec<(u32, Option<usize>)> {
    let starts = starts(zones.values());
    let first = |start: u32| zones.values().position(|set| set.contains(start));
    let mut stretches: Vec<(u32, Option<usize>)> = starts
        .into_iter()
        .map(|start| (start, first(start)))
        .collect();
    stretches.dedup_by_key(|(_, zone)| *zone);
    stretches
}

/// The numbers where membership of any set may change, ascending, beginning with 0.
fn starts<'a>(sets: impl Iterator<Item = &'a Ranges>) -> Vec<u32> {
    let mut starts = vec![0];
    for (first, last) in sets.flat_map(Ranges::as_slice) {
        starts.push(*first);
        starts.extend(last.checked_add(1));
    }
    starts.sort_unstable();
    starts.dedup();
    starts
}

impl Dimension {
    fn new<'a>(sets: impl Iterator<Item = Option<&'a Ranges>> + Clone, words: usize) -> Self {
        let starts = starts(sets.clone().flatten());
        let mut absent = vec![0u64; words];
        let mut bits = vec![0u64; words * starts.len()];
        for (term, set) in sets.enumerate() {
            let (word, bit) = (term / 64, 1u64 << (term % 64));
            let Some(set) = set else {
                absent[word] |= bit;
                (0..starts.len()).for_each(|stretch| bits[stretch * words + word] |= bit);
                continue;
            };
            for (first, last) in set.as_slice() {
                let from = starts.partition_point(|start| start < first);
                let to = starts.partition_point(|start| start <= last);
                (from..to).for_each(|stretch| bits[stretch * words + word] |= bit);
            }
        }
        Self {
            starts,
            bits,
            absent,
        }
    }

    fn bits(&self, number: Option<u32>, words: usize) -> &[u64] {
        let Some(number) = number else {
            return &self.absent;
        };
        let stretch = self.starts.partition_point(|start| *start <= number) - 1;
        &self.bits[stretch * words..(stretch + 1) * words]
    }
}

impl CompiledPolicy {
    fn first_match(&self, attributes: &FlowAttributes) -> Option<&CompiledRule> {
        let numbers = DIMENSIONS.map(|dimension| numeric(attributes, dimension));
        let maps: Vec<&[u64]> = self
            .dimensions
            .iter()
            .zip(numbers)
            .map(|(dimension, number)| dimension.bits(number, self.words))
            .collect();
        for word in 0..self.words {
            let common = maps.iter().fold(u64::MAX, |common, map| common & map[word]);
            if common != 0 {
                let term = word * 64 + common.trailing_zeros() as usize;
                return Some(&self.rules[self.term_rules[term]]);
            }
        }
        None
    }
}

impl Classifier {
    /// The policy's number.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Decides a flow. An unknown profile counts as the default one.
    #[must_use]
    pub fn classify(&self, attributes: &FlowAttributes) -> Decision<'_> {
        let bound = self.profiles.get(&attributes.profile).copied();
        let policy = &self.policies[bound.unwrap_or(self.default_policy)];
        let rule = policy.first_match(attributes);
        let zone = |side| {
            let address = numeric(attributes, Attribute::of(side, Field::IpAddress))?;
            let at = self
                .zone_starts
                .partition_point(|(start, _)| *start <= address)
                - 1;
            Some(&self.zone_names[self.zone_starts[at].1?])
        };
        Decision {
            verdict: rule.map_or(Verdict::Drop, |rule| rule.verdict),
            action: rule.map(|rule| rule.action),
            policy: &policy.name,
            rule: rule.map(|rule| &rule.name),
            log: rule.is_some_and(|rule| rule.log),
            src_zone: zone(Side::Source),
            dst_zone: zone(Side::Destination),
        }
    }

    /// Policies and their rules with all actions, in order, for display.
    pub fn rules(
        &self,
    ) -> impl Iterator<Item = (&ObjectName, impl Iterator<Item = (&ObjectName, &[Action])>)> {
        self.policies.iter().map(|policy| {
            let rules = policy
                .rules
                .iter()
                .map(|rule| (&rule.name, rule.actions.as_slice()));
            (&policy.name, rules)
        })
    }
}

#[cfg(test)]
mod tests;
