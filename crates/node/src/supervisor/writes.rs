//! Writes of the node file: two parts of the System Manager ask for them, one file takes them.

use std::collections::VecDeque;

/// Writes remembered that are under way. Each stands for all before it, so when the disk is stuck
/// the oldest may go: a later one tells the same.
const WRITES_MAX: usize = 256;

/// Who asked for a write, and its own number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    Core(u64),
    Trust(u64),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes {
    issued: u64,
    under_way: VecDeque<(u64, Writer)>,
}

impl Writes {
    /// The number under which the shell is asked for a write.
    pub(super) fn issue(&mut self, writer: Writer) -> u64 {
        self.issued += 1;
        if self.under_way.len() == WRITES_MAX {
            self.under_way.pop_front();
        }
        self.under_way.push_back((self.issued, writer));
        self.issued
    }

    /// Those that are durable with `write`, oldest first.
    pub(super) fn durable(&mut self, write: u64) -> Vec<Writer> {
        let count = self
            .under_way
            .iter()
            .take_while(|(number, _)| *number <= write)
            .count();
        let durable = self.under_way.drain(..count);
        durable.map(|(_, writer)| writer).collect()
    }

    /// Whose write `write` was, which failed. It stays: a later one stands for it.
    pub(super) fn failed(&self, write: u64) -> Option<Writer> {
        let found = self.under_way.iter().find(|(number, _)| *number == write);
        found.map(|(_, writer)| *writer)
    }
}
