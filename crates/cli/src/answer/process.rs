//! `show processes`: the original's columns; services that do not run stand at the end.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The `State` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessState {
    /// Uninterruptible sleep.
    D,
    /// Should be running but is not.
    ER,
    /// Not running.
    NR,
    /// Runnable.
    R,
    /// Sleeping.
    S,
    /// Traced or stopped.
    T,
    /// Defunct.
    Z,
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::D => "D",
            Self::ER => "ER",
            Self::NR => "NR",
            Self::R => "R",
            Self::S => "S",
            Self::T => "T",
            Self::Z => "Z",
        })
    }
}

/// One process or one service without a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// The host's number for it; `None` if it does not run.
    pub pid: Option<u32>,
    /// Its state.
    pub state: ProcessState,
    /// Where it executes, if the kernel tells.
    pub program_counter: Option<u64>,
    /// Times started; 0 if never.
    pub start_count: u32,
    /// Its terminal; `None` for a daemon.
    pub tty: Option<String>,
    /// Its name.
    pub process: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// In any order: the layout sorts them.
    pub processes: Vec<ProcessRow>,
}

impl Processes {
    /// The original's layout: by PID, then what has none, by name.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = "PID    State  PC        Start_cnt    TTY   Process\n".to_owned();
        text += "-----  -----  --------  -----------  ----  -------------\n";
        let mut rows: Vec<&ProcessRow> = self.processes.iter().collect();
        rows.sort_by_key(|row| (row.pid.is_none(), row.pid, row.process.clone()));
        for row in rows {
            let pid = row.pid.map_or("-".to_owned(), |pid| pid.to_string());
            let pc = match (row.pid, row.program_counter) {
                (None, _) => "-".to_owned(),
                (Some(_), pc) => format!("{:x}", pc.unwrap_or(0)),
            };
            text += &format!(
                "{pid:>5}  {:>5}  {pc:>8}  {:>11}  {:>4}  {}\n",
                row.state,
                row.start_count,
                row.tty.as_deref().unwrap_or("-"),
                row.process,
            );
        }
        text
    }
}
