//! Runs that end early, by `kill -9` or by Ctrl-C, and runs side by side in one ledger.

use std::time::Duration;

use serde_json::Value;
use specfleet_analysis::check_energy_closes;
use specfleet_engine::record::ACCOUNTING;

use crate::calibration::calibrated;
use crate::common::*;

/// Long enough to be caught in the middle: devices that sleep their declared times.
const LONG: [&str; 8] =
    ["--devices", "8", "--prompts", "400", "--max-new-tokens", "32", "--methods", "ui-hlm,hlm,slm-only"];

/// The run is over and what it stored holds.
fn assert_readable(place: &Place, run: &Value, at_least: u64) {
    assert_eq!(run["state"], "interrupted", "{run}");
    assert!(run["progress"]["generations"].as_u64() >= Some(at_least), "{run}");
    assert!(run["progress"]["rounds"].as_u64() > Some(0), "{run}");
    let reader = place.reader(run);
    assert!(reader.damaged().is_empty(), "{:?}", reader.damaged());
    let mut generations = 0;
    for generation in reader.generations() {
        let generation = generation.expect("a complete row");
        let rounds = reader.rounds(generation.id).expect("all its rounds");
        check_energy_closes(&generation, &rounds, ACCOUNTING)
            .unwrap_or_else(|error| panic!("{:?}: {error}", generation.id));
        generations += 1;
    }
    assert!(generations >= at_least, "{generations} generations");
}

fn assert_a_new_run_works(place: &Place) {
    place.run("new", &["--prompts", "2", "--max-new-tokens", "4", "--methods", "hlm"]).assert_sound();
}

#[test]
fn kill() {
    let place = Place::new();
    let long = place.start("run", &LONG);
    let run = place.wait_for_generations(6);
    assert_eq!(run["state"], "running");

    // Meanwhile another run takes place in the same ledger.
    assert_a_new_run_works(&place);
    let states: Vec<Value> = place.runs().iter().map(|run| run["state"].clone()).collect();
    assert_eq!(states, ["running", "completed"]);

    long.kill();
    assert_readable(&place, &place.runs()[0], 6);
    assert_a_new_run_works(&place);
    let states: Vec<Value> = place.runs().iter().map(|run| run["state"].clone()).collect();
    assert_eq!(states, ["interrupted", "completed", "completed"]);
}

#[test]
fn ctrl_c() {
    let place = Place::new();
    let long = place.start("run", &LONG);
    place.wait_for_generations(2);
    let (status, error) = long.interrupt(Duration::from_secs(8));
    assert_eq!(status.code(), Some(130), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("interrupted") && error.contains("runs/"), "{error}");
    assert_readable(&place, &place.runs()[0], 2);
    // One truth about what is missing: the audit is on, and its turn never came.
    let name = place.runs()[0]["run"].as_str().expect("a name").to_owned();
    let report = printed(&place, &["report", &name]);
    let why = "not audited: ui-hlm (a method is audited at the end of its phase, and the run ended before)";
    assert!(report.contains(why) && !report.contains("audit.enabled"), "{report}");
    assert_a_new_run_works(&place);
}

/// The polite signal of a service manager, and the end of the terminal: as Ctrl-C, with exit codes of their own.
#[test]
fn other_signals_end_a_run_in_order_too() {
    for (signal, code) in [("-TERM", 143), ("-HUP", 129)] {
        let place = Place::new();
        let long = place.start("run", &LONG);
        place.wait_for_generations(2);
        let (status, error) = long.signal(signal, Duration::from_secs(8));
        assert_eq!(status.code(), Some(code), "{signal}: {error}");
        assert!(error.contains("interrupted") && error.contains("runs/"), "{signal}: {error}");
        assert_eq!(place.runs()[0]["state"], "interrupted");
        assert_readable(&place, &place.runs()[0], 2);
    }
    let place = Place::new();
    let simulation = place.start("simulate", &[&ENDLESS[..], &FIXED].concat());
    place.wait_for_generations(2);
    assert_eq!(simulation.signal("-TERM", Duration::from_secs(8)).0.code(), Some(143));
}

/// More than a test can wait for.
const ENDLESS: [&str; 8] =
    ["--devices", "8", "--prompts", "4000", "--max-new-tokens", "16", "--methods", "ui-hlm,hlm,slm-only"];

#[test]
fn ctrl_c_in_a_simulation() {
    let place = Place::new();
    let long = place.start("simulate", &[&ENDLESS[..], &QUICK, &FIXED].concat());
    let run = place.wait_for_generations(8);
    assert_eq!(run["state"], "running");
    assert!(run["kind"]["simulated"].is_object(), "{run}");
    let (status, error) = long.interrupt(Duration::from_secs(8));
    assert_eq!(status.code(), Some(130), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("interrupted") && error.contains("runs/"), "{error}");
    assert_readable(&place, &place.runs()[0], 8);
}

#[test]
fn a_killed_simulation_keeps_what_it_had() {
    let place = Place::new();
    let long = place.start("simulate", &[&ENDLESS[..], &QUICK, &FIXED].concat());
    place.wait_for_generations(8);
    long.kill();
    assert_readable(&place, &place.runs()[0], 8);
}

/// Figures are of all devices, rows of some; both are there.
#[test]
fn ctrl_c_in_a_simulation_that_keeps_some_rows() {
    let place = Place::new();
    let file = format!("calibration.file={}", place.file("calibration.json", calibrated()));
    let fitted = ["--fidelity", "fitted", "--set", &file, "--set", "simulate.keep_every=4"];
    let large = ["--set", "run.devices=100", "--set", "run.prompts=5000000"];
    let long = place.start("simulate", &[&ENDLESS[..], &QUICK, &FIXED, &fitted, &large].concat());
    place.wait_for_generations(8);
    let (status, error) = long.interrupt(Duration::from_secs(8));
    assert_eq!(status.code(), Some(130), "{error}");
    let run = &place.runs()[0];
    assert_readable(&place, run, 8);
    let reader = place.reader(run);
    assert!(reader.generations().all(|row| row.expect("a row").device.0.is_multiple_of(4)));
    let summary: Value =
        serde_json::from_str(&reader.stored_summary().expect("readable").expect("it is there")).expect("JSON");
    let all = summary["generations"].as_u64().expect("a count");
    assert!(all > 2 * reader.closed_generations() as u64, "{all}");
}

/// A search keeps no run; its table is what it knows by then.
#[test]
fn ctrl_c_in_a_search() {
    let place = Place::new();
    let arguments = [&ENDLESS[..], &QUICK, &FIXED, &["--slo", "ttft<1000s"]].concat();
    let search = place.start("capacity", &arguments);
    // It must have begun to listen; until then Ctrl-C just ends it.
    std::thread::sleep(Duration::from_secs(2));
    let (status, error) = search.interrupt(Duration::from_secs(8));
    assert_eq!((status.code(), error.as_str()), (Some(130), "specfleet: interrupted\n"));
    assert_eq!(place.runs().len(), 0);
}

/// What a sweep has simulated is in its file at once, and in the table whatever ends it.
#[test]
fn ctrl_c_in_a_sweep_keeps_every_point() {
    let place = Place::new();
    let vary = ["--vary", "run.prompts=1,4000", "--csv", "points.csv"];
    let fleet = ["--devices", "8", "--max-new-tokens", "16", "--methods", "hlm,slm-only"];
    let mut command = place.command(&["sweep", "--ledger", "runs", "--ui", "none"]);
    command.args(QUICK).args(FIXED).args(fleet).args(vary);
    let said = std::fs::File::create(place.path("said")).expect("a file");
    let child = command.stdout(said).stderr(std::process::Stdio::piped()).spawn().expect("the binary runs");
    let sweep = Running::of(child);
    let lines = |name: &str| {
        let text = std::fs::read_to_string(place.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<String>>()
    };
    let began = std::time::Instant::now();
    // A header and two methods.
    while lines("points.csv").len() < 3 {
        assert!(began.elapsed() < Duration::from_secs(60), "no point in a minute: {:?}", lines("points.csv"));
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, error) = sweep.interrupt(Duration::from_secs(20));
    assert_eq!((status.code(), error.as_str()), (Some(130), "specfleet: interrupted\n"));
    let points = lines("points.csv");
    assert_eq!(points.len(), 3, "{points:?}");
    assert!(points[0].starts_with("run.prompts,method,") && points[0].ends_with(",pareto"), "{points:?}");
    assert!(points[1].starts_with("1,hlm,") && points[2].starts_with("1,slm-only,"), "{points:?}");
    // Which ones nobody beats is known now.
    assert!(points[1..].iter().all(|point| point.ends_with(",true") || point.ends_with(",false")), "{points:?}");
    assert_eq!(lines("said").len(), 3, "{:?}", lines("said"));
}

/// A file that cannot be written is found out before anything is simulated, and a mistake leaves the file as it was.
#[test]
fn a_sweep_opens_its_file_first() {
    let place = Place::new();
    let sweep = |vary: &str, csv: &str| {
        let fleet = ["--devices", "2", "--max-new-tokens", "4", "--methods", "slm-only", "--ui", "plain"];
        let mut command = place.command(&["sweep", "--ledger", "runs", "--vary", vary, "--csv", csv]);
        command.args(QUICK).args(FIXED).args(fleet).output().expect("the binary runs")
    };
    for csv in ["nowhere/points.csv", "."] {
        let output = sweep("run.prompts=1,2", csv);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(error.lines().count() == 1 && error.contains(&format!("cannot write {csv}: ")), "{error}");
        assert!(output.stdout.is_empty(), "{}", said(&output));
    }
    place.file("points.csv", "mine");
    let output = sweep("run.prompts=1,0", "points.csv");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(place.path("points.csv")).expect("a file"), "mine");
    let output = sweep("run.prompts=1,2", "points.csv");
    assert!(output.status.success(), "{}", said(&output));
    let points = std::fs::read_to_string(place.path("points.csv")).expect("a file");
    assert_eq!(points.lines().count(), 3, "{points}");
    // What cannot be written twice gets its rows at the end.
    let output = sweep("run.prompts=1,2", "/dev/stdout");
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with(&points),
        "{}",
        said(&output)
    );
}
