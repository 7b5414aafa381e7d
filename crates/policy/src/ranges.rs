//! Sets of 32-bit numbers: what every condition on an address, a port or a protocol becomes.
//!
//! Invariant (`check`, in tests): the ranges are in ascending order, none is empty, and none
//! touches the next, so that equal sets are equal values.

use model::{Condition, Test};

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// The empty set.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// The numbers from `first` to `last`, both included; empty if `first` is above `last`.
    #[must_use]
    pub fn span(first: u32, last: u32) -> Self {
        if first > last {
            Self::empty()
        } else {
            Self(vec![(first, last)])
        }
    }

    /// The set that `condition` describes, among 0 to the field's largest. Groups and zones are
    /// looked up elsewhere: for them it is `None`.
    #[must_use]
    pub fn of(condition: &Condition) -> Option<Self> {
        let largest = condition.attribute().field.largest();
        let set = match condition.test() {
            Test::Eq(value) | Test::Neq(value) => {
                let (first, last) = value.range()?;
                Self::span(first, last)
            }
            Test::Gt(value) => match value.range()?.1.checked_add(1) {
                Some(first) => Self::span(first, largest),
                None => Self::empty(),
            },
            Test::Lt(value) => match value.range()?.0.checked_sub(1) {
                Some(last) => Self::span(0, last),
                None => Self::empty(),
            },
            Test::InRange(from, to) | Test::NotInRange(from, to) => {
                Self::span(from.range()?.0, to.range()?.1)
            }
            Test::Contains(_) | Test::Member(_) | Test::NotMember(_) => return None,
        };
        match condition.test() {
            Test::Neq(_) | Test::NotInRange(..) => Some(set.complement(largest)),
            Test::Contains(_)
            | Test::Eq(_)
            | Test::Gt(_)
            | Test::InRange(..)
            | Test::Lt(_)
            | Test::Member(_)
            | Test::NotMember(_) => Some(set),
        }
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// Whether `number` is in it.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= number);
        after > 0 && number <= self.0[after - 1].1
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<(u32, u32)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match joined.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => {
                    previous.1 = previous.1.max(last);
                }
                Some(_) | None => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = Vec::new();
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                common.push((first, last));
            }
            if a.1 <= b.1 {
                left.next();
            } else {
                right.next();
            }
        }
        Self(common)
    }

    /// What is not in it, from 0 to `largest`.
    #[must_use]
    pub fn complement(&self, largest: u32) -> Self {
        let mut gaps = Vec::new();
        let mut next = Some(0);
        for (first, last) in &self.0 {
            if let Some(start) = next
                && start < *first
            {
                gaps.push((start, (*first - 1).min(largest)));
            }
            next = last.checked_add(1);
        }
        if let Some(start) = next
            && start <= largest
        {
            gaps.push((start, largest));
        }
        Self(gaps)
    }

    /// Verifies the invariant.
    ///
    /// # Panics
    /// If it does not hold.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert!(self.0.iter().all(|(first, last)| first <= last), "{self:?}");
        let apart = self
            .0
            .windows(2)
            .all(|pair| u64::from(pair[0].1) + 1 < u64::from(pair[1].0));
        assert!(apart, "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Ranges;

    /// Small numbers and the far end, where overflow would be.
    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..40, (u32::MAX - 5)..=u32::MAX]
    }

    fn ranges() -> impl Strategy<Value = Ranges> {
        prop::collection::vec((number(), number()), 0..5).prop_map(|spans| {
            spans.iter().fold(Ranges::empty(), |set, (a, b)| {
                set.union(&Ranges::span(*a, *b))
            })
        })
    }

    proptest! {
        #[test]
        fn set_operations_agree_with_membership(a in ranges(), b in ranges(), x in number()) {
            for set in [&a, &b, &a.union(&b), &a.intersection(&b), &a.complement(u32::MAX)] {
                set.check();
            }
            prop_assert_eq!(a.union(&b).contains(x), a.contains(x) || b.contains(x));
            prop_assert_eq!(a.intersection(&b).contains(x), a.contains(x) && b.contains(x));
            prop_assert_eq!(a.complement(u32::MAX).contains(x), !a.contains(x));
            prop_assert_eq!(a.complement(30).contains(x), x <= 30 && !a.contains(x));
        }
    }
}
