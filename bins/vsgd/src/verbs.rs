//! What is done while the node is stopped: its identity, and whom it trusts.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use model::{NodeKey, PairId, Role};
use redundancy::{NodeRecord, VemPin};
use runtime::identity::Identity;
use runtime::node_file::{NodeFile, NodeFileError};

use node::trust::VEMS_MAX;

use crate::configuration::Configuration;
use crate::node_record;

/// Makes the folders, the identity and the node file; prints the fingerprint, alone.
pub(crate) fn init(
    configuration: &Configuration,
    role: Role,
    pair: Option<PairId>,
    force: bool,
) -> anyhow::Result<()> {
    ensure!(
        role == Role::Standalone || pair.is_some(),
        "a {role} node needs --pair-id"
    );
    make_private_folder(&configuration.state_dir)?;
    let (identity, node) = (configuration.identity_file(), configuration.node_file());
    let present = [&identity, &node]
        .into_iter()
        .find(|path| path.symlink_metadata().is_ok());
    if let Some(present) = present {
        let path = present.display();
        ensure!(
            force,
            "{path} is there already (--force makes a new node of it)"
        );
        // Taking the writer's lock proves that the node does not run.
        if node.exists() {
            match NodeFile::open(&node) {
                Ok(_) | Err(NodeFileError::Damaged { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for path in [&identity, &node] {
            remove(path)?;
        }
        // A new identity cannot vouch for the old one's checkpoints.
        remove_tree(&configuration.state_dir.join("pss"))?;
    }
    let identity = Identity::create(&identity)?;
    let record = NodeRecord {
        role,
        pair,
        ..NodeRecord::default()
    };
    node_record::create(&node, &record)?;
    println!("{}", identity.fingerprint());
    Ok(())
}

/// Trusts a peer or host agents.
pub(crate) fn pin(
    configuration: &Configuration,
    peer: Option<NodeKey>,
    vems: &[NodeKey],
) -> anyhow::Result<()> {
    ensure!(
        peer.is_some() || !vems.is_empty(),
        "nothing to pin: --peer or --vem is missing"
    );
    let own = Identity::load(&configuration.identity_file())?.fingerprint();
    let (mut file, mut record) = node_record::open(&configuration.node_file())?;
    if peer == Some(own) || vems.contains(&own) {
        bail!("{own} is this node's own fingerprint");
    }
    if peer.is_some() && peer != record.peer {
        record.peer = peer;
        record.identities.peer_node = None;
        record.identities.peer_next = None;
        record.identities.peer_since_unix_s = 0;
        // Another partner: nothing has been shared with it yet.
        record.paired = false;
    }
    for vem in vems {
        match record.vems.iter_mut().find(|pin| pin.key == *vem) {
            Some(pin) => pin.pinned = true,
            None => record.vems.push(VemPin {
                key: *vem,
                version: 0,
                pinned: true,
            }),
        }
    }
    ensure!(
        record.vems.iter().filter(|pin| pin.pinned).count() <= VEMS_MAX,
        "at most {VEMS_MAX} host agents can be pinned"
    );
    file.write(&node_record::encode(&record)?)?;
    Ok(())
}

/// Prints the fingerprint, alone.
pub(crate) fn fingerprint(configuration: &Configuration) -> anyhow::Result<()> {
    println!(
        "{}",
        Identity::load(&configuration.identity_file())?.fingerprint()
    );
    Ok(())
}

/// Makes `path`, its parents too, for the owner only; a folder that is there stays as it is.
pub(crate) fn make_private_folder(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("folder {}", path.display()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove_tree(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
