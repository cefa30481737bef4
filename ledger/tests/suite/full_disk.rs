//! A full disk stops a run cleanly.
//!
//! The test runs itself as a child in a mount namespace of its own, over a file system of 40 MB that is gone with it. Where
//! the system permits no namespaces it says so and does nothing.

use std::path::PathBuf;
use std::process::Command;

use crate::common::*;
use specfleet_engine::id::DeviceId;
use specfleet_ledger::{LedgerError, ListedState, RunReader, RunState, RunWriter, list, verify};
use tempfile::tempdir;

const DISK: &str = "SPECFLEET_TEST_SMALL_DISK";

/// A command in a mount namespace: as root, else as root of a user namespace. `None`, with the reason printed, if the
/// system permits neither.
fn in_namespace(script: &str) -> Option<Command> {
    for flags in ["-m", "-rm"] {
        let tried = Command::new("unshare").args([flags, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]).output();
        if tried.is_ok_and(|tried| tried.status.success()) {
            let mut command = Command::new("unshare");
            command.args([flags, "sh", "-c", script]);
            return Some(command);
        }
    }
    println!("skipped: this system permits no mount namespaces (unshare -m, unshare -rm)");
    None
}

#[test]
fn a_full_disk_is_a_typed_error_and_what_was_flushed_stays() {
    let dir = tempdir().expect("a temporary folder");
    let script =
        format!("mount -t tmpfs -o size=40m tmpfs \"${DISK}\" && exec \"$TEST\" --exact full_disk::child --nocapture");
    let Some(mut command) = in_namespace(&script) else { return };
    let test = std::env::current_exe().expect("this test's binary");
    let output = command.env(DISK, dir.path()).env("TEST", test).output().expect("a child");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("the disk was full"), "{said}");
}

/// The child, on its small disk.
#[test]
fn child() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else { return };
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
    // Others take what is left of the disk to the last byte.
    let mut others = std::fs::File::create(disk.join("others")).expect("a file");
    while std::io::Write::write(&mut others, &[1; 4096]).is_ok_and(|written| written > 0) {}
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
    drop(reader);
    assert!(verify(&run_dir).expect("a check").is_sound());
    println!("the disk was full after {flushed} generations");
}
