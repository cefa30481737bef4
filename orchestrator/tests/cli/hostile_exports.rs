//! Exports that are not as they were exported: cut, flipped, lacking a file, or of a run that was damaged already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::RoundRecord;
use specfleet_engine::time::Time;
use specfleet_ledger::{Meta, RunState, RunWriter};

use crate::common::*;
use crate::exports::one_run;
use crate::reading::damage;

/// An export of the run in a folder of this name.
fn exported(place: &Place, run: &str, format: &str, out: &str) -> PathBuf {
    printed(place, &["export", run, "--format", format, "--out", out]);
    place.path(out)
}

/// Imports it under this name; the one line with which that is refused. The ledger is as it was.
fn refusal(place: &Place, out: &str, name: &str) -> String {
    let output = call(place, &["import", out, "--name", name]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let error = String::from_utf8(output.stderr.clone()).expect("text");
    assert!(error.trim_end().lines().count() == 1 && output.stdout.is_empty(), "{}", said(&output));
    let ledger = fs::read_dir(place.path("runs")).expect("the ledger");
    assert_eq!(ledger.count(), 1, "what was refused leaves nothing");
    error
}

/// Changes `run.json` as a JSON object.
fn describe(out: &Path, change: impl FnOnce(&mut Value)) {
    let path = out.join("run.json");
    let mut about: Value = serde_json::from_slice(&fs::read(&path).expect("run.json")).expect("JSON");
    change(&mut about);
    fs::write(path, format!("{about:#}\n")).expect("written");
}

/// As exports of earlier versions are.
fn take_digests_out(out: &Path) {
    describe(out, |about| drop(about.as_object_mut().expect("an object").remove("digests")));
}

#[test]
fn what_is_not_as_it_was_exported_is_refused() {
    let (place, run) = one_run();
    for format in ["jsonl", "parquet"] {
        let out = exported(&place, &run, format, format);
        let refused = |file: &str| {
            let error = refusal(&place, format, "back");
            assert!(error.contains(file), "{file}: {error}");
        };
        for table in ["rounds", "generations", "batches", "energy", "audits", "verifiers", "scores"] {
            let name = format!("{table}.{format}");
            let path = out.join(&name);
            let good = fs::read(&path).expect(&name);
            // One bit, wherever it is; a table may be empty.
            for at in [good.len() / 3, good.len() / 2, good.len().saturating_sub(1)] {
                let mut bad = good.clone();
                if let Some(byte) = bad.get_mut(at) {
                    *byte ^= 1;
                    fs::write(&path, &bad).expect(&name);
                    refused(&name);
                }
            }
            fs::remove_file(&path).expect(&name);
            refused(&name);
            fs::write(&path, &good).expect(&name);
        }
        // The last line, whole.
        if format == "jsonl" {
            let path = out.join("generations.jsonl");
            let good = fs::read_to_string(&path).expect("text");
            let cut = good.trim_end().rfind('\n').expect("several lines") + 1;
            fs::write(&path, &good[..cut]).expect("written");
            refused("generations.jsonl");
            fs::write(&path, &good).expect("written");
        }
        fs::write(out.join("more.jsonl"), "").expect("written");
        refused("more.jsonl");
        fs::remove_file(out.join("more.jsonl")).expect("it is there");
        let about = fs::read(out.join("run.json")).expect("run.json");
        describe(&out, |about| about["meta"]["seed"] = 9.into());
        refused("run.json");
        fs::write(out.join("run.json"), about).expect("written");
        printed(&place, &["import", format, "--name", "back"]);
        printed(&place, &["rm", "back", "--yes"]);
    }
}

/// No bit of the description can change unseen, but for the spaces between its words.
#[test]
fn a_changed_description_is_refused() {
    let (place, run) = one_run();
    let out = exported(&place, &run, "jsonl", "out");
    let about = fs::read(out.join("run.json")).expect("run.json");
    let step = about.len() / 12;
    for at in (0..about.len()).step_by(step).filter(|at| !about[*at].is_ascii_whitespace()) {
        let mut bad = about.clone();
        bad[at] ^= 1;
        fs::write(out.join("run.json"), bad).expect("written");
        assert!(refusal(&place, "out", "back").contains("run.json"), "byte {at}");
    }
}

/// Exports of earlier versions say how many rows there are, and nothing that would show a flipped bit.
#[test]
fn an_export_without_digests_is_imported_with_a_note() {
    let (place, run) = one_run();
    let out = exported(&place, &run, "jsonl", "out");
    take_digests_out(&out);
    let path = out.join("batches.jsonl");
    let good = fs::read_to_string(&path).expect("text");
    let cut = good.trim_end().rfind('\n').expect("several lines") + 1;
    fs::write(&path, &good[..cut]).expect("written");
    let error = refusal(&place, "out", "back");
    let rows = good.lines().count();
    let why = format!("out/batches.jsonl: it has {} rows, and run.json says {rows}: it is not whole", rows - 1);
    assert!(error.contains(&why), "{error}");
    fs::write(&path, &good).expect("written");
    let output = call(&place, &["import", "out", "--name", "back"]);
    assert!(output.status.success(), "{}", said(&output));
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(note.starts_with("note: run.json has no digests") && note.lines().count() == 1, "{note}");
    assert!(printed(&place, &["verify", "back"]).ends_with("sound: every chunk is whole and the books close\n"));
}

/// A run of which a part was lost is nowhere taken for a whole one.
#[test]
fn the_export_of_a_damaged_run_is_no_run() {
    let (place, run) = one_run();
    damage(&place, &run, b'b');
    let output = call(&place, &["export", &run, "--format", "jsonl", "--out", "out"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let error = refusal(&place, "out", "back");
    assert!(error.contains("out/run.json: 1 chunk was damaged when the run was exported"), "{error}");
}

/// A figure that no run can have is refused with its place; sums and screens stay what they are.
#[test]
fn impossible_figures_are_refused() {
    let (place, run) = one_run();
    let out = exported(&place, &run, "jsonl", "out");
    take_digests_out(&out);
    let impossible = [
        ("generations", "device_nanojoules", "-1", "-1 is out of range: 0 to 4000000000000000000 nJ"),
        ("verifiers", "idle_nanojoules", "9223372036854775807", "is out of range: 0 to 4000000000000000000 nJ"),
        ("batches", "compute_ns", "-1", "-1 is out of range: 0 to 3155760000000000000 ns"),
        ("rounds", "committed_at_ns", "9223372036854775807", "is out of range: 0 to 3155760000000000000 ns"),
        ("rounds", "device", "4294967295", "4294967295 is out of range: 0 to 1"),
        ("generations", "device", "2", "2 is out of range: 0 to 1"),
        ("batches", "verifier", "4096", "4096 is out of range: 0 to 4095"),
        ("batches", "method_index", "2", "2 is out of range: 0 to 1"),
        ("generations", "data_set_index", "1", "1 is out of range: 0 to 0"),
        ("batches", "cached", "9007199254740993", "is out of range: 0 to 9007199254740992 token"),
    ];
    for (table, column, value, why) in impossible {
        let path = out.join(format!("{table}.jsonl"));
        let good = fs::read_to_string(&path).expect("text");
        let mut first: Value = serde_json::from_str(good.lines().next().expect("a row")).expect("JSON");
        first[column] = value.parse::<i64>().expect("a number").into();
        let rest: Vec<&str> = good.lines().skip(1).collect();
        fs::write(&path, format!("{first}\n{}\n", rest.join("\n"))).expect("written");
        let error = refusal(&place, "out", "back");
        assert!(error.contains(&format!("{table}.jsonl: row 1, column {column}: ")) && error.contains(why), "{error}");
        fs::write(&path, good).expect("written");
    }
}

#[test]
fn impossible_descriptions_are_refused() {
    let (place, run) = one_run();
    let out = exported(&place, &run, "parquet", "out");
    take_digests_out(&out);
    let good = fs::read(out.join("run.json")).expect("run.json");
    let refused = |change: &dyn Fn(&mut Value), why: &str| {
        describe(&out, |about| change(&mut about["meta"]));
        let error = refusal(&place, "out", "back");
        assert!(error.contains(why) && error.len() < 1_000, "{why}: {error}");
        assert!(!error.trim_end().contains(char::is_control), "{error:?}");
        fs::write(out.join("run.json"), &good).expect("written");
    };
    let method = |name: &'static str| move |meta: &mut Value| meta["methods"][0]["name"] = name.into();
    refused(&method("=cmd|calc"), "\"=cmd|calc\" is no name of a method");
    refused(&method("hlm\u{1b}[2J"), "the name of a method holds characters that no line shows");
    refused(&|meta| meta["methods"][0]["name"] = "m".repeat(5 << 20).into(), "has 5242880 bytes, 256 are allowed");
    let many = |meta: &mut Value| {
        let one = meta["methods"][0].clone();
        meta["methods"] = vec![one; 20_000].into();
    };
    refused(&|meta| meta["tags"] = vec!["=cmd|calc"].into(), "tag \"=cmd|calc\"");
    refused(&many, "the run has 20000 methods, 1000 are taken at most");
    refused(&|meta| meta["devices"] = 4_294_967_295_u32.into(), "the run has 4294967295 devices");
    refused(&|meta| meta["ended"] = u64::MAX.into(), "seconds since 1970 are no date");
    refused(&|meta| meta["machine"]["cpu"] = "\u{1b}]0;x".into(), "cpu: ");
    for (name, why) in [
        ("calibrations", "run name \"calibrations\" means something else"),
        ("LATEST", "run name \"LATEST\" means something else"),
        (".hidden", "run name \".hidden\" cannot be a folder"),
    ] {
        let error = refusal(&place, "out", name);
        assert!(error.contains(why), "{name}: {error}");
    }
    printed(&place, &["export", &run, "--out", "again"]);
    printed(&place, &["import", "again", "--name", "back"]);
}

/// A run that takes a while to export and to import: its rounds are of generations that never closed.
fn large_run(place: &Place, like: &str) -> String {
    let meta = Meta { run: "large".to_owned(), ..Meta::read(&place.path("runs").join(like)).expect("meta.json") };
    let mut writer = RunWriter::create(&place.path("runs"), meta).expect("a new run");
    for prompt in 0..400 {
        let id = GenerationId { method: 0, prompt, repetition: 0, pass: 0 };
        let round = |position| RoundRecord {
            position,
            token: prompt.wrapping_mul(position) % 2_048,
            committed_at: Time(u64::from(prompt + position) * 1_000_003),
            ..RoundRecord::UNKNOWN
        };
        let rounds: Vec<RoundRecord> = (0..1_000).map(round).collect();
        writer.append_rounds(id, DeviceId(prompt % 2), &rounds).expect("rounds");
    }
    writer.finish(RunState::Interrupted).expect("an end");
    "large".to_owned()
}

/// Names in a folder, of those that are hidden or of all; none where it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Sends a signal once the command has begun to fill a hidden folder there; its exit code and what it said.
fn interrupted(place: &Place, arguments: &[&str], fills: &Path, signal: &str) -> (Option<i32>, String) {
    let mut command = place.command(arguments);
    command.args(["--ledger", "runs"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    while !names(fills).iter().any(|name| name.starts_with('.')) {
        if child.try_wait().expect("it is ours").is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
    sent.expect("kill runs");
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Ctrl-C and the polite signal of a service manager: the exit code of a shell, and nothing is left.
#[test]
fn an_export_or_import_that_is_interrupted_leaves_nothing() {
    let (place, run) = one_run();
    let large = large_run(&place, &run);
    let (out, ledger) = (place.path("out"), place.path("runs"));
    exported(&place, &large, "jsonl", "whole");
    let before = names(&ledger);
    let export = ["export", &large, "--format", "jsonl", "--out", "out"];
    let import = ["import", "whole", "--name", "back"];
    for (arguments, fills) in [(&export[..], &out), (&import[..], &ledger)] {
        for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
            // Somebody else may have the processors until it is over: then once more.
            let mut said = (Some(0), String::new());
            for _ in 0..5 {
                said = interrupted(&place, arguments, fills, signal);
                if said.0 != Some(0) {
                    break;
                }
                let _ = fs::remove_dir_all(&out);
                let _ = fs::remove_dir_all(ledger.join("back"));
            }
            assert!(!out.exists() && names(&ledger) == before, "{arguments:?} {signal}: {:?}", names(&ledger));
            assert_eq!(said, (Some(code), "specfleet: interrupted\n".to_owned()), "{arguments:?} {signal}");
        }
    }
}
