//! Real nodes on loopback that know nobody at first, and their consoles.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use wire::console::{FromShell, ToShell};
use wire::{Channel, FrameBuffer};

/// For each step that must come about by itself, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// One node's files; its guardian ends with it.
pub(crate) struct Node {
    pub(crate) config: PathBuf,
    pub(crate) base: PathBuf,
    pub(crate) network: String,
    pub(crate) own: u8,
    guardian: Option<Child>,
}

/// What a command printed, and whether it failed.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) failed: bool,
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "within {PATIENCE:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// A loopback network of this test's own: 127.x.y.0/24.
pub(crate) fn network() -> String {
    static TESTS: AtomicU8 = AtomicU8::new(0);
    let test = TESTS.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!(
        "127.{}.{}",
        16 + (process >> 4) % 40,
        (process % 16) * 16 + u32::from(test)
    )
}

impl Node {
    /// A node on `network` whose links lead to its sibling there.
    pub(crate) fn new(folder: &Path, network: &str, own: u8) -> Self {
        let peer = 3 - own;
        let base = folder.join(format!("sup-{own}"));
        let root = base.display();
        let text = format!(
            "name = \"sup-{own}\"\nstate_dir = \"{root}/state\"\nrun_dir = \"{root}/run\"\n\
             log_file = \"{root}/log\"\n\
             [[link]]\nname = \"control\"\nlocal = \"{network}.1{own}:7001\"\npeer = \"{network}.1{peer}:7001\"\n\
             [[link]]\nname = \"management\"\nlocal = \"{network}.2{own}:7001\"\npeer = \"{network}.2{peer}:7001\"\n\
             [service]\nlisten = \"{network}.3{own}:7003\"\n[bulk]\nport = 7002\n"
        );
        let config = folder.join(format!("sup-{own}.toml"));
        fs::create_dir(&base).expect("a folder");
        fs::write(&config, text).expect("a file");
        Self {
            config,
            base,
            network: network.to_owned(),
            own,
            guardian: None,
        }
    }

    pub(crate) fn verb(&self, verb: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vsgd"));
        command
            .arg(verb)
            .arg("--config")
            .arg(&self.config)
            .args(more);
        command.output().expect("vsgd runs")
    }

    /// Makes the node, and returns its fingerprint.
    pub(crate) fn init(&self, role: &str, more: &[&str]) -> String {
        let words = [&["--role", role], more].concat();
        let output = self.verb("init", &words);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.trim().to_owned()
    }

    pub(crate) fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vsgd"));
        command
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null());
        self.guardian = Some(command.spawn().expect("vsgd starts"));
    }

    /// The machine loses its power.
    pub(crate) fn stop(&mut self) {
        let mut guardian = self.guardian.take().expect("started");
        guardian.kill().expect("alive");
        guardian.wait().expect("its end");
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) fn terminate(&mut self) {
        let mut guardian = self.guardian.take().expect("started");
        let pid = rustix::process::Pid::from_child(&guardian);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("alive");
        assert!(guardian.wait().expect("its end").success());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.base.join("log")).unwrap_or_default()
    }

    /// How often the log says `text`.
    pub(crate) fn said(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    pub(crate) fn wait_for(&self, text: &str, before: usize) {
        let what = format!("{text:?} in the log:\n{}", self.log());
        eventually(&what, || self.said(text) > before);
    }

    /// Its address on the first HA link.
    pub(crate) fn address(&self) -> String {
        format!("{}.1{}", self.network, self.own)
    }

    /// Says lines at a session of its own, and returns what the last printed.
    pub(crate) fn say(&self, lines: &[&str]) -> Said {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Console::open(self).and_then(|mut console| console.say(lines)) {
                Some(said) => return said,
                None => assert!(Instant::now() < deadline, "no console within {PATIENCE:?}"),
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// As [`Self::say`], which must succeed.
    pub(crate) fn done(&self, lines: &[&str]) -> String {
        let said = self.say(lines);
        assert!(!said.failed, "{lines:?}: {}", said.text);
        said.text
    }

    /// As [`Self::say`], which must fail and say `why`.
    pub(crate) fn refused(&self, line: &str, why: &str) {
        let said = self.say(&[line]);
        assert!(said.failed && said.text.contains(why), "{line}: {said:?}");
    }

    /// A code that the node prints at `line`.
    pub(crate) fn code(&self, line: &str) -> String {
        let text = self.done(&[line]);
        let code = text.strip_prefix("Code: ").and_then(|rest| rest.get(..11));
        code.unwrap_or_else(|| panic!("no code: {text}")).to_owned()
    }

    /// A show in JSON.
    pub(crate) fn shows(&self, what: &str) -> serde_json::Value {
        let text = self.done(&[&format!("show {what} | json")]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut guardian) = self.guardian.take() {
            // Its death ends every process of the node.
            let _ = guardian.kill();
            let _ = guardian.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- sup-{}\n{}", self.own, self.log());
        }
    }
}

struct Console {
    stream: UnixStream,
    buffer: FrameBuffer,
}

impl Console {
    fn open(node: &Node) -> Option<Self> {
        let stream = UnixStream::connect(node.base.join("run/console.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self {
            stream,
            buffer: FrameBuffer::new(Channel::Console),
        })
    }

    fn next(&mut self) -> Option<ToShell> {
        loop {
            if let Some(message) = self.buffer.next_frame().expect("a sound stream") {
                return Some(message);
            }
            let mut bytes = [0; 4096];
            let read = self.stream.read(&mut bytes).ok().filter(|read| *read > 0)?;
            self.buffer.extend(&bytes[..read]);
        }
    }

    /// `None` when the session ends before the last line is answered.
    fn say(&mut self, lines: &[&str]) -> Option<Said> {
        let mut lines = lines.iter();
        let mut text = String::new();
        let mut failures = 0;
        loop {
            match self.next()? {
                ToShell::Prompt { failed, .. } => {
                    failures += usize::from(failed);
                    let Some(line) = lines.next() else {
                        return Some(Said {
                            text,
                            failed: failures > 0,
                        });
                    };
                    text.clear();
                    self.send(line)?;
                }
                ToShell::Question(question) => {
                    text += &question;
                    let line = lines.next().expect("an answer to its question");
                    text.clear();
                    self.send(line)?;
                }
                ToShell::Output(more) => text += &more,
                ToShell::Console(_)
                | ToShell::Completions(_)
                | ToShell::NewPrompt(_)
                | ToShell::Bye => {}
            }
        }
    }

    fn send(&mut self, line: &str) -> Option<()> {
        let message = FromShell::Line(line.to_owned());
        let frame = wire::encode(Channel::Console, &message);
        self.stream.write_all(&frame).ok()
    }
}
