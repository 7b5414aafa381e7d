//! Who we are, and whom we trust.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use model::NodeKey;
use runtime::identity::Identity;
use serde::{Deserialize, Serialize};

const IDENTITY_FILE: &str = "identity.key";
const PINS_FILE: &str = "pins.toml";

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PinsFile {
    gateways: Vec<String>,
}

/// Makes the identity, unless there is one; returns its fingerprint.
pub(crate) fn init(state_dir: &Path) -> Result<NodeKey> {
    let shown = state_dir.display();
    fs::create_dir_all(state_dir).with_context(|| format!("{shown}"))?;
    let path = state_dir.join(IDENTITY_FILE);
    let identity = if path.exists() {
        Identity::load(&path)
    } else {
        Identity::create(&path)
    }?;
    Ok(identity.fingerprint())
}

/// Loads the identity.
pub(crate) fn identity(state_dir: &Path) -> Result<Identity> {
    let path = state_dir.join(IDENTITY_FILE);
    Identity::load(&path).context("no usable identity: run `vemd init` first")
}

/// The pinned gateways.
pub(crate) fn pins(state_dir: &Path) -> Result<Vec<NodeKey>> {
    let path = state_dir.join(PINS_FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("{}", path.display()))?,
    };
    let file: PinsFile = toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
    file.gateways.iter().map(|pin| Ok(pin.parse()?)).collect()
}

/// Adds gateways to the pinned ones.
pub(crate) fn pin(state_dir: &Path, gateways: &[NodeKey]) -> Result<()> {
    let mut keys = pins(state_dir)?;
    for gateway in gateways {
        if !keys.contains(gateway) {
            keys.push(*gateway);
        }
    }
    replace(state_dir, &keys)
}

/// Makes these the pinned gateways, durably.
pub(crate) fn replace(state_dir: &Path, gateways: &[NodeKey]) -> Result<()> {
    fs::create_dir_all(state_dir).with_context(|| format!("{}", state_dir.display()))?;
    let file = PinsFile {
        gateways: gateways.iter().map(ToString::to_string).collect(),
    };
    let path = state_dir.join(PINS_FILE);
    let fresh = state_dir.join("pins.toml.new");
    let write = || -> std::io::Result<()> {
        let text = toml::to_string(&file).map_err(std::io::Error::other)?;
        let mut written = File::create(&fresh)?;
        written.write_all(text.as_bytes())?;
        written.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(state_dir)?.sync_all()
    };
    write().with_context(|| format!("{}", path.display()))
}
