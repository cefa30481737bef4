//! Files that never end, or that nobody writes to: refused at once, in one line.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use expect_test::{Expect, expect};

use crate::bad_input::refused_at;
use crate::common::*;

const QUICK: [&str; 8] = ["--methods", "hlm", "--prompts", "1", "--max-new-tokens", "1", "--ui", "none"];

/// A pipe that nobody writes to.
fn pipe(place: &Place, name: &str) {
    let path = place.path(name);
    // Whatever file was there.
    let _ = fs::remove_file(&path);
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
}

fn assert_refused(place: &Place, arguments: &[&str], expected: Expect) {
    refused_at(place, &[&["run"], arguments, &QUICK].concat(), expected);
}

#[test]
fn pipes_and_devices_in_the_place_of_a_models_files_are_refused() {
    for (file, expected) in [
        (
            "config.json",
            expect!["specfleet: cannot read own/config.json: it is a pipe, and only regular files are read"],
        ),
        (
            "model.safetensors",
            expect!["specfleet: cannot read own/model.safetensors: it is a pipe, and only regular files are read"],
        ),
        (
            "tokenizer.json",
            expect!["specfleet: cannot read own/tokenizer.json: it is a pipe, and only regular files are read"],
        ),
    ] {
        let place = Place::new();
        copy_model("drafter", &place.path("own"));
        pipe(&place, &format!("own/{file}"));
        assert_refused(&place, &["--drafter", "own"], expected);
    }
    let place = Place::new();
    copy_model("drafter", &place.path("own"));
    fs::remove_file(place.path("own/model.safetensors")).expect("removed");
    symlink("/dev/zero", place.path("own/model.safetensors")).expect("linked");
    assert_refused(
        &place,
        &["--drafter", "own"],
        expect!["specfleet: cannot read own/model.safetensors: it is a device, and only regular files are read"],
    );
}

/// A folder in the ledger whose files are pipes holds up nobody, and the runs beside it are listed.
#[test]
fn pipes_in_the_place_of_a_runs_files_hold_up_nobody() {
    let place = Place::new();
    place.run("out", &QUICK[..6]);
    let run = place.name_of("out");
    fs::create_dir_all(place.path("runs/piped")).expect("a folder");
    pipe(&place, "runs/piped/meta.json");
    let listed = call(&place, &["runs"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&run), "{}", said(&listed));
    // The same for the files of a run that lie beside its store.
    for file in ["progress.json", "summary.json", "tags.json"] {
        let folder = place.path("runs").join(&run);
        if folder.join(file).exists() {
            let kept = fs::read(folder.join(file)).expect("readable");
            pipe(&place, &format!("runs/{run}/{file}"));
            let output = call(&place, &["verify", &run]);
            assert!(said(&output).contains("is a pipe"), "{file}: {}", said(&output));
            fs::remove_file(folder.join(file)).expect("removed");
            fs::write(folder.join(file), kept).expect("written");
        }
    }
    assert!(printed(&place, &["verify", &run]).contains("sound"));
}

#[test]
fn pipes_and_devices_in_the_place_of_a_scenarios_files_are_refused() {
    let place = Place::new();
    pipe(&place, "data.jsonl");
    assert_refused(
        &place,
        &["--workload", "data.jsonl"],
        expect!["specfleet: cannot read data.jsonl: it is a pipe, and only regular files are read"],
    );
    symlink("/dev/zero", place.path("zero.jsonl")).expect("linked");
    assert_refused(
        &place,
        &["--workload", "zero.jsonl"],
        expect!["specfleet: cannot read zero.jsonl: it is a device, and only regular files are read"],
    );
    pipe(&place, "own.toml");
    assert_refused(
        &place,
        &["own.toml"],
        expect!["specfleet: cannot read own.toml: it is a pipe, and only regular files are read"],
    );
    assert_refused(
        &place,
        &["--set", "device.profile=own.toml"],
        expect!["specfleet: cannot read own.toml: it is a pipe, and only regular files are read"],
    );
    assert_refused(
        &place,
        &["--set", "calibration.file=own.toml"],
        expect!["specfleet: cannot read own.toml: it is a pipe, and only regular files are read"],
    );
    assert_refused(
        &place,
        &["--set", "load.pattern=csv", "--set", "load.file=own.toml"],
        expect!["specfleet: cannot read own.toml: it is a pipe, and only regular files are read"],
    );
    let tls = ["--set", "pool.tls.certificate=own.toml", "--set", "pool.tls.key=own.toml"];
    assert_refused(
        &place,
        &tls,
        expect![
            "specfleet: own.toml: it is a pipe, and only regular files are read; expected a certificate chain in PEM"
        ],
    );
}

/// A sparse file costs nothing to make.
#[test]
fn files_that_are_too_large_are_refused() {
    let place = Place::new();
    let large = |name: &str| {
        fs::File::create(place.path(name)).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    };
    large("data.jsonl");
    assert_refused(
        &place,
        &["--workload", "data.jsonl"],
        expect!["specfleet: cannot read data.jsonl: it has 1099511627776 bytes, and at most 1073741824 are read"],
    );
    large("own.toml");
    assert_refused(
        &place,
        &["own.toml"],
        expect!["specfleet: cannot read own.toml: it has 1099511627776 bytes, and at most 16777216 are read"],
    );
    copy_model("drafter", &place.path("own"));
    large("own/model.safetensors");
    assert_refused(
        &place,
        &["--drafter", "own"],
        expect![
            "specfleet: cannot read own/model.safetensors: it has 1099511627776 bytes, and at most 68719476736 are read"
        ],
    );
    copy_model("drafter", &place.path("other"));
    large("other/tokenizer.json");
    assert_refused(
        &place,
        &["--drafter", "other"],
        expect![
            "specfleet: cannot read other/tokenizer.json: it has 1099511627776 bytes, and at most 134217728 are read"
        ],
    );
}

/// A run's folder whose record of it is no file.
#[test]
fn a_run_that_is_described_by_a_pipe_is_refused() {
    let place = Place::new();
    fs::create_dir_all(place.path("elsewhere")).expect("a temporary folder");
    pipe(&place, "elsewhere/meta.json");
    for command in ["report", "verify", "compact", "export", "calibrate"] {
        let more: &[&str] = match command {
            "export" => &["--out", "out"],
            _ => &[],
        };
        let output = call(&place, &[&[command, "elsewhere"], more].concat());
        let error = String::from_utf8(output.stderr.clone()).expect("text");
        assert_eq!(output.status.code(), Some(2), "{command}: {}", said(&output));
        assert!(error.contains("meta.json: it is a pipe, and only regular files are read"), "{command}: {error}");
        assert_eq!(error.lines().count(), 1, "{command}: {error}");
    }
}

#[test]
fn work_that_is_too_large_is_refused() {
    let place = Place::new();
    let line = format!("{{\"prompt\": \"{}\"}}", "a ".repeat(1 << 20));
    place.file("long.jsonl", format!("{{\"prompt\": \"a\"}}\n{line}\n"));
    assert_refused(
        &place,
        &["--workload", "long.jsonl"],
        expect!["specfleet: long.jsonl:2: the line has 2097166 bytes, at most 1048576 are taken"],
    );
    let mix = format!("[run]\nworkload = [{}]\n", "{ data = \"gsm8k\", prompts = 1 },".repeat(70_000));
    place.file("mix.toml", mix);
    refused_at(
        &place,
        &["run", "mix.toml", "--methods", "hlm", "--ui", "none"],
        expect!["specfleet: mix.toml: run.workload: lists 70000 data sets; at most 1000"],
    );
}
