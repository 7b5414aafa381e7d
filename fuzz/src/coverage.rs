//! What code an input reached.
//!
//! `-C passes=sancov-module` with `-sanitizer-coverage-inline-8bit-counters` makes the compiler
//! count every edge of the program in one array of bytes, and tell us at start where it is. A
//! build without these flags has no counters: then nothing is ever new, and a campaign is random.

#![allow(
    unsafe_code,
    reason = "the counters are the compiler's, known by address only"
)]

use std::sync::Mutex;

/// The compiler's counters: start and length of each part of the program that has some.
static COUNTERS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by instrumented code at start, once for each object file, often with the same range.
///
/// # Safety
/// Only the compiler's start code calls it, with the bounds of its array of counters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let range = (
        start as usize,
        (stop as usize).saturating_sub(start as usize),
    );
    if let Ok(mut counters) = COUNTERS.lock()
        && range.1 > 0
        && !counters.contains(&range)
    {
        counters.push(range);
    }
}

/// Belongs to the same interface; the places of the counters are of no interest here.
///
/// # Safety
/// Called by the compiler's start code only; does nothing.
#[unsafe(no_mangle)]
pub const unsafe extern "C" fn __sanitizer_cov_pcs_init(_start: *const usize, _stop: *const usize) {
}

/// What has been reached so far.
#[derive(Debug, Default)]
pub struct Coverage {
    /// By counter: a bit for each class of how often it was reached by one input.
    seen: Vec<u8>,
}

/// Once, twice, up to 3, 7, 15, 31, 127, more: a loop that runs 17 times is no news after 18.
const fn class(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128..=255 => 128,
    }
}

impl Coverage {
    /// Whether this build counts at all.
    #[must_use]
    pub fn is_counted() -> bool {
        COUNTERS.lock().is_ok_and(|counters| !counters.is_empty())
    }

    /// Forgets what was counted since the last look.
    pub fn begin() {
        each_counter(|_, counter| *counter = 0);
    }

    /// Whether the code since [`Self::begin`] reached anything that none before it had.
    pub fn is_news(&mut self) -> bool {
        let mut news = false;
        each_counter(|index, counter| {
            let class = class(core::mem::take(counter));
            if class == 0 {
                return;
            }
            if self.seen.len() <= index {
                self.seen.resize(index + 1, 0);
            }
            news |= self.seen[index] & class == 0;
            self.seen[index] |= class;
        });
        news
    }

    /// Edges reached so far.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.seen.iter().filter(|seen| **seen != 0).count()
    }
}

fn each_counter(mut visit: impl FnMut(usize, &mut u8)) {
    let Ok(ranges) = COUNTERS.lock() else { return };
    let mut before = 0;
    for (start, length) in ranges.iter().copied() {
        // SAFETY: the compiler's start code gave us this range, it lives as long as the program,
        // and the code that counts in it runs on this thread only.
        let counters = unsafe { core::slice::from_raw_parts_mut(start as *mut u8, length) };
        // Nearly all are zero: eight at a time are passed over.
        for (word, counters) in counters.chunks_mut(8).enumerate() {
            if counters == [0; 8] {
                continue;
            }
            for (index, counter) in counters.iter_mut().enumerate() {
                visit(before + word * 8 + index, counter);
            }
        }
        before += length;
    }
}
