//! `vsh` on a terminal: completion by TAB, help by `?`, log lines above the prompt.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use wire::console::{FromShell, ToShell};
use wire::{Channel, FrameBuffer, encode};

/// How long anything may take; a test that waits for it fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// A terminal with `vsh` on it.
struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    child: Child,
}

impl Terminal {
    fn start(socket: &std::path::Path) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("ours");
        unlockpt(&master).expect("ours");
        let path = ptsname(&master, Vec::new()).expect("it has a name");
        let path = path.into_string().expect("a path of /dev/pts is text");
        let end = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .expect("it opens")
        };
        let child = Command::new(env!("CARGO_BIN_EXE_vsh"))
            .arg("--socket")
            .arg(socket)
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("vsh starts");
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().expect("a second handle");
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            keyboard,
            screen,
            seen: String::new(),
            child,
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("the terminal is open");
    }

    /// Waits until `text` has appeared after everything waited for before.
    fn wait_for(&mut self, text: &str) {
        self.wait_for_all(&[text]);
    }

    /// Waits until all `texts` have appeared, in any order, after everything waited for before.
    fn wait_for_all(&mut self, texts: &[&str]) {
        let end = Instant::now() + DEADLINE;
        loop {
            let ends = texts
                .iter()
                .map(|text| self.seen.find(text).map(|at| at + text.len()));
            if let Some(ends) = ends.collect::<Option<Vec<usize>>>() {
                self.seen.drain(..ends.into_iter().max().unwrap_or(0));
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            let bytes = self.screen.recv_timeout(left);
            let bytes = bytes.unwrap_or_else(|_| panic!("no {texts:?} in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(mut stream: UnixStream) {
    let mut send = {
        let mut stream = stream.try_clone().expect("a second handle");
        move |message: &ToShell| {
            stream
                .write_all(&encode(Channel::Console, message))
                .expect("vsh reads");
        }
    };
    let prompt = ToShell::Prompt {
        prompt: "vsg# ".to_owned(),
        failed: false,
    };
    let output = |text: &str| ToShell::Output(text.to_owned());
    let mut frames = FrameBuffer::new(Channel::Console);
    send(&prompt);
    let mut bytes = [0; 4096];
    loop {
        while let Some(message) = frames.next_frame::<FromShell>().expect("vsh sends frames") {
            match message {
                FromShell::Complete(text) => {
                    let words = if text == "sh" {
                        vec!["show".to_owned()]
                    } else {
                        Vec::new()
                    };
                    send(&ToShell::Completions(words));
                }
                FromShell::Help(text) => {
                    send(&output(&format!("help for <{text}>\n")));
                    send(&prompt);
                }
                FromShell::Line(line) if line == "show version" => {
                    send(&output("the version\n"));
                    send(&prompt);
                    send(&ToShell::Console("%SYSMGR-2-SWITCHOVER_OVER".to_owned()));
                }
                FromShell::Line(line) if line == "show clock" => {
                    send(&output("the clock\n"));
                    send(&prompt);
                    // The operator has begun to type when the gateway loses its lead.
                    while !matches!(
                        frames.next_frame::<FromShell>(),
                        Ok(Some(FromShell::Complete(_)))
                    ) {
                        let count = stream.read(&mut bytes).expect("vsh is there");
                        frames.extend(&bytes[..count]);
                    }
                    send(&ToShell::Completions(Vec::new()));
                    send(&ToShell::NewPrompt("vsg(standby)# ".to_owned()));
                }
                FromShell::Line(line) if line == "exit" => {
                    send(&ToShell::Bye);
                    return;
                }
                FromShell::Line(line) => {
                    send(&output(&format!("unexpected <{line}>\n")));
                    send(&prompt);
                }
            }
        }
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => frames.extend(&bytes[..count]),
        }
    }
}

#[test]
fn an_operator_at_the_keyboard() {
    let socket = std::env::temp_dir().join(format!("vsh-{}-terminal.sock", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("the temporary folder takes a socket");
    let gateway = std::thread::spawn(move || serve(listener.accept().expect("vsh connects").0));
    let mut terminal = Terminal::start(&socket);
    terminal.wait_for("vsg# ");
    terminal.press("sh\t");
    terminal.wait_for("show ");
    terminal.press("?");
    terminal.wait_for("help for <show >");
    // The line stands as it was, and is edited on.
    terminal.wait_for("vsg# show ");
    terminal.press("version\r");
    // A log line is printed when it comes: before or after the output that waits to be shown.
    terminal.wait_for_all(&["the version", "%SYSMGR-2-SWITCHOVER_OVER"]);
    // The line before is recalled by the arrow key; Ctrl-C throws it away.
    terminal.press("\x1b[A");
    terminal.wait_for("show version");
    terminal.press("\x03");
    terminal.wait_for("vsg# ");
    terminal.press("show clock\r");
    terminal.wait_for("the clock");
    terminal.press("show x\t");
    // The prompt is right at once, and what was begun stands.
    terminal.wait_for("vsg(standby)# show x");
    terminal.press("\x03");
    terminal.wait_for("vsg(standby)# ");
    terminal.press("exit\r");
    gateway
        .join()
        .expect("the gateway heard only what it knows");
    let end = Instant::now() + DEADLINE;
    let status = loop {
        match terminal.child.try_wait().expect("it is our child") {
            Some(status) => break status,
            None if Instant::now() > end => panic!("vsh does not end"),
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(status.code(), Some(0));
    let _ = std::fs::remove_file(&socket);
}

/// The gateway loses its lead and restarts: the prompt changes, and at once the session ends.
#[test]
fn a_session_that_the_gateway_closes_ends_at_once() {
    let socket = std::env::temp_dir().join(format!("vsh-{}-closed.sock", std::process::id()));
    for apart_ms in [0, 0, 0, 1, 50] {
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("the temporary folder takes a socket");
        let mut terminal = Terminal::start(&socket);
        let (mut stream, _) = listener.accept().expect("vsh connects");
        let mut send = |message: &ToShell| {
            stream
                .write_all(&encode(Channel::Console, message))
                .expect("vsh reads");
        };
        send(&ToShell::Prompt {
            prompt: "vsg# ".to_owned(),
            failed: false,
        });
        terminal.wait_for("vsg# ");
        send(&ToShell::NewPrompt("vsg(standby)# ".to_owned()));
        std::thread::sleep(Duration::from_millis(apart_ms));
        drop(stream);
        terminal.wait_for("the gateway closed the session");
        let end = Instant::now() + DEADLINE;
        let status = loop {
            match terminal.child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None if Instant::now() > end => panic!("vsh does not end"),
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(status.code(), Some(2), "{apart_ms} ms apart");
    }
    let _ = std::fs::remove_file(&socket);
}

/// What was asked when the gateway died may or may not have been done.
#[test]
fn a_line_that_the_gateway_dies_under_is_named() {
    let socket = std::env::temp_dir().join(format!("vsh-{}-dies.sock", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("the temporary folder takes a socket");
    let mut terminal = Terminal::start(&socket);
    let (mut stream, _) = listener.accept().expect("vsh connects");
    let prompt = ToShell::Prompt {
        prompt: "vsg(config)# ".to_owned(),
        failed: false,
    };
    stream
        .write_all(&encode(Channel::Console, &prompt))
        .expect("vsh reads");
    terminal.wait_for("vsg(config)# ");
    terminal.press("hostname gate\r");
    let mut bytes = [0; 256];
    assert!(stream.read(&mut bytes).expect("a line") > 0);
    drop(stream);
    terminal.wait_for("while `hostname gate` was running");
    terminal.wait_for("not known whether it did");
    let _ = std::fs::remove_file(&socket);
}
