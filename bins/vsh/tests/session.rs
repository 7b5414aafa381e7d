//! `vsh` as a process against a gateway that plays a script.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use wire::console::{FromShell, ToShell};
use wire::{Channel, FrameBuffer, encode};

/// A gateway that answers each line by `answer`; its socket is removed at the end.
struct Gateway {
    socket: PathBuf,
    thread: JoinHandle<Vec<FromShell>>,
}

fn prompt(prompt: &str, failed: bool) -> ToShell {
    ToShell::Prompt {
        prompt: prompt.to_owned(),
        failed,
    }
}

fn output(text: &str) -> ToShell {
    ToShell::Output(text.to_owned())
}

fn gateway(name: &str, answer: fn(&str) -> Vec<ToShell>) -> Gateway {
    let socket = std::env::temp_dir().join(format!("vsh-{}-{name}.sock", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("the temporary folder takes a socket");
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("vsh connects");
        serve(stream, answer)
    });
    Gateway { socket, thread }
}

fn serve(mut stream: UnixStream, answer: fn(&str) -> Vec<ToShell>) -> Vec<FromShell> {
    let mut heard = Vec::new();
    let mut frames = FrameBuffer::new(Channel::Console);
    send(
        &mut stream,
        &[
            ToShell::Console("a log line".to_owned()),
            prompt("vsg# ", false),
        ],
    );
    let mut bytes = [0; 4096];
    loop {
        while let Some(message) = frames.next_frame::<FromShell>().expect("vsh sends frames") {
            if let FromShell::Line(line) = &message {
                let answers = answer(line);
                let over = answers.contains(&ToShell::Bye);
                send(&mut stream, &answers);
                if over {
                    heard.push(message);
                    return heard;
                }
            }
            heard.push(message);
        }
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return heard,
            Ok(count) => frames.extend(&bytes[..count]),
        }
    }
}

fn send(stream: &mut UnixStream, messages: &[ToShell]) {
    for message in messages {
        let frame = encode(Channel::Console, message);
        stream.write_all(&frame).expect("vsh reads");
    }
}

impl Gateway {
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vsh"));
        command
            .arg("--socket")
            .arg(&self.socket)
            .stdin(Stdio::null());
        command
    }

    /// The lines the gateway heard, once the session is over.
    fn lines(self) -> Vec<String> {
        let heard = self.thread.join().expect("the gateway does not panic");
        let _ = std::fs::remove_file(&self.socket);
        let line = |message| match message {
            FromShell::Line(line) => Some(line),
            FromShell::Help(_) | FromShell::Complete(_) => None,
        };
        heard.into_iter().filter_map(line).collect()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn commands_share_one_session_and_their_output_is_printed() {
    let gateway = gateway("share", |line| match line {
        "configure" => vec![prompt("vsg(config)# ", false)],
        "show version" => vec![
            output("one\n"),
            output("two\n"),
            prompt("vsg(config)# ", false),
        ],
        _ => vec![prompt("vsg# ", true)],
    });
    let run = gateway
        .command()
        .args(["-c", "configure", "-c", "show version"])
        .output();
    let run = run.expect("vsh starts");
    assert_eq!(text(&run), "a log line\none\ntwo\n");
    assert_eq!(run.status.code(), Some(0));
    assert_eq!(gateway.lines(), ["configure", "show version"]);
}

#[test]
fn a_failed_command_is_shown_as_on_a_terminal_and_stops_the_rest() {
    let gateway = gateway("fail", |line| match line {
        "bogus" => vec![
            output("     ^\n% Invalid command at '^' marker.\n"),
            prompt("vsg# ", true),
        ],
        _ => vec![prompt("vsg# ", false)],
    });
    let run = gateway
        .command()
        .args(["-c", "bogus", "-c", "reload"])
        .output()
        .expect("starts");
    assert_eq!(
        text(&run),
        "a log line\nvsg# bogus\n     ^\n% Invalid command at '^' marker.\n"
    );
    assert_eq!(run.status.code(), Some(1));
    assert_eq!(gateway.lines(), ["bogus"]);
}

#[test]
fn a_question_is_answered_by_the_next_command() {
    let gateway = gateway("question", |line| match line {
        "reload" => vec![ToShell::Question(
            "This command will reboot. (y/n)?  [n] ".to_owned(),
        )],
        "y" => vec![output("reloading\n"), ToShell::Bye],
        _ => vec![prompt("vsg# ", true)],
    });
    let run = gateway
        .command()
        .args(["-c", "reload", "-c", "y"])
        .output()
        .expect("starts");
    assert_eq!(
        text(&run),
        "a log line\nThis command will reboot. (y/n)?  [n] \nreloading\n"
    );
    assert_eq!(run.status.code(), Some(0));
    assert_eq!(gateway.lines(), ["reload", "y"]);
}

#[test]
fn commands_come_from_standard_input_too() {
    let gateway = gateway("stdin", |_| vec![prompt("vsg# ", false)]);
    let mut child = gateway
        .command()
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin
        .write_all(b"configure\nzone web\n")
        .expect("vsh reads");
    drop(stdin);
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    assert_eq!(gateway.lines(), ["configure", "zone web"]);
}

#[test]
fn a_gateway_that_is_not_there_is_one_clear_line() {
    let run = Command::new(env!("CARGO_BIN_EXE_vsh"))
        .args([
            "--socket",
            "/nonexistent/console.sock",
            "-c",
            "show version",
        ])
        .output()
        .expect("starts");
    let error = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(
        error.starts_with("vsh: no gateway at /nonexistent/console.sock: "),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
    assert_eq!(run.status.code(), Some(2));
}

#[test]
fn a_gateway_that_goes_away_is_an_error() {
    let gateway = gateway("away", |_| panic!("the script ends here"));
    let run = gateway
        .command()
        .args(["-c", "show version"])
        .output()
        .expect("starts");
    let error = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(
        error.starts_with("vsh: the gateway closed the session"),
        "{error}"
    );
    assert_eq!(run.status.code(), Some(2));
    assert!(gateway.thread.join().is_err());
    let _ = std::fs::remove_file(&gateway.socket);
}

#[test]
fn an_overlong_line_is_refused_here() {
    let gateway = gateway("long", |_| vec![prompt("vsg# ", false)]);
    let run = gateway
        .command()
        .args(["-c", &"x".repeat(5000)])
        .output()
        .expect("starts");
    assert_eq!(run.status.code(), Some(2));
    assert!(gateway.lines().is_empty());
}
