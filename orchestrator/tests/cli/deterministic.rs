//! Two simulations of one scenario are one and the same, on any number of threads.

use std::fs;

use crate::calibration::calibrated;
use crate::common::*;

/// Devices that come, go and lose their links, requests that arrive by themselves, verifiers that die.
const ROUGH: [&str; 20] = [
    "--set",
    "load.pattern=poisson",
    "--set",
    "churn.join_over_seconds=0.05",
    "--set",
    "churn.stay_seconds=0.1",
    "--set",
    "device.outage_every_seconds=0.1",
    "--set",
    "device.outage_seconds=0.02",
    "--set",
    "pool.order=fair",
    "--fault",
    "kill-verifier@0.03",
    "--fault",
    "kill-verifier@0.06",
    "--set",
    "load.backlog=2",
    "--set",
    "run.seed=5",
];

/// Simulates once, then again and with 1, 2 and 5 threads, and compares all that is left.
fn assert_the_same(place: &Place, arguments: &[&str]) {
    let first = place.quick("simulate", "first", arguments);
    let text = String::from_utf8_lossy(&first.stdout).into_owned();
    assert!(text.contains("VALID") && text.contains("faults injected: 2"), "{text}");
    for how in ["dropped", "left"] {
        assert!(text.contains(how), "without anybody {how} this shows little; take another seed: {text}");
    }
    let summary = |out: &str| fs::read_to_string(place.path(out).join("summary.json")).expect("summary.json");
    let lines = place.rows_of("first").lines();
    assert!(lines.len() > 100, "{} rows", lines.len());
    for threads in [&[][..], &["--threads", "1"], &["--threads", "2"], &["--threads", "5"]] {
        place.quick("simulate", "again", &[arguments, threads].concat());
        assert_eq!(summary("again"), summary("first"), "{threads:?}");
        let again = place.rows_of("again").lines();
        assert_eq!(again.len(), lines.len(), "{threads:?}");
        for (again, first) in again.iter().zip(&lines) {
            assert_eq!(again, first, "{threads:?}");
        }
        assert_ne!(place.name_of("again"), place.name_of("first"), "two runs");
    }
    // And it is the seed that they share.
    place.quick("simulate", "other", &[arguments, &["--set", "run.seed=6"]].concat());
    assert_ne!(summary("other"), summary("first"));
}

#[test]
fn models() {
    let common = ["--devices", "5", "--prompts", "15", "--max-new-tokens", "12", "--methods", "ui-hlm,block,price"];
    assert_the_same(&Place::new(), &[&common[..], &FIXED, &ROUGH, &["--set", "load.rate=500"]].concat());
}

#[test]
fn fitted() {
    let place = Place::new();
    let file = format!("calibration.file={}", place.file("calibration.json", calibrated()));
    let common = ["--devices", "200", "--prompts", "1500", "--max-new-tokens", "24", "--methods", "hlm,ui-hlm,price"];
    // With what the host of the calibrated run added, each time another draw.
    let drawn = ["--fidelity", "fitted", "--set", &file, "--set", "simulate.host=true"];
    let arguments = [&common[..], &drawn, &ROUGH, &["--set", "load.rate=1500"]].concat();
    assert_the_same(&place, &arguments);

    // The figures are of all devices, the rows of every third.
    let whole = fs::read(place.path("first/summary.json")).expect("summary.json");
    assert_the_same(&place, &[&arguments[..], &["--set", "simulate.keep_every=3"]].concat());
    let rows = place.rows_of("first");
    assert!(rows.generations.iter().all(|(record, _)| record.device.0.is_multiple_of(3)));
    let value = |text: &[u8]| -> serde_json::Value { serde_json::from_slice(text).expect("JSON") };
    let (whole, kept) = (value(&whole), value(&fs::read(place.path("first/summary.json")).expect("summary.json")));
    assert_eq!((&whole["methods"], &whole["uploads"]), (&kept["methods"], &kept["uploads"]));
}
