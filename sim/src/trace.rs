//! What happened, as a hash always and as lines when asked for.

use core::fmt;
use std::io::{self, Write};

/// See the module.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    readable: bool,
}

impl Trace {
    /// A trace that prints its lines if `readable`.
    #[must_use]
    pub const fn new(readable: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            readable,
        }
    }

    /// Mixes numbers in (FNV-1a).
    pub fn mix(&mut self, numbers: &[u64]) {
        for number in numbers {
            for byte in number.to_le_bytes() {
                self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }

    /// Mixes text in.
    pub fn mix_text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// One line, composed only if it is wanted.
    pub fn line(&self, now: u64, line: fmt::Arguments<'_>) {
        if self.readable {
            let (seconds, micros) = (now / 1_000_000_000, now / 1_000 % 1_000_000);
            // Whoever reads may stop (`| head`): that is not this run's business.
            let _ = writeln!(io::stdout(), "{seconds:>5}.{micros:06} {line}");
        }
    }

    /// The hash so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }
}
