//! The log: lines in the original's format, kept in memory for `show logging` and written to a
//! file by a thread.
//!
//! Invariants:
//! - noting a record never waits for the disk: it goes into a queue of [`QUEUE_MAX`] lines;
//! - when the queue is full (the disk is stuck) lines are lost for the file, not for memory, and
//!   a line says how many as soon as there is room again;
//! - the last [`KEPT_LINES`] lines are in memory.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use wire::log::{LogRecord, TEXT_MAX_BYTES};
use wire::supervision::LOG_LINES_MAX;

use crate::clock::WallTime;

/// Lines waiting for the disk: a burst of a rate-limited source, at most some MB.
const QUEUE_MAX: usize = 4096;
/// Lines in memory: what one `show logging` may ask for.
const KEPT_LINES: usize = LOG_LINES_MAX as usize;
/// Bytes of lines in one answer to `show logging`: well below the largest packet of the socket that
/// it goes over (192 KiB), whatever the lines are.
pub const LAST_MAX_BYTES: usize = 128 * 1024;

enum Job {
    Line(String),
    Flush(SyncSender<()>),
}

/// The log of one node.
#[derive(Debug)]
pub struct LogWriter {
    hostname: String,
    kept: VecDeque<String>,
    jobs: SyncSender<Job>,
    lost: u64,
}

impl LogWriter {
    /// Appends to `path`; a thread does the writing.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn start(path: &Path, hostname: &str) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options
            .create(true)
            .append(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW);
        let file = options.open(path)?;
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(file, &queue))?;
        Ok(Self {
            hostname: hostname.to_owned(),
            kept: VecDeque::new(),
            jobs,
            lost: 0,
        })
    }

    /// Notes `record`; `standby` marks a message that originates on the standby. Returns the line
    /// for the console.
    pub fn note(&mut self, record: &LogRecord, standby: bool) -> String {
        let line = line(WallTime::now(), &self.hostname, record, standby);
        if self.lost > 0 {
            let lost = format!(
                "{} log lines were lost: the disk did not keep up",
                self.lost
            );
            if self.jobs.try_send(Job::Line(lost)).is_ok() {
                self.lost = 0;
            }
        }
        if self.jobs.try_send(Job::Line(line.clone())).is_err() {
            self.lost += 1;
        }
        if self.kept.len() >= KEPT_LINES {
            self.kept.pop_front();
        }
        self.kept.push_back(line.clone());
        line
    }

    /// The newest `lines` lines, oldest first; fewer, if they would have more than
    /// [`LAST_MAX_BYTES`].
    #[must_use]
    pub fn last(&self, lines: usize) -> Vec<String> {
        let mut room = LAST_MAX_BYTES;
        let fits = |line: &&String| {
            let enough = room >= line.len();
            room = room.saturating_sub(line.len());
            enough
        };
        let mut newest: Vec<String> = self
            .kept
            .iter()
            .rev()
            .take(lines)
            .take_while(fits)
            .cloned()
            .collect();
        newest.reverse();
        newest
    }

    /// Waits until what was noted is handed to the system, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let (done, wait) = sync_channel(1);
        if self.jobs.try_send(Job::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(patience);
        }
    }
}

fn write(mut file: File, queue: &Receiver<Job>) {
    let mut failing = false;
    while let Ok(job) = queue.recv() {
        match job {
            Job::Line(mut line) => {
                line.push('\n');
                let written = file.write_all(line.as_bytes());
                if let Err(error) = &written
                    && !failing
                {
                    eprintln!("log file: {error}");
                }
                failing = written.is_err();
            }
            Job::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// `2026 Nov 24 20:31:05 vsg %$ VDC-1 %$ %SYSMGR-2-HASWITCHOVER_START: text` (the original's
/// console sequence); on the standby `%SYSMGR-STANDBY-2-…`.
fn line(time: WallTime, hostname: &str, record: &LogRecord, standby: bool) -> String {
    let LogRecord {
        facility,
        severity,
        mnemonic,
        text,
        ..
    } = record;
    let place = if standby { "-STANDBY" } else { "" };
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // One record is one line, whatever a name inside it contains.
    let text = text[..end].replace(|c: char| c.is_control(), " ");
    format!("{time} {hostname} %$ VDC-1 %$ %{facility}{place}-{severity}-{mnemonic}: {text}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wire::log::{LogRecord, TEXT_MAX_BYTES};

    use super::{KEPT_LINES, LAST_MAX_BYTES, LogWriter, line};
    use crate::clock::WallTime;

    fn record(text: &str) -> LogRecord {
        LogRecord {
            facility: "SYSMGR".to_owned(),
            severity: 2,
            mnemonic: "HASWITCHOVER_START".to_owned(),
            text: text.to_owned(),
            service: None,
        }
    }

    #[test]
    fn lines_have_the_originals_format() {
        let time = WallTime::from_unix(1_795_552_265);
        assert_eq!(
            line(
                time,
                "vsg",
                &record("This supervisor is becoming active."),
                false
            ),
            "2026 Nov 24 20:31:05 vsg %$ VDC-1 %$ %SYSMGR-2-HASWITCHOVER_START: \
             This supervisor is becoming active."
        );
        assert!(line(time, "vsg", &record("x"), true).contains(" %SYSMGR-STANDBY-2-HASW"));
        let forged = line(time, "vsg", &record("a\n2026 forged\u{1b}[2J"), false);
        assert!(!forged.contains(['\n', '\u{1b}']));
        assert!(line(time, "vsg", &record(&"ü".repeat(TEXT_MAX_BYTES)), false).len() < 3000);
    }

    #[test]
    fn lines_reach_the_file_in_order_and_the_last_stay_in_memory() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log");
        let mut log = LogWriter::start(&path, "vsg").expect("a log");
        for number in 0..KEPT_LINES + 10 {
            log.note(&record(&format!("line {number}")), false);
        }
        log.flush(Duration::from_secs(10));
        let text = std::fs::read_to_string(&path).expect("the file");
        assert_eq!(text.lines().count(), KEPT_LINES + 10);
        assert!(
            text.lines()
                .enumerate()
                .all(|(i, line)| line.ends_with(&format!("line {i}")))
        );
        let last = log.last(3);
        assert!(last.len() == 3 && last[2].ends_with(&format!("line {}", KEPT_LINES + 9)));
        assert_eq!(log.last(usize::MAX).len(), KEPT_LINES);
        // Long lines: the newest that fit one answer.
        for number in 0..KEPT_LINES {
            log.note(&record(&format!("{} {number}", "x".repeat(1_500))), false);
        }
        let last = log.last(usize::MAX);
        let bytes: usize = last.iter().map(String::len).sum();
        assert!(bytes <= LAST_MAX_BYTES && bytes > LAST_MAX_BYTES - 2_000);
        assert!(
            last.last()
                .is_some_and(|line| line.ends_with(&format!(" {}", KEPT_LINES - 1)))
        );
    }
}
