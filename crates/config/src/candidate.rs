//! A copy of the configuration under change.

mod statement;

use cli::tree::Grammar;
use cli::{Command, Mode, ParseError, Standing, Statement, parse};
use thiserror::Error;

use crate::configuration::Configuration;
pub use statement::StatementError;

/// Most lines applied in one session; as many as a configuration at all its limits may have in
/// practice. One more is refused, and with it the session.
pub const LINES_MAX: usize = 1_000_000;

/// A line that does not apply, and where it is wrong. Nothing of its session is committed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {kind}")]
pub struct LineError {
    /// Which, from 0.
    pub line: usize,
    /// Where in it, in characters from its start.
    pub column: usize,
    /// Why.
    pub kind: LineErrorKind,
}

/// Why a line does not apply.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LineErrorKind {
    /// It is a command, but no configuration: `show …`, `ha-pair id …`.
    #[error("% Not a line of the configuration at '^' marker.")]
    NotConfiguration,
    /// It is no line of the grammar.
    #[error("{0}")]
    Syntax(cli::ParseErrorKind),
    /// It says what cannot be.
    #[error("% {0} at '^' marker.")]
    Statement(StatementError),
    /// The text is longer than can be loaded.
    #[error("% Configuration too long")]
    TooLong,
}

impl LineError {
    pub(crate) const fn too_long() -> Self {
        Self {
            line: 0,
            column: 0,
            kind: LineErrorKind::TooLong,
        }
    }

    fn syntax(line: usize, error: ParseError) -> Self {
        Self {
            line,
            column: error.column,
            kind: LineErrorKind::Syntax(error.kind),
        }
    }

    fn statement(line: usize, text: &str, error: StatementError) -> Self {
        let column = ParseError::at_word(text, error.word(), "").column;
        Self {
            line,
            column,
            kind: LineErrorKind::Statement(error),
        }
    }

    /// The caret under the word and the sentence, below a line that follows a prompt of
    /// `prompt_columns`.
    #[must_use]
    pub fn render(&self, prompt_columns: usize) -> String {
        format!(
            "{}^\n{}\n",
            " ".repeat(prompt_columns + self.column),
            self.kind
        )
    }
}

/// A configuration under change.
pub struct Candidate {
    grammar: Grammar,
    working: Configuration,
}

impl Candidate {
    /// A copy of `base`.
    #[must_use]
    pub fn new(base: &Configuration) -> Self {
        Self {
            grammar: Grammar::new(),
            working: base.clone(),
        }
    }

    /// What it is now.
    #[must_use]
    pub const fn configuration(&self) -> &Configuration {
        &self.working
    }

    /// Applies one statement in the mode it was parsed in.
    ///
    /// # Errors
    /// [`StatementError`]; then nothing has changed.
    pub fn apply(&mut self, context: &Mode, statement: &Statement) -> Result<(), StatementError> {
        statement::apply(&mut self.working, context, statement)
    }

    /// Applies one line typed in `mode`; returns the mode after it.
    ///
    /// # Errors
    /// [`LineError`], numbered 0; then nothing has changed.
    pub fn apply_line(&mut self, mode: &Mode, line: &str) -> Result<Mode, LineError> {
        self.apply_numbered(mode, line, 0)
    }

    /// Applies lines, beginning in global configuration mode. Indentation means nothing.
    ///
    /// # Errors
    /// [`LineError`] with the first line that does not apply. What came before it has changed
    /// this candidate, which is then to be thrown away.
    pub fn apply_lines<'a>(
        &mut self,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Result<Mode, LineError> {
        let mut mode = Mode::Config;
        for (number, line) in lines.into_iter().enumerate() {
            if number >= LINES_MAX {
                return Err(LineError::too_long());
            }
            mode = self.apply_numbered(&mode, line, number)?;
        }
        Ok(mode)
    }

    fn apply_numbered(
        &mut self,
        mode: &Mode,
        line: &str,
        number: usize,
    ) -> Result<Mode, LineError> {
        let parsed = parse(&self.grammar, line, mode, Standing::Active);
        let invocation = parsed.map_err(|error| LineError::syntax(number, error))?;
        match &invocation.command {
            Command::Statement(statement) => {
                let applied = self.apply(&invocation.context, statement);
                applied.map_err(|error| LineError::statement(number, line, error))?;
            }
            Command::Exit if *mode != Mode::Config => {}
            Command::Empty => {}
            Command::AttachModule(_)
            | Command::ClearConflict(_)
            | Command::Configure
            | Command::CopyRunningToStartup
            | Command::End
            | Command::Exit
            | Command::ForceActive
            | Command::PairId(_)
            | Command::Reload
            | Command::SetBootWait(_)
            | Command::ReloadModule(_)
            | Command::SetConflictPolicy(_)
            | Command::Pairing(_)
            | Command::ClearTraffic
            | Command::SetHeartbeat(_)
            | Command::SetRole(_)
            | Command::Show(_)
            | Command::Switchover => {
                let column = line.chars().take_while(|c| c.is_whitespace()).count();
                return Err(LineError {
                    line: number,
                    column,
                    kind: LineErrorKind::NotConfiguration,
                });
            }
        }
        let after = mode.after(&invocation);
        Ok(after.expect("invariant: only exit from exec mode ends a session, and we are below it"))
    }

    /// Whether it could be committed: everything referred to exists, every limit is kept.
    ///
    /// # Errors
    /// The first problem.
    pub fn validate(&self) -> Result<(), StatementError> {
        match self.working.policy.problems().into_iter().next() {
            None => Ok(()),
            Some(problem) => Err(StatementError::Problem(problem)),
        }
    }

    /// The new configuration, validated.
    ///
    /// # Errors
    /// [`LineError`] with the first problem; the running configuration is as it was.
    pub fn commit(self) -> Result<Configuration, LineError> {
        match self.validate() {
            Ok(()) => Ok(self.working),
            Err(error) => Err(LineError {
                line: 0,
                column: 0,
                kind: LineErrorKind::Statement(error),
            }),
        }
    }
}
