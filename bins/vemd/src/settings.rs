//! `vemd.toml`.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use vem::FailMode;

use crate::datapath::abi::PORTS_MAX;

/// Most gateways: the two of a pair.
const GATEWAYS_MAX: usize = 2;
/// Largest configuration that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Name of the host.
    pub(crate) host: String,
    /// Where identity, pins and the highest epoch are kept.
    pub(crate) state_dir: PathBuf,
    /// Where the control socket and the BPF file system are.
    pub(crate) run_dir: PathBuf,
    /// Also log to this file.
    pub(crate) log_file: Option<PathBuf>,
    /// A BPF file system to pin in; `<run_dir>/bpf` is mounted if there is none.
    bpffs: Option<PathBuf>,
    /// What a clean stop leaves.
    #[serde(default)]
    pub(crate) on_stop: OnStop,
    /// The nodes of the pair.
    #[serde(rename = "gateway")]
    pub(crate) gateways: Vec<Gateway>,
    /// The protected ports.
    #[serde(rename = "port")]
    pub(crate) ports: Vec<Port>,
}

/// What a clean stop leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnStop {
    /// Nothing: ports are unprotected.
    #[default]
    Detach,
    /// The datapath: established flows go on, new ones follow the fail mode.
    Keep,
}

/// A node of the pair.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gateway {
    /// Where its `vem_mgr` listens.
    pub(crate) address: SocketAddr,
}

/// A protected port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Port {
    /// Its name, for displays and policy.
    pub(crate) name: String,
    /// The host's end of the VM's link.
    pub(crate) interface: String,
    /// The VM's MAC.
    pub(crate) mac: Mac,
    /// Security profile (`name@org`).
    pub(crate) profile: String,
    /// What becomes of new flows when nobody can decide.
    #[serde(default)]
    pub(crate) fail_mode: FailMode,
}

/// A MAC address, `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl TryFrom<String> for Mac {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || anyhow!("`{text}` is not a MAC address");
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        ensure!(parts.next().is_none(), wrong());
        ensure!(
            mac[0] & 1 == 0 && mac != [0; 6],
            "`{text}` is not the MAC of one interface"
        );
        Ok(Self(mac))
    }
}

impl Settings {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// One line that says what is wrong and where.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let size = fs::metadata(path)
            .with_context(|| format!("{shown}"))?
            .len();
        ensure!(
            size <= FILE_BYTES_MAX,
            "{shown}: larger than {FILE_BYTES_MAX} bytes"
        );
        let text = fs::read_to_string(path).with_context(|| format!("{shown}"))?;
        Self::parse(&text).map_err(|error| anyhow!("{shown}: {error:#}"))
    }

    fn parse(text: &str) -> Result<Self> {
        let settings: Self = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].lines().count().max(1));
            anyhow!("line {line}: {}", error.message().replace('\n', " "))
        })?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.host.is_empty(), "host is empty");
        let gateways = self.gateways.len();
        ensure!(
            (1..=GATEWAYS_MAX).contains(&gateways),
            "{gateways} gateways, 1 or 2 are possible"
        );
        let ports = self.ports.len();
        ensure!(
            (1..=PORTS_MAX).contains(&ports),
            "{ports} ports, 1 to {PORTS_MAX} are possible"
        );
        let mut names = BTreeSet::new();
        let mut interfaces = BTreeSet::new();
        for port in &self.ports {
            ensure!(
                names.insert(&port.name),
                "two ports are named `{}`",
                port.name
            );
            let interface = &port.interface;
            ensure!(
                interfaces.insert(interface),
                "two ports have the interface `{interface}`"
            );
            let profile = &port.profile;
            ensure!(
                profile.contains('@'),
                "profile `{profile}` is not of the form `name@org`"
            );
        }
        Ok(())
    }

    /// Where pins are.
    pub(crate) fn bpffs(&self) -> PathBuf {
        self.bpffs
            .clone()
            .unwrap_or_else(|| self.run_dir.join("bpf"))
    }

    /// Whether the BPF file system is of our own mounting.
    pub(crate) const fn owns_bpffs(&self) -> bool {
        self.bpffs.is_none()
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir.join("vemd.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../docs/examples/vemd.toml");

    fn error(from: &str, to: &str) -> String {
        assert!(SAMPLE.contains(from), "{from}");
        let changed = SAMPLE.replace(from, to);
        let error = Settings::parse(&changed).expect_err("a broken file");
        let text = format!("{error:#}");
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    #[test]
    fn the_example_is_valid() {
        let settings = Settings::parse(SAMPLE).expect("valid");
        assert_eq!((settings.gateways.len(), settings.ports.len()), (2, 2));
        assert_eq!(settings.ports[1].fail_mode, FailMode::Close);
        assert_eq!(settings.on_stop, OnStop::Detach);
    }

    #[test]
    fn a_broken_file_is_one_clear_line() {
        assert!(error("mac = \"02:54:77:00:01:01\"", "mac = \"nonsense\"").contains("nonsense"));
        assert!(error("host = ", "hots = ").contains("hots"));
        assert!(error("vp-app", "vp-web").contains("two ports"));
        assert!(error("web@root", "web").contains("name@org"));
        assert!(error("10.3.0.1:7200", "10.3.0.1").contains("line"));
    }
}
