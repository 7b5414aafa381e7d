//! What follows a `|`.

use serde::{Deserialize, Serialize};

/// Most filters behind one command: each is a pass over the whole text, and nobody needs more.
pub const FILTERS_MAX: usize = 8;

/// One filter. A pattern is plain text, and matches a line that contains it, case and all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// From the first matching line on.
    Begin(String),
    /// The number of lines.
    Count,
    /// The lines that do not match.
    Exclude(String),
    /// The lines that match.
    Include(String),
    /// The answer as JSON; must come first.
    Json,
    /// No paging. Output is never paged here, so it changes nothing; scripts send it.
    NoMore,
}

/// Passes `text` through `filters`; `Json` is dealt with before, by rendering the answer so.
#[must_use]
pub fn apply(filters: &[Filter], text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for filter in filters {
        match filter {
            Filter::Begin(pattern) => {
                let first = lines
                    .iter()
                    .position(|line| line.contains(pattern.as_str()));
                lines.drain(..first.unwrap_or(lines.len()));
            }
            Filter::Count => lines = vec![lines.len().to_string()],
            Filter::Exclude(pattern) => lines.retain(|line| !line.contains(pattern.as_str())),
            Filter::Include(pattern) => lines.retain(|line| line.contains(pattern.as_str())),
            Filter::Json | Filter::NoMore => {}
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
