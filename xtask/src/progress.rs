//! Lines that tell what is going on and since when.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Prints lines that begin with the time since the command started.
pub(crate) struct Progress {
    started: Instant,
}

impl Progress {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// One whole line.
    pub(crate) fn line(&self, text: &str) {
        println!("[{}] {text}", clock(self.started.elapsed()));
        flush();
    }

    /// Begins a line that [`Self::end`] completes.
    pub(crate) fn begin(&self, text: &str) {
        print!("[{}] {text:<58} ", clock(self.started.elapsed()));
        flush();
    }

    /// Completes a line.
    pub(crate) fn end(&self, text: &str) {
        println!("{text}");
        flush();
    }
}

/// Minutes and seconds.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{:>2}:{:02}", seconds / 60, seconds % 60)
}

fn flush() {
    // A closed standard output ends the command at its next line anyway.
    let _ = io::stdout().flush();
}
