//! The node's own state in its file: encoding, and the changes made while the node is stopped.

use std::path::Path;

use anyhow::Context;
use redundancy::{NodeRecord, RESET_REASONS_MAX};
use runtime::node_file::NodeFile;
use wire::log::LogRecord;

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
#[cfg(test)]
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

/// Takes the reason of a reset that the guardian tells into the record (empty if this start follows
/// none), and says what the log should show of why the node was reset: `show logging` of a node
/// starts with its System Manager.
pub(crate) fn note_reset(record: &mut NodeRecord, told: String) -> Option<LogRecord> {
    let text = if told.is_empty() {
        let last = record.reset_reasons.last()?;
        format!(
            "The last recorded reset of this supervisor: {}.",
            last.trim_end_matches('.')
        )
    } else {
        format!("This supervisor was reset: {}.", told.trim_end_matches('.'))
    };
    // The core wrote its own reasons; the death of a System Manager only the guardian knows.
    if !told.is_empty() && record.reset_reasons.last() != Some(&told) {
        record.reset_reasons.push(told);
        let surplus = record.reset_reasons.len().saturating_sub(RESET_REASONS_MAX);
        record.reset_reasons.drain(..surplus);
    }
    Some(LogRecord {
        facility: "SYSMGR".to_owned(),
        severity: 5,
        mnemonic: "RESET_REASON".to_owned(),
        text,
        service: None,
    })
}

#[cfg(test)]
mod tests {
    use model::{NodeKey, PairId, Role};
    use redundancy::{NodeRecord, VemPin};

    use super::{create, encode, note_reset, open, read};

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

    /// The pins of more than a thousand hosts and ten long reset reasons fit the file.
    #[test]
    fn a_large_site_fits() {
        let record = NodeRecord {
            vems: vec![
                VemPin {
                    key: NodeKey([7; 32]),
                    version: u64::from(u32::MAX),
                    pinned: true,
                };
                wire::control::VEM_PINS_MAX
            ],
            reset_reasons: vec!["x".repeat(200); redundancy::RESET_REASONS_MAX],
            ..NodeRecord::default()
        };
        assert!(encode(&record).expect("encoded").len() < runtime::node_file::BODY_MAX_BYTES);
    }

    #[test]
    fn the_log_tells_why_the_node_was_reset() {
        let mut record = NodeRecord::default();
        assert_eq!(note_reset(&mut record, String::new()), None);
        let died = "System Manager ended (signal: 9 (SIGKILL))";
        let note = note_reset(&mut record, died.to_owned()).expect("a line");
        assert_eq!((note.facility.as_str(), note.severity), ("SYSMGR", 5));
        assert_eq!(note.mnemonic, "RESET_REASON");
        assert_eq!(note.text, format!("This supervisor was reset: {died}."));
        assert_eq!(record.reset_reasons, [died]);
        // Written by the core before: told once, recorded once.
        assert!(note_reset(&mut record, died.to_owned()).is_some());
        assert_eq!(record.reset_reasons, [died]);
        // Started by hand: what it says is not the reason of this start.
        let note = note_reset(&mut record, String::new()).expect("a line");
        assert!(
            note.text
                .starts_with("The last recorded reset of this supervisor: System")
        );
    }
}
