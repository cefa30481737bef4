//! Disks that are full: a run stops, says why, and what it wrote is whole; an export leaves nothing.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::common::*;

/// Mounts a small disk, runs, fills the disk as soon as a generation is stored, and looks at what is left once there is
/// room again. All in a namespace that takes the disk with it.
const RUN: &str = r#"
mount -t tmpfs -o size=64m tmpfs disk || exit 77
"$SPECFLEET" run --ledger disk/runs $ARGUMENTS > out 2> err &
run=$!
while kill -0 $run 2>/dev/null && ! grep -qs '"generations": [1-9]' disk/runs/*/progress.json; do sleep 0.02; done
dd if=/dev/zero of=disk/filler bs=1M count=64 2>/dev/null
filled=$(date +%s)
wait $run
echo $? > code
echo $(($(date +%s) - filled)) > seconds
rm disk/filler
"$SPECFLEET" runs --ledger disk/runs --json > runs.json
run=$(dirname disk/runs/*/meta.json)
"$SPECFLEET" verify "$run" > verified 2>&1
echo $? >> code
"#;

/// Exports onto a disk that is too small, and onto one that takes nothing.
const EXPORTS: &str = r#"
mount -t tmpfs -o size=64k tmpfs disk || exit 77
"$SPECFLEET" export --ledger runs $ARGUMENTS --out disk/out 2> full
echo $? > code
ls -A disk > left
mount -o remount,ro disk || exit 77
"$SPECFLEET" export --ledger runs $ARGUMENTS --out disk/out 2> read-only
echo $? >> code
"#;

/// Runs a script in a mount namespace of its own; false, which is said, where the system permits none.
fn in_namespace(place: &Place, script: &str, arguments: &str) -> bool {
    fs::create_dir(place.path("disk")).expect("a folder");
    let permitted = |flags: &&&str| {
        let tried = Command::new("unshare").args([**flags, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let Some(flags) = ["-m", "-rm"].iter().find(permitted) else {
        println!("skipped: this system permits no mount namespaces (unshare -m, unshare -rm)");
        return false;
    };
    let output = Command::new("unshare")
        .args([flags, "sh", "-c", script])
        .current_dir(place.path(""))
        .env("SPECFLEET", env!("CARGO_BIN_EXE_specfleet"))
        .env("ARGUMENTS", arguments)
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{}", said(&output));
    true
}

#[test]
fn stops_the_run_and_keeps_what_was_written() {
    let place = Place::new();
    let arguments = "--methods hlm --devices 4 --prompts 20000 --max-new-tokens 64 --ui none --set device.profile=host \
                     --set device.link=real";
    if !in_namespace(&place, RUN, arguments) {
        return;
    }
    let read = |name: &str| fs::read_to_string(place.path(name)).expect(name);
    let (error, verified) = (read("err"), read("verified"));
    assert_eq!(read("code"), "1\n0\n", "{error}\n{verified}");
    let seconds: u64 = read("seconds").trim().parse().expect("a number");
    assert!(seconds < 30, "it went on for {seconds} s");
    assert!(error.contains("too little space left on the disk of disk/runs/"), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    let runs: Vec<Value> = serde_json::from_str(&read("runs.json")).expect("a list");
    assert_eq!(runs.len(), 1);
    let state = runs[0]["state"].as_str().expect("a state");
    assert!(state == "interrupted" || state == "failed", "{}", runs[0]);
    let stored = runs[0]["progress"]["generations"].as_u64().expect("a count");
    assert!(stored > 0 && stored < 20_000, "{}", runs[0]);
    assert!(verified.contains("sound: every chunk is whole and the books close"), "{verified}");
}

#[test]
fn an_export_leaves_nothing() {
    let place = Place::new();
    let fleet = ["--devices", "2", "--prompts", "40", "--max-new-tokens", "40", "--methods", "hlm"];
    place.quick("simulate", "a", &[&FIXED[..], &fleet].concat());
    let run = place.name_of("a");
    if !in_namespace(&place, EXPORTS, &format!("{run} --format jsonl")) {
        return;
    }
    let read = |name: &str| fs::read_to_string(place.path(name)).expect(name);
    assert_eq!(read("code"), "1\n2\n", "{}{}", read("full"), read("read-only"));
    let (full, read_only) = (read("full"), read("read-only"));
    assert!(full.starts_with("specfleet: too little space left on the disk of disk/out/"), "{full}");
    assert_eq!(read_only, "specfleet: disk/out: Read-only file system (os error 30)\n");
    assert_eq!(read("left"), "", "an export that failed leaves nothing");
}
