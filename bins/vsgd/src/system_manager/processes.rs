//! The rows of `show processes`, from `/proc`.

use model::ServiceName;
use wire::supervision::Process;

use super::children::Children;

/// Own row first, then the services in the order of their names; those that do not run at the
/// end, as the original shows them.
pub(super) fn rows(children: &Children) -> Vec<Process> {
    let mut services = ServiceName::ALL;
    services.sort_by_key(|service| (children.host_pid(*service).is_none(), service.as_str()));
    let mut rows = vec![running("sysmgr", own_host_pid(), 1)];
    rows.extend(services.iter().map(|service| {
        let start_count = children.start_count(*service);
        match children.host_pid(*service) {
            Some(pid) => running(service.as_str(), Some(pid), start_count),
            None => Process {
                pid: None,
                // Everything in the list should run.
                state: if start_count > 0 { "ER" } else { "NR" }.to_owned(),
                pc: None,
                start_count,
                tty: None,
                name: service.as_str().to_owned(),
            },
        }
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
