//! A line against the tree.
//!
//! | the next word | outcome |
//! |---|---|
//! | fits no keyword and no value | `% Invalid command at '^' marker.` |
//! | begins several keywords and is none of them | `% Ambiguous command at '^' marker.` |
//! | is a number outside the range | `% Invalid number, range is (1:4095) at '^' marker.` |
//! | is missing | `% Incomplete command at '^' marker.` |

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::mode::{Mode, Standing};
use crate::pipe::{FILTERS_MAX, Filter};
use crate::tree::{Grammar, Node, Token, Word, Words, parse_number, visible};

/// Longest line, in bytes; as much as the console's frames carry. A longer one is refused whole.
pub const LINE_MAX_BYTES: usize = 4096;

/// A parsed line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// What is asked for.
    pub command: Command,
    /// What the output passes through.
    pub filters: Vec<Filter>,
    /// The mode whose words these were: the session's, or one above it. A statement applies in
    /// this mode.
    pub context: Mode,
}

/// Why a line is not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ParseError {
    /// Where, in characters from the start of the line.
    pub column: usize,
    /// Why.
    pub kind: ParseErrorKind,
}

/// The kinds of it, each with the original's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// The beginning of several keywords.
    #[error("% Ambiguous command at '^' marker.")]
    Ambiguous,
    /// The line ends too early.
    #[error("% Incomplete command at '^' marker.")]
    Incomplete,
    /// No such word here.
    #[error("% Invalid command at '^' marker.")]
    Invalid,
    /// A number outside its range.
    #[error("% Invalid number, range is ({min}:{max}) at '^' marker.")]
    Range {
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// The right form, but it means nothing; or what it names does not exist.
    #[error("% {0} at '^' marker.")]
    Value(String),
    /// The line is longer than [`LINE_MAX_BYTES`].
    #[error("% Command too long")]
    TooLong,
}

impl ParseError {
    /// An error about the first word of `line` that is `word`: for what only the configuration
    /// knows (`% unknown zone web@root at '^' marker.`).
    #[must_use]
    pub fn at_word(line: &str, word: &str, message: impl Into<String>) -> Self {
        let found = split(line).into_iter().find(|(_, text)| {
            *text == word || word.strip_suffix("@root").is_some_and(|bare| *text == bare)
        });
        let column = found.map_or(0, |(column, _)| column);
        Self {
            column,
            kind: ParseErrorKind::Value(message.into()),
        }
    }

    /// The caret under the word, and the sentence. `prompt_columns` is the length of the prompt
    /// that stands before the line on the operator's screen.
    #[must_use]
    pub fn render(&self, prompt_columns: usize) -> String {
        if self.kind == ParseErrorKind::TooLong {
            return format!("{self}\n");
        }
        format!("{}^\n{self}\n", " ".repeat(prompt_columns + self.column))
    }
}

/// Parses `line` as typed in `mode` on a node that stands as `standing`.
///
/// # Errors
/// [`ParseError`] with the place of the first word that cannot be.
pub fn parse(
    grammar: &Grammar,
    line: &str,
    mode: &Mode,
    standing: Standing,
) -> Result<Invocation, ParseError> {
    if line.len() > LINE_MAX_BYTES {
        return Err(ParseError {
            column: 0,
            kind: ParseErrorKind::TooLong,
        });
    }
    let (command_text, pipes) = match line.find('|') {
        Some(at) => (&line[..at], Some((at, &line[at..]))),
        None => (line, None),
    };
    let words = split(command_text);
    let Some((_, first)) = words.first() else {
        return match pipes {
            None => Ok(empty(mode)),
            Some((at, _)) => Err(invalid(columns(line, at))),
        };
    };
    if first.starts_with('!') {
        return Ok(empty(mode));
    }
    let end_column = columns(line, command_text.trim_end().len());
    let (command, context) = in_modes(grammar, &words, end_column, mode, standing)?;
    let filters = match pipes {
        Some((at, text)) => parse_pipes(line, at, text)?,
        None => Vec::new(),
    };
    Ok(Invocation {
        command,
        filters,
        context,
    })
}

fn empty(mode: &Mode) -> Invocation {
    Invocation {
        command: Command::Empty,
        filters: Vec::new(),
        context: mode.clone(),
    }
}

const fn invalid(column: usize) -> ParseError {
    ParseError {
        column,
        kind: ParseErrorKind::Invalid,
    }
}

/// Characters before the byte `at`.
fn columns(line: &str, at: usize) -> usize {
    line[..at].chars().count()
}

/// The words of a line with their columns, in characters.
fn split(line: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in line.char_indices().chain([(line.len(), ' ')]) {
        match (start, c.is_whitespace()) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                words.push((columns(line, from), &line[from..at]));
                start = None;
            }
            (None, true) | (Some(_), false) => {}
        }
    }
    words
}

/// Tries the mode's words, then those of the modes above, as long as a word is unknown. If none
/// knows the line, the error is that of the mode which understood most of it.
fn in_modes(
    grammar: &Grammar,
    words: &[(usize, &str)],
    end_column: usize,
    mode: &Mode,
    standing: Standing,
) -> Result<(Command, Mode), ParseError> {
    let mut deepest: Option<ParseError> = None;
    let mut context = mode.clone();
    loop {
        let error = match walk(grammar.first_words(&context), words, end_column, standing) {
            Ok(command) => return Ok((command, context)),
            Err(error) => error,
        };
        let unknown_word = error.kind == ParseErrorKind::Invalid;
        let farthest = match deepest {
            Some(before) if before.column >= error.column => before,
            Some(_) | None => error,
        };
        match context.parent() {
            Some(parent) if unknown_word => context = parent,
            Some(_) | None => return Err(farthest),
        }
        deepest = Some(farthest);
    }
}

fn walk(
    first: &[Node],
    line: &[(usize, &str)],
    end_column: usize,
    standing: Standing,
) -> Result<Command, ParseError> {
    let mut nodes = first;
    let mut last: Option<&Node> = None;
    let mut words = Words::default();
    let mut labelled = Vec::new();
    for (column, text) in line {
        let node = pick(nodes, text, *column, standing)?;
        if let Some(label) = node.label() {
            let text = match node.token {
                Token::Keyword(word) => word.to_owned(),
                Token::Address | Token::Name | Token::Number { .. } | Token::Word { .. } => {
                    (*text).to_owned()
                }
            };
            words.words.push(Word { label, text });
            labelled.push((label, *column));
        }
        nodes = &node.children;
        last = Some(node);
    }
    let build = last.and_then(Node::build);
    let build = build.ok_or(ParseError {
        column: end_column + 1,
        kind: ParseErrorKind::Incomplete,
    })?;
    build(&words).map_err(|bad| {
        let at = labelled.iter().find(|(label, _)| *label == bad.label);
        let column = at.map_or(end_column, |(_, column)| *column);
        ParseError {
            column,
            kind: ParseErrorKind::Value(bad.message),
        }
    })
}

/// The node that `text` means: the keyword itself, else the only keyword it begins, else a value.
fn pick<'a>(
    nodes: &'a [Node],
    text: &str,
    column: usize,
    standing: Standing,
) -> Result<&'a Node, ParseError> {
    let keywords = |node: &&Node| match node.token {
        Token::Keyword(word) => word.starts_with(text),
        Token::Address | Token::Name | Token::Number { .. } | Token::Word { .. } => false,
    };
    let begun: Vec<&Node> = visible(nodes, standing).filter(keywords).collect();
    let whole = |node: &&&Node| matches!(node.token, Token::Keyword(word) if word == text);
    if let Some(exact) = begun.iter().find(whole) {
        return Ok(exact);
    }
    match begun.as_slice() {
        [only] => return Ok(only),
        [] => {}
        [_, ..] => {
            return Err(ParseError {
                column,
                kind: ParseErrorKind::Ambiguous,
            });
        }
    }
    let mut reason = ParseErrorKind::Invalid;
    for node in visible(nodes, standing) {
        match fits(node.token, text) {
            Ok(true) => return Ok(node),
            Ok(false) => {}
            Err(kind) => reason = kind,
        }
    }
    Err(ParseError {
        column,
        kind: reason,
    })
}

/// Whether a value token takes `text`; an error when it is nearly one, and says why not.
fn fits(token: Token, text: &str) -> Result<bool, ParseErrorKind> {
    match token {
        Token::Keyword(_) => Ok(false),
        Token::Number { min, max } => match parse_number(text) {
            Some(number) if (min..=max).contains(&number) => Ok(true),
            Some(_) => Err(ParseErrorKind::Range { min, max }),
            None if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Err(ParseErrorKind::Range { min, max })
            }
            None => Ok(false),
        },
        Token::Address => Ok(text.parse::<core::net::Ipv4Addr>().is_ok()),
        Token::Name => match model::ObjectName::new(text) {
            Ok(_) => Ok(true),
            Err(error) => Err(ParseErrorKind::Value(error.to_string())),
        },
        Token::Word { max_bytes } => Ok(text.len() <= max_bytes),
    }
}

/// Parses `| include X | count`. `text` begins at byte `at` of `line`, with the bar.
fn parse_pipes(line: &str, at: usize, text: &str) -> Result<Vec<Filter>, ParseError> {
    let mut filters = Vec::new();
    let mut start = at + 1;
    for part in text[1..].split('|') {
        let column = columns(line, start + part.len() - part.trim_start().len());
        filters.push(parse_filter(part.trim(), column)?);
        if filters.len() > FILTERS_MAX {
            return Err(invalid(column));
        }
        start += part.len() + 1;
    }
    match filters
        .iter()
        .skip(1)
        .position(|filter| *filter == Filter::Json)
    {
        None => Ok(filters),
        Some(_) => Err(invalid(columns(line, at))),
    }
}

fn parse_filter(text: &str, column: usize) -> Result<Filter, ParseError> {
    let (word, pattern) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let pattern = pattern.trim().to_owned();
    let all = ["begin", "count", "exclude", "include", "json", "no-more"];
    let begun: Vec<&str> = all
        .into_iter()
        .filter(|name| name.starts_with(word))
        .collect();
    let incomplete = ParseError {
        column: column + text.chars().count() + 1,
        kind: ParseErrorKind::Incomplete,
    };
    let name = match begun.as_slice() {
        _ if word.is_empty() => return Err(incomplete),
        [] => return Err(invalid(column)),
        [only] => *only,
        [_, ..] => {
            return Err(ParseError {
                column,
                kind: ParseErrorKind::Ambiguous,
            });
        }
    };
    let with_pattern = matches!(name, "begin" | "exclude" | "include");
    if with_pattern && pattern.is_empty() {
        return Err(incomplete);
    }
    if !with_pattern && !pattern.is_empty() {
        return Err(invalid(column + word.chars().count() + 1));
    }
    Ok(match name {
        "begin" => Filter::Begin(pattern),
        "count" => Filter::Count,
        "exclude" => Filter::Exclude(pattern),
        "include" => Filter::Include(pattern),
        "json" => Filter::Json,
        _ => Filter::NoMore,
    })
}

/// One line of `?`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelpLine {
    /// The word, `<1-4095>`, `NAME` …, or `<CR>` where the command may end.
    pub word: String,
    /// What it means.
    pub help: String,
}

/// What may stand at the end of `line`: with a blank at the end, the next word; without, the
/// words that complete the last one. Empty if the words before it are wrong.
#[must_use]
pub fn help(grammar: &Grammar, line: &str, mode: &Mode, standing: Standing) -> Vec<HelpLine> {
    let words = split(line);
    let open = !line.is_empty() && !line.ends_with(char::is_whitespace);
    let (before, begun) = match words.split_last() {
        Some(((_, last), before)) if open => (before, *last),
        Some(_) | None => (words.as_slice(), ""),
    };
    let mut lines: Vec<HelpLine> = Vec::new();
    let mut context = Some(mode.clone());
    while let Some(here) = context {
        let found = help_in(grammar.first_words(&here), before, begun, standing);
        for line in found.unwrap_or_default() {
            if !lines.iter().any(|known| known.word == line.word) {
                lines.push(line);
            }
        }
        if !before.is_empty() && !lines.is_empty() {
            break;
        }
        context = here.parent();
    }
    lines
}

fn help_in(
    first: &[Node],
    before: &[(usize, &str)],
    begun: &str,
    standing: Standing,
) -> Option<Vec<HelpLine>> {
    let mut nodes = first;
    let mut may_end = false;
    for (column, text) in before {
        let node = pick(nodes, text, *column, standing).ok()?;
        may_end = node.is_complete();
        nodes = &node.children;
    }
    let mut lines = Vec::new();
    if may_end && begun.is_empty() {
        lines.push(HelpLine {
            word: "<CR>".to_owned(),
            help: "Run the command".to_owned(),
        });
    }
    for node in visible(nodes, standing) {
        let possible = match node.token {
            Token::Keyword(word) => word.starts_with(begun),
            Token::Address | Token::Name | Token::Number { .. } | Token::Word { .. } => {
                begun.is_empty() || fits(node.token, begun) == Ok(true)
            }
        };
        if possible {
            lines.push(HelpLine {
                word: node.token.shown(),
                help: node.help.to_owned(),
            });
        }
    }
    Some(lines)
}

/// The keywords that complete the last word of `line`, for TAB.
#[must_use]
pub fn complete(grammar: &Grammar, line: &str, mode: &Mode, standing: Standing) -> Vec<String> {
    let placeholder =
        |word: &str| word.starts_with('<') || ["A.B.C.D", "NAME", "WORD"].contains(&word);
    help(grammar, line, mode, standing)
        .into_iter()
        .map(|line| line.word)
        .filter(|word| !placeholder(word))
        .collect()
}

/// The help lines as the original lays them out: word, two blanks, meaning.
#[must_use]
pub fn render_help(lines: &[HelpLine]) -> String {
    let width = lines
        .iter()
        .map(|line| line.word.chars().count())
        .max()
        .unwrap_or(0);
    lines
        .iter()
        .map(|line| format!("  {:<width$}  {}\n", line.word, line.help))
        .collect()
}
