//! Commands that are killed at some moment: every row that was there is there, no sound run is called damaged, and what a
//! killed command leaves is gone after the next ones.
//!
//! `SPECFLEET_KILLS` sets how often each command is killed: twice unless it says otherwise. The moments are spread over the
//! time that a command takes when nobody kills it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::*;

/// How often each command is killed.
fn kills() -> u32 {
    std::env::var("SPECFLEET_KILLS").map_or(2, |kills| kills.parse().expect("SPECFLEET_KILLS is a number"))
}

const FLEET: [&str; 8] = ["--devices", "8", "--prompts", "96", "--max-new-tokens", "24", "--methods", "u-hlm,ui-hlm"];

/// A place with a simulated run and an export of it, and the name of the run. Private copies go to a folder of the place.
fn prepared() -> (Place, String) {
    let place = Place::new();
    fs::create_dir(place.path("scratch")).expect("a folder");
    place.quick("simulate", "a", &[&FIXED[..], &FLEET].concat());
    let run = place.name_of("a");
    printed(&place, &["export", &run, "--out", "exported", "--format", "jsonl"]);
    (place, run)
}

fn command(place: &Place, arguments: &[&str]) -> std::process::Command {
    let ledger: &[&str] = if arguments.contains(&"--ledger") { &[] } else { &["--ledger", "runs"] };
    let mut command = place.command(&[arguments, ledger].concat());
    command.env("SPECFLEET_SCRATCH", place.path("scratch"));
    command
}

/// Starts a command and kills it after this time, unless it ends before.
fn kill_after(place: &Place, arguments: &[&str], moment: Duration) {
    let child = command(place, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("the binary runs");
    std::thread::sleep(moment);
    // The error is a command that has ended.
    let _ = child.kill();
    child.wait().expect("it was started");
}

fn succeeds(place: &Place, arguments: &[&str]) -> String {
    let output = command(place, arguments).output().expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// Kills a command at moments from its beginning to its end; after each, `check` looks at what is there.
fn kill(place: &Place, arguments: &[&str], prepare: impl Fn(), check: impl Fn()) {
    prepare();
    let started = Instant::now();
    succeeds(place, arguments);
    let whole = started.elapsed();
    check();
    for number in 0..kills() {
        prepare();
        kill_after(place, arguments, whole * (2 * number + 1) / (2 * kills()));
        check();
    }
}

/// The run is whole, and has the rows that it had.
fn is_whole(place: &Place, run: &str, rows: &str) {
    let verified = succeeds(place, &["verify", run]);
    assert!(verified.contains(": sound: "), "{verified}");
    assert_eq!(rounds(place, run), rows);
}

fn rounds(place: &Place, run: &str) -> String {
    succeeds(place, &["query", run, "--metric", "rounds:sum", "--group-by", "method", "--format", "csv"])
}

/// Every folder of the ledger is a run that can be listed, and nothing is left of copies and exports.
fn nothing_is_left(place: &Place) {
    let listed: Vec<Value> = serde_json::from_str(&succeeds(place, &["runs", "--json"])).expect("a list");
    assert!(listed.iter().all(|run| run["state"] != "unreadable"), "{listed:?}");
    let listed: BTreeSet<String> = listed.iter().map(|run| run["run"].as_str().expect("a name").to_owned()).collect();
    let there = names(&place.path("runs"));
    assert!(there.iter().all(|name| listed.contains(name) || name == "calibrations"), "{there:?}, {listed:?}");
    assert_eq!(names(&place.path("scratch")), BTreeSet::new());
    let beside = names(&place.path("."));
    assert!(!beside.iter().any(|name| name.starts_with(".exporting")), "{beside:?}");
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// Commands that clean up what killed ones of their kind left: a run that is made and deleted, an import, an export.
fn clean_up(place: &Place) {
    let tiny =
        ["--devices", "1", "--prompts", "1", "--max-new-tokens", "2", "--methods", "hlm", "--ui", "none", "--json"];
    let made: Value =
        serde_json::from_str(&succeeds(place, &[&["simulate"][..], &FIXED, &tiny].concat())).expect("JSON");
    succeeds(place, &["rm", made["run"].as_str().expect("a name"), "--yes"]);
    succeeds(place, &["import", "exported", "--name", "cleaning"]);
    succeeds(place, &["export", "cleaning", "--out", "again", "--format", "jsonl"]);
    fs::remove_dir_all(place.path("again")).expect("an export");
    succeeds(place, &["rm", "cleaning", "--yes"]);
}

#[test]
fn readers_tags_and_scores_that_are_killed_cost_nothing() {
    let (place, run) = prepared();
    let rows = rounds(&place, &run);
    for arguments in [&["report", &run, "--json"][..], &["tag", &run, "killed"], &["score", &run, "--ui", "none"]] {
        kill(&place, arguments, || (), || is_whole(&place, &run, &rows));
    }
    clean_up(&place);
    nothing_is_left(&place);
}

#[test]
fn a_killed_compaction_costs_nothing() {
    let (place, run) = prepared();
    let rows = rounds(&place, &run);
    kill(&place, &["compact", &run], || (), || is_whole(&place, &run, &rows));
    clean_up(&place);
    nothing_is_left(&place);
}

#[test]
fn killed_exports_and_imports_leave_all_or_nothing() {
    let (place, run) = prepared();
    let rows = rounds(&place, &run);
    let gone = |path: &str| {
        let _ = fs::remove_dir_all(place.path(path));
    };
    let exported = || {
        is_whole(&place, &run, &rows);
        // It comes last: a folder without it is no export, and is refused as one.
        if place.path("new/run.json").exists() {
            succeeds(&place, &["import", "new", "--name", "back"]);
            is_whole(&place, "back", &rows);
            succeeds(&place, &["rm", "back", "--yes"]);
        }
    };
    kill(&place, &["export", &run, "--out", "new", "--format", "jsonl"], || gone("new"), exported);
    let imported = || {
        if place.path("runs/imported").exists() {
            is_whole(&place, "imported", &rows);
        }
    };
    kill(&place, &["import", "exported", "--name", "imported"], || gone("runs/imported"), imported);
    clean_up(&place);
    nothing_is_left(&place);
}

#[test]
fn a_killed_deletion_deletes_all_or_nothing() {
    let (place, run) = prepared();
    let rows = rounds(&place, &run);
    let again = || {
        if !place.path("runs/gone").exists() {
            succeeds(&place, &["import", "exported", "--name", "gone"]);
        }
    };
    let check = || {
        if place.path("runs/gone").exists() {
            is_whole(&place, "gone", &rows);
        }
    };
    kill(&place, &["rm", "gone", "--yes"], again, check);
    clean_up(&place);
    nothing_is_left(&place);
}

#[test]
fn a_killed_writer_leaves_a_run_with_what_it_acknowledged() {
    let (place, _) = prepared();
    let long = ["--devices", "8", "--prompts", "400", "--max-new-tokens", "24", "--methods", "u-hlm", "--ui", "none"];
    let check = || {
        let runs: Vec<Value> = serde_json::from_str(&succeeds(&place, &["runs", "--json"])).expect("a list");
        for run in runs {
            let name = run["run"].as_str().expect("a name");
            let verified = succeeds(&place, &["verify", name]);
            assert!(verified.contains(": sound: "), "{verified}");
            let stored = rounds(&place, name);
            assert!(!stored.is_empty() && run["progress"]["generations"].is_u64(), "{stored}");
        }
    };
    kill(&place, &[&["simulate"][..], &FIXED, &long].concat(), || (), check);
    clean_up(&place);
    nothing_is_left(&place);
}
