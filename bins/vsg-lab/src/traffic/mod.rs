//! Measured traffic: started, stopped and reported on.
//!
//! `traffic start` runs one server process in each serving VM, one measuring
//! process and one for the witnesses in the client VM. They record events in
//! shared memory; `traffic report` reads it, so any window of the run can be
//! asked for, as often as wanted, while it runs and after.

pub mod client;
pub mod connections;
pub mod control;
pub mod records;
pub mod report;
pub mod server;
pub mod stream;
pub mod udp;
pub mod witness;

use crate::clock::{NS_PER_S, now_ns};
use crate::manifest::{LabLock, Manifest, TrafficRun};
use crate::paths::LabPaths;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use records::RecordLog;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

/// Longest run: its records need 130 MB of memory.
pub const SECONDS_MAX: u64 = 1800;
/// Highest connection rate: beyond, a source port would come round within its
/// TIME_WAIT.
pub const RATE_MAX: u64 = 800;
/// Messages and datagrams a second.
const TICK_RATE: u64 = 1000;
/// Attempts a second at the forbidden port.
pub const FORBIDDEN_RATE: u64 = 50;

/// The verbs of `vsg-lab traffic`.
#[derive(Debug, Subcommand)]
pub enum TrafficVerb {
    /// Start servers, measuring clients and witnesses.
    Start(StartArguments),
    /// Name this moment, for `report --from NAME`.
    Mark {
        /// The name.
        name: String,
    },
    /// Figures of a window of the run.
    Report(ReportArguments),
    /// Stop all traffic; what was recorded stays until the next start.
    Stop,
}

/// What `traffic start` takes.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// End by itself after so many seconds.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub seconds: u64,
    /// New connections a second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    pub rate: u64,
    /// Without nginx, wrk and iperf3.
    #[arg(long)]
    pub no_witness: bool,
}

/// What `traffic report` takes.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Start: a mark's name or monotonic ns [default: the start of the run].
    #[arg(long)]
    pub from: Option<String>,
    /// End: a mark's name or monotonic ns [default: now].
    #[arg(long)]
    pub to: Option<String>,
}

/// A traffic process.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Serve in one VM.
    Serve(ServeArguments),
    /// Measure in the client VM.
    Measure(MeasureArguments),
    /// Run wrk and iperf3 in the client VM.
    Witness(WitnessArguments),
}

/// What a serving process takes.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Where records go.
    #[arg(long)]
    folder: PathBuf,
    /// When to end, monotonic ns.
    #[arg(long)]
    until_ns: u64,
    /// Port of the stream.
    #[arg(long)]
    stream: Option<u16>,
    /// Port of the connections.
    #[arg(long)]
    connections: Option<u16>,
    /// Port of the UDP flow.
    #[arg(long)]
    udp: Option<u16>,
    /// The forbidden port.
    #[arg(long)]
    forbidden: Option<u16>,
}

/// What the measuring process takes.
#[derive(Debug, Args)]
pub struct MeasureArguments {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    until_ns: u64,
    #[arg(long)]
    rate: u64,
    #[arg(long)]
    stream: SocketAddrV4,
    #[arg(long)]
    connections: SocketAddrV4,
    #[arg(long)]
    udp: SocketAddrV4,
    #[arg(long)]
    forbidden: SocketAddrV4,
}

/// What the witnessing process takes.
#[derive(Debug, Args)]
pub struct WitnessArguments {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    until_ns: u64,
    #[arg(long)]
    http: SocketAddrV4,
    #[arg(long)]
    bulk: SocketAddrV4,
}

/// The logs of a run.
pub(crate) const STREAM: &str = "stream.rec";
pub(crate) const STREAM_SENDER: &str = "stream-sender.rec";
pub(crate) const UDP_SENT: &str = "udp-sent.rec";
pub(crate) const UDP_RECEIVED: &str = "udp-received.rec";
pub(crate) const CONNECTIONS: &str = "connections.rec";
pub(crate) const FORBIDDEN: &str = "forbidden.rec";
pub(crate) const FORBIDDEN_ACCEPTED: &str = "forbidden-accepted.rec";

/// True while the run goes on.
#[must_use]
pub fn is_running(run: &TrafficRun) -> bool {
    run.stopped_ns.is_none() && now_ns() < run.until_ns
}

/// A log with room for `rate` records a second until `until_ns`.
fn log(folder: &Path, name: &str, rate: u64, until_ns: u64) -> anyhow::Result<RecordLog> {
    let seconds = until_ns
        .saturating_sub(now_ns())
        .div_ceil(NS_PER_S)
        .min(SECONDS_MAX * 2);
    // A tenth more, and some: duplicates and the closing record have to fit.
    let capacity = seconds * rate + seconds * rate / 10 + 1000;
    RecordLog::create(&folder.join(name), capacity as usize)
}

/// Takes all the descriptors that the system grants: attempts pile up while a
/// fault lasts, and the usual 1,024 would end them, not the fault.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        eprintln!("descriptors stay limited: {error}");
    }
}

/// Runs a traffic process to its end.
///
/// # Errors
/// When it cannot do its work.
pub fn run_role(role: Role) -> anyhow::Result<()> {
    raise_descriptor_limit();
    match role {
        Role::Serve(a) => {
            client::ask_real_time("server");
            let logged = |port: Option<u16>, name, rate| {
                port.map(|port| {
                    Ok::<_, anyhow::Error>((port, log(&a.folder, name, rate, a.until_ns)?))
                })
                .transpose()
            };
            let services = server::Services {
                stream: logged(a.stream, STREAM, TICK_RATE)?,
                connections: a.connections,
                udp: logged(a.udp, UDP_RECEIVED, TICK_RATE)?,
                forbidden: logged(a.forbidden, FORBIDDEN_ACCEPTED, FORBIDDEN_RATE)?,
            };
            server::serve(services, a.until_ns)
        }
        Role::Measure(a) => {
            let room = |name, rate| log(&a.folder, name, rate, a.until_ns);
            let stream = stream::StreamSender::connect(
                SocketAddr::V4(a.stream),
                RecordLog::create(&a.folder.join(STREAM_SENDER), 8)?,
            )?;
            let udp = udp::UdpSender::new(SocketAddr::V4(a.udp), room(UDP_SENT, TICK_RATE)?)?;
            let plan = connections::Plan {
                server: a.connections,
                rate: a.rate,
                forbidden: a.forbidden,
                forbidden_rate: FORBIDDEN_RATE,
                until_ns: a.until_ns,
            };
            let measured = room(CONNECTIONS, a.rate)?;
            let forbidden = room(FORBIDDEN, FORBIDDEN_RATE)?;
            client::run(stream, udp, plan, measured, forbidden)
        }
        Role::Witness(a) => witness::run(&witness::WitnessPlan {
            http: a.http,
            bulk: a.bulk,
            until_ns: a.until_ns,
            folder: a.folder,
        }),
    }
}

/// Carries out a traffic verb.
///
/// # Errors
/// One line that says what is wrong.
pub fn run(paths: &LabPaths, verb: TrafficVerb, json: bool) -> anyhow::Result<()> {
    crate::site::require_root()?;
    match verb {
        TrafficVerb::Start(arguments) => {
            let _lock = LabLock::of_existing(paths)?;
            let mut manifest = Manifest::load(paths)?;
            let run = control::start(paths, &mut manifest, &arguments)?;
            let text = format!("traffic runs for at most {} s", arguments.seconds);
            crate::cli::say(json, &run, &text)
        }
        TrafficVerb::Mark { name } => {
            // The moment first, then the wait for the lock.
            let at_ns = now_ns();
            let _lock = LabLock::of_existing(paths)?;
            let mut manifest = Manifest::load(paths)?;
            if !manifest.traffic.as_ref().is_some_and(is_running) {
                bail!(
                    "no traffic is running in the lab '{}': `vsg-lab traffic start` starts it",
                    paths.name()
                );
            }
            manifest.marks.insert(name.clone(), at_ns);
            manifest.store(paths)?;
            let value = serde_json::json!({ "mark": name, "at_ns": at_ns });
            crate::cli::say(json, &value, &format!("{name} = {at_ns}"))
        }
        TrafficVerb::Report(arguments) => {
            let manifest = Manifest::load(paths)?;
            let (figures, cpu) = control::report(paths, &manifest, &arguments)?;
            let text = report::render(&figures, &cpu);
            let mut value = serde_json::to_value(&figures).context("figures to JSON")?;
            value["cpu_percent"] = serde_json::to_value(&cpu).context("figures to JSON")?;
            crate::cli::say(json, &value, &text)
        }
        TrafficVerb::Stop => {
            let _lock = LabLock::of_existing(paths)?;
            let mut manifest = Manifest::load(paths)?;
            if manifest.traffic.is_none() {
                bail!("no traffic was started in the lab '{}'", paths.name());
            }
            let ended = control::stop(paths, &mut manifest)?;
            let value = serde_json::json!({ "stopped_ns": ended });
            crate::cli::say(
                json,
                &value,
                "traffic stopped; its records can still be reported on",
            )
        }
    }
}
