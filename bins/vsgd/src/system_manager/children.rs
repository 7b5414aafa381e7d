//! The service processes: one supervision socket and one pidfd each.
//!
//! Invariants:
//! - a service has at most one process; what an earlier process still had to say is dropped;
//! - messages to a service leave in order; those its socket does not take wait here, at most
//!   [`BACKLOG_MAX`], and a service that lets them pile up is killed: it does not work;
//! - a service that sends what is not a message is killed;
//! - starting a process waits for the new process to be scheduled, which on a busy machine takes
//!   longer than a fast hold time: a thread of its own does it, never the main loop.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use model::ServiceName;
use runtime::process::{Process, Spawn};
use runtime::seqpacket::{PacketBuffer, Seqpacket};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use wire::Channel;
use wire::supervision::{FromService, ToService};

use super::Event;

/// Messages that wait for a service that does not read: far more than a work loop lets pass in
/// one turn, console lines included.
const BACKLOG_MAX: usize = 512;

/// Which process of a service: counts starts of all services.
pub(super) type RunNumber = u64;

/// What the tasks of a child tell the main loop.
#[derive(Debug)]
pub(super) enum ChildEvent {
    /// The process runs, under this host PID, or could not be started.
    Started(io::Result<(Process, u32)>),
    /// A message came.
    Message(FromService),
    /// It sent rubbish.
    Rubbish(String),
    /// The process has ended.
    Ended,
}

struct Child {
    run: RunNumber,
    process: Process,
    host_pid: u32,
    socket: Arc<Seqpacket>,
    backlog: VecDeque<ToService>,
    tasks: [AbortHandle; 2],
}

impl Drop for Child {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// A process that is being started, and our end of its socket.
struct Starting {
    run: RunNumber,
    socket: Seqpacket,
}

/// What the starting thread is asked for.
struct StartRequest {
    service: ServiceName,
    run: RunNumber,
    socket: OwnedFd,
}

/// All of them.
pub(super) struct Children {
    events: mpsc::Sender<Event>,
    starter: SyncSender<StartRequest>,
    starting: BTreeMap<ServiceName, Starting>,
    running: BTreeMap<ServiceName, Child>,
    runs: RunNumber,
}

impl Children {
    /// Starts the thread that starts processes.
    pub(super) fn new(
        configuration_file: PathBuf,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        // Each service is asked for once before it is heard of, so this never is full.
        let (starter, requests) = sync_channel::<StartRequest>(ServiceName::ALL.len());
        let results = events.clone();
        std::thread::Builder::new()
            .name("starter".to_owned())
            .spawn(move || {
                while let Ok(StartRequest {
                    service,
                    run,
                    socket,
                }) = requests.recv()
                {
                    let started = start(&configuration_file, service, &socket);
                    // The child must hold the only other end, or its death would not close it.
                    drop(socket);
                    let event = ChildEvent::Started(started);
                    if results
                        .blocking_send(Event::Child {
                            service,
                            run,
                            event,
                        })
                        .is_err()
                    {
                        return;
                    }
                }
            })?;
        let (starting, running) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            events,
            starter,
            starting,
            running,
            runs: 0,
        })
    }

    /// Has the service started; [`ChildEvent::Started`] follows.
    pub(super) fn spawn(&mut self, service: ServiceName) -> io::Result<()> {
        let (ours, theirs) = Seqpacket::pair()?;
        self.runs += 1;
        let request = StartRequest {
            service,
            run: self.runs,
            socket: theirs,
        };
        self.starter
            .try_send(request)
            .map_err(|_| io::Error::other("the starter is stuck"))?;
        self.starting.insert(
            service,
            Starting {
                run: self.runs,
                socket: ours,
            },
        );
        Ok(())
    }

    /// Takes a started process; returns its host PID.
    pub(super) fn started(
        &mut self,
        service: ServiceName,
        result: io::Result<(Process, u32)>,
    ) -> io::Result<u32> {
        let Some(Starting { run, socket }) = self.starting.remove(&service) else {
            return Err(io::Error::other("not asked for"));
        };
        let (process, host_pid) = result?;
        let socket = Arc::new(socket);
        // A process whose end would not be noticed must not be there.
        let notice = process.exit_notice().inspect_err(|_| process.kill())?;
        let events = self.events.clone();
        let reader = tokio::spawn(read(service, run, Arc::clone(&socket), self.events.clone()));
        let waiter = tokio::spawn(async move {
            notice.ended().await;
            let _ = events
                .send(Event::Child {
                    service,
                    run,
                    event: ChildEvent::Ended,
                })
                .await;
        });
        let tasks = [reader.abort_handle(), waiter.abort_handle()];
        let child = Child {
            run,
            process,
            host_pid,
            socket,
            backlog: VecDeque::new(),
            tasks,
        };
        self.running.insert(service, child);
        Ok(host_pid)
    }

    /// SIGKILL; its end is told as an event.
    pub(super) fn kill(&self, service: ServiceName) {
        if let Some(child) = self.running.get(&service) {
            child.process.kill();
        }
    }

    /// Whether `run` is the service's process now.
    pub(super) fn is_current(&self, service: ServiceName, run: RunNumber) -> bool {
        let running = self.running.get(&service).map(|child| child.run);
        let starting = self.starting.get(&service).map(|starting| starting.run);
        running == Some(run) || starting == Some(run)
    }

    /// Takes the ended process off the list: its host PID and how it ended.
    pub(super) fn reap(&mut self, service: ServiceName) -> Option<(u32, sysmgr::ExitStatus)> {
        let child = self.running.remove(&service)?;
        let status = child.process.try_wait().ok().flatten();
        Some((
            child.host_pid,
            status.map_or(sysmgr::ExitStatus::Code(-1), exit_status),
        ))
    }

    /// Sends, or keeps for later; dropped if the service does not run.
    pub(super) fn send(&mut self, service: ServiceName, message: ToService) {
        let Some(child) = self.running.get_mut(&service) else {
            return;
        };
        child.backlog.push_back(message);
        child.flush();
        if child.backlog.len() > BACKLOG_MAX {
            child.process.kill();
            child.backlog.clear();
        }
    }

    /// Tries again what waits. Once a turn.
    pub(super) fn flush(&mut self) {
        for child in self
            .running
            .values_mut()
            .filter(|child| !child.backlog.is_empty())
        {
            child.flush();
        }
    }

    /// Asks every service to finish.
    pub(super) fn stop_all(&mut self) {
        for service in ServiceName::ALL {
            self.send(service, ToService::Stop);
        }
    }

    /// Whether none runs.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

fn start(
    configuration_file: &Path,
    service: ServiceName,
    socket: &OwnedFd,
) -> io::Result<(Process, u32)> {
    let spawn = Spawn {
        name: "vsgd",
        arguments: vec![
            OsStr::new("service"),
            OsStr::new(service.as_str()),
            OsStr::new("--config"),
            configuration_file.as_os_str(),
        ],
        environment: Vec::new(),
        socket: socket.as_fd(),
        new_pid_namespace: false,
    };
    let process = spawn.start()?;
    let host_pid = process.host_pid().unwrap_or_else(|| process.pid());
    Ok((process, host_pid))
}

impl Child {
    fn flush(&mut self) {
        while let Some(message) = self.backlog.front() {
            match self.socket.try_send(Channel::Supervision, message) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A closed socket is a process at its end, which the pidfd tells.
                Ok(()) | Err(_) => drop(self.backlog.pop_front()),
            }
        }
    }
}

async fn read(
    service: ServiceName,
    run: RunNumber,
    socket: Arc<Seqpacket>,
    events: mpsc::Sender<Event>,
) {
    let mut buffer = PacketBuffer::default();
    loop {
        let event = match socket.receive(Channel::Supervision, &mut buffer).await {
            Ok(Some(message)) => ChildEvent::Message(message),
            Ok(None) => return,
            Err(error) => ChildEvent::Rubbish(error.to_string()),
        };
        let over = matches!(event, ChildEvent::Rubbish(_));
        if events
            .send(Event::Child {
                service,
                run,
                event,
            })
            .await
            .is_err()
            || over
        {
            return;
        }
    }
}

fn exit_status(status: ExitStatus) -> sysmgr::ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => sysmgr::ExitStatus::Code(code),
        (None, signal) => sysmgr::ExitStatus::Signal(signal.unwrap_or(0)),
    }
}
