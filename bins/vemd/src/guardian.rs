//! The guardian: holds what must outlive a worker, and starts the next one.
//!
//! It holds the tap descriptors, so that the taps stay up and their queues are kept, and the pool
//! of held packets; it decides nothing. If it dies, the worker dies with it, taps and pins remain.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::journal::Journal;
use crate::settings::{OnStop, Settings};
use crate::{datapath, pool, tap};

/// A worker that lives shorter than this died young.
const YOUNG: Duration = Duration::from_secs(1);
/// So many workers that die young in a row may be restarted at once.
const YOUNG_DEATHS_MAX: u32 = 5;
/// Afterwards there is a pause, so that a worker that cannot start does not take a processor.
const BACK_OFF: Duration = Duration::from_millis(500);
/// A worker stops by itself within this, or is killed.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// `statfs` type of a BPF file system.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

struct Guarded {
    settings: Settings,
    config: PathBuf,
    taps: Vec<OwnedFd>,
    pool: OwnedFd,
    mounted: bool,
    _lock: File,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(config: &Path, keep: bool) -> Result<()> {
    let settings = Settings::load(config)?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "vemd must run as root (or with CAP_NET_ADMIN and CAP_BPF as uid 0)"
    );
    let mut journal = Journal::open(&settings.host, "vemd", settings.log_file.as_deref())?;
    let guarded = prepare(settings, config)?;
    // Refused or not: the worker says so.
    crate::realtime::ask(crate::realtime::Children::Inherit);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(guard(&guarded, &mut journal))?;
    clean_up(guarded, keep, &mut journal)
}

fn prepare(settings: Settings, config: &Path) -> Result<Guarded> {
    for folder in [&settings.state_dir, &settings.run_dir] {
        fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    let lock = File::create(settings.run_dir.join("vemd.lock")).context("lock file")?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another vemd runs in {}", settings.run_dir.display());
    }
    // Fail here, in one line, rather than in each worker.
    crate::keys::identity(&settings.state_dir)?;
    let mut taps = Vec::new();
    for port in &settings.ports {
        taps.push(tap::open(&tap::name(ifindex(&port.interface)?))?);
    }
    let pool = pool::create(settings.ports.len())?;
    mount_bpffs(&settings.bpffs())?;
    // Ours, even if an earlier guardian that was killed mounted it.
    let mounted = settings.owns_bpffs();
    Ok(Guarded {
        settings,
        config: config.to_owned(),
        taps,
        pool,
        mounted,
        _lock: lock,
    })
}

/// The index of an interface.
pub(crate) fn ifindex(interface: &str) -> Result<u32> {
    // Read from the namespace we are in, whatever is mounted at /sys.
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    rustix::net::netdevice::name_to_index(&socket, interface)
        .with_context(|| format!("no interface {interface}"))
}

/// Mounts a BPF file system unless there is one.
fn mount_bpffs(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{}", path.display()))?;
    let found = rustix::fs::statfs(path).with_context(|| format!("{}", path.display()))?;
    if found.f_type as u64 == BPF_FS_MAGIC {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("twinwall-bpf", path, "bpf", flags, c"mode=0700")
        .with_context(|| format!("mounting a BPF file system at {}", path.display()))
}

async fn guard(guarded: &Guarded, journal: &mut Journal) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut young_deaths = 0;
    loop {
        let born = Instant::now();
        let mut worker = spawn(guarded)?;
        let status = tokio::select! {
            status = worker.wait() => status?,
            _ = terminate.recv() => return stop(worker).await,
            _ = interrupt.recv() => return stop(worker).await,
        };
        young_deaths = if born.elapsed() < YOUNG {
            young_deaths + 1
        } else {
            0
        };
        journal.line(&format!(
            "worker died ({}): starting the next",
            describe(status)
        ));
        if young_deaths >= YOUNG_DEATHS_MAX {
            tokio::select! {
                () = tokio::time::sleep(BACK_OFF) => {}
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown cause".to_owned(),
    }
}

/// Descriptors without close-on-exec are inherited; their numbers are arguments.
fn spawn(guarded: &Guarded) -> Result<Child> {
    let mut arguments: Vec<OsString> = vec!["worker".into(), "--config".into()];
    arguments.push(guarded.config.clone().into());
    arguments.extend(["--pool".into(), guarded.pool.as_raw_fd().to_string().into()]);
    for tap in &guarded.taps {
        arguments.extend(["--tap".into(), tap.as_raw_fd().to_string().into()]);
    }
    Command::new("/proc/self/exe")
        .arg0("vemd")
        .args(arguments)
        .spawn()
        .context("starting the worker")
}

async fn stop(mut worker: Child) -> Result<()> {
    if let Some(pid) = worker
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(id as i32))
    {
        // It has not been waited for, so the number is still its own.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(STOP_WITHIN, worker.wait())
        .await
        .is_err()
    {
        worker.kill().await?;
    }
    Ok(())
}

fn clean_up(guarded: Guarded, keep: bool, journal: &mut Journal) -> Result<()> {
    let bpffs = guarded.settings.bpffs();
    if keep || guarded.settings.on_stop == OnStop::Keep {
        journal.line("stopped; the datapath stays, new flows follow the fail mode");
        return Ok(());
    }
    datapath::remove(&bpffs).with_context(|| format!("unpinning {}", bpffs.display()))?;
    for tap in &guarded.taps {
        tap::remove(tap)?;
    }
    let _ = fs::remove_file(guarded.settings.socket());
    if guarded.mounted {
        unmount(&bpffs, UnmountFlags::DETACH)?;
    }
    journal.line("stopped; the ports are no longer guarded");
    Ok(())
}
