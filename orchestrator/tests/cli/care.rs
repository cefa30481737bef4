//! Keeping the ledger: filters, tags, deleting, compacting, checking.

use std::fs;
use std::path::PathBuf;

use expect_test::expect;
use serde_json::Value;
use specfleet_ledger::SCHEMA;

use crate::bad_input::refused_at;
use crate::common::*;

/// A place with two simulated runs of a scenario each, oldest first, and their names.
fn two_runs() -> (Place, [String; 2]) {
    let place = Place::new();
    let fleet = ["--devices", "2", "--prompts", "3", "--max-new-tokens", "12", "--verifiers", "1"];
    place.quick("simulate", "a", &[&FIXED[..], &fleet, &["--methods", "hlm,u-hlm"]].concat());
    place.quick("simulate", "b", &[&FIXED[..], &fleet, &["--methods", "slm-only"]].concat());
    let names = [place.name_of("a"), place.name_of("b")];
    (place, names)
}

fn listed(place: &Place, filters: &[&str]) -> Vec<String> {
    let runs: Vec<Value> =
        serde_json::from_str(&printed(place, &[&["runs", "--json"], filters].concat())).expect("a list");
    runs.iter().map(|run| run["run"].as_str().expect("a name").to_owned()).collect()
}

/// The files of a run's store.
fn store(place: &Place, run: &str) -> PathBuf {
    crate::damage::store_of(&place.path("runs").join(run)).join("db")
}

#[test]
fn runs_are_found_again() {
    let (place, [a, b]) = two_runs();
    assert_eq!(printed(&place, &["tag", &a, "paper", "table-2"]), format!("{a}: paper, table-2\n"));
    assert_eq!(printed(&place, &["tag", &a, "--remove", "table-2"]), format!("{a}: paper\n"));
    assert!(printed(&place, &["runs"]).lines().next().is_some_and(|header| header.trim_end().ends_with("tags")));
    let (first, second, none) = (vec![a.clone()], vec![b.clone()], Vec::<String>::new());
    // Runs of one second stand by their names.
    let mut both = vec![a.clone(), b.clone()];
    both.sort_unstable();
    let hash = place.run_of("a")["scenario_hash"].as_str().expect("a hash")[..9].to_owned();
    let cases: [(&[&str], &[String]); 12] = [
        (&[], &both),
        (&["--state", "completed"], &both),
        (&["--state", "failed"], &none),
        (&["--kind", "simulated"], &both),
        (&["--kind", "live"], &none),
        (&["--method", "u-hlm"], &first),
        (&["--method", "slm-only", "--state", "completed"], &second),
        (&["--tag", "paper"], &first),
        (&["--scenario", &hash], &first),
        (&["--since", "2020-01-01"], &both),
        (&["--until", "2020-01-01"], &none),
        (&["--since", "2020-01-01", "--until", "2999-12-31", "--tag", "paper"], &first),
    ];
    for (filters, expected) in cases {
        let mut found = listed(&place, filters);
        found.sort_unstable();
        assert_eq!(found, expected, "{filters:?}");
    }
    assert_eq!(printed(&place, &["runs", "--kind", "live"]), "none of the 2 runs in runs\n");
}

#[test]
fn unknown_values_come_with_the_valid_ones() {
    let (place, [a, _]) = two_runs();
    let refused = |arguments: &[&str], expected| refused_at(&place, arguments, expected);
    refused(
        &["runs", "--state", "complete"],
        expect![[r#"specfleet: --state: "complete" is unknown here; did you mean completed?"#]],
    );
    refused(
        &["runs", "--kind", "real"],
        expect![[r#"specfleet: --kind: "real" is unknown here; there are live, simulated"#]],
    );
    refused(
        &["runs", "--method", "dssd"],
        expect![[r#"specfleet: --method: "dssd" is unknown here; there are hlm, slm-only, u-hlm"#]],
    );
    refused(&["runs", "--tag", "paper"], expect![[r#"specfleet: --tag: "paper" is unknown here; no run has any"#]]);
    refused(
        &["runs", "--since", "yesterday"],
        expect![[r#"specfleet: --since: "yesterday" is no day since 1970; write it as YYYY-MM-DD"#]],
    );
    refused(
        &["runs", "--until", "2026-02-30"],
        expect![[r#"specfleet: --until: "2026-02-30" is no day since 1970; write it as YYYY-MM-DD"#]],
    );
    let mistyped = format!("{}x", &a[..a.len() - 1]);
    for command in [&["rm", "--yes"][..], &["compact"], &["verify"], &["tag", "--remove", "x"], &["calibrate"]] {
        let output = call(&place, &[command, &[&mistyped]].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        let expected = format!("specfleet: runs/{mistyped} holds no run (no meta.json); did you mean {a}");
        assert!(error.starts_with(&expected), "{command:?}: {error}");
    }
    refused(
        &["tag", &a, "two words"],
        expect![[
            r#"specfleet: tag "two words" is none: use 1 to 64 letters, digits and - _ . : / + = # % @, and start with a letter or digit"#
        ]],
    );
}

#[test]
fn latest_is_the_newest_run_that_has_ended() {
    let (place, _) = two_runs();
    // Both may have started in the same second: then the names decide.
    let text = |run: &Value, key: &str| run[key].as_str().expect("a text").to_owned();
    let started = |run: &Value| (run["started"].as_u64().expect("a time"), text(run, "run"));
    let newest = place.runs().iter().map(started).max().expect("two runs").1;
    for command in [&["report"][..], &["verify"], &["compact"], &["tag"]] {
        let more: &[&str] = if command == ["tag"] { &["latest", "kept"] } else { &["latest"] };
        let output = call(&place, &[command, more].concat());
        assert!(output.status.success(), "{command:?}: {}", said(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&newest), "{command:?}: {text}");
    }
    let empty = Place::new();
    fs::create_dir(empty.path("runs")).expect("a folder");
    let output = call(&empty, &["report", "latest"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "specfleet: latest: no run in runs has ended\n");
}

#[test]
fn deleting_asks_first() {
    let (place, [a, b]) = two_runs();
    // There is no terminal to ask on.
    let output = place.command(&["rm", &a, "--ledger", "runs"]).stdin(std::process::Stdio::null()).output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.starts_with(&format!("would delete {a}: 6 generations, ")), "{shown}");
    assert!(shown.trim_end().ends_with(&format!(" bytes in runs/{a}")), "{shown}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(error.trim_end(), "specfleet: nothing was deleted; say --yes to delete without being asked");
    // One that does not exist keeps the others.
    assert_eq!(call(&place, &["rm", "--yes", &a, "none"]).status.code(), Some(2));
    assert_eq!(listed(&place, &[]).len(), 2);
    assert!(printed(&place, &["rm", "--yes", &a]).starts_with(&format!("deleted {a}: ")));
    assert_eq!(listed(&place, &[]), [b]);
    assert!(!place.path("runs").join(&a).exists());
}

#[test]
fn a_running_run_is_left_alone() {
    let place = Place::new();
    let running = place.start("run", &[&FAST[..4], &["--methods", "hlm", "--prompts", "100000"]].concat());
    let run = place.wait_for_generations(1)["run"].as_str().expect("a name").to_owned();
    for command in [&["rm", "--yes"][..], &["compact"], &["verify"], &["tag", "--remove", "x"]] {
        let output = call(&place, &[command, &[&run]].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command:?}: {error}");
        assert!(error.starts_with(&format!("specfleet: runs/{run} is still running")), "{command:?}: {error}");
    }
    drop(running);
}

#[test]
fn compacting_changes_no_row() {
    let (place, [a, b]) = two_runs();
    let before = place.rows_of("a").lines();
    let before_a = store(&place, &a);
    let said = printed(&place, &["compact", &a, &b]);
    let mut lines = said.lines();
    for run in [&a, &b] {
        let line = lines.next().expect("a line per run");
        assert!(line.starts_with(&format!("{run}: ")) && line.ends_with("; every row is the same"), "{line}");
    }
    assert_eq!(place.rows_of("a").lines(), before);
    assert_ne!(store(&place, &a), before_a);
    assert!(!before_a.exists() && store(&place, &a).exists());
    assert!(
        printed(&place, &["verify", &a]).ends_with(&format!("{a}: sound: every chunk is whole and the books close\n"))
    );
}

#[test]
fn damage_is_named_with_its_place() {
    let (place, [a, b]) = two_runs();
    let said = printed(&place, &["verify", &a, &b]);
    assert_eq!(
        said.lines().filter(|line| line.ends_with("sound: every chunk is whole and the books close")).count(),
        2
    );
    // A progress file that promises more than there is.
    fs::write(
        place.path("runs").join(&a).join("progress.json"),
        specfleet_files::sealed::seal(br#"{"store": "store", "generations": 7}"#),
    )
    .expect("a file");
    let output = call(&place, &["verify", &a, &b]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("7 closed generations are said to be stored, 6 are there"), "{said}");
    assert!(said.contains(&format!("{a}: DAMAGED")) && said.contains(&format!("{b}: sound")), "{said}");
}

#[test]
fn a_newer_store_is_refused_untouched() {
    let (place, [a, _]) = two_runs();
    let meta = place.path("runs").join(&a).join("meta.json");
    let text = fs::read_to_string(&meta).expect("meta.json");
    let db = store(&place, &a);
    fs::write(&meta, text.replacen(&format!("\"schema\": {SCHEMA}"), "\"schema\": 99", 1)).expect("a file");
    let modified = || fs::metadata(&db).and_then(|meta| meta.modified()).expect("the store");
    let before = modified();
    for command in [&["rm", "--yes"][..], &["compact"], &["verify"], &["tag", "--remove", "x"], &["calibrate"]] {
        let output = call(&place, &[command, &[&a]].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command:?}: {error}");
        assert!(error.contains(&format!("has schema 99, this program reads up to {SCHEMA}")), "{command:?}: {error}");
    }
    assert_eq!(modified(), before);
}
