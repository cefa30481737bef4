//! `capacity` and `sweep`: answers that simulations give.

use std::fs;

use serde_json::Value;

use crate::calibration::calibrated;
use crate::common::*;

/// A fleet that is drawn, on one verifier.
fn fitted(place: &Place) -> Vec<String> {
    let file = format!("calibration.file={}", place.file("calibration.json", calibrated()));
    let text = ["--set", "simulate.fidelity=fitted", "--set", "simulate.cost=fixed", "--set", "simulate.batch_ms=6"];
    let fleet =
        ["--set", "run.devices=2", "--prompts", "4", "--max-new-tokens", "16", "--verifiers", "1", "--set", &file];
    text.iter().chain(&fleet).map(|&text| text.to_owned()).collect()
}

fn answer(place: &Place, command: &str, arguments: &[&str]) -> Value {
    let fitted = fitted(place);
    let mut command = place.command(&[command, "--ledger", "runs", "--json"]);
    let output = command.args(QUICK).args(fitted).args(arguments).output().expect("the binary runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

/// Whether a fleet holds the target, by a simulation of its own.
fn holds(place: &Place, method: &str, devices: u64, target: &str) -> bool {
    let (devices, prompts) = (format!("run.devices={devices}"), format!("run.prompts={}", 2 * devices));
    let checks = format!("thresholds.checks={target}");
    let mut arguments = fitted(place);
    arguments.extend(["--set", &devices, "--set", &prompts].map(str::to_owned));
    arguments.extend(["--methods", method, "--set", &checks].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match place.try_quick("simulate", "out", &arguments).status.code() {
        Some(0) => true,
        Some(99) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn capacity() {
    let place = Place::new();
    let target = "inter_token_p95<25ms";
    let answers = answer(&place, "capacity", &["--methods", "hlm,ui-hlm", "--slo", target, "--slo", "agreement>10%"]);
    let answers = answers.as_array().expect("a list");
    assert_eq!(answers.iter().map(|answer| &answer["method"]).collect::<Vec<_>>(), ["hlm", "ui-hlm"]);
    assert_eq!(place.runs().len(), 0, "no run is kept");
    for answer in answers {
        let largest = answer["devices"].as_u64().expect("a number");
        let trials = answer["trials"].as_array().expect("a list");
        let held = |trial: &&Value| trial["holds"] == true;
        let of = |trial: &Value| trial["devices"].as_u64().expect("a number");
        assert_eq!(trials.iter().filter(held).map(of).max(), Some(largest), "{answer}");
        let missed = trials.iter().filter(|trial| !held(trial)).map(of).min().expect("the search is bounded");
        // The bracket is closed, to one device or two per cent.
        assert!(largest < missed && (missed - largest == 1 || (missed - largest) * 50 <= largest), "{answer}");
        for trial in trials {
            let values: Vec<f64> =
                trial["values"].as_array().expect("a list").iter().map(|v| v.as_f64().expect("a figure")).collect();
            let [latency, agreement] = values[..] else { panic!("{trial}") };
            assert_eq!(trial["holds"], latency < 0.025 && agreement > 0.1, "{trial}");
        }
        assert_eq!(
            (&answer["limit"], &answer["verifiers"]),
            (&"inter_token_latency_seconds_p95 < 0.025s".into(), &1.into())
        );

        let method = answer["method"].as_str().expect("a name");
        assert!(largest > 4 && holds(&place, method, largest, target), "{answer}");
        assert!(!holds(&place, method, missed, target), "{answer}");
    }
    let devices = |index: usize| answers[index]["devices"].as_u64();
    assert!(devices(1) > devices(0), "whoever uploads less leaves room for more: {answers:?}");
}

/// More requests than a device can answer: no latency tells of those that are dropped.
#[test]
fn capacity_counts_dropped_requests() {
    let place = Place::new();
    let load = ["--set", "load.pattern=constant", "--set", "load.rate=100", "--set", "load.backlog=1"];
    let fleet = ["--methods", "hlm", "--set", "run.prompts=16", "--slo", "request_p95<6s"];
    let answer = |arguments: &[&str]| answer(&place, "capacity", &[&load[..], &fleet, arguments].concat())[0].clone();
    let figure = |trial: &Value, name: &str| trial[name].as_f64().expect("a figure");
    // Fifty requests a second for each device are more than it can answer, and all that are answered are so in time.
    let none = answer(&[]);
    assert_eq!((&none["devices"], &none["limit"]), (&0.into(), &"dropped_share <= 0".into()), "{none}");
    let trial = &none["trials"][0];
    assert!(figure(trial, "dropped_share") > 0.0 && trial["values"][0].as_f64() < Some(6.0), "{none}");
    // Who allows it is told how many there were.
    let some = answer(&["--slo", "dropped_share<90%", "--devices", "4"]);
    assert_eq!(some["devices"], 4, "{some}");
    assert!(some["trials"].as_array().expect("a list").iter().all(|trial| figure(trial, "dropped_share") > 0.0));
}

#[test]
fn capacity_in_words() {
    let place = Place::new();
    let fitted = fitted(&place);
    let command = |target: &str| {
        let mut command = place.command(&["capacity", "--ledger", "runs", "--methods", "hlm", "--ui", "plain"]);
        let output = command.args(QUICK).args(&fitted).args(["--slo", target]).output().expect("the binary runs");
        assert!(output.status.success(), "{}", said(&output));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (text(output.stderr), text(output.stdout))
    };
    // Faster than the draft of a single device: even one misses it.
    let (search, answer) = command("inter_token_p50<100us");
    assert!(search.starts_with("hlm: 1 devices misses  inter_token_latency_seconds_p50 < 0.0001s: 0.0"), "{search}");
    let row: Vec<&str> = answer.lines().nth(1).expect("a row").split_whitespace().collect();
    // Most of what a lone device waits for is the batch.
    assert_eq!(row[..7], ["hlm", "1", "0", "0.0", "0.0", "verifier", "time"], "{answer}");
    assert_eq!(row[8..13], ["inter_token_latency_seconds_p50", "<", "0.0001s", "(1", "devices:"], "{answer}");
    assert_eq!(row.last(), Some(&"1"), "{answer}");
    assert!(
        answer.contains("note: KV memory of each verifier: 256 MiB (as model.verifier_kv_mebibytes says; host-cpu"),
        "{answer}"
    );
    assert!(
        answer.contains("note: prompts: ") && answer.contains("counted with the embedded pair's tokenizer"),
        "{answer}"
    );

    let (search, answer) = command("inter_token_p95<25ms");
    assert!(search.lines().any(|line| line.contains("holds")) && search.lines().any(|line| line.contains("misses")));
    let (expected, tried): (Vec<&str>, Vec<&str>) = search.lines().partition(|line| line.contains("by the cost model"));
    let tried = tried.len().to_string();
    assert_eq!(expected.len(), 1, "{search}");
    assert!(answer.lines().nth(1).is_some_and(|row| row.trim_end().ends_with(&tried)), "{answer}\n{search}");
}

/// Cells of a CSV without quotes.
fn cells(line: &str) -> Vec<&str> {
    line.split(',').collect()
}

#[test]
fn sweep() {
    let place = Place::new();
    let varied = ["--vary", "method.uncertainty_threshold=0.02..0.6:3", "--vary", "pool.order=fifo,fair"];
    let arguments =
        [&varied[..], &["--methods", "ui-hlm,hlm", "--csv", "rows.csv", "--set", "device.latency_target_ms=8"]];
    let swept = answer(&place, "sweep", &arguments.concat());
    assert_eq!(place.runs().len(), 0, "no run is kept");
    let text = fs::read_to_string(place.path("rows.csv")).expect("it was written");
    let mut lines = text.lines();
    let header = cells(lines.next().expect("a header"));
    assert_eq!(header[..3], ["method.uncertainty_threshold", "pool.order", "method"]);
    assert_eq!(header.last(), Some(&"pareto"));
    let rows: Vec<Vec<&str>> = lines.map(cells).collect();
    let places: Vec<[&str; 3]> = rows.iter().map(|row| [row[0], row[1], row[2]]).collect();
    let mut expected = Vec::new();
    for threshold in ["0.02", "0.31", "0.6"] {
        for order in ["fifo", "fair"] {
            expected.extend(["ui-hlm", "hlm"].map(|method| [threshold, order, method]));
        }
    }
    assert_eq!(places, expected);
    assert!(rows.iter().all(|row| row.len() == header.len()), "{text}");

    // The front: nobody else is as good in all three, and better in one.
    let column =
        |name: &str| header.iter().position(|known| *known == name).unwrap_or_else(|| panic!("{name}: {text}"));
    let figure =
        |row: &Vec<&str>, name: &str| row[column(name)].parse::<f64>().unwrap_or_else(|_| panic!("{name}: {text}"));
    let merits = |row: &Vec<&str>| {
        let energy = -figure(row, "energy_per_token_joules_total");
        [figure(row, "verifier_agreement"), energy, figure(row, "goodput_tokens_per_second")]
    };
    let beats = |a: &[f64; 3], b: &[f64; 3]| a.iter().zip(b).all(|(a, b)| a >= b) && a != b;
    let merits: Vec<[f64; 3]> = rows.iter().map(merits).collect();
    for (row, own) in rows.iter().zip(&merits) {
        let beaten = merits.iter().any(|other| beats(other, own));
        assert_eq!(row[column("pareto")], (!beaten).to_string(), "{row:?}");
    }
    let on_front = rows.iter().filter(|row| row[column("pareto")] == "true").count();
    assert!((1..rows.len()).contains(&on_front), "some, and not all: {text}");
    // A higher threshold uploads less, or nothing more.
    let uploads: Vec<f64> = rows.iter().step_by(4).map(|row| figure(row, "upload_rate")).collect();
    assert!(uploads.windows(2).all(|pair| pair[0] >= pair[1]) && uploads[0] > uploads[2], "{uploads:?}");

    // The same in JSON.
    assert_eq!(swept["keys"], serde_json::json!(["method.uncertainty_threshold", "pool.order"]));
    let json = swept["rows"].as_array().expect("a list");
    assert_eq!(json.len(), rows.len());
    for (json, row) in json.iter().zip(&rows) {
        assert_eq!((&json["method"], &json["pareto"]), (&row[2].into(), &(row[column("pareto")] == "true").into()));
        let figures = json["figures"].as_array().expect("a list");
        for (figure, cell) in figures.iter().zip(&row[3..]) {
            // JSON is read to the last digit but one.
            let [figure, cell] =
                [figure.as_f64(), cell.parse().ok()].map(|f: Option<f64>| f.map(|f| format!("{f:.9}")));
            assert_eq!(figure, cell, "{json}");
        }
    }
}
