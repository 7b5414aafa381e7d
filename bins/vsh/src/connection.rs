//! The connection to `vshd`: one thread reads, whoever asked waits on a channel.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use wire::console::{FromShell, LINE_MAX_BYTES, ToShell};
use wire::{Channel, FrameBuffer, encode};

/// Messages that wait for the main thread. A command's output is a few; when it is full the
/// reader waits, and with it the gateway's socket buffer.
const WAITING_MAX: usize = 64;

/// Bytes read at once; a screenful of output fits.
const READ_BYTES: usize = 64 * 1024;

/// How long completion and help wait: longer than the gateway needs, short enough for a finger
/// on a key.
const ASSIST_TIMEOUT: Duration = Duration::from_secs(2);

/// Prints a log line of the console; replaced while a line is being edited.
pub(crate) type PrintLog = Box<dyn FnMut(String) + Send>;

/// What has changed while nothing was running, for whoever sits before the prompt.
#[derive(Default)]
pub(crate) struct Changes {
    /// The prompt to show from now on.
    pub(crate) prompt: Option<String>,
    /// The gateway has closed the session.
    pub(crate) closed: bool,
    /// Interrupts the editing of a line, once; set only while the editor takes interrupts.
    pub(crate) interrupt: Option<fn()>,
}

impl Changes {
    fn tell(changes: &Mutex<Self>, change: impl FnOnce(&mut Self)) {
        // Held while interrupting: the editor does not end meanwhile.
        let mut changes = lock(changes);
        change(&mut changes);
        if let Some(interrupt) = changes.interrupt.take() {
            interrupt();
        }
    }

    /// Whether something has changed that was not looked at yet.
    pub(crate) const fn pending(&self) -> bool {
        self.closed || self.prompt.is_some()
    }
}

/// Locks what no one panics holding.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("invariant: no one panics holding a lock of this program")
}

/// What ends the output of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The line is done.
    Prompt {
        /// What to show before the next line.
        prompt: String,
        /// Whether the line failed.
        failed: bool,
    },
    /// The next line is the answer to this.
    Question(String),
    /// The session is over; the gateway said so.
    Bye,
}

/// An open session.
pub(crate) struct Connection {
    stream: UnixStream,
    incoming: Receiver<ToShell>,
    print_log: Arc<Mutex<PrintLog>>,
    changes: Arc<Mutex<Changes>>,
    /// The line that was sent and has not ended.
    running: String,
}

impl Connection {
    /// Connects and waits for nothing; the first [`Self::turn`] is the first prompt.
    pub(crate) fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("no gateway at {}", socket.display()))?;
        let reader = stream.try_clone().context("cannot read from the gateway")?;
        let (sender, incoming) = sync_channel(WAITING_MAX);
        let print_log: PrintLog = Box::new(|line| println!("{line}"));
        let print_log = Arc::new(Mutex::new(print_log));
        let printing = Arc::clone(&print_log);
        let changes = Arc::<Mutex<Changes>>::default();
        let told = Arc::clone(&changes);
        std::thread::spawn(move || {
            read(reader, &sender, &printing, &told);
            drop(sender);
            Changes::tell(&told, |changes| changes.closed = true);
        });
        Ok(Self {
            stream,
            incoming,
            print_log,
            changes,
            running: String::new(),
        })
    }

    /// Has log lines printed by `print` from now on.
    pub(crate) fn print_logs_by(&self, print: PrintLog) {
        *lock(&self.print_log) = print;
    }

    /// What changes while nothing runs.
    pub(crate) fn changes(&self) -> Arc<Mutex<Changes>> {
        Arc::clone(&self.changes)
    }

    /// Sends a line: a command or an answer.
    pub(crate) fn line(&mut self, line: String) -> anyhow::Result<()> {
        if line.len() > LINE_MAX_BYTES {
            bail!(
                "a line of {} bytes is longer than {LINE_MAX_BYTES}",
                line.len()
            );
        }
        self.running.clone_from(&line);
        self.send(&FromShell::Line(line))
    }

    /// Waits until the line is done; gives its output to `show` as it comes.
    pub(crate) fn turn(&mut self, mut show: impl FnMut(&str)) -> anyhow::Result<Turn> {
        loop {
            let Ok(message) = self.incoming.recv() else {
                bail!("{}", closed_during(&self.running));
            };
            if matches!(message, ToShell::Prompt { .. } | ToShell::Question(_)) {
                self.running.clear();
            }
            match message {
                ToShell::Output(text) => show(&text),
                ToShell::Prompt { prompt, failed } => return Ok(Turn::Prompt { prompt, failed }),
                ToShell::Question(question) => return Ok(Turn::Question(question)),
                ToShell::Bye => return Ok(Turn::Bye),
                // A completion that came too late.
                ToShell::Completions(_) => {}
                // The reader prints these.
                ToShell::Console(_) | ToShell::NewPrompt(_) => {}
            }
        }
    }

    /// The words that may complete `text`; none if the gateway does not answer in time.
    pub(crate) fn complete(&mut self, text: &str) -> anyhow::Result<Vec<String>> {
        self.send(&FromShell::Complete(text.to_owned()))?;
        match self.incoming.recv_timeout(ASSIST_TIMEOUT) {
            Ok(ToShell::Completions(words)) => Ok(words),
            Ok(other) => bail!("unexpected answer to a completion: {other:?}"),
            Err(RecvTimeoutError::Timeout) => Ok(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => bail!("the gateway closed the session"),
        }
    }

    /// Asks for help on `text`. The answer is output and a prompt, as for a line.
    pub(crate) fn help(&mut self, text: &str) -> anyhow::Result<()> {
        self.send(&FromShell::Help(text.to_owned()))
    }

    fn send(&mut self, message: &FromShell) -> anyhow::Result<()> {
        let frame = encode(Channel::Console, message);
        self.stream
            .write_all(&frame)
            .context("the gateway closed the session")
    }
}

/// What an operator is told whose gateway went away under `running`.
fn closed_during(running: &str) -> String {
    let running = running.trim();
    if running.is_empty() {
        return "the gateway closed the session".to_owned();
    }
    format!(
        "the gateway closed the session while `{running}` was running. If it changes something, it \
         is not known whether it did: look on the active supervisor (show running-config)"
    )
}

/// Reads until the gateway closes.
fn read(
    mut stream: UnixStream,
    sender: &SyncSender<ToShell>,
    print_log: &Mutex<PrintLog>,
    changes: &Mutex<Changes>,
) {
    let mut frames = FrameBuffer::new(Channel::Console);
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let count = match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        frames.extend(&bytes[..count]);
        loop {
            match frames.next_frame::<ToShell>() {
                Ok(None) => break,
                Ok(Some(ToShell::Console(line))) => {
                    lock(print_log)(line);
                }
                Ok(Some(ToShell::NewPrompt(prompt))) => {
                    Changes::tell(changes, |changes| changes.prompt = Some(prompt));
                }
                Ok(Some(message)) => {
                    if matches!(message, ToShell::Prompt { .. }) {
                        // Newer than what was told before.
                        lock(changes).prompt = None;
                    }
                    if sender.send(message).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    eprintln!("vsh: the gateway sent what is no console message: {error}");
                    return;
                }
            }
        }
    }
}
