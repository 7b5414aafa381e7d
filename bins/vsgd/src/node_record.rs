//! The node's own state in its file: encoding, and the changes made while the node is stopped.

use std::path::Path;

use anyhow::Context;
use redundancy::NodeRecord;
use runtime::node_file::NodeFile;

/// Makes the node file.
pub(crate) fn create(path: &Path, record: &NodeRecord) -> anyhow::Result<()> {
    NodeFile::create(path, &encode(record)?)?;
    Ok(())
}

/// Opens the node file for writing: no other process can, so the node does not run.
pub(crate) fn open(path: &Path) -> anyhow::Result<(NodeFile, NodeRecord)> {
    let (file, body) = NodeFile::open(path)?;
    let record = decode(&body).with_context(|| format!("node file {}", path.display()))?;
    Ok((file, record))
}

/// Reads the record beside a running node.
pub(crate) fn read(path: &Path) -> anyhow::Result<NodeRecord> {
    let body = NodeFile::read(path)?;
    decode(&body).with_context(|| format!("node file {}", path.display()))
}

/// The bytes of the file's body.
pub(crate) fn encode(record: &NodeRecord) -> anyhow::Result<Vec<u8>> {
    postcard::to_stdvec(record).context("node record")
}

fn decode(body: &[u8]) -> anyhow::Result<NodeRecord> {
    let (record, rest) =
        postcard::take_from_bytes(body).context("its content is of another version")?;
    anyhow::ensure!(rest.is_empty(), "its content is of another version");
    Ok(record)
}

#[cfg(test)]
mod tests {
    use model::{NodeKey, PairId, Role};
    use redundancy::NodeRecord;

    use super::{create, encode, open, read};

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("node");
        let record = NodeRecord {
            role: Role::Secondary,
            pair: PairId::try_from(7).ok(),
            peer: Some(NodeKey([3; 32])),
            ..NodeRecord::default()
        };
        create(&path, &record).expect("a new file");
        assert_eq!(read(&path).expect("readable"), record);
        let (mut file, found) = open(&path).expect("the file");
        assert_eq!(found, record);
        let mut longer = encode(&record).expect("encoded");
        longer.push(0);
        file.write(&longer).expect("written");
        assert!(read(&path).is_err(), "trailing bytes are another version's");
    }

    /// The pins of a thousand hosts and ten long reset reasons fit the file.
    #[test]
    fn a_large_site_fits() {
        let record = NodeRecord {
            vems: vec![NodeKey([7; 32]); 1000],
            reset_reasons: vec!["x".repeat(200); redundancy::RESET_REASONS_MAX],
            ..NodeRecord::default()
        };
        assert!(encode(&record).expect("encoded").len() < runtime::node_file::BODY_MAX_BYTES);
    }
}
