//! `vemd show`: what the kernel and the worker know, as text or JSON.

use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use vem::{Counters, FailMode, PortIndex};

use crate::datapath::abi::{self, COUNTER_NAMES, FlowEntry, FlowKey};
use crate::datapath::{View, kernel_ns};
use crate::guardian::ifindex;
use crate::settings::Settings;
use crate::worker::Status;

/// A worker that does not answer within this is stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Topic {
    /// Flows in the kernel.
    Flows,
    /// Protected ports.
    Ports,
    /// Counters of ports and of the worker.
    Stats,
    /// Worker, gateways, epoch.
    Status,
}

#[derive(Serialize)]
struct FlowLine {
    port: String,
    vm: String,
    remote: String,
    protocol: &'static str,
    opened: String,
    state: &'static str,
    verdict: String,
    tcp: &'static str,
    generation: u64,
    epoch: u64,
    packets_from_vm: u64,
    packets_to_vm: u64,
    bytes_from_vm: u64,
    bytes_to_vm: u64,
    idle_ms: u64,
    queued: u32,
}

#[derive(Serialize)]
struct PortLine {
    name: String,
    interface: String,
    mac: String,
    profile: String,
    fail_mode: FailMode,
    guarded: bool,
}

#[derive(Serialize)]
struct PortStats {
    port: String,
    #[serde(flatten)]
    counters: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct Stats {
    ports: Vec<PortStats>,
    /// Nothing if the worker does not answer.
    #[serde(flatten)]
    worker: Option<Counters>,
}

/// Prints `topic`.
pub(crate) fn run(settings: &Settings, topic: Topic, json: bool) -> Result<()> {
    match topic {
        Topic::Flows => {
            let flows = flows(settings, &View::open(&settings.bpffs())?);
            print(json, &flows, |out, flows| {
                flows.iter().try_for_each(|flow| print_flow(out, flow))
            })
        }
        Topic::Ports => {
            let ports = ports(settings);
            print(json, &ports, |out, ports| {
                ports.iter().try_for_each(|port| print_port(out, port))
            })
        }
        Topic::Stats => {
            let view = View::open(&settings.bpffs())?;
            let stats = Stats {
                ports: stats(settings, &view)?,
                worker: ask(settings).ok().map(|status| status.counters),
            };
            print(json, &stats, print_stats)
        }
        Topic::Status => print(json, &ask(settings)?, print_status),
    }
}

fn print<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&mut dyn Write, &T) -> io::Result<()>,
) -> Result<()> {
    print_to(io::stdout().lock(), json, value, text)
}

/// Prints `value`. A reader that has left (`| head`) has seen what it wanted: no error.
fn print_to<T: Serialize>(
    out: impl Write,
    json: bool,
    value: &T,
    text: impl FnOnce(&mut dyn Write, &T) -> io::Result<()>,
) -> Result<()> {
    let mut out = BufWriter::new(out);
    let written = if json {
        let text = serde_json::to_string_pretty(value)?;
        writeln!(out, "{text}")
    } else {
        text(&mut out, value)
    };
    let written = written.and_then(|()| out.flush());
    // What is still buffered must not be tried again when `out` is dropped.
    drop(out.into_parts());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print the answer"),
    }
}

fn ask(settings: &Settings) -> Result<Status> {
    let path = settings.socket();
    let mut stream = UnixStream::connect(&path)
        .with_context(|| format!("{}: is vemd running?", path.display()))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut json = Vec::new();
    stream
        .read_to_end(&mut json)
        .context("the worker does not answer")?;
    serde_json::from_slice(&json).context("the worker does not answer")
}

fn flows(settings: &Settings, view: &View) -> Vec<FlowLine> {
    let names: Vec<_> = settings
        .ports
        .iter()
        .map(|port| (ifindex(&port.interface).ok(), port.name.as_str()))
        .collect();
    let now = kernel_ns();
    let mut flows = view.flows();
    flows.sort_by_key(|(key, _)| *key);
    let line = |(key, entry): &(FlowKey, FlowEntry)| {
        let named = names.iter().find(|(index, _)| *index == Some(key.port));
        flow_line(named.map_or("?", |(_, name)| name), now, key, entry)
    };
    flows.iter().map(line).collect()
}

fn flow_line(port: &str, now: u64, key: &FlowKey, entry: &FlowEntry) -> FlowLine {
    let id = key.id(PortIndex(0));
    let end = |ip: Ipv4Addr, number: u16| format!("{ip}:{number}");
    FlowLine {
        port: port.to_owned(),
        vm: end(id.vm_ip, id.vm_port),
        remote: end(id.remote_ip, id.remote_port),
        protocol: match key.protocol {
            1 => "icmp",
            6 => "tcp",
            _ => "udp",
        },
        opened: abi::direction_of(entry.first_direction).to_string(),
        state: match entry.state {
            abi::FLOW_PENDING => "pending",
            abi::FLOW_DRAINING => "draining",
            _ => "settled",
        },
        verdict: abi::verdict_of(entry.verdict).map_or_else(
            || "-".to_owned(),
            |verdict| format!("{verdict:?}").to_lowercase(),
        ),
        tcp: match (key.protocol, entry.tcp) {
            (6, 1) => "syn",
            (6, 2) => "syn-ack",
            (6, 3) => "established",
            (6, 4) => "half-closed",
            (6, 5) => "closed",
            _ => "-",
        },
        generation: entry.generation,
        epoch: entry.epoch,
        packets_from_vm: entry.packets[0],
        packets_to_vm: entry.packets[1],
        bytes_from_vm: entry.bytes[0],
        bytes_to_vm: entry.bytes[1],
        idle_ms: now.saturating_sub(entry.last_seen_ns) / 1_000_000,
        queued: entry.queued,
    }
}

fn ports(settings: &Settings) -> Vec<PortLine> {
    let view = View::open(&settings.bpffs()).ok();
    let line = |port: &crate::settings::Port| {
        let index = ifindex(&port.interface).ok();
        let guarded = index
            .zip(view.as_ref())
            .and_then(|(index, view)| view.port(index));
        PortLine {
            name: port.name.clone(),
            interface: port.interface.clone(),
            mac: port.mac.0.map(|byte| format!("{byte:02x}")).join(":"),
            profile: port.profile.clone(),
            fail_mode: port.fail_mode,
            guarded: guarded.is_some(),
        }
    };
    settings.ports.iter().map(line).collect()
}

fn stats(settings: &Settings, view: &View) -> Result<Vec<PortStats>> {
    let mut lines = Vec::new();
    for port in &settings.ports {
        let Some(entry) = view.port(ifindex(&port.interface)?) else {
            continue;
        };
        let counters = COUNTER_NAMES.iter().zip(view.counters(&entry)?);
        let counters = counters
            .map(|(name, count)| ((*name).to_owned(), count.into()))
            .collect();
        lines.push(PortStats {
            port: port.name.clone(),
            counters,
        });
    }
    Ok(lines)
}

fn print_flow(out: &mut dyn Write, flow: &FlowLine) -> io::Result<()> {
    writeln!(
        out,
        "{:<10} {:<4} {:>21} {} {:<21} {:<8} {:<6} {:<11} gen {} epoch {} packets {}/{} bytes {}/{} idle {} ms",
        flow.port,
        flow.protocol,
        flow.vm,
        if flow.opened == "egress" { "->" } else { "<-" },
        flow.remote,
        flow.state,
        flow.verdict,
        flow.tcp,
        flow.generation,
        flow.epoch,
        flow.packets_from_vm,
        flow.packets_to_vm,
        flow.bytes_from_vm,
        flow.bytes_to_vm,
        flow.idle_ms
    )
}

fn print_port(out: &mut dyn Write, port: &PortLine) -> io::Result<()> {
    let mode = format!("{:?}", port.fail_mode).to_lowercase();
    let guarded = if port.guarded {
        "guarded"
    } else {
        "not guarded"
    };
    writeln!(
        out,
        "{:<10} {:<15} {} {:<20} fail-{mode:<6} {guarded}",
        port.name, port.interface, port.mac, port.profile
    )
}

fn print_stats(out: &mut dyn Write, stats: &Stats) -> io::Result<()> {
    for port in &stats.ports {
        writeln!(out, "port {}", port.port)?;
        for (name, count) in port.counters.iter().filter(|(_, count)| **count != 0) {
            writeln!(out, "  {name:<22} {count:>12}")?;
        }
    }
    match &stats.worker {
        Some(counters) => print_counters(out, counters),
        None => writeln!(out, "the worker does not answer"),
    }
}

fn print_status(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    writeln!(out, "host            {}", status.host)?;
    writeln!(
        out,
        "worker          pid {}, up {} ms",
        status.worker_pid, status.uptime_ms
    )?;
    writeln!(
        out,
        "real-time       {}",
        if status.real_time { "yes" } else { "refused" }
    )?;
    writeln!(out, "highest epoch   {}", status.highest_epoch)?;
    writeln!(
        out,
        "obeyed epoch    {}",
        status.obeyed_epoch.as_deref().unwrap_or("none")
    )?;
    for gateway in &status.gateways {
        let state = match (gateway.view.connected, gateway.view.obeyed) {
            (_, true) => "obeyed",
            (true, false) => "connected",
            (false, false) => "not connected",
        };
        writeln!(out, "gateway         {} {state}", gateway.address)?;
    }
    writeln!(
        out,
        "waiting         {} flows, {} packets",
        status.waiting_flows, status.held_packets
    )?;
    if let Some(after) = status.released_after_us {
        writeln!(
            out,
            "released after  p50 {} us, p99 {} us, max {} us (last {})",
            after.p50, after.p99, after.max, after.samples
        )?;
    }
    writeln!(out, "packets unwritable to a tap: {}", status.unwritable)?;
    print_counters(out, &status.counters)
}

fn print_counters(out: &mut dyn Write, counters: &Counters) -> io::Result<()> {
    if let Ok(serde_json::Value::Object(counters)) = serde_json::to_value(counters) {
        for (name, count) in counters {
            writeln!(out, "  {name:<22} {count:>12}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing: each write fails in this way.
    struct Refusing(ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_error_and_a_full_disk_is() {
        // More than the buffer holds, and less.
        for lines in [1, 10_000] {
            let print_lines = |out: &mut dyn Write, lines: &usize| {
                (0..*lines).try_for_each(|line| writeln!(out, "line {line}"))
            };
            for json in [false, true] {
                let left = Refusing(ErrorKind::BrokenPipe);
                print_to(left, json, &lines, print_lines).expect("no error");
                let full = Refusing(ErrorKind::StorageFull);
                print_to(full, json, &lines, print_lines).expect_err("the text is lost");
            }
        }
    }
}
