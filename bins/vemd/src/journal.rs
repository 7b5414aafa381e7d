//! Log lines, to standard error and to a file.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use runtime::clock::WallTime;

/// Where lines go.
pub(crate) struct Journal {
    host: String,
    part: &'static str,
    file: Option<File>,
}

impl Journal {
    /// Opens the file, if there is one, for appending.
    pub(crate) fn open(host: &str, part: &'static str, path: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| {
            let file = File::options().append(true).create(true).open(path);
            file.with_context(|| format!("{}", path.display()))
        };
        Ok(Self {
            host: host.to_owned(),
            part,
            file: path.map(open).transpose()?,
        })
    }

    /// One line. A full disk loses it: nothing here waits for that.
    pub(crate) fn line(&mut self, text: &str) {
        let line = format!("{} {} {}: {text}\n", WallTime::now(), self.host, self.part);
        let _ = std::io::stderr().write_all(line.as_bytes());
        if let Some(file) = &mut self.file {
            let _ = file.write_all(line.as_bytes());
        }
    }
}
