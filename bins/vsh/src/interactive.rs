//! A session on a terminal: history, completion by TAB, help by `?`, log lines above the prompt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Context, Editor, Event, EventContext,
    EventHandler, ExternalPrinter, Helper, KeyEvent, RepeatCount,
};

use crate::connection::{Changes, Connection, Turn, lock};

/// Lines kept to be recalled; the history ends with the session, for it may hold secrets.
const HISTORY_LINES: usize = 500;

/// A line and the cursor's place in it.
type Line = Arc<Mutex<(String, usize)>>;

/// What the editor asks the gateway.
struct Assist {
    connection: Arc<Mutex<Connection>>,
    /// As it stands; the editor throws it away when it is interrupted.
    line: Line,
    window: Window,
}

impl Helper for Assist {}
impl Highlighter for Assist {}

impl Validator for Assist {
    /// Any line will do; asked when one is entered, this is how the editor tells.
    fn validate(&self, _: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        self.window.end();
        Ok(ValidationResult::Valid(None))
    }
}

impl Hinter for Assist {
    type Hint = String;

    /// Hints at nothing: it is how the editor tells of every change of the line.
    fn hint(&self, line: &str, position: usize, _context: &Context<'_>) -> Option<String> {
        *lock(&self.line) = (line.to_owned(), position);
        self.window.refreshed();
        None
    }
}

impl Completer for Assist {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let text = &line[..position];
        let start = text.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let words = lock(&self.connection).complete(text).unwrap_or_default();
        let with_blank = words.into_iter().filter(|word| !word.starts_with('<'));
        Ok((start, with_blank.map(|word| word + " ").collect()))
    }
}

/// Set by the `?` key: the line as it was, to be asked about and edited on.
#[derive(Clone, Default)]
struct QuestionMark(Arc<Mutex<Option<String>>>);

impl ConditionalEventHandler for QuestionMark {
    fn handle(
        &self,
        _: &Event,
        _: RepeatCount,
        _: bool,
        context: &EventContext<'_>,
    ) -> Option<Cmd> {
        let line = context.line().to_owned();
        *lock(&self.0) = Some(line);
        Some(Cmd::AcceptLine)
    }
}

impl QuestionMark {
    fn take(&self) -> Option<String> {
        lock(&self.0).take()
    }
}

/// When the editor may be interrupted, and by what.
///
/// It takes the signal as an interrupt only while it edits: before and after, the signal would end
/// this program. So the first refresh of the line allows it, and whatever ends the line forbids it
/// first; whoever interrupts holds the lock meanwhile.
#[derive(Clone)]
struct Window {
    changes: Arc<Mutex<Changes>>,
    open: Arc<AtomicBool>,
}

impl Window {
    /// A line is begun.
    fn begin(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// The editor edits. What has changed since it began interrupts it at once.
    fn refreshed(&self) {
        let mut changes = lock(&self.changes);
        if !self.open.load(Ordering::SeqCst) {
            return;
        }
        if changes.pending() {
            self.open.store(false, Ordering::SeqCst);
            changes.interrupt = None;
            interrupt();
        } else {
            changes.interrupt = Some(interrupt);
        }
    }

    /// The line ends.
    fn end(&self) {
        let mut changes = lock(&self.changes);
        self.open.store(false, Ordering::SeqCst);
        changes.interrupt = None;
    }
}

/// Makes the editor give up the line.
fn interrupt() {
    // It cannot fail for our own process.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT);
}

/// A key that may end the line without the validator being asked: Ctrl-C, Ctrl-D.
struct Ends(Window);

impl ConditionalEventHandler for Ends {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext<'_>) -> Option<Cmd> {
        self.0.end();
        None
    }
}

/// Runs the session until it ends; true, for an operator has seen what failed.
pub(crate) fn run(connection: Connection) -> anyhow::Result<bool> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY_LINES)?
        .auto_add_history(false)
        .build();
    let history = MemHistory::with_config(&config);
    let mut editor: Editor<Assist, MemHistory> = Editor::with_history(config, history)?;
    let question_mark = QuestionMark::default();
    editor.bind_sequence(
        KeyEvent::from('?'),
        EventHandler::Conditional(Box::new(question_mark.clone())),
    );
    let mut printer = editor
        .create_external_printer()
        .context("no terminal to print on")?;
    connection.print_logs_by(Box::new(move |line| {
        // A terminal that is gone ends the session by itself.
        let _ = printer.print(format!("{line}\n"));
    }));
    let changes = connection.changes();
    let connection = Arc::new(Mutex::new(connection));
    let typed = Line::default();
    let window = Window {
        changes: Arc::clone(&changes),
        open: Arc::default(),
    };
    for key in ['C', 'D'] {
        editor.bind_sequence(
            KeyEvent::ctrl(key),
            EventHandler::Conditional(Box::new(Ends(window.clone()))),
        );
    }
    editor.set_helper(Some(Assist {
        connection: Arc::clone(&connection),
        line: Arc::clone(&typed),
        window: window.clone(),
    }));
    let mut turn = lock(&connection).turn(|text| print!("{text}"))?;
    let mut begun = (String::new(), String::new());
    loop {
        let prompt = match turn {
            Turn::Prompt { prompt, .. } => prompt,
            Turn::Question(question) => question,
            Turn::Bye => return Ok(true),
        };
        *lock(&typed) = (begun.0.clone() + &begun.1, begun.0.len());
        window.begin();
        let edited = editor.readline_with_initial(&prompt, (&begun.0, &begun.1));
        window.end();
        let line = match edited {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                let mut changes = lock(&changes);
                if changes.closed {
                    anyhow::bail!("the gateway closed the session");
                }
                let changed = changes.prompt.take();
                begun = match &changed {
                    Some(_) => split(&lock(&typed)),
                    // Ctrl-C.
                    None => (String::new(), String::new()),
                };
                turn = Turn::Prompt {
                    prompt: changed.unwrap_or(prompt),
                    failed: false,
                };
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(true),
            Err(error) => return Err(error).context("the terminal cannot be read"),
        };
        let mut connection = lock(&connection);
        match question_mark.take() {
            Some(asked) => {
                connection.help(&asked)?;
                begun = (asked, String::new());
            }
            None => {
                begun = (String::new(), String::new());
                if !line.trim().is_empty() {
                    editor.add_history_entry(line.as_str())?;
                }
                connection.line(line)?;
            }
        }
        turn = connection.turn(|text| print!("{text}"))?;
    }
}

/// What stands before and behind the cursor.
fn split((line, position): &(String, usize)) -> (String, String) {
    let at = line.floor_char_boundary(*position);
    (line[..at].to_owned(), line[at..].to_owned())
}
