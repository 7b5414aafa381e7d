//! Every target, on the committed corpus and some thousand inputs that follow from a seed.

use fuzz::run::{Campaign, Outcome, Until, try_input};
use fuzz::{corpus, targets};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Inputs for each target; `cargo xtask fuzz` tries millions.
const INPUTS: u64 = 2_000;
/// Another one tries other inputs; a failure tells which.
const SEED: u64 = 20_260_101;
/// Valid inputs of each target that must be accepted.
const VALID: usize = 200;

#[test]
fn no_input_breaks_a_property() {
    let mut failures = Vec::new();
    for target in targets() {
        let known = corpus::read(&corpus::folder(target.name)).expect("the corpus");
        let mut campaign = Campaign::new(&target, known, SEED);
        match campaign.run(Until::Inputs(INPUTS), |_| {}, |_| {}) {
            Ok(sum) => assert!(
                sum.accepted > INPUTS / 100,
                "{}: of {} inputs only {} get past the first check",
                target.name,
                sum.inputs,
                sum.accepted
            ),
            Err(failure) => {
                let name = format!("{}-{}", target.name, corpus::file_name(&failure.input));
                let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
                std::fs::write(&path, &failure.input).expect("written");
                let command = corpus::replay_command(target.name, &path);
                failures.push(format!("{}: {}\n{command}", target.name, failure.said));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn what_is_valid_is_accepted() {
    for target in targets() {
        let mut random = StdRng::seed_from_u64(SEED);
        let mut accepted = 0;
        for _ in 0..VALID {
            let input = (target.seed)(&mut random);
            match try_input(&target, &input) {
                Outcome::Accepted => accepted += 1,
                Outcome::Refused => {}
                Outcome::Failed(said) => panic!("{}: {said}", target.name),
            }
        }
        // Command lines and pieces of a configuration are put together at random.
        // … and some names of a pairing are longer than allowed.
        let text = [
            "command-line",
            "configuration",
            "inspected",
            "store",
            "pairing",
        ]
        .contains(&target.name);
        let least = if text { 1 } else { VALID };
        assert!(accepted >= least, "{}: {accepted} of {VALID}", target.name);
    }
}

#[test]
fn a_broken_property_is_told_and_an_input_that_takes_too_much_memory_too() {
    let target = |run: fn(&[u8]) -> bool| targets::Target {
        name: "sample",
        seed: Box::new(|_| vec![1, 2, 3]),
        run: Box::new(run),
        repair: None,
        memory_bytes: 1000,
        words: &[],
    };
    let panics = target(|input| {
        assert!(input.len() < 5, "too long");
        true
    });
    let failure =
        Campaign::new(&panics, Vec::new(), SEED).run(Until::Inputs(10_000), |_| {}, |_| {});
    let failure = failure.expect_err("mutations grow");
    assert!(failure.said.contains("too long") && failure.input.len() >= 5);
    let hungry = target(|_| !core::hint::black_box(vec![0_u8; 2000]).is_empty());
    let Outcome::Failed(said) = try_input(&hungry, &[]) else {
        panic!("2000 bytes were not seen");
    };
    assert!(said.contains("bytes of memory"), "{said}");
}
