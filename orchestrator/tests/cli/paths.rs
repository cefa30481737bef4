//! Paths that are no Unicode, as a file system on Linux may hold them: every flag takes them as they are, and what a run
//! stores of them finds the files again.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::common::*;

/// A name with a byte that no text in UTF-8 has.
fn odd(name: &str, extension: &str) -> OsString {
    OsString::from_vec([name.as_bytes(), b"\xff", extension.as_bytes()].concat())
}

fn call(place: &Place, arguments: &[&OsStr]) -> Output {
    place.command(&[]).args(arguments).output().expect("the binary runs")
}

fn must(place: &Place, arguments: &[&OsStr]) -> String {
    let output = call(place, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Flags between odd paths.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { &[$(OsStr::new(&$argument)),*] };
}

/// The embedded pair in folders with odd names, and a data set and a scenario beside them.
fn odd_inputs(place: &Place) {
    copy_model("drafter", &place.path("").join(odd("drafter", "")));
    copy_model("verifier", &place.path("").join(odd("verifier", "")));
    fs::create_dir(place.path("").join(odd("scenarios", ""))).expect("a folder");
    let lines = "{\"question\": \"2+2?\", \"answer\": 4}\n{\"question\": \"3+4?\", \"answer\": 7}\n";
    fs::write(place.path("").join(odd("w", ".jsonl")), lines).expect("a data set");
    fs::write(place.path("beside.jsonl"), lines).expect("a data set");
    let scenario = "[run]\nworkload = \"beside.jsonl\"\nprompts = 6\nmax_new_tokens = 16\nmethods = [\"u-hlm\", \"llm-only\"]\n\
        devices = 2\n[device]\nprofile = \"host\"\nlink = \"real\"\n[calibration]\nworkload = \"file:c%FF.jsonl\"\nprompts = 4\n";
    fs::write(place.path("").join(odd("s", ".toml")), scenario).expect("a scenario");
    let calibration: String =
        (0..4).map(|n| format!("{{\"question\": \"{n}+1?\", \"answer\": {}}}\n", n + 1)).collect();
    fs::write(place.path("").join(odd("c", ".jsonl")), calibration).expect("a data set");
}

/// Its path, by way of a folder with an odd name, which is in the path of everything that it names.
fn scenario() -> PathBuf {
    Path::new(&odd("scenarios", "")).join("..").join(odd("s", ".toml"))
}

#[test]
fn paths_that_are_no_unicode_are_taken_as_they_are() {
    let place = Place::new();
    odd_inputs(&place);
    let (ledger, out) = (odd("runs", ""), odd("out", ""));
    let (drafter, verifier, workload) = (odd("drafter", ""), odd("verifier", ""), odd("w", ".jsonl"));
    let scenario = scenario();
    let flags = arguments![
        "run",
        scenario,
        "--ledger",
        ledger,
        "--out",
        out,
        "--workload",
        workload,
        "--drafter",
        drafter,
        "--verifier",
        verifier,
        "--ui",
        "none",
    ];
    must(&place, flags);
    let results = Results::read(&place.path("").join(&out));
    results.assert_sound();
    assert!(results.lines.iter().all(|line| line["prompt"].as_str().is_some_and(|prompt| prompt.contains("+"))));
    let listed: Vec<Value> =
        serde_json::from_str(&must(&place, arguments!["runs", "--ledger", ledger, "--json"])).expect("a list");
    let name = listed[0]["run"].as_str().expect("a name").to_owned();

    // What the run stored leads to the same files: its data set for exact match, its verifier for perplexity.
    let report: Value =
        serde_json::from_str(&must(&place, arguments!["report", name, "--ledger", ledger, "--json"])).expect("JSON");
    let exact = |report: &Value| report["methods"][0]["metrics"]["exact_match"]["mean"].clone();
    assert!(exact(&report).is_number(), "{}", report["missing"]);
    let by_folder = Path::new(&ledger).join(&name);
    let (html, csv) = (odd("report", ".html"), odd("table", ".csv"));
    must(&place, arguments!["report", by_folder, "--html", html]);
    let encoder = place.path("").join(odd("encoder", ""));
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/bertscore/bert-small");
    fs::create_dir(&encoder).expect("a folder");
    for file in fs::read_dir(fixtures).expect("it ships") {
        let file = file.expect("an entry").path();
        fs::copy(&file, encoder.join(file.file_name().expect("a name"))).expect("copied");
    }
    let score = arguments![
        "score",
        name,
        "--ledger",
        ledger,
        "--perplexity",
        "--encoder",
        encoder,
        "--layer",
        "1",
        "--ui",
        "none"
    ];
    must(&place, score);
    must(&place, arguments!["frontier", name, "--ledger", ledger, "--csv", csv, "--method", "u-hlm"]);
    must(&place, arguments!["verify", name, "--ledger", ledger]);
    must(&place, arguments!["compact", name, "--ledger", ledger]);

    // There and back through an odd folder, and the same report from it.
    let (exported, other) = (odd("export", ""), odd("other", ""));
    must(&place, arguments!["export", name, "--ledger", ledger, "--out", exported]);
    must(&place, arguments!["import", exported, "--ledger", other]);
    let again = must(&place, arguments!["report", name, "--ledger", other, "--json"]);
    assert_eq!(exact(&serde_json::from_str(&again).expect("JSON")), exact(&report));
    for file in [&html, &csv] {
        assert!(fs::metadata(place.path("").join(file)).is_ok_and(|file| file.len() > 0), "{}", file.display());
    }
}

#[test]
fn simulations_take_them_too() {
    let place = Place::new();
    odd_inputs(&place);
    let scenario = scenario();
    let (ledger, csv, verifier) = (odd("runs", ""), odd("swept", ".csv"), odd("verifier", ""));
    must(&place, arguments!["check", scenario]);
    let measured = "pool.cost=measured";
    must(
        &place,
        arguments!["run", scenario, "--ledger", ledger, "--set", measured, "--ui", "none", "--verifier", verifier],
    );
    let calibration = odd("calibration", ".json");
    let output = call(&place, arguments!["calibrate", "latest", "--ledger", ledger, "--out", calibration]);
    assert!(output.status.success(), "{}", said(&output));
    let virtual_time = [
        "device.profile=phone",
        "device.link=fair",
        "simulate.cost=fixed",
        "simulate.batch_ms=2",
        "simulate.host=false",
    ];
    let set = |command: &str, more: &[&OsStr]| {
        let sets = virtual_time.iter().flat_map(|key| [OsStr::new("--set"), OsStr::new(key)]);
        let fixed = arguments![command, scenario, "--ledger", ledger, "--ui", "none"];
        must(&place, &[&fixed[..], &sets.collect::<Vec<_>>(), more].concat())
    };
    // A scenario on the command line names such a file as a scenario file does.
    set("simulate", arguments!["--set", "calibration.file=file:calibration%FF.json", "--verifier", verifier]);
    set("sweep", arguments!["--vary", "run.devices=1,2", "--csv", csv]);
    assert!(fs::metadata(place.path("").join(&csv)).is_ok_and(|file| file.len() > 0));
}

/// Two paths that differ only in such a byte are two paths, and one that is not there is named.
#[test]
fn what_is_not_there_is_still_refused() {
    let place = Place::new();
    for flag in ["--workload", "--drafter", "--verifier"] {
        let output = call(&place, arguments!["run", flag, odd("nothing/n", ".jsonl")]);
        let line = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(line.lines().count() == 1 && line.contains("nothing/n\u{fffd}.jsonl"), "{line}");
    }
    let output = call(&place, arguments!["run", odd("s", ".toml")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("s\u{fffd}.toml: no such file"), "{}", said(&output));
}
