//! The worker: one thread, one loop. Feeds the core and carries out what it asks for.
//!
//! ```text
//!   taps ──── packets ──────► ┌──────┐ ── drain, settle, deny … ──► datapath (BPF commands)
//!   datapath ─ reports ─────► │ core │ ── write, discard ─────────► pool, taps
//!   gateways ─ messages ────► │ vem  │ ── messages ───────────────► gateways (tasks)
//!   epoch thread ─ done ────► └──────┘ ── persist ────────────────► epoch thread
//! ```

mod effects;
mod events;
mod status;

pub(crate) use self::status::Status;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use model::{NodeKey, Time};
use runtime::stream::MessageSender;
use runtime::tls::TlsEndpoint;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use vem::{GatewayId, Input, PortIndex, PortSettings, Vem};
use wire::vem::{Fenced, FromVem, PROTOCOL};

use self::events::{Ready, Sources};
use crate::datapath::{Datapath, PortDevice};
use crate::epochs::EpochFile;
use crate::gateways::{FromGateway, MESSAGES_MAX, Trusted, keep_connected};
use crate::guardian::ifindex;
use crate::journal::Journal;
use crate::pool::Pool;
use crate::realtime::{self, Children};
use crate::settings::Settings;
use crate::tap;

/// How often the datapath is told that we decide; it waits for 5 s without.
const STAMP_EVERY: Duration = Duration::from_millis(100);
/// Finished writes that the loop has not taken; the core asks for one at a time.
const PERSISTED_MAX: usize = 4;
/// Messages of gateways taken in one turn, so that packets are not kept waiting.
const MESSAGES_PER_TURN: usize = 64;

/// What the epoch thread tells of a write; `Err` carries what is not durable.
type EpochWritten = Result<Fenced, Fenced>;

/// One worker.
struct Worker {
    settings: Settings,
    started: Instant,
    real_time: bool,
    core: Vem,
    datapath: Datapath,
    pool: Pool,
    taps: Vec<OwnedFd>,
    sources: AsyncFd<Sources>,
    senders: Vec<Option<MessageSender<FromVem>>>,
    epochs: blocking::Sender<Fenced>,
    persisted: Option<mpsc::Receiver<EpochWritten>>,
    trusted: Trusted,
    pin_writer: blocking::Sender<PinJob>,
    held_since: status::Latencies,
    /// An operator has ordered it.
    restarts: bool,
    unwritable: u64,
    journal: Journal,
}

/// Runs until SIGTERM, or until the guardian is gone.
pub(crate) fn run(config: &Path, pool: RawFd, taps: &[RawFd]) -> Result<()> {
    rustix::thread::set_name(c"vemd-worker")?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Inherited from the guardian; its threads are ordinary ones.
    let real_time = realtime::ask(Children::Ordinary);
    // The guardian may have died before that call: then nobody holds the taps.
    ensure!(
        getppid().is_some_and(|parent| !parent.is_init()),
        "the guardian is gone"
    );
    let settings = Settings::load(config)?;
    ensure!(
        taps.len() == settings.ports.len(),
        "{} taps for {} ports",
        taps.len(),
        settings.ports.len()
    );
    let taps: Vec<_> = taps.iter().map(|fd| inherited(*fd)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        Worker::start(settings, real_time, inherited(pool), taps)?
            .turn_for_ever()
            .await
    })
}

#[allow(unsafe_code, reason = "inherited descriptors come as numbers")]
fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: the guardian passed this number as an argument for us to own, once; nothing else in
    // this process has opened or owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Writes epochs, so that packets need not wait for the disk.
fn start_epoch_thread(
    mut file: EpochFile,
) -> Result<(blocking::Sender<Fenced>, mpsc::Receiver<EpochWritten>)> {
    let (epochs, jobs) = blocking::channel();
    let (done, persisted) = mpsc::channel(PERSISTED_MAX);
    let write = move || {
        while let Ok(fenced) = jobs.recv() {
            let outcome = file.write(fenced).map(|()| fenced).map_err(|_| fenced);
            if done.blocking_send(outcome).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("epoch".to_owned())
        .spawn(write)
        .context("thread")?;
    Ok((epochs, persisted))
}

/// Gateways to trust from now on, and who is to hear of it.
struct PinJob {
    keys: Vec<NodeKey>,
    answer: MessageSender<FromVem>,
}

/// Writes pins, so that packets need not wait for the disk. A write that fails is not confirmed:
/// the gateway keeps its old identity, and the operator sees why.
fn start_pin_thread(trusted: Trusted) -> Result<blocking::Sender<PinJob>> {
    let (sender, jobs) = blocking::channel::<PinJob>();
    let write = move || {
        while let Ok(PinJob { keys, answer }) = jobs.recv() {
            if trusted.replace(&keys).is_ok() {
                // A connection that has ended meanwhile is told again when it is back.
                let _ = answer.send(&FromVem::GatewaysPinned { keys });
            }
        }
    };
    std::thread::Builder::new()
        .name("pins".to_owned())
        .spawn(write)
        .context("thread")?;
    Ok(sender)
}

fn watch(sources: Sources) -> Result<AsyncFd<Sources>> {
    #[allow(
        unsafe_code,
        reason = "registration needs a promise about the descriptor's lifetime"
    )]
    // SAFETY: `Sources` owns its epoll descriptor until it is dropped and never exchanges it; the
    // `AsyncFd` owns the `Sources`.
    let watched = unsafe { AsyncFd::register(sources) };
    Ok(watched?)
}

fn devices(settings: &Settings) -> Result<Vec<PortDevice>> {
    let device = |port: &crate::settings::Port| {
        let index = ifindex(&port.interface)?;
        let tap = tap::name(index);
        Ok(PortDevice {
            ifindex: index,
            interface: port.interface.clone(),
            tap_ifindex: ifindex(&tap)?,
            tap,
            mac: port.mac.0,
            fail_mode: port.fail_mode,
        })
    };
    settings.ports.iter().map(device).collect()
}

impl Worker {
    fn start(
        settings: Settings,
        real_time: bool,
        pool: OwnedFd,
        taps: Vec<OwnedFd>,
    ) -> Result<Self> {
        let started = Instant::now();
        let mut journal = Journal::open(&settings.host, "vemd", settings.log_file.as_deref())?;
        let mut datapath = Datapath::open(&settings.bpffs(), devices(&settings)?)?;
        datapath.stamp()?;
        let (file, on_disk) = EpochFile::open(&settings.state_dir)?;
        // Whether the kernel's was obeyed or promised is not known: refused below it is either way.
        let durable = on_disk.max(Fenced {
            promised: datapath.highest_epoch()?,
            ..Fenced::default()
        });
        let now = runtime::clock::now();
        let port = |port: &crate::settings::Port| PortSettings {
            name: port.name.clone(),
            profile: port.profile.clone(),
            fail_mode: port.fail_mode,
        };
        let core = vem::Settings {
            host: settings.host.clone(),
            ports: settings.ports.iter().map(port).collect(),
            gateways: settings.gateways.len() as u8,
        };
        let core = Vem::new(now, core, durable, now.0);
        let (pool, left) = Pool::open(pool)?;
        let sources = Sources::open(&taps, datapath.reports().as_raw_fd())?;
        let (epochs, persisted) = start_epoch_thread(file)?;
        let trusted = Trusted::load(&settings.state_dir)?;
        let pin_writer = start_pin_thread(trusted.clone())?;
        let senders = settings.gateways.iter().map(|_| None).collect();
        journal.line(&format!(
            "worker {} started: {} ports, {} packets left by the one before, {}",
            std::process::id(),
            taps.len(),
            left.len(),
            if real_time {
                "real-time"
            } else {
                "real-time scheduling refused"
            }
        ));
        let mut worker = Self {
            held_since: status::Latencies::default(),
            restarts: false,
            sources: watch(sources)?,
            unwritable: 0,
            settings,
            started,
            real_time,
            core,
            datapath,
            pool,
            taps,
            senders,
            epochs,
            persisted: Some(persisted),
            trusted,
            pin_writer,
            journal,
        };
        for packet in left {
            worker.take_up(now, packet.slot, packet.port);
        }
        worker.do_effects();
        Ok(worker)
    }

    async fn turn_for_ever(mut self) -> Result<()> {
        let (to_worker, mut messages) = mpsc::channel(MESSAGES_MAX);
        self.dial(&to_worker)?;
        let mut persisted = self.persisted.take().context("the loop runs once")?;
        let mut questions = status::listen(&self.settings.socket())?;
        let mut stamp = tokio::time::interval(STAMP_EVERY);
        stamp.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                ready = self.sources.readable_mut() => {
                    let mut guard = ready?;
                    let ready = guard.get_inner_mut().wait()?;
                    if ready.is_empty() {
                        guard.clear_ready();
                    }
                    for source in ready {
                        self.serve(source);
                    }
                    // A busy tap must not keep gateways and questions from being heard.
                    tokio::task::yield_now().await;
                }
                Some(message) = messages.recv() => {
                    self.hear(message);
                    for _ in 1..MESSAGES_PER_TURN {
                        let Ok(message) = messages.try_recv() else { break };
                        self.hear(message);
                    }
                }
                Some(outcome) = persisted.recv() => self.persisted(outcome)?,
                Some(question) = questions.recv() => {
                    // Whoever asked may have gone.
                    let _ = question.send(self.status());
                }
                _ = stamp.tick() => self.datapath.stamp()?,
                _ = terminate.recv() => return Ok(()),
            }
            self.do_effects();
            if self.restarts {
                // The guardian starts the next, which takes up the taps and the waiting packets.
                return Ok(());
            }
        }
    }

    fn dial(&self, to_worker: &mpsc::Sender<FromGateway>) -> Result<()> {
        let identity = crate::keys::identity(&self.settings.state_dir)?;
        let endpoint = TlsEndpoint::new(&identity, self.trusted.pins(), PROTOCOL)?;
        for (gateway, number) in self.settings.gateways.iter().zip(0..) {
            let with = (endpoint.clone(), self.trusted.clone());
            let to_worker = to_worker.clone();
            tokio::spawn(keep_connected(
                GatewayId(number),
                gateway.address,
                with,
                to_worker,
            ));
        }
        Ok(())
    }

    fn serve(&mut self, source: Ready) {
        match source {
            Ready::Tap(port) => self.read_tap(port),
            Ready::Reports => self.read_reports(),
            Ready::Timer => self.handle(Input::Tick),
        }
    }

    fn hear(&mut self, message: FromGateway) {
        match message {
            FromGateway::Connected(gateway, sender) => {
                self.senders[usize::from(gateway.0)] = Some(sender);
                self.journal
                    .line(&format!("connected to gateway {}", gateway.0 + 1));
                self.handle(Input::Connected(gateway));
            }
            FromGateway::Message(gateway, message) => {
                self.handle(Input::Received { gateway, message });
            }
            FromGateway::Disconnected(gateway, why) => {
                self.senders[usize::from(gateway.0)] = None;
                self.journal
                    .line(&format!("lost gateway {}: {why}", gateway.0 + 1));
                self.handle(Input::Disconnected(gateway));
            }
            FromGateway::Unreachable(gateway, why) => {
                self.journal.line(&format!(
                    "gateway {} cannot be reached: {why}",
                    gateway.0 + 1
                ));
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.core.handle(runtime::clock::now(), input);
    }

    fn mac(&self, port: PortIndex) -> Option<[u8; 6]> {
        self.settings
            .ports
            .get(usize::from(port.0))
            .map(|port| port.mac.0)
    }

    fn set_timer(&mut self) {
        let deadline: Option<Time> = self.core.next_deadline();
        if let Err(error) = self.sources.get_mut().set_timer(deadline) {
            self.journal.line(&format!("timer: {error}"));
        }
    }
}
