//! Small changes of an input.

use rand::Rng;
use rand::rngs::StdRng;

/// Largest input that is made. Longer ones find nothing that shorter ones do not, more slowly.
pub const INPUT_MAX_BYTES: usize = 8 * 1024;
/// Most changes of one input at once: some need a partner to pass the next check.
const CHANGES_MAX: usize = 5;
/// Values at which lengths, counts and signs turn.
const TURNING: [u8; 9] = [0, 1, 2, 0x0f, 0x7e, 0x7f, 0x80, 0xfe, 0xff];
/// The longest numbers that postcard reads, and one that is too long.
const LONG_NUMBERS: [&[u8]; 5] = [
    &[0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
    ],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
];

fn place(random: &mut StdRng, input: &[u8]) -> usize {
    random.random_range(0..=input.len())
}

fn span(random: &mut StdRng, input: &[u8]) -> core::ops::Range<usize> {
    let start = place(random, input);
    let longest = (input.len() - start).min(64);
    start..start + random.random_range(0..=longest)
}

/// Changes `input` in some way; `other` is an input to take pieces from, `words` are pieces that
/// mean something to the target.
pub fn mutate(random: &mut StdRng, input: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    for _ in 0..random.random_range(1..=CHANGES_MAX) {
        change(random, input, other, words);
    }
    input.truncate(INPUT_MAX_BYTES);
}

fn change(random: &mut StdRng, input: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    let at = place(random, input);
    let kinds = if words.is_empty() { 9 } else { 12 };
    match random.random_range(0..kinds) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = TURNING[random.random_range(0..TURNING.len())];
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.random();
            }
        }
        3 => input.truncate(at),
        4 => {
            let gone = span(random, input);
            input.drain(gone);
        }
        5 => {
            let piece = input[span(random, input)].to_vec();
            input.splice(at..at, piece);
        }
        6 => {
            let piece = other[span(random, other)].to_vec();
            input.splice(at..at, piece);
        }
        7 => {
            let number = LONG_NUMBERS[random.random_range(0..LONG_NUMBERS.len())];
            let end = (at + random.random_range(0..=1)).min(input.len());
            input.splice(at..end, number.iter().copied());
        }
        8 => {
            let piece = other[span(random, other)].to_vec();
            let end = (at + piece.len()).min(input.len());
            input.splice(at..end, piece);
        }
        _ => {
            let word = words[random.random_range(0..words.len())];
            let glue = [" ", "", "\n"][random.random_range(0..3)];
            input.splice(at..at, format!("{glue}{word}{glue}").into_bytes());
        }
    }
}
