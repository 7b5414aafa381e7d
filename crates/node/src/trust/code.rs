//! The one-time code: how long it is valid, and how often it may be tried.
//!
//! Invariants:
//! - C1 at most one code is valid at a time, for one purpose;
//! - C2 a try is taken before the other side can say anything that depends on the code, and given
//!   back only to somebody who proved it: so there are never more than [`TRIES`] guesses;
//! - C3 a code ends at its first success, at its last try, at its time, or when another is made.
//!
//! ```text
//!            make           try, one left after it
//!   none ──────────► valid ───────────────────────► valid
//!    ▲                 │ success · last try failed · time · withdrawn
//!    └─────────────────┘
//! ```
//!
//! The code itself is not here: the shell drew it, and forgets it when it is told to close.

use core::time::Duration;

use model::Time;
use wire::pairing::Purpose;

/// How long a code is valid: time to walk to the other machine and type nine symbols.
pub const VALID: Duration = Duration::from_secs(600);
/// Failures that end a code. A slip of the finger happens; a third one is somebody guessing.
pub const TRIES: u8 = 3;

/// A code that is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) number: u64,
    pub(super) purpose: Purpose,
    pub(super) until: Time,
    /// Tries that may still be taken.
    pub(super) tries: u8,
    /// Tries taken whose end is not known yet.
    pub(super) running: u8,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Codes {
    offer: Option<Offer>,
    count: u64,
}

impl Codes {
    /// Makes a code for `purpose`; the one before ends. Returns the number of the new one.
    pub(super) fn make(&mut self, now: Time, purpose: Purpose) -> u64 {
        self.count += 1;
        self.offer = Some(Offer {
            number: self.count,
            purpose,
            until: now + VALID,
            tries: TRIES,
            running: 0,
        });
        self.count
    }

    /// The code that is valid now.
    pub(super) fn valid(&self, now: Time) -> Option<Offer> {
        self.offer.filter(|offer| now < offer.until)
    }

    /// Takes a try of code `number`. False if there is none to take.
    pub(super) fn take_try(&mut self, now: Time, number: u64) -> bool {
        let Some(offer) = self.current(number) else {
            return false;
        };
        if now >= offer.until || offer.tries == 0 {
            return false;
        }
        offer.tries -= 1;
        offer.running += 1;
        true
    }

    /// A try failed. True if it was the last: the code has ended.
    pub(super) fn failed(&mut self, number: u64) -> bool {
        let Some(offer) = self.current(number) else {
            return false;
        };
        offer.running = offer.running.saturating_sub(1);
        let burnt = offer.tries == 0 && offer.running == 0;
        if burnt {
            self.offer = None;
        }
        burnt
    }

    /// Whoever tried knew the code, and was refused for another reason: the try is given back.
    pub(super) fn give_back(&mut self, number: u64) {
        if let Some(offer) = self.current(number) {
            offer.running = offer.running.saturating_sub(1);
            offer.tries += 1;
        }
    }

    /// Ends code `number`. False if it had ended.
    pub(super) fn end(&mut self, number: u64) -> bool {
        let current = self.current(number).is_some();
        if current {
            self.offer = None;
        }
        current
    }

    /// Ends the code whose time is over, and returns its number. One that is being tried at that
    /// moment ends with the try: a try that was taken in time counts.
    pub(super) fn expire(&mut self, now: Time) -> Option<u64> {
        let offer = self.offer.filter(|offer| now >= offer.until)?;
        self.offer = None;
        Some(offer.number)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.offer.map(|offer| offer.until)
    }

    fn current(&mut self, number: u64) -> Option<&mut Offer> {
        self.offer.as_mut().filter(|offer| offer.number == number)
    }

    /// Checks the invariants that a value can show.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.offer {
            Some(offer) if offer.tries + offer.running > TRIES => {
                Err("C2: more tries than allowed".to_owned())
            }
            Some(offer) if offer.tries + offer.running == 0 => {
                Err("C3: a code without tries is valid".to_owned())
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Time;
    use wire::pairing::Purpose;

    use super::{Codes, TRIES, VALID};

    #[test]
    fn three_failures_burn_it_and_a_proof_costs_nothing() {
        let mut codes = Codes::default();
        let number = codes.make(Time(0), Purpose::Node);
        for _ in 0..5 {
            assert!(codes.take_try(Time(1), number));
            codes.give_back(number);
            codes.check().expect("invariants");
        }
        for failure in 1..=TRIES {
            assert!(codes.take_try(Time(1), number));
            assert_eq!(codes.failed(number), failure == TRIES);
            codes.check().expect("invariants");
        }
        assert!(!codes.take_try(Time(1), number), "burnt");
        assert_eq!(codes.valid(Time(1)), None);
    }

    #[test]
    fn tries_that_run_at_once_count_too() {
        let mut codes = Codes::default();
        let number = codes.make(Time(0), Purpose::Node);
        let taken = (0..10).filter(|_| codes.take_try(Time(1), number)).count();
        assert_eq!(taken, usize::from(TRIES));
        assert!(!codes.failed(number) && !codes.failed(number));
        assert!(codes.failed(number), "the last of them burns it");
    }

    #[test]
    fn it_expires_and_a_new_one_ends_it() {
        let mut codes = Codes::default();
        let first = codes.make(Time(0), Purpose::Node);
        let at = codes.deadline().expect("a deadline");
        assert_eq!(at, Time(0) + VALID);
        assert!(!codes.take_try(at, first), "too late");
        assert_eq!(codes.expire(Time(at.0 - 1)), None);
        assert_eq!(codes.expire(at), Some(first));
        let second = codes.make(at, Purpose::Node);
        let third = codes.make(at, Purpose::Vem);
        assert!(!codes.take_try(at, second), "another was made");
        assert!(codes.take_try(at, third));
        assert!(!codes.end(second) && codes.end(third));
        assert!(!codes.take_try(at, third));
    }
}
