//! A run that an earlier version of the program wrote is refused by a line that says what to do, and is left as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use specfleet_ledger::{
    LedgerError, Meta, RunReader, SCHEMA, ScoreWriter, compact, edit_tags, list, remove, rescue, verify,
};
use tempfile::{TempDir, tempdir};

/// A ledger with a run that a simulation of schema 5 left.
fn older() -> (TempDir, PathBuf) {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = dir.path().join("older");
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema-5"), &run_dir);
    (dir, run_dir)
}

/// A folder with everything in it.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder of the recorded run") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file of the recorded run");
        }
    }
}

/// Every file below a folder.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}

#[test]
fn every_way_in_refuses_an_older_run_and_leaves_it_as_it_is() {
    let (dir, run_dir) = older();
    let before = files(dir.path());
    let refusals: [(&str, Result<(), LedgerError>); 8] = [
        ("read meta.json", Meta::read(&run_dir).map(drop)),
        ("open", RunReader::open(&run_dir).map(drop)),
        ("verify", verify(&run_dir).map(drop)),
        ("score", ScoreWriter::open(&run_dir).map(drop)),
        ("compact", compact(&run_dir).map(drop)),
        ("tag", edit_tags(&run_dir, &["old".to_owned()], &[]).map(drop)),
        ("delete", remove(&run_dir).map(drop)),
        ("rescue", rescue(&run_dir, dir.path(), "rescued").map(drop)),
    ];
    for (way, refused) in refusals {
        let error = refused.expect_err(way);
        assert!(matches!(error, LedgerError::OlderSchema { found: 5, supported: SCHEMA, .. }), "{way}: {error}");
    }
    let listed = list(dir.path()).expect("a listing");
    assert_eq!((listed.len(), listed[0].state.name()), (1, "unreadable"));
    assert!(files(dir.path()) == before, "something was changed");
}

#[test]
fn the_line_names_the_version_and_says_what_to_do() {
    let (_dir, run_dir) = older();
    let line = RunReader::open(&run_dir).expect_err("an older run").to_string();
    assert_eq!(
        line.replace(&run_dir.display().to_string(), "RUN"),
        "RUN/meta.json has schema 5, this program reads 6 alone: export it with the version that wrote it, and import that"
    );
}

#[test]
fn a_number_is_enough_whatever_else_the_file_holds() {
    for schema in 0..SCHEMA {
        let (_dir, run_dir) = older();
        fs::write(run_dir.join("meta.json"), format!("{{\"schema\": {schema}, \"what\": \"ever\"}}")).expect("a file");
        let error = RunReader::open(&run_dir).expect_err("an older run");
        assert!(matches!(error, LedgerError::OlderSchema { found, .. } if found == schema), "{error}");
    }
}
