//! Log lines, to standard error and to a file, by a thread of their own: a disk that hangs must not
//! keep packets waiting.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use runtime::clock::WallTime;

/// Lines that wait for the disk: an hour of an ordinary day. More are lost, and counted in the next
/// line that is not.
const LINES_MAX: usize = 1024;

/// Where lines go.
pub(crate) struct Journal {
    host: String,
    part: &'static str,
    lines: Option<SyncSender<String>>,
    lost: u64,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the file, if there is one, for appending.
    pub(crate) fn open(host: &str, part: &'static str, path: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| {
            let file = File::options().append(true).create(true).open(path);
            file.with_context(|| format!("{}", path.display()))
        };
        let mut file = path.map(open).transpose()?;
        let (lines, waiting) = sync_channel::<String>(LINES_MAX);
        let write = move || {
            for line in waiting {
                // A full disk or a closed terminal loses the line: there is nobody to tell.
                let _ = std::io::stderr().write_all(line.as_bytes());
                if let Some(file) = &mut file {
                    let _ = file.write_all(line.as_bytes());
                }
            }
        };
        let thread = std::thread::Builder::new().name("journal".to_owned());
        Ok(Self {
            host: host.to_owned(),
            part,
            lines: Some(lines),
            lost: 0,
            writer: Some(thread.spawn(write).context("journal thread")?),
        })
    }

    /// One line.
    pub(crate) fn line(&mut self, text: &str) {
        let lost = match self.lost {
            0 => String::new(),
            lost => format!(" ({lost} lines lost before)"),
        };
        let (now, host, part) = (WallTime::now(), &self.host, self.part);
        let line = format!("{now} {host} {part}: {text}{lost}\n");
        match self.lines.as_ref().map(|lines| lines.try_send(line)) {
            Some(Ok(())) => self.lost = 0,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => {
                self.lost += 1;
            }
        }
    }
}

impl Drop for Journal {
    /// Waits for the last line.
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
