//! The rows of `show processes`, from `/proc`.

use node::supervisor::{Row, Supervisor};
use wire::supervision::Process;

/// Our own row first, then the services that run, then those that do not, as the original shows
/// them.
pub(super) fn rows(supervisor: &Supervisor) -> Vec<Process> {
    let mut services: Vec<Row> = supervisor.rows().collect();
    services.sort_by_key(|row| (row.state.pid().is_none(), row.service.as_str()));
    let mut rows = vec![running("sysmgr", own_host_pid(), 1)];
    rows.extend(services.iter().map(|row| match row.state.pid() {
        Some(pid) => running(row.service.as_str(), Some(pid), row.start_count),
        None => Process {
            pid: None,
            // "Should be running but is not", or not started yet (the original's legend).
            state: if row.start_count > 0 { "ER" } else { "NR" }.to_owned(),
            pc: None,
            start_count: row.start_count,
            tty: None,
            name: row.service.as_str().to_owned(),
        },
    }));
    rows
}

fn running(name: &str, pid: Option<u32>, start_count: u32) -> Process {
    Process {
        pid,
        state: pid.and_then(state).unwrap_or_else(|| "ER".to_owned()),
        pc: pid.and_then(program_counter),
        start_count,
        tty: None,
        name: name.to_owned(),
    }
}

/// `/proc` counts as the namespace it was mounted in does, which is the host's.
fn own_host_pid() -> Option<u32> {
    std::fs::read_link("/proc/self")
        .ok()?
        .to_str()?
        .parse()
        .ok()
}

/// The letter behind the command's name in parentheses, which may itself contain any byte
/// (proc_pid_stat(5)).
fn state(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let letter = stat.rsplit_once(") ")?.1.chars().next()?;
    Some(letter.to_string())
}

/// Last field of `/proc/PID/syscall`; a running process has none.
fn program_counter(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let counter = text.split_whitespace().last()?.strip_prefix("0x")?;
    Some(counter.to_owned())
}
