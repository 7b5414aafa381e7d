//! One lab, as `vsg-lab` shows it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::guard::Guard;
use crate::traffic::Window;
use crate::wait;

/// What a node says of itself when it leads and a standby could take over.
pub const REDUNDANT: &str = "Active with HA standby";
/// What a node says of itself when it leads and nobody could take over.
pub const ALONE: &str = "Active with no standby";
/// What the node beside a redundant active says.
pub const FOLLOWS: &str = "HA standby";

/// Internal states in which a node that is active by its redundancy state decides nothing.
const STOPPED: [&str; 2] = ["Other", "HA switchover in progress"];

/// Longest wait for a pair to be redundant again after a fault: a killed node's boot, bulk
/// synchronisation and the grant, on a loaded machine.
pub const REDUNDANT_LIMIT: Duration = Duration::from_secs(45);

/// Longest wait for the end of what began in a window: the traffic gives a connection five seconds.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(12);

/// Where the logs of a failed test's lab are kept, set by `cargo xtask test`; without it the
/// folder for temporary files.
const FAILURE_LOGS: &str = "TWINWALL_LOG_DIR";

/// What is brought up, and from where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The folder of `vsg-lab`, `vsgd`, `vemd` and `vsh`.
    pub binaries: PathBuf,
    /// The lab's name; one machine runs several labs side by side.
    pub name: String,
    /// A description of another site than the default one.
    pub topology: Option<PathBuf>,
}

/// What `up` said.
#[derive(Debug, Clone, Deserialize)]
pub struct Up {
    /// From the start of the nodes until the pair was redundant, in milliseconds.
    pub boot_ms: Option<u64>,
    /// The node that leads.
    pub active: Option<String>,
    /// The folder of the logs.
    pub logs: PathBuf,
}

/// What a command in a node's shell said.
#[derive(Debug, Clone)]
pub struct Reply {
    /// True when no command of the session was refused.
    pub succeeded: bool,
    /// All it printed.
    pub text: String,
}

/// A fault that was made.
#[derive(Debug, Clone, Deserialize)]
pub struct Fault {
    /// Just before its first effect, in nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// When it was complete.
    pub done_ns: u64,
    /// How many processes it struck.
    pub processes: usize,
}

/// A lab that is up. Dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    plan: Plan,
    up: Up,
    guard: Option<Guard>,
}

impl Lab {
    /// Brings a lab up and waits until its pair is redundant.
    ///
    /// # Errors
    /// What `vsg-lab up` says; nothing is left up then.
    pub fn up(plan: Plan) -> Result<Self> {
        Self::start(plan, &[])
    }

    /// Brings a lab up without waiting for its nodes.
    ///
    /// # Errors
    /// As [`Self::up`].
    pub fn up_without_waiting(plan: Plan) -> Result<Self> {
        Self::start(plan, &["--no-wait"])
    }

    /// Brings a lab up with further words for `vsg-lab up`.
    ///
    /// # Errors
    /// As [`Self::up`].
    pub fn start(plan: Plan, words: &[&str]) -> Result<Self> {
        let guard = Guard::post(&plan.binaries.join("vsg-lab"), &plan.name)?;
        let mut command = lab_command(&plan);
        command.arg("up").args(words);
        if let Some(file) = &plan.topology {
            command.arg("--topology").arg(file);
        }
        match answer(command) {
            Ok(up) => Ok(Self {
                plan,
                up,
                guard: Some(guard),
            }),
            Err(error) => {
                // `up` has removed what it had built.
                guard.dismiss();
                Err(error)
            }
        }
    }

    /// What `up` said.
    #[must_use]
    pub fn report(&self) -> &Up {
        &self.up
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// The folder of a member's sockets.
    #[must_use]
    pub fn run_folder(&self, member: &str) -> PathBuf {
        self.up.logs.with_file_name("run").join(member)
    }

    /// Any `vsg-lab` verb: exit code and output, whatever they are.
    ///
    /// # Errors
    /// When `vsg-lab` cannot be started.
    pub fn verb(&self, words: &[&str]) -> Result<Output> {
        lab_command(&self.plan)
            .args(words)
            .output()
            .context("cannot run vsg-lab")
    }

    /// Runs `commands` in one session of `node`'s shell.
    ///
    /// # Errors
    /// When `vsg-lab` cannot be started; a refused command is a [`Reply`].
    pub fn shell(&self, node: &str, commands: &[&str]) -> Result<Reply> {
        let mut words = vec!["vsh", node];
        for command in commands {
            words.extend(["-c", command]);
        }
        let output = self.verb(&words)?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Reply {
            succeeded: output.status.success(),
            text,
        })
    }

    /// As [`Self::shell`], and an error when a command is refused.
    ///
    /// # Errors
    /// With the shell's text.
    pub fn must_shell(&self, node: &str, commands: &[&str]) -> Result<String> {
        let reply = self.shell(node, commands)?;
        if !reply.succeeded {
            bail!("{node} refused {commands:?}: {}", reply.text.trim());
        }
        Ok(reply.text)
    }

    /// Types the lines of `text` in configuration mode of `node`.
    ///
    /// # Errors
    /// When a line is refused.
    pub fn configure(&self, node: &str, text: &str) -> Result<String> {
        let lines = text.lines().map(str::trim).filter(|line| {
            let comment = line.starts_with('!');
            !comment && !line.is_empty()
        });
        let commands: Vec<&str> = ["configure"]
            .into_iter()
            .chain(lines)
            .chain(["end"])
            .collect();
        self.must_shell(node, &commands)
    }

    /// Makes a fault, in the words of `vsg-lab fault`.
    ///
    /// # Errors
    /// When it could not be made.
    pub fn fault(&self, words: &[&str]) -> Result<Fault> {
        self.ask(&["fault"], words)
    }

    /// What the agent of `host` shows: `flows`, `ports`, `stats` or `status`.
    ///
    /// # Errors
    /// When the agent does not answer in JSON.
    pub fn agent(&self, host: &str, what: &str) -> Result<Value> {
        let mut command = lab_command(&self.plan);
        command.args(["vemd", host, "--", "show", what, "--json"]);
        answer(command)
    }

    /// What the node says of itself in `show system redundancy status`, the *Internal state* of
    /// this supervisor; `None` when it does not answer.
    ///
    /// # Errors
    /// When `vsg-lab` cannot be started.
    pub fn internal_state(&self, node: &str) -> Result<Option<String>> {
        let reply = self.shell(node, &["show system redundancy status"])?;
        Ok(this_internal_state(&reply.text))
    }

    /// Waits until `node` says that its internal state is `state`.
    ///
    /// # Errors
    /// When that does not come true within [`REDUNDANT_LIMIT`].
    pub fn await_state(&self, node: &str, state: &str) -> Result<()> {
        wait::until(
            &format!("{node} says '{state}'"),
            REDUNDANT_LIMIT,
            || match self.internal_state(node)? {
                Some(said) if said == state => Ok(Some(())),
                said => bail!("it says {}", said.as_deref().unwrap_or("nothing")),
            },
        )
    }

    /// Waits until what `node` answers to `command` holds `text`, and gives the answer.
    ///
    /// # Errors
    /// When it does not within [`REDUNDANT_LIMIT`].
    pub fn await_text(&self, node: &str, command: &str, text: &str) -> Result<String> {
        let what = format!("{node} answers {text:?} to '{command}'");
        wait::until(&what, REDUNDANT_LIMIT, || {
            let reply = self.shell(node, &[command])?;
            if reply.text.contains(text) {
                return Ok(Some(reply.text));
            }
            bail!("it answers: {}", reply.text.trim())
        })
    }

    /// The numbers of the archives that `node` lists.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn conflicts(&self, node: &str) -> Result<Vec<u32>> {
        let text = self.must_shell(node, &["show redundancy conflicts"])?;
        let number = |line: &str| line.strip_prefix("Conflict ")?.trim().parse().ok();
        Ok(text.lines().filter_map(number).collect())
    }

    /// Whether the node says that it leads, and does: one that has stopped, because it was paused
    /// or has met another active, says that it is active and in no known state.
    ///
    /// # Errors
    /// When `vsg-lab` cannot be started.
    pub fn leads(&self, node: &str) -> Result<bool> {
        let text = self.shell(node, &["show system redundancy status"])?.text;
        let is_active = this_line(&text, "Redundancy state:").as_deref() == Some("Active");
        Ok(
            is_active
                && this_internal_state(&text).is_some_and(|state| !STOPPED.contains(&&*state)),
        )
    }

    /// The node that leads now.
    ///
    /// # Errors
    /// When none does, or two say that they do.
    pub fn active(&self) -> Result<&'static str> {
        let mut leading = Vec::new();
        for node in crate::site::NODES {
            if self.leads(node)? {
                leading.push(node);
            }
        }
        match leading[..] {
            [one] => Ok(one),
            [] => bail!("no node says that it is active"),
            [..] => bail!("both nodes say that they are active"),
        }
    }

    /// Waits until one node leads and the other could take over; returns the one that leads.
    ///
    /// # Errors
    /// When that does not come true within [`REDUNDANT_LIMIT`].
    pub fn await_redundant(&self) -> Result<&'static str> {
        let what = format!("one node '{REDUNDANT}', the other '{FOLLOWS}'");
        wait::until(&what, REDUNDANT_LIMIT, || {
            let [one, two] = crate::site::NODES;
            let states = (self.internal_state(one)?, self.internal_state(two)?);
            match (states.0.as_deref(), states.1.as_deref()) {
                (Some(REDUNDANT), Some(FOLLOWS)) => Ok(Some(one)),
                (Some(FOLLOWS), Some(REDUNDANT)) => Ok(Some(two)),
                (one, two) => {
                    bail!(
                        "sup-1 says {}, sup-2 says {}",
                        one.unwrap_or("nothing"),
                        two.unwrap_or("nothing")
                    )
                }
            }
        })
    }

    /// Starts the measured traffic, for at most `seconds`.
    ///
    /// # Errors
    /// What `vsg-lab traffic start` says.
    pub fn start_traffic(&self, seconds: u64) -> Result<Value> {
        self.start_traffic_with(seconds, &[])
    }

    /// The same with further words for `vsg-lab traffic start`.
    ///
    /// # Errors
    /// What it says.
    pub fn start_traffic_with(&self, seconds: u64, words: &[&str]) -> Result<Value> {
        let seconds = seconds.to_string();
        let words: Vec<&str> = ["--seconds", &seconds]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        self.ask(&["traffic", "start"], &words)
    }

    /// Ends the measured traffic.
    ///
    /// # Errors
    /// What `vsg-lab traffic stop` says.
    pub fn stop_traffic(&self) -> Result<Value> {
        self.ask(&["traffic", "stop"], &[])
    }

    /// As [`Self::traffic`], once all that began in the window has ended.
    ///
    /// # Errors
    /// When that takes longer than [`SETTLE_LIMIT`], or records were lost.
    pub fn settled_traffic(&self, from_ns: u64, to_ns: u64) -> Result<Window> {
        wait::until(
            "all that began in the window has ended",
            SETTLE_LIMIT,
            || {
                let window = self.traffic(from_ns, to_ns)?;
                Ok(window.complete.then_some(window))
            },
        )
    }

    /// What the traffic met between two moments of the monotonic clock.
    ///
    /// # Errors
    /// What `vsg-lab traffic report` says.
    pub fn traffic(&self, from_ns: u64, to_ns: u64) -> Result<Window> {
        self.ask(
            &["traffic", "report"],
            &["--from", &from_ns.to_string(), "--to", &to_ns.to_string()],
        )
    }

    /// Copies the logs to `folder`, for whoever reads them after the lab is gone.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn copy_logs(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        for entry in fs::read_dir(&self.up.logs).context("cannot read the lab's logs")? {
            let path = entry?.path();
            if path.is_file() {
                let name = path.file_name().context("a file has a name")?;
                fs::copy(&path, folder.join(name)).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    /// Takes the lab down and says whether that left nothing.
    ///
    /// # Errors
    /// What `vsg-lab down` says.
    pub fn down(mut self) -> Result<()> {
        self.remove()
    }

    /// Leaves the lab up.
    pub fn keep(mut self) {
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
    }

    fn remove(&mut self) -> Result<()> {
        let Some(guard) = self.guard.take() else {
            return Ok(());
        };
        let mut command = lab_command(&self.plan);
        command.arg("down");
        let removed: Result<Value> = answer(command);
        match removed {
            Ok(_) => guard.dismiss(),
            // The guard tries once more when its pipe closes.
            Err(_) => drop(guard),
        }
        removed.map(drop)
    }

    fn ask<T: DeserializeOwned>(&self, verb: &[&str], words: &[&str]) -> Result<T> {
        let mut command = lab_command(&self.plan);
        command.args(verb).args(words);
        answer(command)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.guard.is_some() && std::thread::panicking() {
            let folder = std::env::var_os(FAILURE_LOGS).map_or_else(std::env::temp_dir, Into::into);
            let folder = folder.join(format!("twinwall-{}", self.plan.name));
            match self.copy_logs(&folder) {
                Ok(()) => eprintln!("logs of lab {}: {}", self.plan.name, folder.display()),
                Err(error) => eprintln!("no logs of lab {}: {error:#}", self.plan.name),
            }
        }
        if let Err(error) = self.remove() {
            eprintln!("lab {}: {error:#}", self.plan.name);
        }
    }
}

/// The *Internal state* in the block of this supervisor.
fn this_internal_state(text: &str) -> Option<String> {
    this_line(text, "Internal state:")
}

/// What follows `label` in the block of this supervisor.
fn this_line(text: &str, label: &str) -> Option<String> {
    let block = text
        .split("This supervisor")
        .nth(1)?
        .split("Other supervisor")
        .next()?;
    let line = block
        .lines()
        .find_map(|line| line.trim().strip_prefix(label))?;
    Some(line.trim().to_owned())
}

fn lab_command(plan: &Plan) -> Command {
    let mut command = Command::new(plan.binaries.join("vsg-lab"));
    command
        .args(["--lab", &plan.name, "--json", "--bin-dir"])
        .arg(&plan.binaries);
    command
}

/// Runs `command` and reads its standard output as JSON.
fn answer<T: DeserializeOwned>(mut command: Command) -> Result<T> {
    let started = Instant::now();
    let output = command.output().context("cannot run vsg-lab")?;
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    // The first four words are the same for every call.
    let line = words.get(5..).unwrap_or_default().join(" ");
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!(
            "vsg-lab {line} failed after {:?}: {}",
            started.elapsed(),
            text.trim()
        );
    }
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "vsg-lab {line} printed {:?}",
            String::from_utf8_lossy(&output.stdout)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
This supervisor (sup-1)
-----------------------
    Redundancy state:   Active
    Supervisor state:   Active
      Internal state:   Active with HA standby

Other supervisor (sup-2)
------------------------
    Redundancy state:   Standby
    Supervisor state:   HA standby
      Internal state:   HA standby
";

    #[test]
    fn the_state_of_this_supervisor_is_read() {
        assert_eq!(this_internal_state(STATUS).as_deref(), Some(REDUNDANT));
        assert_eq!(this_internal_state("vsh: no such socket"), None);
    }
}
