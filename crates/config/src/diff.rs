//! `show running-config diff`: a context diff, as `diff -c` writes it (POSIX, "Diff Default
//! Output Format, -c"), under the original's two names.

use similar::{DiffOp, DiffTag, TextDiff};

/// Unchanged lines shown around a change.
const CONTEXT_LINES: usize = 3;

/// The difference from the startup configuration to the running one; empty if there is none.
#[must_use]
pub fn context_diff(startup: &str, running: &str) -> String {
    named_diff(("Startup-config", startup), ("Running-config", running))
}

/// Lines that only `old` has, and lines that only `new` has.
#[must_use]
pub fn lines_that_differ(old: &str, new: &str) -> (usize, usize) {
    let diff = TextDiff::from_lines(old, new);
    let changed = |op: &&DiffOp| op.tag() != DiffTag::Equal;
    let ops = || diff.ops().iter().filter(changed);
    (
        ops().map(|op| op.old_range().len()).sum(),
        ops().map(|op| op.new_range().len()).sum(),
    )
}

/// The difference between two texts under the names given; empty if there is none.
#[must_use]
pub fn named_diff((old_name, startup): (&str, &str), (new_name, running): (&str, &str)) -> String {
    let diff = TextDiff::from_lines(startup, running);
    let (old, new): (Vec<&str>, Vec<&str>) = (startup.lines().collect(), running.lines().collect());
    let mut text = String::new();
    for group in diff.grouped_ops(CONTEXT_LINES) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        if text.is_empty() {
            text += &format!("*** {old_name}\n--- {new_name}\n");
        }
        text += "***************\n";
        let span = (first.old_range().start, last.old_range().end);
        text += &format!("*** {} ****\n", range(span));
        text += &side(&group, DiffTag::Delete, '-', |op| &old[op.old_range()]);
        let span = (first.new_range().start, last.new_range().end);
        text += &format!("--- {} ----\n", range(span));
        text += &side(&group, DiffTag::Insert, '+', |op| &new[op.new_range()]);
    }
    text
}

/// The lines of one side; none, if that side has no change of its own.
fn side<'a>(
    group: &[DiffOp],
    own: DiffTag,
    mark: char,
    lines: impl Fn(&DiffOp) -> &'a [&'a str],
) -> String {
    if !group
        .iter()
        .any(|op| op.tag() == own || op.tag() == DiffTag::Replace)
    {
        return String::new();
    }
    let mut text = String::new();
    for op in group {
        let prefix = match op.tag() {
            DiffTag::Equal => ' ',
            DiffTag::Replace => '!',
            DiffTag::Delete | DiffTag::Insert => mark,
        };
        for line in lines(op) {
            text += &format!("{prefix} {line}\n");
        }
    }
    text
}

/// `first,last` from 1; the line before, if the range is empty; one number, if it is one line.
fn range((start, end): (usize, usize)) -> String {
    match end - start {
        0 => start.to_string(),
        1 => end.to_string(),
        _ => format!("{},{end}", start + 1),
    }
}
