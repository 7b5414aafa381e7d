//! The System Manager's process: drives [`node::supervisor::Supervisor`] with real processes,
//! sockets and time.
//!
//! Invariants:
//! - one loop, one input at a time, all its outputs carried out in order before the next: what
//!   the core decided is what happened;
//! - the loop waits for nothing but its next event: the node file and the log are written by
//!   threads, messages to services and peers go into bounded queues;
//! - the heartbeat thread is told of every turn at its end, so that it falls silent with us;
//! - whatever this process cannot repair ends it: the guardian then speaks for the node and
//!   starts it afresh.

mod children;
mod control;
mod doors;
mod pairing;
mod persistence;
mod processes;
mod trusting;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use model::{DropReason, Epoch, Incarnation, Lsn, NodeKey, ServiceName, Time};
use node::supervisor::{Start, Supervisor, SupervisorInput, SupervisorOutput, TrustEvent};
use redundancy::{NodeRecord, Timing};
use runtime::heartbeat::{HeartbeatEvent, HeartbeatLink, Heartbeats};
use runtime::identity::Identity;
use runtime::log_writer::LogWriter;
use runtime::node_file::NodeFile;
use runtime::process::{become_real_time, inherited_socket};
use runtime::seqpacket::Seqpacket;
use runtime::traffic::{PortCounters, take_all};
use runtime::{clock, entropy};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use wire::Channel;
use wire::control::{ControlMessage, TrustMessage};
use wire::guardian::ToGuardian;
use wire::heartbeat::State;
use wire::log::LogRecord;
use wire::supervision::{Answer, Ask, ToService};

use crate::configuration::Configuration;
use crate::{RESET_REASON, WATCHDOG, node_record, verbs, watchdog};
use children::{ChildEvent, Children, RunNumber};
use control::{Change, Connections, ControlEvent};
use doors::Doors;
use pairing::{Knock, Pairing};
use persistence::Persistence;

/// Events waiting for the loop. Their senders wait when it is full, and so do those who send to
/// them: nothing is lost.
const EVENTS_MAX: usize = 1024;
/// Events taken in one turn, so that heartbeats and deadlines are looked at in between.
const EVENTS_PER_TURN: usize = 64;
/// How often this process's ports are read: what is shown of them is at most so old.
const BOOK_PERIOD: Duration = Duration::from_millis(100);
/// Longest time between two turns: heartbeats stop when turns do.
const TURN_MAX: Duration = Duration::from_millis(50);
/// Real-time priority of the loop: below the heartbeat thread's.
const PRIORITY: i32 = 10;
/// Questions to the heartbeat thread that wait for its answer; operators ask, a few at a time.
const QUESTIONS_MAX: usize = 64;
/// Services may take this long to finish at an orderly stop.
const STOP_PATIENCE: Duration = Duration::from_millis(500);
/// Waiting for the log's last lines before a reset: the disk may be why we reset.
const FLUSH_PATIENCE: Duration = Duration::from_millis(50);
/// Log lines of at most this severity number go to open consoles.
const CONSOLE_SEVERITY: u8 = 2;

/// What the tasks and threads tell the loop.
#[derive(Debug)]
enum Event {
    Child {
        service: ServiceName,
        run: RunNumber,
        event: ChildEvent,
    },
    Control(ControlEvent),
    Trust(TrustEvent),
    Knock(Knock),
    Persisted {
        write: u64,
        result: Result<(), String>,
    },
}

/// Runs the node until it is stopped or reset.
pub(crate) fn run(file: &Path, configuration: &Configuration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("event loop")?;
    runtime.block_on(async {
        let (events, incoming) = mpsc::channel(EVENTS_MAX);
        let manager = Manager::start(file, configuration, events).await?;
        manager.turns(incoming).await
    })
}

/// What is known at the start of a node.
struct Identified {
    identity: Identity,
    record: NodeRecord,
    node_file: NodeFile,
    /// What the log should show of the last reset.
    reset: Option<LogRecord>,
}

fn identify(configuration: &Configuration) -> anyhow::Result<Identified> {
    let identity = Identity::load(&configuration.identity_file())?;
    let (node_file, mut record) = node_record::open(&configuration.node_file())?;
    let reset = std::env::var(RESET_REASON).unwrap_or_default();
    let reset = node_record::note_reset(&mut record, reset);
    Ok(Identified {
        identity,
        record,
        node_file,
        reset,
    })
}

struct Manager {
    supervisor: Supervisor,
    inputs: VecDeque<SupervisorInput>,
    heartbeats: Heartbeats,
    children: Children,
    connections: Connections,
    doors: Doors,
    pairing: Pairing,
    events: mpsc::Sender<Event>,
    identity_file: std::path::PathBuf,
    /// Whom the control ports let in.
    trusted: Vec<NodeKey>,
    persistence: Persistence,
    log: LogWriter,
    guardian: Seqpacket,
    /// Questions put to the heartbeat thread: who asked, under which number.
    questions: BTreeMap<u64, (ServiceName, u64)>,
    next_question: u64,
    /// What our heartbeats say.
    state: State,
    timing: Timing,
    peer_hold_time: Duration,
    resetting: bool,
    control_ports: Vec<PortCounters>,
    /// The machine's watchdog, as the guardian tells; `None` if none is configured.
    watchdog: Option<Result<String, String>>,
    /// When the guardian is to be told that this loop turns.
    turning_at: Time,
    /// When what the ports counted is to be booked.
    book_at: Time,
}

impl Manager {
    async fn start(
        file: &Path,
        configuration: &Configuration,
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<Self> {
        let guardian = Seqpacket::from_fd(inherited_socket()?).context("guardian's socket")?;
        let Identified {
            identity,
            record,
            node_file,
            reset,
        } = identify(configuration)?;
        verbs::make_private_folder(&configuration.run_dir)?;
        if let Some(folder) = configuration.log_file.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let log = LogWriter::start(&configuration.log_file, &configuration.hostname)
            .with_context(|| format!("log file {}", configuration.log_file.display()))?;
        let links: Vec<_> = configuration.links.iter().map(heartbeat_link).collect();
        let heartbeats = Heartbeats::start(links)?;
        let control_ports = doors::ports(&configuration.links);
        let ports = control_ports.clone();
        let doors = Doors::open(&configuration.links, &identity, ports, events.clone()).await?;
        let pairing = Pairing::new(&identity, trusting::places(configuration), events.clone())?;
        let key = identity.fingerprint();
        let timing = Timing::clamped(record.interval_ms, record.misses);
        let start = Start {
            node: record_node(&record, key),
            record,
            incarnation: Incarnation(entropy::draw()?),
            links: configuration.links.len() as u8,
            // The store's own process tells it as soon as it has read its files.
            history: (Epoch::default(), Lsn(0)),
        };
        let mut manager = Self {
            supervisor: Supervisor::new(start).introduced(key, &configuration.name),
            inputs: VecDeque::new(),
            heartbeats,
            children: Children::new(file.to_owned(), events.clone()).context("starter thread")?,
            connections: Connections::default(),
            doors,
            pairing,
            events: events.clone(),
            identity_file: configuration.identity_file(),
            trusted: Vec::new(),
            persistence: Persistence::start(node_file, events).context("node file thread")?,
            log,
            guardian,
            questions: BTreeMap::new(),
            next_question: 0,
            state: State::Initializing,
            timing,
            peer_hold_time: Duration::ZERO,
            resetting: false,
            control_ports,
            watchdog: watchdog_told(),
            turning_at: clock::now(),
            book_at: clock::now(),
        };
        if let Some(reset) = reset {
            manager.note(&reset);
        }
        manager.note_real_time();
        manager.note_watchdog();
        manager.tell_guardian(&ToGuardian::Running)?;
        Ok(manager)
    }

    /// Asks for real-time scheduling for this thread, and says what was refused to either.
    fn note_real_time(&mut self) {
        let own = become_real_time(PRIORITY);
        if let Err(refusal) = self.heartbeats.real_time().clone().and(own) {
            self.note(&LogRecord {
                facility: "SYSMGR".to_owned(),
                severity: 3,
                mnemonic: "REAL_TIME_REFUSED".to_owned(),
                text: format!("Heartbeats run without real-time guarantees: {refusal}."),
                service: None,
            });
        }
    }

    fn note_watchdog(&mut self) {
        if let Some(Err(why)) = &self.watchdog {
            let text = format!("The watchdog cannot be used: {why}.");
            self.note(&LogRecord {
                facility: "SYSMGR".to_owned(),
                severity: 4,
                mnemonic: "WATCHDOG_UNAVAILABLE".to_owned(),
                text,
                service: None,
            });
        }
    }

    async fn turns(mut self, mut events: mpsc::Receiver<Event>) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("signals")?;
        let unix_s = clock::unix_seconds();
        self.inputs.push_back(SupervisorInput::WallClock { unix_s });
        self.inputs.push_back(SupervisorInput::Tick);
        loop {
            let now = clock::now();
            self.think(now)?;
            if self.resetting {
                // The guardian ends this process; until then the heartbeat thread says the rest.
                std::future::pending::<()>().await;
            }
            self.heartbeats.turned(now);
            let wake_at = self.next_wake(now);
            tokio::select! {
                biased;
                event = self.heartbeats.next_event() => self.heard(event?)?,
                event = events.recv() => match event {
                    Some(event) => self.happened(event)?,
                    None => bail!("no event can come any more"),
                },
                _ = terminate.recv() => return self.stop(events).await,
                () = clock::sleep_until(Some(wake_at)) => {}
            }
            for _ in 0..EVENTS_PER_TURN {
                let Ok(event) = events.try_recv() else { break };
                self.happened(event)?;
            }
        }
    }

    fn next_wake(&self, now: Time) -> Time {
        let turn = (self.timing.interval() / 2).min(TURN_MAX);
        let latest = now + turn;
        self.supervisor
            .next_deadline()
            .map_or(latest, |deadline| Ord::min(deadline, latest))
    }

    /// Hands all inputs to the core and carries out what it asks for.
    fn think(&mut self, now: Time) -> anyhow::Result<()> {
        self.children.flush();
        let hold_time = self.timing.hold_time().max(self.peer_hold_time);
        let changes = self.connections.avoid_silence(now, hold_time);
        self.changed(changes);
        self.connections.leave_the_dead(now, hold_time);
        if self
            .supervisor
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.inputs.push_back(SupervisorInput::Tick);
        }
        if now >= self.turning_at {
            self.turning_at = now + watchdog::TURN;
            // One that is lost is one of many.
            let _ = self
                .guardian
                .try_send(Channel::Guardian, &ToGuardian::Turning);
        }
        if now >= self.book_at {
            self.book_at = now + BOOK_PERIOD;
            let mut counted = take_all(self.heartbeats.ports());
            counted.extend(take_all(&self.control_ports));
            if !counted.is_empty() {
                self.inputs.push_back(SupervisorInput::Traffic(counted));
            }
        }
        while let Some(input) = self.inputs.pop_front() {
            self.supervisor.handle(now, input);
            while let Some(output) = self.supervisor.poll_output() {
                self.perform(output)?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, output: SupervisorOutput) -> anyhow::Result<()> {
        match output {
            SupervisorOutput::Spawn { service } => self.spawn(service),
            SupervisorOutput::Kill { service } => self.children.kill(service),
            SupervisorOutput::ToService { service, message } => {
                self.children.send(service, message);
            }
            SupervisorOutput::HeartbeatContent(content) => {
                self.state = content.state;
                self.heartbeats.set_content(content)?;
            }
            SupervisorOutput::HeartbeatTiming {
                interval_ms,
                misses,
            } => {
                self.timing = Timing::clamped(interval_ms, misses);
                self.heartbeats.set_timing(interval_ms, misses)?;
            }
            SupervisorOutput::Control(message) => {
                let changes = self.connections.send(&message);
                self.changed(changes);
            }
            SupervisorOutput::Gasp(gasp) => self.heartbeats.gasp(gasp)?,
            SupervisorOutput::SealGasp(gasp) => self.heartbeats.seal_gasp(gasp)?,
            SupervisorOutput::Persist { write, record } => {
                if let Err(problem) = self.persistence.write(write, record) {
                    self.persist_failed(write, problem);
                }
            }
            SupervisorOutput::Trust(order) => self.trust(order)?,
            SupervisorOutput::Log(record) => self.note(&record),
            SupervisorOutput::Reset { reason } => self.reset(reason)?,
            SupervisorOutput::Activated { epoch } => self.note(&LogRecord {
                facility: "REDUNDANCY".to_owned(),
                severity: 6,
                mnemonic: "ACTIVATED".to_owned(),
                // The monotonic time is for whoever measures a takeover.
                text: format!("Acting under epoch {epoch} since {}.", clock::now()),
                service: None,
            }),
            SupervisorOutput::Query {
                service,
                question,
                ask,
            } => {
                self.answer(service, question, &ask)?;
            }
        }
        Ok(())
    }

    fn spawn(&mut self, service: ServiceName) {
        if let Err(error) = self.children.spawn(service) {
            let error = error.to_string();
            self.inputs
                .push_back(SupervisorInput::SpawnFailed { service, error });
        }
    }

    fn reset(&mut self, reason: String) -> anyhow::Result<()> {
        self.log.flush(FLUSH_PATIENCE);
        self.resetting = true;
        self.tell_guardian(&ToGuardian::Reset { reason })
    }

    fn tell_guardian(&mut self, message: &ToGuardian) -> anyhow::Result<()> {
        self.guardian
            .try_send(Channel::Guardian, message)
            .context("the guardian does not listen")
    }

    /// Notes a line; the important ones go to open consoles too.
    fn note(&mut self, record: &LogRecord) {
        // Becoming active is told as the active tells it, in the original's captures too.
        let standby = matches!(self.state, State::Standby | State::Synchronizing)
            && !record.mnemonic.starts_with("HASWITCHOVER");
        let line = self.log.note(record, standby);
        if record.severity <= CONSOLE_SEVERITY {
            self.children
                .send(ServiceName::Vshd, ToService::Console(line));
        }
    }

    fn persist_failed(&mut self, write: u64, problem: &str) {
        self.note(&LogRecord {
            facility: "SYSMGR".to_owned(),
            severity: 2,
            mnemonic: "NODE_FILE_FAILED".to_owned(),
            text: format!("The node file cannot be written: {problem}."),
            service: None,
        });
        self.inputs
            .push_back(SupervisorInput::PersistFailed { write });
    }

    /// Answers what only this process knows.
    fn answer(&mut self, service: ServiceName, question: u64, ask: &Ask) -> anyhow::Result<()> {
        let answer = match ask {
            Ask::HeartbeatStatus => {
                if self.questions.len() >= QUESTIONS_MAX {
                    Answer::Refused("Too many questions at once".to_owned())
                } else {
                    self.next_question += 1;
                    self.questions
                        .insert(self.next_question, (service, question));
                    return Ok(self.heartbeats.ask_status(self.next_question)?);
                }
            }
            Ask::Processes => Answer::Processes(processes::rows(&self.supervisor)),
            Ask::Logging { lines } => Answer::Logging(self.log.last(usize::from(*lines))),
            Ask::RedundancyStatus
            | Ask::Traffic
            | Ask::ClearTraffic
            | Ask::Switchover
            | Ask::SetRole(_)
            | Ask::SetPairId(_)
            | Ask::SetHeartbeat { .. }
            | Ask::SetBootWait(_)
            | Ask::SetConflictPolicy(_)
            | Ask::Reload
            | Ask::ReloadStandby
            | Ask::ForceActive
            | Ask::Pair(_)
            | Ask::Join { .. }
            | Ask::Unpair
            | Ask::RotateIdentity { .. }
            | Ask::Identity => Answer::Refused("Not for the shell of the core".to_owned()),
        };
        self.children
            .send(service, ToService::Answer { question, answer });
        Ok(())
    }

    fn heard(&mut self, event: HeartbeatEvent) -> anyhow::Result<()> {
        match event {
            HeartbeatEvent::Heartbeat {
                link,
                content,
                peer_hold_time,
                echo,
            } => {
                self.peer_hold_time = peer_hold_time;
                self.connections.heard(link, clock::now());
                self.inputs.push_back(SupervisorInput::Heartbeat {
                    link,
                    content,
                    peer_hold_time,
                    echo,
                });
            }
            HeartbeatEvent::Gasp(gasp) => self.inputs.push_back(SupervisorInput::Gasp(gasp)),
            HeartbeatEvent::GaspHeard(gasp) => {
                self.inputs.push_back(SupervisorInput::GaspHeard(gasp));
            }
            HeartbeatEvent::Sealed(sealed) => {
                let datagram = sealed.map(|sealed| sealed.bytes().to_vec());
                self.tell_guardian(&ToGuardian::Gasp(datagram))?;
            }
            HeartbeatEvent::Status {
                question,
                mut status,
            } => {
                status.watchdog.clone_from(&self.watchdog);
                if let Some((service, question)) = self.questions.remove(&question) {
                    let answer = Answer::HeartbeatStatus(*status);
                    self.children
                        .send(service, ToService::Answer { question, answer });
                }
            }
        }
        Ok(())
    }

    fn happened(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Child {
                service,
                run,
                event,
            } => {
                if self.children.is_current(service, run) {
                    self.child(service, event);
                }
            }
            Event::Control(event) => self.control(event)?,
            Event::Trust(event) => {
                match &event {
                    TrustEvent::Ended { attempt, .. } => self.pairing.ended(*attempt),
                    TrustEvent::IdentityExchanged(Ok(())) => {
                        let identity = Identity::load(&self.identity_file)?;
                        self.pairing.set_own(identity.fingerprint());
                    }
                    _ => {}
                }
                self.inputs.push_back(SupervisorInput::Trust(event));
            }
            Event::Knock(knock) => {
                let event = self.pairing.knocked(knock);
                self.inputs.push_back(SupervisorInput::Trust(event));
            }
            Event::Persisted { write, result } => match result {
                Ok(()) => self.inputs.push_back(SupervisorInput::Persisted { write }),
                Err(problem) => self.persist_failed(write, &problem),
            },
        }
        Ok(())
    }

    fn child(&mut self, service: ServiceName, event: ChildEvent) {
        match event {
            ChildEvent::Started(result) => {
                self.inputs
                    .push_back(match self.children.started(service, result) {
                        Ok(pid) => SupervisorInput::Spawned { service, pid },
                        Err(error) => SupervisorInput::SpawnFailed {
                            service,
                            error: error.to_string(),
                        },
                    });
            }
            ChildEvent::Message(message) => {
                self.inputs
                    .push_back(SupervisorInput::FromService { service, message });
            }
            ChildEvent::Rubbish(problem) => {
                self.note(&LogRecord {
                    facility: "SYSMGR".to_owned(),
                    severity: 2,
                    mnemonic: "SERVICE_PROTOCOL".to_owned(),
                    text: format!("Service \"{service}\" is killed: {problem}."),
                    service: None,
                });
                self.children.kill(service);
            }
            ChildEvent::Ended => {
                if let Some((pid, status)) = self.children.reap(service) {
                    self.inputs.push_back(SupervisorInput::Exited {
                        service,
                        pid,
                        status,
                    });
                }
            }
        }
    }

    fn control(&mut self, event: ControlEvent) -> anyhow::Result<()> {
        match event {
            ControlEvent::Up(connection) => {
                self.heartbeats
                    .install_keys(connection.keys, connection.server)?;
                let (key, renewal) = (connection.key, connection.renewal && !connection.server);
                let changes = self.connections.up(*connection);
                self.changed(changes);
                if renewal {
                    // The other side uses the connection once it has heard something on it.
                    let message = ControlMessage::Trust(TrustMessage::Renewed);
                    let changes = self.connections.send(&message);
                    self.changed(changes);
                }
                let event = TrustEvent::PeerShows { key };
                self.inputs.push_back(SupervisorInput::Trust(event));
            }
            ControlEvent::Message(number, message) => {
                self.count_stranger(number, &message);
                let Some((key, changes)) = self.connections.message(number, &message) else {
                    return Ok(());
                };
                if let Some(key) = key {
                    self.heartbeats.activate_keys(key)?;
                }
                self.changed(changes);
                self.inputs.push_back(SupervisorInput::Control(message));
            }
            ControlEvent::Down(number) => {
                let changes = self.connections.down(number);
                self.changed(changes);
            }
        }
        Ok(())
    }

    /// Counts a greeting of somebody who cannot be our peer; why is for the core to say.
    fn count_stranger(&self, number: control::ConnectionNumber, message: &ControlMessage) {
        let record = self.supervisor.record();
        let reason = match message {
            ControlMessage::Hello(hello) if hello.pair != record.pair => DropReason::ForeignPair,
            ControlMessage::Hello(hello) if hello.role == record.role => DropReason::WrongSlot,
            _ => return,
        };
        let link = self.connections.link(number);
        let port = link.and_then(|link| self.control_ports.get(usize::from(link.0)));
        if let Some(port) = port {
            port.dropped(reason);
        }
    }

    fn changed(&mut self, changes: Vec<Change>) {
        self.inputs
            .extend(changes.into_iter().map(|change| match change {
                Change::Connected => SupervisorInput::PeerConnected,
                Change::Disconnected => SupervisorInput::PeerDisconnected,
            }));
    }

    /// An orderly end: services finish, then this process, and the guardian gasps if this node
    /// was active.
    async fn stop(mut self, mut events: mpsc::Receiver<Event>) -> anyhow::Result<()> {
        self.children.stop_all();
        let deadline = clock::now() + STOP_PATIENCE;
        while !self.children.is_empty() && clock::now() < deadline {
            self.heartbeats.turned(clock::now());
            tokio::select! {
                event = events.recv() => {
                    if let Some(Event::Child { service, run, event: ChildEvent::Ended }) = event
                        && self.children.is_current(service, run)
                    {
                        self.children.reap(service);
                    }
                }
                () = tokio::time::sleep(TURN_MAX) => {}
            }
        }
        self.log.flush(FLUSH_PATIENCE);
        Ok(())
    }
}

/// What a node's epochs are ordered by: the fingerprint of its first identity.
pub(crate) fn record_node(record: &NodeRecord, identity: NodeKey) -> NodeKey {
    record.identities.node.unwrap_or(identity)
}

/// See [`WATCHDOG`].
fn watchdog_told() -> Option<Result<String, String>> {
    let told = std::env::var(WATCHDOG).ok()?;
    let device = told.strip_prefix('+').map(str::to_owned);
    let why = told.strip_prefix('-').map(str::to_owned);
    device.map(Ok).or(why.map(Err))
}

fn heartbeat_link(link: &crate::configuration::Link) -> HeartbeatLink {
    HeartbeatLink {
        name: link.name.clone(),
        local: link.local,
        peer: link.peer,
    }
}
