//! `pss`: the checkpoint store over two directories, one durable, one on a tmpfs. What waits for a
//! disk runs on other threads.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use node::service::{Service, ServiceInput, ServiceOutput};
use node::services::pss::Pss;
use pss::storage::FileStorage;
use runtime::clock;
use tokio::sync::mpsc;

use super::Settings;
use super::harness::{brokered, earliest, supervised};

/// Ended works that wait for the loop: at most one for each storage is under way.
const WORKS_MAX: usize = 4;

/// How often the store is told the wall clock, when it wakes anyway: an archive says when it was
/// taken, and the clock may be set while we run.
const WALL_CLOCK_PERIOD: Duration = Duration::from_secs(60);

/// Runs until stopped; an error if the storage cannot be trusted.
pub(super) async fn run(settings: &Settings, parts: super::Parts) -> anyhow::Result<()> {
    let open = |directory: std::path::PathBuf, flushed| {
        FileStorage::open(&directory, flushed)
            .with_context(|| format!("checkpoints in {}", directory.display()))
    };
    let durable = open(settings.state_dir.join("pss"), true)?;
    let volatile = open(settings.run_dir.join("pss"), false)?;
    let (mut service, _recovery) =
        Pss::open(Box::new(durable), Box::new(volatile)).context("reading the checkpoints")?;
    let (works, mut ended) = mpsc::channel(WORKS_MAX);
    let super::Parts {
        mut supervision,
        mut broker,
        ..
    } = parts;
    let mut inputs = vec![ServiceInput::Start];
    let mut wall_clock_at = clock::now();
    loop {
        let now = clock::now();
        if wall_clock_at <= now {
            wall_clock_at = now + WALL_CLOCK_PERIOD;
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            let unix_s = since.unwrap_or_default().as_secs();
            service.handle(now, ServiceInput::WallClock { unix_s });
        }
        let stopping = inputs.contains(&ServiceInput::Stop);
        for input in inputs.drain(..) {
            service.handle(now, input);
        }
        while let Some(output) = service.poll_output() {
            match output {
                ServiceOutput::Send(message) => broker.send(message),
                ServiceOutput::Supervision(message) => supervision.send(message)?,
                ServiceOutput::Vem { .. }
                | ServiceOutput::CloseVem(_)
                | ServiceOutput::Shell { .. }
                | ServiceOutput::CloseShell(_) => {}
            }
        }
        while let Some((number, work)) = service.poll_work() {
            let works = works.clone();
            tokio::task::spawn_blocking(move || {
                let result = work.run().map_err(|error| error.to_string());
                // The loop is gone only when the process ends.
                let _ = works.blocking_send((number, result));
            });
        }
        if let Some(reason) = service.failed() {
            anyhow::bail!("the checkpoint store failed: {reason}");
        }
        supervision.turn(now)?;
        if stopping {
            return Ok(());
        }
        let deadline = earliest(service.next_deadline(), supervision.next_deadline());
        tokio::select! {
            biased;
            message = supervision.receive() => match message? {
                Some(message) => inputs.extend(supervised(message)),
                None => return Ok(()),
            },
            Some((number, result)) = ended.recv() => {
                service.work_done(clock::now(), number, result);
            }
            event = broker.next() => brokered(event, &mut inputs),
            () = clock::sleep_until(Some(deadline)) => {}
        }
        if service
            .next_deadline()
            .is_some_and(|deadline| deadline <= clock::now())
        {
            inputs.push(ServiceInput::Tick);
        }
    }
}
