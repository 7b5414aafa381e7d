//! Who we are, and whom we trust.

use std::fs;
use std::io::ErrorKind;
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
    fs::create_dir_all(state_dir).with_context(|| format!("{}", state_dir.display()))?;
    let mut keys = pins(state_dir)?;
    keys.extend(
        gateways
            .iter()
            .filter(|gateway| !keys.contains(gateway))
            .copied()
            .collect::<Vec<_>>(),
    );
    keys.dedup();
    let file = PinsFile {
        gateways: keys.iter().map(ToString::to_string).collect(),
    };
    let path = state_dir.join(PINS_FILE);
    let fresh = state_dir.join("pins.toml.new");
    fs::write(&fresh, toml::to_string(&file)?).with_context(|| format!("{}", fresh.display()))?;
    fs::rename(&fresh, &path).with_context(|| format!("{}", path.display()))
}
