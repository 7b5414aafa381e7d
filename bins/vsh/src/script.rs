//! Commands from `-c` or from standard input: no prompt, no echo, except that a line that failed
//! is printed as a terminal would have shown it, so that the caret below points at a word.

use std::io::Write;

use crate::connection::{Connection, Turn};

/// Runs `lines` in one session until one fails; true if none did.
///
/// Lines after a failed one are not run: they could mean something else there (a condition would
/// go to the rule before the one that was refused).
pub(crate) fn run(
    mut connection: Connection,
    lines: impl Iterator<Item = std::io::Result<String>>,
) -> anyhow::Result<bool> {
    let Turn::Prompt { mut prompt, .. } = connection.turn(print)? else {
        return Ok(false);
    };
    let mut confirming = false;
    for line in lines {
        let line = line?;
        let mut output = String::new();
        connection.line(line.clone())?;
        let turn = match connection.turn(|text| output.push_str(text)) {
            // What asks before it is done ends the node, and the session with it.
            Err(_) if confirming => {
                print(&format!(
                    "{output}The session has ended: the gateway restarts.\n"
                ));
                return Ok(true);
            }
            turn => turn?,
        };
        confirming = matches!(turn, Turn::Question(_));
        match turn {
            Turn::Prompt {
                prompt: next,
                failed,
            } => {
                if failed {
                    print(&format!("{prompt}{line}\n{output}"));
                    return Ok(false);
                }
                print(&output);
                prompt = next;
            }
            Turn::Question(question) => {
                print(&output);
                print(&format!("{question}\n"));
                prompt = question;
            }
            Turn::Bye => {
                print(&output);
                return Ok(true);
            }
        }
    }
    Ok(true)
}

/// Prints at once; a reader that has gone away is no reason to stop a command.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}
