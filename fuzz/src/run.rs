//! One input under watch, and a campaign over many.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::coverage::Coverage;
use crate::memory::measure;
use crate::mutate::{INPUT_MAX_BYTES, mutate};
use crate::targets::Target;

/// Inputs that are kept while a campaign runs; beyond, a new one takes the place of any.
const POOL_MAX: usize = 20_000;

/// What a target did with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was refused.
    Refused,
    /// It was accepted.
    Accepted,
    /// A property does not hold: what was said.
    Failed(String),
}

thread_local! {
    /// This thread's panics are told as outcomes, not printed.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static SAID: Cell<Option<String>> = const { Cell::new(None) };
}

fn quiet_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if WATCHED.get() {
                SAID.set(Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
}

/// Gives `input` to `target` and sees what becomes of it.
#[must_use]
pub fn try_input(target: &Target, input: &[u8]) -> Outcome {
    quiet_panics();
    WATCHED.set(true);
    let (result, bytes) = measure(|| catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    WATCHED.set(false);
    match result {
        Err(_) => Outcome::Failed(SAID.take().unwrap_or_else(|| "it panicked".to_owned())),
        Ok(_) if bytes > target.memory_bytes => Outcome::Failed(format!(
            "{bytes} bytes of memory for {} bytes of input, at most {} are allowed",
            input.len(),
            target.memory_bytes
        )),
        Ok(true) => Outcome::Accepted,
        Ok(false) => Outcome::Refused,
    }
}

/// What a campaign has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Inputs tried.
    pub inputs: u64,
    /// Of these, those that were accepted.
    pub accepted: u64,
    /// Edges of the program that were reached; 0 in a build that does not count.
    pub edges: usize,
}

/// An input that breaks a property.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// What was said.
    pub said: String,
}

/// When a campaign ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many inputs.
    Inputs(u64),
    /// After so long.
    Passed(Duration),
}

/// One target's campaign.
pub struct Campaign<'a> {
    target: &'a Target,
    random: StdRng,
    pool: Vec<Vec<u8>>,
    coverage: Coverage,
    sum: Sum,
}

impl<'a> Campaign<'a> {
    /// A campaign that begins with `corpus`; everything follows from that and `seed`.
    #[must_use]
    pub fn new(target: &'a Target, corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        Self {
            target,
            random: StdRng::seed_from_u64(seed),
            pool: corpus,
            coverage: Coverage::default(),
            sum: Sum::default(),
        }
    }

    /// Tries inputs: the corpus, then valid ones and mutations. `before` is told each input
    /// before it is tried, `news` those that reached something new.
    ///
    /// # Errors
    /// The first input that breaks a property.
    pub fn run(
        &mut self,
        until: Until,
        mut before: impl FnMut(&[u8]),
        mut news: impl FnMut(&[u8]),
    ) -> Result<Sum, Failure> {
        let began = Instant::now();
        for input in self.pool.clone() {
            before(&input);
            self.try_one(&input)?;
        }
        loop {
            let over = match until {
                Until::Inputs(inputs) => self.sum.inputs >= inputs,
                Until::Passed(limit) => began.elapsed() >= limit,
            };
            if over {
                self.sum.edges = self.coverage.edges();
                return Ok(self.sum);
            }
            let input = self.next();
            before(&input);
            if self.try_one(&input)? {
                news(&input);
                self.keep(input);
            }
        }
    }

    /// Whether it reached something new.
    fn try_one(&mut self, input: &[u8]) -> Result<bool, Failure> {
        Coverage::begin();
        let outcome = try_input(self.target, input);
        let news = self.coverage.is_news();
        self.sum.inputs += 1;
        match outcome {
            Outcome::Failed(said) => {
                return Err(Failure {
                    input: input.to_vec(),
                    said,
                });
            }
            Outcome::Accepted => self.sum.accepted += 1,
            Outcome::Refused => {}
        }
        Ok(news)
    }

    fn keep(&mut self, input: Vec<u8>) {
        if self.pool.len() < POOL_MAX {
            self.pool.push(input);
        } else {
            let place = self.random.random_range(0..POOL_MAX);
            self.pool[place] = input;
        }
    }

    fn any(&mut self) -> Vec<u8> {
        if self.pool.is_empty() || self.random.random_range(0..3) == 0 {
            (self.target.seed)(&mut self.random)
        } else {
            self.pool[self.random.random_range(0..self.pool.len())].clone()
        }
    }

    fn next(&mut self) -> Vec<u8> {
        let mut input = self.any();
        input.truncate(INPUT_MAX_BYTES);
        if self.random.random_range(0..16) == 0 {
            return input;
        }
        let other = self.any();
        mutate(&mut self.random, &mut input, &other, self.target.words);
        if let Some(repair) = self.target.repair
            && self.random.random()
        {
            repair(&mut input);
        }
        input
    }
}
