//! `pss`: the checkpoint store's core over two directories, one durable, one on a tmpfs.

use anyhow::Context;
use model::{ServiceName, Time};
use pss::storage::FileStorage;
use pss::{Input, Output, Recovery, Store};
use runtime::clock;
use tokio::sync::mpsc;
use wire::broker::BrokerFrame;
use wire::log::LogRecord;
use wire::supervision::{Answer, FromService, ToService};

use super::Settings;
use super::broker_client::{BrokerClient, BrokerEvent};
use super::supervision::Supervision;

/// Ended works that wait for the loop: at most one for each storage is under way.
const WORKS_MAX: usize = 4;

struct Shell {
    store: Store,
    supervision: Supervision,
    broker: BrokerClient,
    works: mpsc::Sender<(u64, Result<(), String>)>,
}

/// Runs until stopped.
pub(super) async fn run(settings: &Settings, parts: super::Parts) -> anyhow::Result<()> {
    let durable = settings.state_dir.join("pss");
    let volatile = settings.run_dir.join("pss");
    let open = |directory: &std::path::Path, flushed| {
        FileStorage::open(directory, flushed)
            .with_context(|| format!("checkpoints in {}", directory.display()))
    };
    let (store, recovery) =
        Store::open(Box::new(open(&durable, true)?), Box::new(open(&volatile, false)?))
            .context("reading the checkpoints")?;
    let (works, mut ended) = mpsc::channel(WORKS_MAX);
    let super::Parts { supervision, broker, .. } = parts;
    let mut shell = Shell { store, supervision, broker, works };
    shell.report(&recovery)?;
    loop {
        shell.supervision.turn(clock::now())?;
        let heartbeat = shell.supervision.next_deadline();
        let deadline = shell.store.next_deadline().map_or(heartbeat, |at| Ord::min(at, heartbeat));
        tokio::select! {
            biased;
            message = shell.supervision.receive() => match message? {
                None | Some(ToService::Stop) => return Ok(()),
                Some(message) => shell.supervised(message)?,
            },
            Some((work, result)) = ended.recv() => {
                shell.handle(clock::now(), Input::WorkDone { work, result })?;
            }
            event = shell.broker.next() => shell.brokered(event)?,
            () = clock::sleep_until(Some(deadline)) => {}
        }
        let now = clock::now();
        if shell.store.next_deadline().is_some_and(|deadline| deadline <= now) {
            shell.handle(now, Input::Tick)?;
        }
    }
}

impl Shell {
    fn supervised(&mut self, message: ToService) -> anyhow::Result<()> {
        match message {
            ToService::Posture(posture) => self.handle(clock::now(), Input::Posture(posture)),
            ToService::Answer { question, answer } => {
                let granted = answer == Answer::Done;
                self.handle(clock::now(), Input::AloneAnswered { question, granted })
            }
            ToService::Console(_) | ToService::Stop => Ok(()),
        }
    }

    fn brokered(&mut self, event: BrokerEvent) -> anyhow::Result<()> {
        let now = clock::now();
        match event {
            BrokerEvent::Connected => self.handle(now, Input::BrokerConnected),
            BrokerEvent::Lost => self.handle(now, Input::BrokerLost),
            BrokerEvent::Frames(frames) => {
                for frame in frames {
                    match frame {
                        BrokerFrame::Message(message) => {
                            self.handle(now, Input::Message(message))?;
                        }
                        BrokerFrame::PeerConnected(connected) => {
                            self.handle(now, Input::PeerConnected(connected))?;
                        }
                        BrokerFrame::Bind(_) => {}
                    }
                }
                Ok(())
            }
        }
    }

    fn handle(&mut self, now: Time, input: Input) -> anyhow::Result<()> {
        self.store.handle(now, input);
        while let Some(output) = self.store.poll_output() {
            match output {
                Output::Send(message) => self.broker.send(message),
                Output::Work { work } => self.work(work),
                Output::Sync(report) => self.supervision.send(FromService::Sync(report))?,
                Output::AskAlone { question } => {
                    self.supervision.send(FromService::AskAlone { question })?;
                }
                Output::Applied { sequence } => {
                    self.supervision.send(FromService::Applied { sequence })?;
                }
                Output::Log(record) => self.supervision.send(FromService::Log(record))?,
                Output::Failed { reason } => anyhow::bail!("the checkpoint store failed: {reason}"),
            }
        }
        Ok(())
    }

    /// Runs what waits for a disk on another thread.
    fn work(&mut self, work: u64) {
        let Some(task) = self.store.take_work(work) else { return };
        let works = self.works.clone();
        tokio::task::spawn_blocking(move || {
            let result = task.run().map_err(|error| error.to_string());
            // The loop is gone only when the process ends.
            let _ = works.blocking_send((work, result));
        });
    }

    /// Says what was found at start, if it is not what was left.
    fn report(&mut self, recovery: &Recovery) -> anyhow::Result<()> {
        if let Some(damage) = &recovery.damage {
            let text = format!(
                "Checkpoints are damaged: {} at byte {}, {} bytes are not readable",
                damage.what, damage.position, damage.bytes
            );
            self.log(1, "CHECKPOINT_DAMAGED", text)?;
        }
        if recovery.torn_bytes > 0 {
            let text = format!(
                "The last write was not finished before the node stopped: {} bytes cut off",
                recovery.torn_bytes
            );
            self.log(5, "CHECKPOINT_TORN", text)?;
        }
        Ok(())
    }

    fn log(&mut self, severity: u8, mnemonic: &str, text: String) -> anyhow::Result<()> {
        self.supervision.send(FromService::Log(LogRecord {
            facility: "PSS".to_owned(),
            severity,
            mnemonic: mnemonic.to_owned(),
            text,
            service: Some(ServiceName::Pss),
        }))
    }
}
