//! `vsh` ↔ `vshd`, over a Unix stream.

use serde::{Deserialize, Serialize};

/// Longest line an operator may send, in bytes; a longer one is refused.
pub const LINE_MAX_BYTES: usize = 4096;

/// From `vsh`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromShell {
    /// A line was entered (a command, or the answer to a question).
    Line(String),
    /// `?` was pressed after this text. Answered like a line: output, then the prompt again.
    Help(String),
    /// TAB was pressed after this text. Answered by [`ToShell::Completions`], with nothing else.
    Complete(String),
}

/// From `vshd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToShell {
    /// The last line is done; the next may be entered at this prompt.
    Prompt {
        /// `vsg# ` …
        prompt: String,
        /// Whether the last line was an error (exit status of `vsh -c`).
        failed: bool,
    },
    /// Output of the running command.
    Output(String),
    /// A question; the next line is its answer.
    Question(String),
    /// Words that may follow.
    Completions(Vec<String>),
    /// A log line for the console.
    Console(String),
    /// The session is over.
    Bye,
    /// Nothing is running, and the prompt has become another: this node leads or follows now, or
    /// the system has another name. What was typed and not sent stands.
    NewPrompt(String),
}
