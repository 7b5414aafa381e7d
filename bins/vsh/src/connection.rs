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
        std::thread::spawn(move || read(reader, &sender, &printing));
        Ok(Self {
            stream,
            incoming,
            print_log,
        })
    }

    /// Has log lines printed by `print` from now on.
    pub(crate) fn print_logs_by(&self, print: PrintLog) {
        *self
            .print_log
            .lock()
            .expect("invariant: printing a line does not panic") = print;
    }

    /// Sends a line: a command or an answer.
    pub(crate) fn line(&mut self, line: String) -> anyhow::Result<()> {
        if line.len() > LINE_MAX_BYTES {
            bail!(
                "a line of {} bytes is longer than {LINE_MAX_BYTES}",
                line.len()
            );
        }
        self.send(&FromShell::Line(line))
    }

    /// Waits until the line is done; gives its output to `show` as it comes.
    pub(crate) fn turn(&mut self, mut show: impl FnMut(&str)) -> anyhow::Result<Turn> {
        loop {
            let message = self.incoming.recv();
            match message.context("the gateway closed the session")? {
                ToShell::Output(text) => show(&text),
                ToShell::Prompt { prompt, failed } => return Ok(Turn::Prompt { prompt, failed }),
                ToShell::Question(question) => return Ok(Turn::Question(question)),
                ToShell::Bye => return Ok(Turn::Bye),
                // A completion that came too late.
                ToShell::Completions(_) => {}
                // The reader prints these.
                ToShell::Console(_) => {}
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

/// Reads until the gateway closes. Dropping the sender tells whoever waits.
fn read(mut stream: UnixStream, sender: &SyncSender<ToShell>, print_log: &Mutex<PrintLog>) {
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
                    let mut print = print_log
                        .lock()
                        .expect("invariant: printing a line does not panic");
                    print(line);
                }
                Ok(Some(message)) => {
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
