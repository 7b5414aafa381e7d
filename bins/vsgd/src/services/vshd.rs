//! `vshd`: a Unix stream for shells, reachable by the node's user only.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use model::{PortKind, Time};
use node::service::{ServiceInput, ServiceOutput, SessionId, ShellEvent};
use node::services::vshd::{Facts, Vshd};
use runtime::clock;
use runtime::stream::{MessageSender, framed};
use runtime::traffic::PortCounters;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use wire::Channel;
use wire::console::{FromShell, ToShell};

use super::harness::{EDGE_QUEUE_MAX, Edge};
use super::{Settings, harness};

/// Name of the console's socket in the run directory.
const CONSOLE_SOCKET: &str = "console.sock";
/// Pause after a failed `accept`, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the wall clock is read: it may be set while we run.
const WALL_CLOCK_PERIOD: Duration = Duration::from_secs(60);

type Senders = Arc<Mutex<BTreeMap<SessionId, MessageSender<ToShell>>>>;

struct ShellEdge {
    senders: Senders,
}

impl Edge for ShellEdge {
    fn perform(&mut self, output: ServiceOutput) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        match output {
            ServiceOutput::Shell { session, message } => {
                let Some(sender) = senders.get(&session) else {
                    return;
                };
                if sender.send(&message).is_err() {
                    // It does not read its screenfuls: its reader sees the end and tells.
                    sender.abort();
                }
            }
            // Dropped, the writer ends after the last byte; the reader then sees the end.
            ServiceOutput::CloseShell(session) => {
                senders.remove(&session);
            }
            ServiceOutput::Send(_)
            | ServiceOutput::Supervision(_)
            | ServiceOutput::Vem { .. }
            | ServiceOutput::CloseVem(_) => {}
        }
    }
}

/// Runs until stopped.
pub(super) async fn run(settings: &Settings, mut parts: super::Parts) -> anyhow::Result<()> {
    let path = settings.run_dir.join(CONSOLE_SOCKET);
    // A leftover of an earlier run; binding would fail on it.
    let _ = std::fs::remove_file(&path);
    let listener =
        UnixListener::bind(&path).with_context(|| format!("console {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("console {}", path.display()))?;
    let senders = Senders::default();
    let (inputs, edge_inputs) = mpsc::channel(EDGE_QUEUE_MAX);
    tokio::spawn(wall_clock(inputs.clone()));
    let port = PortCounters::new(PortKind::Console, "");
    parts.supervision.report(port.clone());
    tokio::spawn(accept(listener, port, Arc::clone(&senders), inputs));
    let facts = Facts {
        hostname: settings.hostname.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel_release(),
        started: parent_started().unwrap_or(parts.now),
    };
    let service = Vshd::new(parts.now, facts);
    harness::run(
        service,
        parts.supervision,
        parts.broker,
        ShellEdge { senders },
        edge_inputs,
    )
    .await
}

async fn wall_clock(inputs: mpsc::Sender<ServiceInput>) {
    loop {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let unix_s = since.as_secs();
        if inputs
            .send(ServiceInput::WallClock { unix_s })
            .await
            .is_err()
        {
            return;
        }
        tokio::time::sleep(WALL_CLOCK_PERIOD).await;
    }
}

async fn accept(
    listener: UnixListener,
    port: PortCounters,
    senders: Senders,
    inputs: mpsc::Sender<ServiceInput>,
) {
    let mut next = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        next += 1;
        let (senders, inputs) = (Arc::clone(&senders), inputs.clone());
        let port = port.clone();
        tokio::spawn(async move { serve(SessionId(next), stream, &port, &senders, &inputs).await });
    }
}

async fn serve(
    session: SessionId,
    stream: UnixStream,
    port: &PortCounters,
    senders: &Senders,
    inputs: &mpsc::Sender<ServiceInput>,
) -> Option<()> {
    let user = stream
        .peer_cred()
        .map_or_else(|_| "unknown".to_owned(), |peer| user(peer.uid()));
    let (sender, receiver) = framed::<_, FromShell, ToShell>(stream, Channel::Console);
    let (sender, mut receiver) = (sender.counted(port), receiver.counted(port));
    senders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(session, sender);
    let tell = |event| inputs.send(ServiceInput::Shell { session, event });
    tell(ShellEvent::Opened { user }).await.ok()?;
    // Rubbish ends a session like its end does.
    while let Ok(Some(message)) = receiver.next().await {
        tell(ShellEvent::Message(message)).await.ok()?;
    }
    senders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&session);
    tell(ShellEvent::Closed).await.ok()
}

/// The name of a user of this machine, or its number.
fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}

fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// When our parent, the System Manager, started: `show system uptime` counts from there, also
/// after a restart of this service.
fn parent_started() -> Option<Time> {
    /// Of `/proc/PID/stat`; fixed at 100 for user space on every architecture of Linux.
    const TICKS_PER_S: u64 = 100;
    let fields = |pid: &str| -> Option<Vec<String>> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold blanks.
        let after = stat.rsplit_once(')')?.1;
        Some(after.split_whitespace().map(str::to_owned).collect())
    };
    let parent = fields("self")?.get(1)?.clone();
    let ticks: u64 = fields(&parent)?.get(19)?.parse().ok()?;
    let started = Time(ticks * (1_000_000_000 / TICKS_PER_S));
    (started <= clock::now()).then_some(started)
}
