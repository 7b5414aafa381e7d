//! A directory.
//!
//! ```text
//! DIR/snapshot          replaced by rename
//! DIR/snapshot.new      a snapshot that was not finished; removed at start
//! DIR/log.0000000000    segments, the highest is the current one
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Loaded, Storage, StorageError, Task, Work};

/// A directory of one snapshot and its log segments.
#[derive(Debug)]
pub struct FileStorage {
    directory: PathBuf,
    /// False on tmpfs: there is nothing to wait for.
    durable: bool,
    /// Numbers of the segments, oldest first; the last is current.
    numbers: Vec<u64>,
    current: Arc<File>,
    current_bytes: u64,
    /// Segments with bytes that no flush has covered, the current one excepted.
    unflushed: Vec<(u64, Arc<File>)>,
    /// A file was created or removed since the directory was last flushed.
    directory_changed: bool,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let what = path.display().to_string();
    move |error| StorageError {
        operation,
        what,
        cause: error.to_string(),
    }
}

fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("log.{number:010}"))
}

fn open_segment(directory: &Path, number: u64) -> Result<File, StorageError> {
    let path = segment_path(directory, number);
    let mut options = OpenOptions::new();
    options.append(true).read(true).create(true);
    options.open(&path).map_err(failed("open", &path))
}

fn flush_directory(directory: &Path) -> Result<(), StorageError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(failed("flush", directory))
}

impl FileStorage {
    /// Opens `directory`, creating it if need be. `durable` is false on a tmpfs, where nothing is
    /// flushed.
    ///
    /// # Errors
    /// When the directory or its files cannot be created or listed.
    pub fn open(directory: &Path, durable: bool) -> Result<Self, StorageError> {
        fs::create_dir_all(directory).map_err(failed("create", directory))?;
        let unfinished = directory.join("snapshot.new");
        match fs::remove_file(&unfinished) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("remove", &unfinished)(error)),
        }
        let mut numbers = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed("list", directory))? {
            let name = entry.map_err(failed("list", directory))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("log."));
            numbers.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let created = numbers.is_empty();
        if created {
            numbers.push(0);
        }
        let newest = numbers.last().copied().unwrap_or_default();
        let current = open_segment(directory, newest)?;
        let path = segment_path(directory, newest);
        let current_bytes = current.metadata().map_err(failed("examine", &path))?.len();
        Ok(Self {
            directory: directory.to_owned(),
            durable,
            numbers,
            current: Arc::new(current),
            current_bytes,
            unflushed: Vec::new(),
            directory_changed: created,
        })
    }

    fn current_path(&self) -> PathBuf {
        segment_path(
            &self.directory,
            self.numbers.last().copied().unwrap_or_default(),
        )
    }

    fn flush_work(&mut self) -> Work {
        let mut files: Vec<(PathBuf, Arc<File>)> = Vec::new();
        for (number, file) in self.unflushed.drain(..) {
            files.push((segment_path(&self.directory, number), file));
        }
        files.push((self.current_path(), Arc::clone(&self.current)));
        let directory =
            core::mem::take(&mut self.directory_changed).then(|| self.directory.clone());
        if !self.durable {
            return Work::new(|| Ok(()));
        }
        Work::new(move || {
            if let Some(directory) = directory {
                flush_directory(&directory)?;
            }
            files
                .iter()
                .try_for_each(|(path, file)| file.sync_data().map_err(failed("flush", path)))
        })
    }

    fn snapshot_work(&mut self, bytes: Vec<u8>) -> Work {
        let directory = self.directory.clone();
        let durable = self.durable;
        let newest = self.numbers.last().copied().unwrap_or_default();
        let superseded: Vec<u64> = self.numbers.drain(..self.numbers.len() - 1).collect();
        self.unflushed.retain(|(number, _)| *number == newest);
        self.directory_changed = false;
        Work::new(move || {
            let unfinished = directory.join("snapshot.new");
            let mut file = File::create(&unfinished).map_err(failed("create", &unfinished))?;
            file.write_all(&bytes)
                .map_err(failed("write", &unfinished))?;
            if durable {
                file.sync_all().map_err(failed("flush", &unfinished))?;
            }
            let path = directory.join("snapshot");
            fs::rename(&unfinished, &path).map_err(failed("replace", &path))?;
            if durable {
                flush_directory(&directory)?;
            }
            for number in superseded {
                let path = segment_path(&directory, number);
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
            Ok(())
        })
    }
}

impl Storage for FileStorage {
    fn load(&mut self) -> Result<Loaded, StorageError> {
        let path = self.directory.join("snapshot");
        let snapshot = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let mut segments = Vec::new();
        for number in &self.numbers {
            let path = segment_path(&self.directory, *number);
            segments.push(fs::read(&path).map_err(failed("read", &path))?);
        }
        Ok(Loaded { snapshot, segments })
    }

    fn truncate(&mut self, index: usize, length: usize) -> Result<(), StorageError> {
        for number in self.numbers.drain((index + 1).min(self.numbers.len())..) {
            let path = segment_path(&self.directory, number);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        let newest = self.numbers.last().copied().unwrap_or_default();
        let path = segment_path(&self.directory, newest);
        let file = open_segment(&self.directory, newest)?;
        file.set_len(length as u64)
            .map_err(failed("truncate", &path))?;
        if self.durable {
            file.sync_all().map_err(failed("flush", &path))?;
            flush_directory(&self.directory)?;
        }
        self.current = Arc::new(file);
        self.current_bytes = length as u64;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if let Err(error) = (&*self.current).write_all(bytes) {
            let path = self.current_path();
            // Half a record must not stand before the next one.
            self.current
                .set_len(self.current_bytes)
                .map_err(failed("truncate", &path))?;
            return Err(failed("append to", &path)(error));
        }
        self.current_bytes += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), StorageError> {
        let newest = self.numbers.last().copied().unwrap_or_default();
        let next = Arc::new(open_segment(&self.directory, newest + 1)?);
        self.unflushed
            .push((newest, core::mem::replace(&mut self.current, next)));
        self.numbers.push(newest + 1);
        self.current_bytes = 0;
        self.directory_changed = true;
        Ok(())
    }

    fn work(&mut self, task: Task) -> Work {
        match task {
            Task::Flush => self.flush_work(),
            Task::Snapshot(bytes) => self.snapshot_work(bytes),
        }
    }
}
