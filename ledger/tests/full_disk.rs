//! A full disk stops a run cleanly. Needs a small file system of its own, so it runs on demand:
//!
//! ```text
//! mount -t tmpfs -o size=40m tmpfs DIR
//! SPECFLEET_TEST_SMALL_DISK=DIR cargo test --release -p specfleet-ledger --test full_disk -- --ignored
//! ```

mod common;

use std::path::PathBuf;

use common::*;
use specfleet_engine::id::DeviceId;
use specfleet_ledger::{LedgerError, ListedState, RunReader, RunState, RunWriter, list};

#[test]
#[ignore = "needs SPECFLEET_TEST_SMALL_DISK, a small file system that it may fill"]
fn a_full_disk_is_a_typed_error_and_what_was_flushed_stays() {
    let disk = PathBuf::from(std::env::var_os("SPECFLEET_TEST_SMALL_DISK").expect("the folder to fill"));
    let mut writer = RunWriter::create(&disk, meta("full")).expect("a new run");
    let mut noise = Noise(1);
    let mut flushed = 0;
    let error = loop {
        let rounds = plausible_rounds(&mut noise, 2000, 100);
        let id = id(0, writer.progress().generations as u32);
        let written = writer
            .close_generation(plausible_generation(id, DeviceId(0), &rounds), &rounds)
            .and_then(|()| writer.flush());
        match written {
            Ok(()) => flushed = writer.progress().generations,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LedgerError::DiskFull { .. }), "{error}");
    assert!(flushed > 3);
    let run_dir = writer.run_dir().to_path_buf();
    let error = writer.finish(RunState::Completed).expect_err("the disk is still full");
    assert!(matches!(error, LedgerError::DiskFull { .. }), "{error}");
    let listed = list(&disk).expect("a listing").remove(0);
    assert!(matches!(listed.state, ListedState::Failed { .. }), "{listed:?}");
    assert_eq!(listed.progress.generations, flushed);
    let reader = RunReader::open(&run_dir).expect("what was flushed");
    assert!(reader.closed_generations() as u64 >= flushed);
    for generation in reader.closed_rounds() {
        assert_eq!(generation.expect("all its rounds").rounds.len(), 2000);
    }
}
