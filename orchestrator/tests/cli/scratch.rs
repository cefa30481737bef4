//! The private copies that readers work on.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::*;

fn one_run() -> (Place, String) {
    let place = Place::new();
    place.quick(
        "simulate",
        "a",
        &[&FIXED[..], &["--prompts", "2", "--max-new-tokens", "4", "--methods", "hlm"]].concat(),
    );
    let run = place.name_of("a");
    (place, run)
}

#[test]
fn a_reader_without_room_says_what_it_needs() {
    let (place, run) = one_run();
    let script = format!(
        "mkdir small && mount -t tmpfs -o size=64k tmpfs small && head -c 60000 /dev/zero > small/full; \
         SPECFLEET_SCRATCH=$PWD/small exec \"$PROGRAM\" report {run} --ledger runs"
    );
    let program = place.command(&[]).get_program().to_owned();
    let namespaces = [&["-m"][..], &["-rm"]].into_iter().find_map(|flags| {
        let output = std::process::Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", &script])
            .env("PROGRAM", &program)
            .current_dir(place.path("."))
            .output();
        output.ok().filter(|output| !String::from_utf8_lossy(&output.stderr).contains("unshare"))
    });
    let Some(output) = namespaces else {
        println!("skipped: this system permits no mount namespaces (unshare -m, unshare -rm)");
        return;
    };
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("reading this run takes a copy of ") && error.contains("SPECFLEET_SCRATCH"), "{error}");
}

/// Nobody else may enter a copy, and a folder that nobody may write to can be read.
#[test]
fn reading_needs_no_right_to_write_and_what_a_killed_reader_left_is_removed() {
    let (place, run) = one_run();
    let scratch = place.path("scratch");
    let left = scratch.join("specfleet-read-0123456789abcdef");
    fs::create_dir_all(left.join("store/blobs")).expect("a folder");
    fs::write(left.join("store/db"), "half a copy").expect("a file");
    fs::write(left.join(".lock"), "").expect("a file");
    // Somebody else's, and a folder that another program made.
    fs::create_dir_all(scratch.join("specfleet-notes")).expect("a folder");
    let folder = place.path("runs").join(&run);
    let store = crate::damage::store_of(&folder);
    for path in [&store.join("blobs"), &store, &folder] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).expect("a folder");
    }
    let report = || {
        let mut command = place.command(&["report", &run, "--ledger", "runs", "--json"]);
        command.env("SPECFLEET_SCRATCH", &scratch).output().expect("the binary runs")
    };
    let output = report();
    assert!(output.status.success(), "{}", said(&output));
    let names: Vec<_> =
        fs::read_dir(&scratch).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names, ["specfleet-notes"]);
    for path in [&folder, &store, &store.join("blobs")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a folder");
    }
    // Readers share: one that stays does not keep another out.
    let reader = place.reader(&place.run_of("a"));
    assert_eq!(report().stdout, output.stdout);
    drop(reader);
}

/// Half a megabyte of sled's log for a few rows is not left behind.
#[test]
fn a_small_run_takes_little_room() {
    let (place, run) = one_run();
    let store = crate::damage::store_of(&place.path("runs").join(&run));
    let output = std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(&store).output().expect("du runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let bytes: u64 = said.split_whitespace().next().expect("a number").parse().expect("a number");
    assert!(bytes <= 40 * 1024, "{said}");
}
