//! The log: lines in the original's format, kept in memory for `show logging` and written to a
//! file by a thread.
//!
//! Invariants:
//! - noting a record never waits for the disk: it goes into a queue of [`QUEUE_MAX`] lines;
//! - when the queue is full (the disk is stuck) lines are lost for the file, not for memory, and
//!   a line says how many as soon as there is room again;
//! - the last lines are in memory: [`KEPT_LINES`], and [`KEPT_INFORMATIONAL`] informational ones
//!   of services apart from them, so that a rule that logs each packet does not push out what
//!   tells of the node.

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
/// Informational lines of services in memory; the oldest goes. A quarter of what one
/// `show logging` may ask for: they come in floods, of which the end tells as much as the whole.
const KEPT_INFORMATIONAL: usize = LOG_LINES_MAX as usize / 4;
/// Other lines in memory; the oldest goes. Both together are what one `show logging` shows.
const KEPT_LINES: usize = LOG_LINES_MAX as usize - KEPT_INFORMATIONAL;
/// Lines of this severity number and above are informational.
const INFORMATIONAL: u8 = 6;
/// Bytes of lines in one answer to `show logging`: well below the largest packet of the socket that
/// it goes over (192 KiB), whatever the lines are.
pub const LAST_MAX_BYTES: usize = 128 * 1024;
/// Bytes of informational lines in it: all that are kept at their usual length, and never the room
/// of most others.
const INFORMATIONAL_MAX_BYTES: usize = 48 * 1024;

enum Job {
    Line(String),
    Flush(SyncSender<()>),
}

/// The last lines of one kind, each with its place in the order of arrival.
#[derive(Debug)]
struct Ring {
    lines: VecDeque<(u64, String)>,
    lines_max: usize,
}

impl Ring {
    fn new(lines_max: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            lines_max,
        }
    }

    fn push(&mut self, arrival: u64, line: String) {
        if self.lines.len() >= self.lines_max {
            self.lines.pop_front();
        }
        self.lines.push_back((arrival, line));
    }

    /// Those that arrived at `oldest` or later and fit `room` bytes, the newest first.
    fn newest(&self, oldest: u64, mut room: usize) -> impl Iterator<Item = &(u64, String)> {
        self.lines.iter().rev().take_while(move |(arrival, line)| {
            let fits = *arrival >= oldest && room >= line.len();
            room = room.saturating_sub(line.len());
            fits
        })
    }
}

/// The log of one node.
#[derive(Debug)]
pub struct LogWriter {
    hostname: String,
    kept: Ring,
    /// What services say at severity [`INFORMATIONAL`]; the System Manager's own such lines are
    /// few, and tell of the node.
    informational: Ring,
    arrivals: u64,
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
            kept: Ring::new(KEPT_LINES),
            informational: Ring::new(KEPT_INFORMATIONAL),
            arrivals: 0,
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
        let informational = record.severity >= INFORMATIONAL && record.service.is_some();
        let ring = if informational {
            &mut self.informational
        } else {
            &mut self.kept
        };
        ring.push(self.arrivals, line.clone());
        self.arrivals += 1;
        line
    }

    /// The newest `lines` lines that are kept, in order of arrival; fewer, if they would have more
    /// than [`LAST_MAX_BYTES`], of which informational ones take [`INFORMATIONAL_MAX_BYTES`].
    #[must_use]
    pub fn last(&self, lines: usize) -> Vec<String> {
        let all = self.kept.lines.iter().chain(&self.informational.lines);
        let mut arrivals: Vec<u64> = all.map(|(arrival, _)| *arrival).collect();
        arrivals.sort_unstable();
        let skipped = arrivals.len().saturating_sub(lines);
        let Some(&oldest) = arrivals.get(skipped) else {
            return Vec::new();
        };
        let informational = self.informational.newest(oldest, INFORMATIONAL_MAX_BYTES);
        let mut shown: Vec<&(u64, String)> = informational.collect();
        let taken: usize = shown.iter().map(|(_, line)| line.len()).sum();
        shown.extend(self.kept.newest(oldest, LAST_MAX_BYTES - taken));
        shown.sort_unstable_by_key(|(arrival, _)| *arrival);
        shown.into_iter().map(|(_, line)| line.clone()).collect()
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

    use model::ServiceName;
    use wire::log::{LogRecord, TEXT_MAX_BYTES};

    use super::{KEPT_INFORMATIONAL, KEPT_LINES, LAST_MAX_BYTES, LogWriter, line};
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

    #[test]
    fn a_flood_of_policy_events_leaves_what_tells_of_the_node() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut log = LogWriter::start(&folder.path().join("log"), "vsg").expect("a log");
        let event = |number: usize| LogRecord {
            severity: 6,
            mnemonic: "POLICY_LOOKUP_EVENT".to_owned(),
            service: Some(ServiceName::PolicyEngine),
            ..record(&format!("event {number} {}", "x".repeat(150)))
        };
        log.note(&event(0), false);
        log.note(&record("becoming active"), false);
        let acting = LogRecord {
            severity: 6,
            ..record("acting")
        };
        log.note(&acting, false);
        for number in 1..5_000 {
            log.note(&event(number), false);
        }
        log.note(&record("lost the standby"), false);
        log.note(&event(5_000), false);
        let last = log.last(usize::MAX);
        assert!(last[0].ends_with("becoming active"), "{}", last[0]);
        assert!(last[1].ends_with("acting"), "{}", last[1]);
        assert!(last[last.len() - 2].ends_with("lost the standby"));
        assert!(last[last.len() - 1].contains("event 5000 "));
        let events = last.iter().filter(|line| line.contains("event "));
        let numbers = (5_001 - (last.len() - 3)..=5_000).collect::<Vec<_>>();
        assert!(
            events
                .zip(numbers)
                .all(|(line, number)| { line.contains(&format!("event {number} ")) })
        );
        assert!(last.len() > 150 && last.len() <= 3 + KEPT_INFORMATIONAL);
        // Short of all, the newest count, of whatever kind.
        let three = log.last(3);
        assert!(three.len() == 3 && three[0].contains("event 4999 "));
        assert!(three[1].ends_with("lost the standby"));
        assert!(log.last(0).is_empty());
    }
}
