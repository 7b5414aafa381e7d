//! The node's configuration file: where it is, what it is connected to. What an operator changes
//! while the node runs (role, pair, policy) is not here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// Largest file that is read; a sample with every field is below 2 KiB.
const FILE_MAX_BYTES: u64 = 64 * 1024;
/// Longest node or host name, in bytes: what fits a log line and DNS (RFC 1035).
const NAME_MAX_BYTES: usize = 63;

/// Why the configuration cannot be used: one line each.
#[derive(Debug, Error)]
pub(crate) enum ConfigurationError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is longer than any sensible one.
    #[error("{path}: longer than {FILE_MAX_BYTES} bytes")]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// It is not TOML, a field is unknown or missing, or a value has the wrong type.
    #[error("{path}, line {line}: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The node was never made.
    #[error("there is no identity {identity}: run `vsgd init --config {path}` first")]
    NotInitialized {
        /// The configuration file.
        path: PathBuf,
        /// What is missing.
        identity: PathBuf,
    },
    /// A value makes no sense.
    #[error("{path}: {problem}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// One HA link: UDP heartbeats and the TCP control connection share the port number.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    /// Shown by `show redundancy heartbeat`.
    pub(crate) name: String,
    /// Our address.
    pub(crate) local: SocketAddr,
    /// The peer's.
    pub(crate) peer: SocketAddr,
}

/// Where host agents connect.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// Address and TCP port.
    pub(crate) listen: SocketAddr,
}

/// Replication between the nodes' brokers, on the addresses of the HA links.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bulk {
    /// TCP port, the same on both nodes.
    pub(crate) port: u16,
}

/// Pairing by a one-time code.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pairing {
    /// TCP port, on the addresses of the HA links and of the service network, while a code is
    /// valid.
    pub(crate) port: u16,
}

impl Default for Pairing {
    fn default() -> Self {
        Self {
            port: wire::pairing::DEFAULT_PORT,
        }
    }
}

/// The machine's watchdog: nothing on a node without this section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WatchdogDevice {
    /// The device.
    #[serde(default = "default_watchdog")]
    pub(crate) device: PathBuf,
    /// Seconds after which it resets the machine if nobody restarts its time.
    #[serde(default = "default_watchdog_timeout_s")]
    pub(crate) timeout_s: u16,
}

/// The first watchdog of a Linux machine.
fn default_watchdog() -> PathBuf {
    PathBuf::from("/dev/watchdog")
}

/// A machine that has stopped has been taken over from long before; this only brings it back.
const fn default_watchdog_timeout_s() -> u16 {
    30
}

/// Shortest time that may be asked of a watchdog: it is restarted each second, and a busy machine
/// must never be reset for being late.
const WATCHDOG_TIMEOUT_MIN_S: u16 = 10;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configuration {
    /// The node's name, for messages on its own terminal.
    pub(crate) name: String,
    /// Host name of the gateway, the same on both nodes of a pair.
    #[serde(default = "default_hostname")]
    pub(crate) hostname: String,
    /// Durable files: identity, node file, checkpoints.
    pub(crate) state_dir: PathBuf,
    /// Sockets and volatile files; on a tmpfs.
    pub(crate) run_dir: PathBuf,
    /// The log.
    pub(crate) log_file: PathBuf,
    /// HA links, in order of preference for the control connection.
    #[serde(default, rename = "link")]
    pub(crate) links: Vec<Link>,
    /// Where host agents connect; none on a node that serves no hosts.
    pub(crate) service: Option<Service>,
    /// Replication; needed as soon as there is a link.
    pub(crate) bulk: Option<Bulk>,
    /// The machine's watchdog; none is used if there is no such section.
    pub(crate) watchdog: Option<WatchdogDevice>,
    /// Pairing; its port has a default.
    #[serde(default)]
    pub(crate) pairing: Pairing,
}

fn default_hostname() -> String {
    "vsg".to_owned()
}

impl Configuration {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigurationError`].
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigurationError> {
        use std::io::Read;
        let in_file = |source| ConfigurationError::File {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(in_file)?;
        file.take(FILE_MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(in_file)?;
        if text.len() as u64 > FILE_MAX_BYTES {
            return Err(ConfigurationError::TooLong {
                path: path.to_owned(),
            });
        }
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigurationError> {
        let parsed: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            ConfigurationError::Syntax {
                path: path.to_owned(),
                line: text
                    .bytes()
                    .take(start)
                    .filter(|byte| *byte == b'\n')
                    .count()
                    + 1,
                message: error.message().replace('\n', " "),
            }
        })?;
        match parsed.problem() {
            None => Ok(parsed),
            Some(problem) => Err(ConfigurationError::Value {
                path: path.to_owned(),
                problem,
            }),
        }
    }

    fn problem(&self) -> Option<String> {
        for (field, name) in [("name", &self.name), ("hostname", &self.hostname)] {
            if !is_name(name) {
                return Some(format!(
                    "{field} {name:?} is not 1 to {NAME_MAX_BYTES} letters, digits, '-', '_', '.'"
                ));
            }
        }
        for (field, path) in [
            ("state_dir", &self.state_dir),
            ("run_dir", &self.run_dir),
            ("log_file", &self.log_file),
        ] {
            if !path.is_absolute() {
                return Some(format!(
                    "{field} {} is not an absolute path",
                    path.display()
                ));
            }
        }
        if self.links.len() > redundancy::LINKS_MAX {
            let most = redundancy::LINKS_MAX;
            return Some(format!(
                "{} HA links, at most {most} are supported",
                self.links.len()
            ));
        }
        if self.bulk.is_none() && !self.links.is_empty() {
            return Some("[bulk] port is missing: there are HA links".to_owned());
        }
        if let Some(WatchdogDevice { timeout_s, .. }) = self.watchdog
            && timeout_s < WATCHDOG_TIMEOUT_MIN_S
        {
            let least = WATCHDOG_TIMEOUT_MIN_S;
            return Some(format!(
                "watchdog: timeout_s {timeout_s} is less than {least}"
            ));
        }
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for link in &self.links {
            let name = &link.name;
            if !is_name(name) || !names.insert(name) {
                return Some(format!("link name {name:?} is used twice or not a name"));
            }
            if link.local.is_ipv4() != link.peer.is_ipv4() || link.local == link.peer {
                return Some(format!(
                    "link {name}: local and peer do not belong together"
                ));
            }
            if link.local.port() == 0 || link.peer.port() == 0 || !addresses.insert(link.local) {
                return Some(format!(
                    "link {name}: port 0, or an address of another link"
                ));
            }
            if self
                .bulk
                .as_ref()
                .is_some_and(|bulk| bulk.port == link.local.port())
            {
                return Some(format!("link {name}: its port is that of [bulk]"));
            }
        }
        None
    }

    /// That `vsgd init` was run with the configuration that was read from `path`.
    ///
    /// # Errors
    /// [`ConfigurationError::NotInitialized`]; an identity that cannot be used is not looked at.
    pub(crate) fn require_identity(&self, path: &Path) -> Result<(), ConfigurationError> {
        let identity = self.identity_file();
        match identity.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ConfigurationError::NotInitialized {
                    path: path.to_owned(),
                    identity,
                })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The node's key pair.
    pub(crate) fn identity_file(&self) -> PathBuf {
        self.state_dir.join("identity.key")
    }

    /// The node file.
    pub(crate) fn node_file(&self) -> PathBuf {
        self.state_dir.join("node")
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Configuration;

    const SAMPLE: &str = include_str!("../../../docs/examples/vsgd.toml");

    fn parse(text: &str) -> Result<Configuration, String> {
        Configuration::parse(Path::new("vsgd.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_sample_is_valid_and_complete() {
        let sample = parse(SAMPLE).expect("the sample");
        assert_eq!(sample.links.len(), 2);
        assert!(sample.service.is_some() && sample.bulk.is_some());
    }

    #[test]
    fn mistakes_are_told_in_one_line_each() {
        for (from, to, said) in [
            (
                "name = \"sup-1\"",
                "name = \"sup 1\"",
                "vsgd.toml: name \"sup 1\" is not 1 to 63",
            ),
            ("name = \"sup-1\"", "colour = 3", "unknown field `colour`"),
            ("run_dir = \"/", "run_dir = \"", "is not an absolute path"),
            ("10.1.0.1:7100", "10.1.0.1", "line "),
            (
                "10.2.0.1:7100",
                "10.1.0.1:7100",
                "an address of another link",
            ),
            ("port = 7101", "port = 7100", "its port is that of [bulk]"),
            ("port = 7101", "port = 710100", "line "),
            ("name = \"management\"", "name = \"control\"", "used twice"),
        ] {
            assert!(SAMPLE.contains(from), "{from}");
            let error = parse(&SAMPLE.replacen(from, to, 1)).expect_err(to);
            assert!(error.contains(said), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
