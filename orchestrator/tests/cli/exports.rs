//! `export` and `import`: what they print, what they refuse, and what damage leaves.

use std::fs;

use expect_test::expect;

use crate::bad_input::refused_at;
use crate::common::*;
use crate::reading::damage;

/// A place with one simulated run, and its name.
pub(crate) fn one_run() -> (Place, String) {
    let place = Place::new();
    let fleet = ["--devices", "2", "--prompts", "6", "--max-new-tokens", "12", "--verifiers", "1"];
    place.quick("simulate", "a", &[&FIXED[..], &fleet, &["--methods", "hlm,u-hlm"]].concat());
    let name = place.name_of("a");
    (place, name)
}

#[test]
fn there_and_back() {
    let (place, run) = one_run();
    assert!(call(&place, &["score", &run, "--perplexity"]).status.success());
    // How drafts fall, and so how many batches there are, may depend on the processor's vectors.
    let batches = place.reader(&place.run_of("a")).batches().count();
    let said = printed(&place, &["export", &run, "--out", "out"]).replace(&run, "RUN");
    let said = said.replace(&format!(": {batches} rows"), ": BATCHES rows");
    expect![[r#"
        rounds.parquet: 144 rows
        generations.parquet: 12 rows
        batches.parquet: BATCHES rows
        energy.parquet: 52 rows
        audits.parquet: 6 rows
        verifiers.parquet: 4 rows
        scores.parquet: 24 rows
        run RUN in out
    "#]]
    .assert_eq(&said);
    let said = printed(&place, &["export", &run, "--out", "lines", "--format", "jsonl", "--tables", "scores,rounds"]);
    expect![[r#"
        rounds.jsonl: 144 rows
        scores.jsonl: 24 rows
        run RUN in lines
    "#]]
    .assert_eq(&said.replace(&run, "RUN"));
    let said = printed(&place, &["export", &run, "--out", "trace", "--format", "trace"]).replace(&run, "RUN");
    assert!(said.starts_with("trace.json: ") && said.ends_with(" events\nrun RUN in trace\n"), "{said}");
    expect![[r#"
        144 rounds of 12 generations in runs/back
    "#]]
    .assert_eq(&printed(&place, &["import", "out", "--name", "back"]));
    assert!(printed(&place, &["verify", "back"]).ends_with("sound: every chunk is whole and the books close\n"));
    // The same answers, scores included.
    let query =
        ["--group-by", "method", "--metric", "energy_total:sum,inter_token:p95,perplexity:mean", "--format", "csv"];
    let asked = |run: &str| printed(&place, &[&["query", run][..], &query].concat());
    let answer = asked(&run);
    assert_eq!(answer.lines().count(), 3);
    assert_eq!(asked("back"), answer);
    // An export in the folder goes, and nothing else.
    place.file("out/notes.txt", "mine");
    printed(&place, &["export", &run, "--out", "out", "--format", "csv", "--tables", "rounds", "--force"]);
    let mut names: Vec<_> =
        fs::read_dir(place.path("out")).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["notes.txt", "rounds.csv", "run.json"]);
}

#[test]
fn mistakes_are_refused() {
    let (place, run) = one_run();
    printed(&place, &["export", &run, "--out", "out"]);
    place.file("notes.txt", "mine");
    let refused = |arguments: &[&str], expected| refused_at(&place, arguments, expected);
    refused(
        &["export", &run, "--out", "out"],
        expect!["specfleet: out is not empty: choose another folder, or say --force to replace an export in it"],
    );
    refused(&["export", &run, "--out", "notes.txt"], expect!["specfleet: notes.txt: Not a directory (os error 20)"]);
    refused(
        &["export", &run, "--out", "notes.txt/out"],
        expect!["specfleet: notes.txt/out: Not a directory (os error 20)"],
    );
    refused(
        &["export", &run, "--out", "new", "--format", "parket"],
        expect![[r#"specfleet: --format "parket" is unknown; did you mean parquet?"#]],
    );
    refused(
        &["export", &run, "--out", "new", "--tables", "rounds,score"],
        expect![[r#"specfleet: --tables "score" is unknown; did you mean scores?"#]],
    );
    refused(
        &["export", &run, "--out", "new", "--format", "trace", "--tables", "rounds"],
        expect!["specfleet: --tables: a trace is of rounds and batches, and has no tables"],
    );
    refused(&["export", "nothing", "--out", "new"], expect!["specfleet: runs/nothing holds no run (no meta.json)"]);
    refused(
        &["import", "out"],
        expect!["specfleet: runs/RUN exists already: choose another run name or another ledger folder"],
    );
    refused(
        &["import", "out", "--name", "a/b"],
        expect![[
            r#"specfleet: run name "a/b" cannot be a folder: use letters, digits, '-', '_' and '.', and start with a letter or digit"#
        ]],
    );
    refused(&["import", "new"], expect!["specfleet: new: it holds no export (no run.json)"]);
    refused(&["import", "notes.txt"], expect!["specfleet: notes.txt: it holds no export (no run.json)"]);
    fs::remove_file(place.path("out/verifiers.parquet")).expect("a file");
    refused(&["import", "out", "--name", "b"], expect!["specfleet: out: there is no verifiers.parquet"]);
    assert!(!place.path("new").exists(), "what was refused leaves nothing");
    assert_eq!(fs::read_dir(place.path("runs")).expect("the ledger").count(), 1);
}

/// A damaged chunk is named with its place; everything else is exported, reported and asked for.
#[test]
fn damage_is_left_out() {
    let (place, run) = one_run();
    damage(&place, &run, b'b');
    let output = call(&place, &["export", &run, "--out", "out", "--format", "csv"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    expect![[r#"
        specfleet: run RUN is damaged: its store is not as it was closed (specfleet verify RUN says where, specfleet rescue RUN --to NEW saves what is whole)
        specfleet: runs/RUN/store-2: chunk 0 of table batches (key b0000000000000000) is damaged: it is missing, or not whole; left out
        specfleet: run RUN is damaged: table batches in 1 place, store in 2 places; what was read is without it (specfleet verify RUN names each)
    "#]].assert_eq(&String::from_utf8_lossy(&output.stderr).replace(&run, "RUN"));
    expect![[r#"
        rounds.csv: 144 rows
        generations.csv: 12 rows
        batches.csv: 0 rows
        energy.csv: 52 rows
        audits.csv: 6 rows
        verifiers.csv: 4 rows
        scores.csv: 0 rows
        run RUN in out
    "#]]
    .assert_eq(&String::from_utf8_lossy(&output.stdout).replace(&run, "RUN"));
    let report = call(&place, &["report", &run]);
    assert_eq!(report.status.code(), Some(1), "{}", said(&report));
    let report = String::from_utf8_lossy(&report.stdout).replace(&run, "RUN");
    let verdict = report.lines().find(|line| line.contains("damaged")).and_then(|line| line.split(" · ").next());
    expect!["INVALID: runs/RUN/store-2/blobs/3936: its contents are not those with which the run was closed; runs/RUN/store-2/db: its contents are not those with which the run was closed; runs/RUN/store-2: chunk 0 of table batches (key b0000000000000000) is damaged: it is missing, or not whole"].assert_eq(verdict.expect("a verdict"));
}
