//! The directory behaves as the disk in memory does, which the crash tests use.

use proptest::prelude::*;
use tempfile::TempDir;

use super::{FileStorage, MemoryDisk, MemoryStorage, Storage, Task};

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u8>),
    Rotate,
    Flush,
    Snapshot(Vec<u8>),
    Reopen,
    Truncate(prop::sample::Index, prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let one = prop_oneof![
        6 => bytes().prop_map(Step::Append),
        2 => Just(Step::Rotate),
        2 => Just(Step::Flush),
        1 => bytes().prop_map(Step::Snapshot),
        2 => Just(Step::Reopen),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(index, length)| Step::Truncate(index, length)),
    ];
    prop::collection::vec(one, 1..40)
}

fn open(directory: &TempDir) -> FileStorage {
    FileStorage::open(&directory.path().join("store"), true).expect("a fresh directory opens")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn files_and_memory_hold_the_same(steps in steps()) {
        let directory = TempDir::new().expect("a temporary directory");
        let disk = MemoryDisk::new();
        let mut files = open(&directory);
        let mut memory = MemoryStorage::open(&disk);
        for step in steps {
            match step {
                Step::Append(bytes) => {
                    prop_assert_eq!(files.append(&bytes), Ok(()));
                    prop_assert_eq!(memory.append(&bytes), Ok(()));
                }
                Step::Rotate => {
                    prop_assert_eq!(files.rotate(), Ok(()));
                    prop_assert_eq!(memory.rotate(), Ok(()));
                }
                Step::Flush => {
                    prop_assert_eq!(files.work(Task::Flush).run(), Ok(()));
                    prop_assert_eq!(memory.work(Task::Flush).run(), Ok(()));
                }
                Step::Snapshot(bytes) => {
                    prop_assert_eq!(files.work(Task::Snapshot(bytes.clone())).run(), Ok(()));
                    prop_assert_eq!(memory.work(Task::Snapshot(bytes)).run(), Ok(()));
                }
                Step::Reopen => {
                    files = open(&directory);
                    memory = MemoryStorage::open(&disk);
                }
                Step::Truncate(index, length) => {
                    files = open(&directory);
                    let segments = files.load().expect("files can be read").segments;
                    let index = index.index(segments.len());
                    let length = length.index(segments[index].len() + 1);
                    prop_assert_eq!(files.truncate(index, length), Ok(()));
                    prop_assert_eq!(memory.truncate(index, length), Ok(()));
                }
            }
            prop_assert_eq!(files.load(), memory.load());
        }
    }
}

#[test]
fn a_snapshot_that_was_not_finished_is_not_there() {
    let directory = TempDir::new().expect("a temporary directory");
    let mut files = open(&directory);
    files.append(b"record").expect("room");
    files.work(Task::Flush).run().expect("a disk that works");
    let unfinished = directory.path().join("store/snapshot.new");
    std::fs::write(&unfinished, b"half").expect("room");
    let mut again = open(&directory);
    assert!(!unfinished.exists());
    let loaded = again.load().expect("files can be read");
    assert_eq!(
        (loaded.snapshot, loaded.segments),
        (None, vec![b"record".to_vec()])
    );
}

#[test]
fn a_snapshot_superseding_segments_whose_removal_was_interrupted_does_no_harm() {
    let directory = TempDir::new().expect("a temporary directory");
    let mut files = open(&directory);
    files.append(b"old").expect("room");
    let old = std::fs::read_dir(directory.path().join("store")).expect("it exists");
    let old = old.flatten().next().expect("one segment").path();
    files.rotate().expect("room");
    files
        .work(Task::Snapshot(b"all".to_vec()))
        .run()
        .expect("a disk that works");
    std::fs::write(&old, b"old").expect("room");
    let loaded = open(&directory).load().expect("files can be read");
    assert_eq!(loaded.snapshot.as_deref(), Some(&b"all"[..]));
    assert_eq!(loaded.segments, [b"old".to_vec(), Vec::new()]);
}

#[test]
fn what_cannot_be_opened_is_said_with_its_name() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, b"").expect("room");
    let error = FileStorage::open(&file.join("store"), true).expect_err("a file is no directory");
    assert!(error.to_string().contains("file/store"), "{error}");
}
