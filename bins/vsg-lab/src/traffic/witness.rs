//! Witnesses that no one here wrote: wrk against nginx, and iperf3, through the
//! same path. What counts as an error is read from their own output.

use crate::clock::{NS_PER_S, now_ns};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Length of one run of wrk: it reports only at its end, so this is the grain
/// in time of its errors.
const WRK_RUN_S: u64 = 1;
/// Pause of each of wrk's two connections between requests, ms: about 100
/// requests a second in all.
const WRK_DELAY_MS: u64 = 20;
/// iperf3's rate, bit/s.
const IPERF_RATE: &str = "20M";
/// Pause after a witness that failed at once, so that it does not spin.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What one witness saw in one span of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// `wrk` or `iperf3`.
    pub tool: String,
    /// Start of the span, monotonic ns.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
    /// Errors that the tool reports.
    pub errors: u64,
    /// Requests (wrk) that were answered, or kbit/s (iperf3).
    pub amount: u64,
    /// Segments that iperf3's sender sent again.
    pub retransmits: u64,
    /// The tool's words, when there was an error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What the witnesses are to do.
#[derive(Debug)]
pub struct WitnessPlan {
    /// nginx.
    pub http: SocketAddrV4,
    /// iperf3's server.
    pub bulk: SocketAddrV4,
    /// When to end, monotonic ns.
    pub until_ns: u64,
    /// The traffic's folder.
    pub folder: PathBuf,
}

/// Where testimonies are, one JSON object a line.
#[must_use]
pub fn testimony_file(folder: &Path) -> PathBuf {
    folder.join("witness.jsonl")
}

/// Runs both witnesses until the plan's end.
///
/// # Errors
/// When the testimony cannot be written.
pub fn run(plan: &WitnessPlan) -> anyhow::Result<()> {
    let path = testimony_file(&plan.folder);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let file = Mutex::new(file);
    std::thread::scope(|scope| {
        let iperf = scope.spawn(|| run_iperf(plan, &file));
        let wrk = run_wrk(plan, &file);
        match iperf.join() {
            Ok(result) => result.and(wrk),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn testify(file: &Mutex<std::fs::File>, testimony: &Testimony) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(testimony).context("testimony to JSON")?;
    line.push(b'\n');
    let mut file = file
        .lock()
        .map_err(|_| anyhow::anyhow!("the other witness panicked"))?;
    file.write_all(&line).context("cannot write the testimony")
}

fn run_wrk(plan: &WitnessPlan, file: &Mutex<std::fs::File>) -> anyhow::Result<()> {
    let script = plan.folder.join("wrk.lua");
    std::fs::write(
        &script,
        format!("function delay() return {WRK_DELAY_MS} end\n"),
    )
    .context("cannot write wrk's script")?;
    while now_ns() + WRK_RUN_S * NS_PER_S < plan.until_ns {
        let from_ns = now_ns();
        let output = Command::new("wrk")
            .args(["-t1", "-c2", "--timeout", "2s"])
            .arg(format!("-d{WRK_RUN_S}s"))
            .arg("-s")
            .arg(&script)
            .arg(format!("http://{}/", plan.http))
            .stdin(Stdio::null())
            .output()
            .context("cannot run wrk")?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let (amount, errors) = read_wrk(&text, output.status.success());
        let detail = if errors > 0 {
            one_line(&text)
        } else {
            String::new()
        };
        testify(
            file,
            &Testimony {
                tool: "wrk".into(),
                from_ns,
                to_ns: now_ns(),
                errors,
                amount,
                retransmits: 0,
                detail,
            },
        )?;
        if errors > 0 {
            std::thread::sleep(RETRY_PAUSE);
        }
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // A few hundred characters say all there is; the file stays small.
    line.truncate(
        line.char_indices()
            .nth(400)
            .map_or(line.len(), |(at, _)| at),
    );
    line
}

/// Requests and errors in wrk's output. No answer at all is an error too.
fn read_wrk(text: &str, succeeded: bool) -> (u64, u64) {
    let mut requests = 0;
    let mut errors = 0;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("Socket errors:") {
            errors += rest
                .split([',', ' '])
                .filter_map(|word| word.parse::<u64>().ok())
                .sum::<u64>();
        } else if let Some(rest) = line.strip_prefix("Non-2xx or 3xx responses:") {
            errors += rest.trim().parse::<u64>().unwrap_or(1);
        } else if let Some((count, _)) = line.split_once(" requests in ") {
            requests = count.trim().parse().unwrap_or(0);
        }
    }
    if !succeeded || requests == 0 {
        errors = errors.max(1);
    }
    (requests, errors)
}

fn run_iperf(plan: &WitnessPlan, file: &Mutex<std::fs::File>) -> anyhow::Result<()> {
    while now_ns() + NS_PER_S < plan.until_ns {
        let seconds = ((plan.until_ns - now_ns()) / NS_PER_S).max(1);
        let mut child = Command::new("iperf3")
            .args([
                "-c",
                &plan.bulk.ip().to_string(),
                "-p",
                &plan.bulk.port().to_string(),
            ])
            .args(["-b", IPERF_RATE, "-i", "1", "--forceflush"])
            .args(["-t", &seconds.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run iperf3")?;
        let mut from_ns = now_ns();
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((kbits, retransmits)) = read_iperf_interval(&line) {
                    let to_ns = now_ns();
                    // A second in which nothing passed is an error, whatever
                    // iperf3 makes of it.
                    let errors = u64::from(kbits == 0);
                    let detail = if errors > 0 {
                        one_line(&line)
                    } else {
                        String::new()
                    };
                    testify(
                        file,
                        &Testimony {
                            tool: "iperf3".into(),
                            from_ns,
                            to_ns,
                            errors,
                            amount: kbits,
                            retransmits,
                            detail,
                        },
                    )?;
                    from_ns = to_ns;
                }
            }
        }
        let mut complaint = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.read_to_string(&mut complaint);
        }
        let status = child.wait().context("iperf3")?;
        if !status.success() {
            testify(
                file,
                &Testimony {
                    tool: "iperf3".into(),
                    from_ns,
                    to_ns: now_ns(),
                    errors: 1,
                    amount: 0,
                    retransmits: 0,
                    detail: one_line(&format!("{status}: {complaint}")),
                },
            )?;
            std::thread::sleep(RETRY_PAUSE);
        }
    }
    Ok(())
}

/// Rate (kbit/s) and retransmitted segments in one interval line of iperf3's
/// sender; `None` for every other line, its closing summary among them.
fn read_iperf_interval(line: &str) -> Option<(u64, u64)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let sec = words.iter().position(|word| *word == "sec")?;
    if words
        .last()
        .is_some_and(|word| matches!(*word, "sender" | "receiver"))
    {
        return None;
    }
    let rate: f64 = words.get(sec + 3)?.parse().ok()?;
    let scale = match *words.get(sec + 4)? {
        "bits/sec" => 0.001,
        "Kbits/sec" => 1.0,
        "Mbits/sec" => 1e3,
        "Gbits/sec" => 1e6,
        _ => return None,
    };
    let retransmits = words
        .get(sec + 5)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    Some(((rate * scale) as u64, retransmits))
}

/// Up to when every witness has testified, monotonic ns; 0 when one has not
/// yet.
#[must_use]
pub fn testified_until(testimonies: &[Testimony]) -> u64 {
    let last = |tool: &str| {
        testimonies
            .iter()
            .filter(|one| one.tool == tool)
            .map(|one| one.to_ns)
            .max()
            .unwrap_or(0)
    };
    last("wrk").min(last("iperf3"))
}

/// Reads the testimonies given so far.
#[must_use]
pub fn read_testimonies(folder: &Path) -> Vec<Testimony> {
    let text = std::fs::read_to_string(testimony_file(folder)).unwrap_or_default();
    // The last line may still be in the writing.
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 2s test @ http://10.9.0.11:80/\n  1 threads and 2 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.02ms  1 99%\n  \
        198 requests in 2.00s, 31.4KB read\n";

    #[test]
    fn wrk_is_read_as_it_writes() {
        assert_eq!(read_wrk(WRK, true), (198, 0));
        let bad = format!("{WRK}  Socket errors: connect 1, read 2, write 0, timeout 4\n");
        assert_eq!(read_wrk(&bad, true), (198, 7));
        let refused = format!("{WRK}  Non-2xx or 3xx responses: 5\n");
        assert_eq!(read_wrk(&refused, true), (198, 5));
        assert_eq!(
            read_wrk(
                "unable to connect to 10.9.0.11:80 Connection refused",
                false
            ),
            (0, 1)
        );
    }

    #[test]
    fn a_span_is_witnessed_when_both_have_spoken() {
        let one = |tool: &str, to_ns| Testimony {
            tool: tool.into(),
            from_ns: 0,
            to_ns,
            errors: 0,
            amount: 0,
            retransmits: 0,
            detail: String::new(),
        };
        assert_eq!(testified_until(&[one("wrk", 5)]), 0);
        assert_eq!(
            testified_until(&[one("wrk", 5), one("iperf3", 3), one("wrk", 9)]),
            3
        );
    }

    #[test]
    fn iperf_is_read_as_it_writes() {
        let line = "[  5]   3.00-4.00   sec  2.38 MBytes  19.9 Mbits/sec    3    314 KBytes";
        assert_eq!(read_iperf_interval(line), Some((19_900, 3)));
        let none = "[  5]   3.00-4.00   sec  0.00 Bytes  0.00 bits/sec    0    314 KBytes";
        assert_eq!(read_iperf_interval(none), Some((0, 0)));
        let last = "[  5]   0.00-4.00   sec  9.54 MBytes  20.0 Mbits/sec    0             sender";
        assert_eq!(read_iperf_interval(last), None);
        assert_eq!(
            read_iperf_interval("[ ID] Interval           Transfer     Bitrate"),
            None
        );
    }
}
