//! The guardian: starts the System Manager, watches it, and speaks for the node when it is dead.
//!
//! Invariants:
//! - one System Manager at a time, the first process of a PID namespace of its own: when it dies
//!   the kernel ends every service of the node, before a new one is started;
//! - the sealed gasp is sent once, on every HA link, when the System Manager has died; it is
//!   never sent for a System Manager that took it back;
//! - the death of the guardian ends the System Manager (parent-death signal), and with it
//!   everything;
//! - a System Manager that keeps dying fast is started ever more slowly ([`pause_before_start`]).

use std::ffi::OsStr;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use model::Time;
use runtime::process::{Process, Spawn};
use runtime::seqpacket::{PacketBuffer, Seqpacket};
use runtime::{clock, process};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use wire::Channel;
use wire::guardian::ToGuardian;

use crate::configuration::{Configuration, Link};
use crate::watchdog::{Care, TURN};
use crate::{EXIT_UNUSABLE, RESET_REASON, WATCHDOG};

/// A System Manager that lived shorter died fast.
const FAST_DEATH: Duration = Duration::from_secs(3);
/// Fast deaths in a row that are answered at once: a fault that follows another, or an operator's
/// drill, is no reason to wait.
const FAST_DEATHS_FREE: u32 = 5;
/// First pause after that; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest pause: often enough for an operator who watches, too rare to burn the machine.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// An orderly stop may take this long; then everything is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Real-time priority, as the heartbeat thread's: its only hurry is the gasp.
const PRIORITY: i32 = 50;

/// How one life of the System Manager ended.
struct Death {
    reason: String,
    lifetime: Duration,
    /// It got as far as running the node.
    ran: bool,
    /// Its exit status, if known.
    status: Option<ExitStatus>,
    /// The operator wants no further life.
    stopping: bool,
}

/// Runs the node until it is stopped.
pub(crate) fn run(
    configuration_file: &Path,
    configuration: &Configuration,
) -> anyhow::Result<ExitCode> {
    // Nothing here may start a thread: after the first PID namespace was made, the kernel
    // refuses threads to a process whose children live elsewhere.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("event loop")?;
    // Both are a help, not a need; the System Manager reports what its own thread was refused.
    let _ = process::become_real_time(PRIORITY);
    let _ = process::lock_memory();
    runtime.block_on(async {
        let care = Care::start(configuration.watchdog.as_ref());
        let end = lives(configuration_file, configuration, &care).await;
        care.release();
        end
    })
}

async fn lives(
    file: &Path,
    configuration: &Configuration,
    care: &Care,
) -> anyhow::Result<ExitCode> {
    let mut reason = String::new();
    let mut fast_deaths = 0;
    let mut ever_ran = false;
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    loop {
        let ask_to_stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let death = one_life(file, configuration, &reason, care, ask_to_stop).await?;
        if death.stopping {
            return Ok(ExitCode::SUCCESS);
        }
        ever_ran |= death.ran;
        let unusable =
            death.status.and_then(|status| status.code()) == Some(i32::from(EXIT_UNUSABLE));
        if unusable && !ever_ran {
            return Ok(ExitCode::from(EXIT_UNUSABLE));
        }
        fast_deaths = if death.lifetime < FAST_DEATH {
            fast_deaths + 1
        } else {
            0
        };
        eprintln!("{}: restarting: {}", configuration.name, death.reason);
        reason = death.reason;
        tokio::select! {
            () = tokio::time::sleep(pause_before_start(fast_deaths)) => {}
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Time to wait after so many fast deaths in a row.
fn pause_before_start(fast_deaths: u32) -> Duration {
    match fast_deaths.checked_sub(FAST_DEATHS_FREE) {
        None | Some(0) => Duration::ZERO,
        Some(further) => PAUSE_FIRST
            .saturating_mul(1 << (further - 1).min(16))
            .min(PAUSE_MAX),
    }
}

async fn one_life(
    file: &Path,
    configuration: &Configuration,
    reason: &str,
    care: &Care,
    ask_to_stop: impl Future<Output = ()>,
) -> anyhow::Result<Death> {
    let (ours, theirs) = Seqpacket::pair().context("socket pair")?;
    let spawn = Spawn {
        name: "vsgd",
        arguments: vec![
            OsStr::new("sysmgr"),
            OsStr::new("--config"),
            file.as_os_str(),
        ],
        environment: vec![
            (RESET_REASON, reason.to_owned()),
            (WATCHDOG, care.note().cloned().unwrap_or_default()),
        ],
        socket: theirs.as_fd(),
        new_pid_namespace: true,
    };
    let born = clock::now();
    let child = spawn.start().context(
        "cannot start the System Manager in a PID namespace of its own (this needs CAP_SYS_ADMIN)",
    )?;
    drop(theirs);
    let mut watch = Watch {
        socket: ours,
        buffer: PacketBuffer::default(),
        gasp: None,
        reset: None,
        ran: false,
        care: care.clone(),
    };
    care.turns();
    let stopping = watch.until_dead(&child, ask_to_stop).await?;
    // What it said before it died still counts, and comes before what its death says.
    while watch.try_take() {}
    if let Some(gasp) = watch.gasp.take() {
        send_on_all(&configuration.links, &gasp);
    }
    let status = child.try_wait().ok().flatten();
    Ok(Death {
        reason: watch.reset.unwrap_or_else(|| describe(status)),
        lifetime: Time::since(clock::now(), born),
        ran: watch.ran,
        status,
        stopping,
    })
}

fn describe(status: Option<ExitStatus>) -> String {
    status.map_or_else(
        || "System Manager ended".to_owned(),
        |status| format!("System Manager ended ({status})"),
    )
}

/// One System Manager's end of the socket pair, and what it has said.
struct Watch {
    socket: Seqpacket,
    buffer: PacketBuffer,
    gasp: Option<Vec<u8>>,
    reset: Option<String>,
    ran: bool,
    care: Care,
}

impl Watch {
    /// Returns whether the end was asked for by a signal to us.
    async fn until_dead(
        &mut self,
        child: &Process,
        ask_to_stop: impl Future<Output = ()>,
    ) -> anyhow::Result<bool> {
        let notice = child.exit_notice().context("pidfd")?;
        let kill_at = tokio::time::sleep(Duration::MAX);
        tokio::pin!(kill_at, ask_to_stop);
        let (mut stopping, mut open) = (false, true);
        let mut turns = tokio::time::interval(TURN);
        loop {
            tokio::select! {
                biased;
                () = notice.ended() => return Ok(stopping),
                () = &mut ask_to_stop, if !stopping => {
                    stopping = true;
                    child.signal(Signal::TERM);
                    kill_at.as_mut().reset(tokio::time::Instant::now() + STOP_DEADLINE);
                }
                () = &mut kill_at, if stopping || !open => {
                    child.kill();
                    kill_at.as_mut().reset(tokio::time::Instant::now() + STOP_DEADLINE);
                }
                _ = turns.tick() => {
                    if self.care.is_stuck() {
                        self.reset = Some("the System Manager was stuck".to_owned());
                        child.kill();
                    }
                }
                message = self.socket.receive(Channel::Guardian, &mut self.buffer), if open => {
                    match message {
                        Ok(Some(message)) => self.take(message),
                        // It is ending, and how it ends is worth knowing.
                        Ok(None) => {
                            open = false;
                            kill_at.as_mut().reset(tokio::time::Instant::now() + STOP_DEADLINE);
                        }
                        // Beyond repair.
                        Err(_) => {
                            open = false;
                            child.kill();
                        }
                    }
                    if self.reset.is_some() {
                        child.kill();
                    }
                }
            }
        }
    }

    fn take(&mut self, message: ToGuardian) {
        match message {
            ToGuardian::Gasp(gasp) => self.gasp = gasp,
            ToGuardian::Running => self.ran = true,
            ToGuardian::Turning => self.care.turns(),
            ToGuardian::Reset { reason } => self.reset = Some(reason),
        }
    }

    /// Takes a message that is there already.
    fn try_take(&mut self) -> bool {
        match self.socket.try_receive(Channel::Guardian, &mut self.buffer) {
            Ok(Some(Some(message))) => {
                self.take(message);
                true
            }
            Ok(Some(None) | None) | Err(_) => false,
        }
    }
}

/// Sends the datagram from any port: the receiver goes by its seal.
fn send_on_all(links: &[Link], datagram: &[u8]) {
    for link in links {
        let local = SocketAddr::new(link.local.ip(), 0);
        let sent = UdpSocket::bind(local).and_then(|socket| {
            // A full device queue must not hold up the other links.
            socket.set_nonblocking(true)?;
            socket.send_to(datagram, link.peer)
        });
        if let Err(error) = sent {
            eprintln!("gasp on link {}: {error}", link.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FAST_DEATHS_FREE, PAUSE_FIRST, PAUSE_MAX, pause_before_start};

    #[test]
    fn fast_deaths_slow_the_restarts_down() {
        for few in 0..=FAST_DEATHS_FREE {
            assert_eq!(pause_before_start(few), Duration::ZERO);
        }
        assert_eq!(pause_before_start(FAST_DEATHS_FREE + 1), PAUSE_FIRST);
        assert_eq!(pause_before_start(FAST_DEATHS_FREE + 2), 2 * PAUSE_FIRST);
        assert_eq!(pause_before_start(u32::MAX), PAUSE_MAX);
    }
}
