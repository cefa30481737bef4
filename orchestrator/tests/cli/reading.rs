//! Reading stored runs that are not whole: damage is said by whoever computes figures, unfinished generations are left out,
//! and no row is dropped in silence.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::common::*;

/// Two small runs of the same methods.
fn two_runs() -> (Place, [String; 2]) {
    let place = Place::new();
    let run = |out: &str| {
        place.run(out, &["--methods", "llm-only,hlm,ui-hlm", "--prompts", "2", "--max-new-tokens", "12"]);
        place.name_of(out)
    };
    let names = [run("a"), run("b")];
    (place, names)
}

/// Changes one bit of the first chunk of a table, on the disk.
pub(crate) fn damage(place: &Place, run: &str, table: u8) {
    crate::damage::damage(&place.path("runs").join(run), table, 0, crate::damage::flip);
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The command says of the run that this part of it is damaged, once and on standard error, and still prints something.
fn assert_said(place: &Place, run: &str, part: &str, command: &[&str]) {
    let output = assert_named(place, run, part, command);
    assert!(!output.stdout.is_empty(), "{command:?}: {}", said(&output));
}

/// The same, whether anything is left to print or not.
fn assert_named(place: &Place, run: &str, part: &str, command: &[&str]) -> Output {
    let output = call(place, command);
    let error = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {}", said(&output));
    let begins = format!("specfleet: run {run} is damaged: {part} in 1 place");
    assert_eq!(error.lines().filter(|line| line.starts_with(&begins)).count(), 1, "{command:?}: {error}");
    // Before anything else is said.
    let first = error.lines().next().unwrap_or_default();
    assert!(first.starts_with("specfleet: run ") && first.contains(" is damaged: "), "{command:?}: {error}");
    output
}

#[test]
fn every_command_says_that_a_run_is_damaged() {
    let (place, [a, b]) = two_runs();
    let rounds = ["--metric", "rounds:sum", "--group-by", "method", "--format"];
    let generations = ["--metric", "deviation_rate:mean", "--format", "csv"];
    // All is well before.
    printed(&place, &[&["query", &a][..], &rounds, &["csv"]].concat());
    damage(&place, &a, b'r');
    for format in ["csv", "json", "table"] {
        assert_said(&place, &a, "table rounds", &[&["query", &a][..], &rounds, &[format]].concat());
    }
    assert_said(&place, &a, "table rounds", &["report", &a, "--json"]);
    assert_said(&place, &a, "table rounds", &["report", &b, &a, "--html", "page.html"]);
    // All rounds of its method may have been in the one chunk.
    assert_named(&place, &a, "table rounds", &["frontier", &a, "--csv", "frontier.csv"]);
    assert_named(&place, &a, "table rounds", &["frontier", &a, "--json"]);
    assert_said(&place, &a, "table rounds", &["export", &a, "--out", "out", "--format", "csv"]);
    // What reads none of these rows has all of its own, and says so all the same.
    let compared = call(&place, &["compare", &a, &b]);
    assert_eq!(compared.status.code(), Some(1), "{}", said(&compared));
    assert!(errors(&compared).contains("is damaged: store in") && !compared.stdout.is_empty(), "{}", said(&compared));
    damage(&place, &b, b'a');
    for command in [&["compare", &a, &b][..], &["compare", &b, &a, "--json"], &["frontier", &b], &["report", &b]] {
        assert_said(&place, &b, "table audits", command);
    }
    assert_said(&place, &b, "table audits", &[&["query", &b][..], &generations].concat());
    let compared = call(&place, &["compare", &b, &a, "--json"]);
    let compared: Value = serde_json::from_slice(&compared.stdout).expect("JSON");
    assert!(compared["notes"].to_string().contains("table audits"), "{}", compared["notes"]);
}

#[test]
fn scores_and_joules_are_said_to_be_damaged() {
    let (place, [a, b]) = two_runs();
    assert!(call(&place, &["score", &a, "--ui", "none"]).status.success());
    damage(&place, &a, b's');
    let refused = call(&place, &["score", &a, "--json"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(errors(&refused).contains("is damaged and stays as it is"), "{}", errors(&refused));
    assert_said(&place, &a, "table scores", &["report", &a]);
    damage(&place, &b, b'e');
    assert_said(&place, &b, "table energy", &["report", &b, "--json"]);
    let report = call(&place, &["report", &b, "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    assert_eq!(report["validity"]["state"], "INVALID");
    assert!(report["validity"]["problems"].to_string().contains("table energy"), "{}", report["validity"]);
}

/// Rows that are gone leave no chunk that could be damaged.
#[test]
fn missing_rows_are_said() {
    let (place, [a, _]) = two_runs();
    let progress = place.path("runs").join(&a).join("progress.json");
    fs::write(progress, r#"{"generations": 7}"#).expect("a file");
    let query = ["query", &a, "--metric", "generations:sum", "--format", "csv"];
    assert_said(&place, &a, "file progress.json", &query);
    fs::write(place.path("runs").join(&a).join("progress.json"), "{").expect("a file");
    assert_said(&place, &a, "file progress.json", &query);
    let reader = place.reader(&place.run_of("b"));
    let rounds: usize = reader.closed_rounds().map(|rounds| rounds.expect("whole").rounds.len()).sum();
    drop(reader);
    let b = place.name_of("b");
    for table in *b"rp" {
        crate::damage::damage(&place.path("runs").join(&b), table, 0, |chunk| chunk.fill(0));
    }
    let query = ["query", &b, "--metric", "rounds:sum", "--format", "csv"];
    assert_said(&place, &b, "table rounds", &query);
    let partial = String::from_utf8(call(&place, &query).stdout).expect("text");
    assert_ne!(partial.lines().nth(1), Some(rounds.to_string().as_str()), "{partial}");
}

#[test]
fn no_row_is_left_off_in_silence() {
    let place = Place::new();
    let fleet = ["--devices", "8", "--prompts", "320", "--max-new-tokens", "40", "--methods", "slm-only"];
    place.quick("simulate", "a", &[&FIXED[..], &fleet].concat());
    let run = place.name_of("a");
    let sum = printed(&place, &["query", &run, "--metric", "rounds:sum", "--format", "csv"]);
    let rounds: usize = sum.lines().nth(1).expect("a row").parse().expect("a number");
    assert!(rounds > 10_000, "{rounds} rows are too few for this test");
    let query = ["query", &run, "--group-by", "prompt,repetition,position", "--metric", "rounds:sum", "--format"];
    let csv = printed(&place, &[&query[..], &["csv"]].concat());
    assert_eq!(csv.lines().count(), 1 + rounds);
    let json: Vec<Value> = serde_json::from_str(&printed(&place, &[&query[..], &["json"]].concat())).expect("JSON");
    assert_eq!(json.len(), rounds);
    let table = printed(&place, &[&query[..], &["table"]].concat());
    assert!(table.contains(&format!("… {} more rows are left off", rounds - 10_000)), "{}", table.len());
    let few = call(&place, &[&query[..], &["csv", "--limit", "5"]].concat());
    assert!(few.status.success() && String::from_utf8_lossy(&few.stdout).lines().count() == 6, "{}", said(&few));
    assert_eq!(errors(&few), format!("note: {} more rows are left off (--limit)\n", rounds - 5));
}

/// What never came to an end is in no figure, as in the report, unless somebody asks for it.
#[test]
fn unfinished_generations_are_left_out() {
    let place = Place::new();
    let long = ["--devices", "8", "--prompts", "400", "--max-new-tokens", "32", "--methods", "hlm,ui-hlm"];
    let started = place.start("run", &long);
    place.wait_for_generations(16);
    started.kill();
    let run = place.runs()[0]["run"].as_str().expect("a name").to_owned();
    let reader = place.reader(&place.runs()[0]);
    let closed: usize = reader.generations().map(|record| record.expect("whole").tokens.len()).sum();
    let (finished, unfinished) = (reader.closed_generations(), reader.open_generations());
    let open: u32 = unfinished.iter().map(|generation| generation.rounds).sum();
    drop(reader);
    assert!(open > 0, "the run was caught between generations");
    let note = format!(
        "note: run {run} was interrupted: figures are of the {finished} generations that came to an end, {} unfinished ones \
         are left out",
        unfinished.len()
    );
    let sum = |more: &[&str]| {
        let output = call(&place, &[&["query", &run, "--metric", "rounds:sum", "--format", "csv"][..], more].concat());
        assert!(output.status.success(), "{}", said(&output));
        let rows = String::from_utf8(output.stdout.clone()).expect("text");
        (rows.lines().skip(1).collect::<Vec<_>>().join("\n"), errors(&output).contains(&note))
    };
    assert_eq!(sum(&[]), (closed.to_string(), true));
    assert_eq!(sum(&["--where", "finish=open"]), (open.to_string(), false));
    let (by_finish, _) = sum(&["--group-by", "finish"]);
    assert!(by_finish.contains(&format!("open,{open}")), "{by_finish}");
    let table = printed(&place, &["query", &run, "--metric", "tokens:sum"]);
    assert!(table.contains(&note), "{table}");
    let batches = printed(&place, &["query", &run, "--metric", "batch_energy:sum"]);
    assert!(
        batches.contains("batches are those of unfinished generations too") && !batches.contains(&note),
        "{batches}"
    );
    let frontier = call(&place, &["frontier", &run, "--method", "ui-hlm"]);
    assert!(String::from_utf8_lossy(&frontier.stdout).contains(&note) || frontier.status.code() == Some(2));
    assert!(printed(&place, &["compare", &run, &run_beside(&place)]).contains(&note));
}

/// Another run of the same prompts, to compare with.
fn run_beside(place: &Place) -> String {
    place.run("beside", &["--methods", "hlm", "--prompts", "16", "--max-new-tokens", "32", "--devices", "8"]);
    place.name_of("beside")
}

#[test]
fn what_is_no_number_is_refused() {
    let (place, [a, _]) = two_runs();
    let refused = |condition: &str, words: &str| {
        let output = call(&place, &["query", &a, "--metric", "rounds:sum", "--where", condition]);
        let error = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{condition}: {}", said(&output));
        assert!(error.starts_with(&format!("specfleet: --where {condition}: ")), "{error}");
        assert!(error.contains(words) && error.lines().count() == 1, "{condition}: {error}");
    };
    for value in ["0x10", "", "ten", "1_0", "nan", "inf", "1e999", "1,0"] {
        for column in ["prompt", "device", "repetition", "pass", "position", "tokens", "uncertainty"] {
            refused(&format!("{column}={value}"), "is not a number");
            refused(&format!("{column}>={value}"), "is not a number");
        }
    }
    refused("prompt=1.5", "is not a whole number");
    refused("method>5", "compared by = and != alone");
    for (condition, words) in [
        ("reason=certian", "did you mean certain?"),
        ("device_profile=fone", "has no \"fone\""),
        ("run=latest", "has no \"latest\""),
    ] {
        let output = call(&place, &["query", &a, "--metric", "rounds:sum", "--where", condition]);
        assert_eq!(output.status.code(), Some(2), "{condition}: {}", said(&output));
        assert!(errors(&output).contains(words), "{}", errors(&output));
    }
    for condition in ["prompt=1", "prompt=1e0", "prompt<= 7", "reason!=certain", "position<1.5"] {
        printed(&place, &["query", &a, "--metric", "rounds:sum", "--where", condition]);
    }
}

/// A run that cannot be read keeps no other from being checked or rewritten.
#[test]
fn all_runs_are_looked_at() {
    let (place, [a, b]) = two_runs();
    place.run("c", &["--methods", "hlm", "--prompts", "1", "--max-new-tokens", "4"]);
    let c = place.name_of("c");
    fs::write(place.path("runs").join(&b).join("meta.json"), "{\"schema\": 3, ").expect("a file");
    for (command, line) in [("verify", "sound: every chunk is whole"), ("compact", "every row is the same")] {
        let output = call(&place, &[command, &a, &b, &c]);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command}: {}", said(&output));
        for run in [&a, &c] {
            let begins = format!("{run}: ");
            let is_there = printed.lines().any(|said| said.starts_with(&begins) && said.contains(line));
            assert!(is_there, "{command}, {run}: {}", said(&output));
        }
        let error = errors(&output);
        assert!(error.lines().count() == 1 && error.contains(&b) && error.contains("is damaged"), "{error}");
    }
    // The reports of those that can be read are printed all the same, in a list also where one of two is left.
    let output = call(&place, &["report", "--json", &b, &c]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let reports: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a list");
    assert_eq!(reports.as_array().map(Vec::len), Some(1));
    assert!(errors(&output).contains(&b) && errors(&output).contains("is damaged"), "{}", said(&output));
    // A newer run is for the user to mend; beside it all is well.
    let meta = place.path("runs").join(&b).join("meta.json");
    fs::write(meta, "{\"schema\": 99}").expect("a file");
    let output = call(&place, &["verify", &a, &b, &c]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("{c}: sound")), "{}", said(&output));
}
