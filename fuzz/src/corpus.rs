//! Inputs in files: a folder for each target, a file for each input, named by its content.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Bytes of the digest in a file's name: two inputs of one target never share it by accident.
const NAME_BYTES: usize = 8;

/// The committed corpus of a target.
#[must_use]
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// Its inputs, in the order of their names; none if there is no such folder.
///
/// # Errors
/// When it cannot be read.
pub fn read(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// The name of the file for `input`.
#[must_use]
pub fn file_name(input: &[u8]) -> String {
    let digest = Sha256::digest(input);
    digest[..NAME_BYTES]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// How to try the input in `file` again.
#[must_use]
pub fn replay_command(target: &str, file: &Path) -> String {
    format!("cargo xtask fuzz --replay {} {target}", file.display())
}
