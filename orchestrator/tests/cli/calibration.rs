//! `calibrate`, what a simulation makes of its file, and `--against`.

use std::fs;
use std::sync::OnceLock;

use serde_json::Value;

use crate::common::*;

/// Enough batches to fit what they take.
const LIVE: [&str; 8] =
    ["--devices", "3", "--prompts", "6", "--max-new-tokens", "16", "--methods", "hlm,ui-hlm,llm-only"];

/// Only a run whose batches are charged as measured says what they take.
pub(crate) const MEASURED: [&str; 2] = ["--set", "pool.cost=measured"];

/// A calibration of the embedded pair with everything in it, fitted on a live run once for all tests.
pub(crate) fn calibrated() -> &'static str {
    static CALIBRATED: OnceLock<String> = OnceLock::new();
    CALIBRATED.get_or_init(|| {
        let place = Place::new();
        place.quick("run", "live", &[&LIVE[..], &MEASURED].concat());
        calibrate(&place, &place.name_of("live"));
        fs::read_to_string(place.path("calibration.json")).expect("it was written")
    })
}

/// Writes `calibration.json`; returns what was said about the fits.
fn calibrate(place: &Place, run: &str) -> String {
    let output = place.command(&["calibrate", run, "--ledger", "runs"]).output().expect("the binary runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// Method, figure, and the cells behind the unit, of each row of the comparison.
fn compared(text: &str) -> Vec<(String, String, Vec<String>)> {
    let mut rows: Vec<(String, String, Vec<String>)> = Vec::new();
    let table = text.lines().skip_while(|line| !line.contains("error %")).skip(1);
    for line in table.take_while(|line| !line.starts_with("run ")) {
        // A name is told once, at the beginning of its line.
        let named = !line.starts_with("  ");
        let mut words = line.split_whitespace().map(str::to_owned);
        let last = rows.last().map(|(method, ..)| method.clone());
        let method = if named { words.next() } else { last }.expect("a method");
        let mut words = words.peekable();
        let mut figure = words.next().expect("a figure");
        if let Some(statistic) = words.next_if(|word| word.starts_with('p')) {
            figure = format!("{figure} {statistic}");
        }
        words.next().expect("a unit");
        rows.push((method, figure, words.collect()));
    }
    rows
}

#[test]
fn a_run_is_calibrated_and_repeated() {
    let place = Place::new();
    place.quick("run", "fitted on", &[&LIVE[..], &MEASURED].concat());
    let said_of_fits = calibrate(&place, &place.name_of("fitted on"));
    place.quick("run", "live", &LIVE);
    let live = place.name_of("live");
    for fit in ["batches", "host ", "risk ", "calibration in calibration.json"] {
        assert!(said_of_fits.lines().any(|line| line.starts_with(fit)), "{fit}: {said_of_fits}");
    }
    let calibration: Value =
        serde_json::from_slice(&fs::read(place.path("calibration.json")).expect("written")).expect("JSON");
    assert!(calibration["batch_cost"]["batches"].as_u64() >= Some(20), "{}", calibration["batch_cost"]);
    assert!(calibration["host"]["generations"].as_u64() > Some(0), "{}", calibration["host"]);
    assert!(calibration["distributions"]["drafts"].as_u64() > Some(0));

    // Batches are charged by their work, so their times differ.
    let measured = [&LIVE[..], &["--set", "calibration.file=calibration.json"]].concat();
    place.quick("simulate", "measured", &measured);
    let spans = |out: &str| {
        let mut spans: Vec<u64> = place.rows_of(out).batches.iter().map(|batch| batch.compute.0).collect();
        spans.sort_unstable();
        spans.dedup();
        spans.len()
    };
    assert!(spans("measured") > 10);
    place.quick("simulate", "fixed", &[&LIVE[..], &FIXED].concat());
    assert_eq!(spans("fixed"), 1, "2 ms each");

    // The live run once more, figure by figure.
    let against = ["simulate", "--ledger", "runs", "--ui", "none", "--set", "calibration.file=calibration.json"];
    let output = place.command(&against).args(["--against", &live]).output().expect("the binary runs");
    assert!(output.status.success(), "{}", said(&output));
    let rows = compared(&String::from_utf8_lossy(&output.stdout));
    let latencies = ["time_to_first_token_seconds", "inter_token_latency_seconds"];
    let mut figures: Vec<String> = vec!["fleet_tokens_per_second".to_owned()];
    figures.extend(latencies.iter().flat_map(|name| ["p50", "p95", "p99"].map(|p| format!("{name} {p}"))));
    figures.extend(["queue_seconds", "queue_seconds p50", "queue_seconds p95"].map(str::to_owned));
    figures.extend(["batch_sequences", "upload_rate"].map(str::to_owned));
    figures.extend(["total", "device", "radio", "cloud"].map(|part| format!("energy_per_token_joules_{part}")));
    let mut expected: Vec<(&str, &str)> = Vec::new();
    for method in ["hlm", "ui-hlm", "llm-only"] {
        // Whoever lets the verifier write uploads nothing.
        let has = |figure: &&String| method != "llm-only" || *figure != "upload_rate";
        expected.extend(figures.iter().filter(has).map(|figure| (method, figure.as_str())));
    }
    let found: Vec<(&str, &str)> = rows.iter().map(|(method, figure, _)| (method.as_str(), figure.as_str())).collect();
    assert_eq!(found, expected);
    for (method, figure, cells) in &rows {
        let [live, simulated, error] = &cells[..] else { panic!("{method} {figure}: {cells:?}") };
        if figure == "upload_rate" {
            assert_eq!((live, error.as_str()), (simulated, "+0.0"), "{method}: the same decisions");
        }
        let [live, simulated, error] = [live, simulated, error].map(|cell| cell.parse::<f64>().expect("a number"));
        // Four digits of each are printed, and one of the error.
        let off = (simulated - live) / live * 100.0 - error;
        assert!(off.abs() < 0.16 + 0.002 * error.abs(), "{method} {figure}: {cells:?}");
    }
}

#[test]
fn several_runs_count_by_their_median() {
    let place = Place::new();
    let small = ["--devices", "2", "--prompts", "2", "--max-new-tokens", "8", "--methods", "hlm"];
    place.quick("run", "one", &small);
    place.quick("run", "two", &small);
    place.quick("run", "other", &[&small[..], &["--seed", "2"]].concat());
    let [one, two, other] = ["one", "two", "other"].map(|out| place.name_of(out));
    let against = |runs: [&String; 2], more: &[&str]| {
        let arguments = ["simulate", "--ledger", "runs", "--ui", "none", "--against", runs[0], "--against", runs[1]];
        place.command(&arguments).args(more).args(FIXED).output().expect("the binary runs")
    };
    for (more, turns) in [(&[][..], 2), (&["--turns", "3"], 3)] {
        let output = against([&one, &two], more);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("live, median of 2") && text.contains(" to "), "{text}");
        assert!(text.contains(&format!("simulated, median of {turns}")), "{text}");
    }

    let runs = place.runs().len();
    let output = against([&one, &other], &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let error = String::from_utf8_lossy(&output.stderr).replace(&other, "OTHER");
    assert_eq!(error, "specfleet: --against: run OTHER is of another scenario than the first\n");
    assert_eq!(place.runs().len(), runs, "nothing was simulated before");
}
