//! The folder's plain files, damaged stores, and what each mistake is called.

use std::fs;

use crate::common::*;
use specfleet_engine::id::DeviceId;
use specfleet_files::sealed::{seal, without};
use specfleet_ledger::{
    LedgerError, ListedState, Live, LiveVerifier, Meta, RunKind, RunPart, RunReader, RunState, RunWriter, SCHEMA,
    Table, VerifierState, edit_tags, list, remove, rescue, verify,
};
use tempfile::tempdir;

/// A finished run of `generations` generations.
fn finished(ledger: &std::path::Path, run: &str, generations: u32) -> std::path::PathBuf {
    let mut writer = RunWriter::create(ledger, meta(run)).expect("a new run");
    let mut noise = Noise(3);
    for prompt in 0..generations {
        let rounds = plausible_rounds(&mut noise, 400, 50);
        writer.close_generation(plausible_generation(id(0, prompt), DeviceId(0), &rounds), &rounds).expect("a closing");
    }
    let run_dir = writer.run_dir().to_path_buf();
    writer.finish(RunState::Completed).expect("an end");
    run_dir
}

#[test]
fn a_listing_opens_no_store_and_one_bad_run_hides_no_other() {
    let dir = tempdir().expect("a temporary folder");
    assert_eq!(list(&dir.path().join("none")).expect("no folder, no runs"), []);
    let good = finished(dir.path(), "good", 2);
    // A store that sled could not open is no obstacle.
    let store = store_of(&good);
    fs::remove_dir_all(&store).expect("to remove the store");
    fs::write(&store, "garbage").expect("a file in its place");
    let running = RunWriter::create(dir.path(), Meta { started: 1_700_000_001, ..meta("running") }).expect("a new run");
    fs::create_dir(dir.path().join("half")).expect("a folder");
    fs::write(dir.path().join("half").join("meta.json"), "{\"schema\": 1, \"run\"").expect("half a file");
    fs::create_dir(dir.path().join("newer")).expect("a folder");
    fs::write(dir.path().join("newer").join("meta.json"), "{\"schema\": 99}").expect("a file");
    fs::create_dir(dir.path().join("no-run")).expect("a folder");
    fs::write(dir.path().join("notes.txt"), "not a run").expect("a file");

    let runs = list(dir.path()).expect("a listing");
    let names: Vec<(&str, &str)> = runs.iter().map(|run| (run.run.as_str(), run.state.name())).collect();
    assert_eq!(names, [("half", "unreadable"), ("newer", "unreadable"), ("good", "completed"), ("running", "running")]);
    assert_eq!((runs[2].progress.generations, runs[2].progress.rounds), (2, 800));
    let ListedState::Unreadable { reason } = &runs[1].state else { panic!("{:?}", runs[1]) };
    assert!(reason.contains("schema 99"), "{reason}");

    running.finish(RunState::Failed { reason: "no space".to_owned() }).expect("an end");
    let failed = list(dir.path()).expect("a listing").remove(3);
    assert_eq!(failed.state, ListedState::Failed { reason: "no space".to_owned() });
}

#[test]
fn a_newer_schema_is_refused_untouched() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = finished(dir.path(), "r", 1);
    let store = store_of(&run_dir);
    let text = fs::read_to_string(run_dir.join("meta.json")).expect("meta.json");
    // Whatever else the newer program put there.
    let newer = text
        .replace(&format!("\"schema\": {SCHEMA}"), &format!("\"schema\": {}", SCHEMA + 1))
        .replace("\"methods\": []", "\"methods\": 17");
    assert_ne!(text, newer);
    fs::write(run_dir.join("meta.json"), newer).expect("a file");
    let before = fs::metadata(store.join("db")).expect("the store").modified().expect("its time");
    let error = RunReader::open(&run_dir).expect_err("it is newer");
    assert!(
        matches!(error, LedgerError::NewerSchema { found, supported: SCHEMA, .. } if found == SCHEMA + 1),
        "{error}"
    );
    assert_eq!(fs::metadata(store.join("db")).expect("the store").modified().expect("its time"), before);
}

#[test]
fn unknown_fields_are_ignored_and_optional_ones_may_miss() {
    let dir = tempdir().expect("a temporary folder");
    fs::write(
        dir.path().join("meta.json"),
        seal(
            format!(
                r#"{{"schema": {SCHEMA}, "run": "r", "state": "failed", "reason": "x", "pid": 1, "started": 5, "scenario": "",
                "scenario_hash": "h", "seed": 1, "color": "blue"}}"#
            )
            .as_bytes(),
        ),
    )
    .expect("a file");
    let meta = Meta::read(dir.path()).expect("it parses");
    assert_eq!(meta.state, RunState::Failed { reason: "x".to_owned() });
    assert_eq!((meta.devices, meta.methods.len()), (0, 0));
    assert_eq!((meta.kind, meta.wall_seconds), (RunKind::Live, None));
}

#[test]
fn meta_changes_are_seen_at_once() {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("r")).expect("a new run");
    writer.update_meta(|meta| meta.faults_injected = 2).expect("a change");
    assert_eq!(Meta::read(writer.run_dir()).expect("meta.json"), *writer.meta());
    assert_eq!(writer.meta().faults_injected, 2);
    assert!(!writer.run_dir().join("meta.json.new").exists());
}

#[test]
fn a_simulation_says_so_and_may_leave_a_summary() {
    let dir = tempdir().expect("a temporary folder");
    let kind = RunKind::Simulated { fidelity: "fitted".to_owned(), cost: "roofline".to_owned(), keep_every: 100 };
    let mut writer = RunWriter::create(dir.path(), Meta { kind: kind.clone(), ..meta("r") }).expect("a new run");
    writer.put_summary("{\"first\": 1}").expect("a file");
    writer.put_summary("{\n  \"schema\": 2\n}").expect("another in its place");
    writer.update_meta(|meta| meta.wall_seconds = Some(1.5)).expect("a change");
    let run_dir = writer.run_dir().to_path_buf();
    writer.finish(RunState::Completed).expect("an end");
    let listed = list(dir.path()).expect("a listing").remove(0);
    assert_eq!((listed.kind.name(), &listed.kind), ("simulated", &kind));
    let json = serde_json::to_value(&listed).expect("it serialises");
    assert_eq!((&json["kind"]["simulated"]["keep_every"], &json["state"]), (&100.into(), &"completed".into()));
    let reader = RunReader::open(&run_dir).expect("the run");
    assert_eq!((&reader.meta().kind, reader.meta().wall_seconds), (&kind, Some(1.5)));
    assert_eq!(reader.stored_summary().expect("a file").as_deref(), Some("{\n  \"schema\": 2\n}"));

    let live = finished(dir.path(), "live", 1);
    assert_eq!(RunReader::open(&live).expect("the run").stored_summary().expect("no file, no error"), None);
    assert!(fs::read_to_string(live.join("meta.json")).expect("meta.json").contains("\"kind\": \"live\""));
}

#[test]
fn live_figures_are_there_while_the_run_is_written() {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("r")).expect("a new run");
    let run_dir = writer.run_dir().to_path_buf();
    assert_eq!(Live::read(&run_dir).expect("no file, no error"), None);
    let verifiers =
        vec![LiveVerifier { verifier: 1, state: VerifierState::Down, restarts: 3, ..LiveVerifier::default() }];
    let live = Live { seconds: 12.5, method: "ui-hlm".to_owned(), tokens: 7, verifiers, ..Live::default() };
    writer.put_live(&Live::default()).expect("a file");
    writer.put_live(&live).expect("another in its place");
    assert_eq!(Live::read(&run_dir).expect("the file"), Some(live));
    let text = fs::read_to_string(run_dir.join("live.json")).expect("live.json");
    assert!(text.contains("\"state\": \"down\"") && !run_dir.join("live.json.new").exists(), "{text}");
    // What another version wrote.
    fs::write(run_dir.join("live.json"), "{\"tokens\": 9, \"color\": \"blue\"}").expect("a file");
    let other = Live { tokens: 9, ..Live::default() };
    assert_eq!(Live::read(&run_dir).expect("the file"), Some(other));
    fs::write(run_dir.join("live.json"), "{\"tokens\"").expect("half a file");
    let error = Live::read(&run_dir).expect_err("half a file");
    assert!(error.to_string().contains("live.json"), "{error}");
    writer.finish(RunState::Completed).expect("an end");
    assert_eq!(Live::read(&run_dir).expect("no file, no error"), None);
}

#[test]
fn mistakes_have_names() {
    let dir = tempdir().expect("a temporary folder");
    for name in ["", "..", ".hidden", "a/b", "a\\b", "-x", "ü", "a b"] {
        assert!(matches!(RunWriter::create(dir.path(), meta(name)), Err(LedgerError::BadRunName(_))), "{name:?}");
    }
    let run_dir = finished(dir.path(), "r", 1);
    assert!(matches!(RunWriter::create(dir.path(), meta("r")), Err(LedgerError::RunExists(_))));
    assert!(matches!(RunReader::open(&dir.path().join("none")), Err(LedgerError::NotFound(_))));
    // Readers share.
    let first = RunReader::open(&run_dir).expect("the run");
    assert_eq!(RunReader::open(&run_dir).expect("the run again").closed_generations(), first.closed_generations());
    drop(first);
    let store = store_of(&run_dir);
    fs::remove_dir_all(&store).expect("to remove the store");
    assert!(matches!(RunReader::open(&run_dir), Err(LedgerError::MissingStore(_))));
    assert!(!store.exists(), "asking must not create it");
}

#[test]
fn a_damaged_chunk_costs_what_lies_in_it_and_is_named() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = finished(dir.path(), "r", 40);
    damage(&run_dir, b'r', 2, flip);
    let reader = RunReader::open(&run_dir).expect("the rest is readable");
    let (good, bad): (Vec<_>, Vec<_>) = reader.closed_rounds().partition(Result::is_ok);
    assert_eq!(good.len() + bad.len(), 40);
    assert!((1..=12).contains(&bad.len()), "{}", bad.len());
    for error in bad {
        let error = error.expect_err("it is bad");
        assert!(matches!(error, LedgerError::DamagedChunk { table: Table::Rounds, sequence: 2, .. }), "{error}");
        assert!(error.to_string().contains("chunk 2 of table rounds (key r0000000000000002)"), "{error}");
    }
}

#[test]
fn a_damaged_index_is_reported_on_opening() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = finished(dir.path(), "r", 40);
    damage(&run_dir, b'p', 1, flip);
    let reader = RunReader::open(&run_dir).expect("the rest is readable");
    assert!(matches!(reader.damaged(), [LedgerError::DamagedChunk { table: Table::Pieces, sequence: 1, .. }]));
    // The generations that lack rounds say so instead of being short.
    let short = reader.closed_rounds().filter_map(Result::err).collect::<Vec<_>>();
    assert!(
        !short.is_empty() && short.iter().all(|error| matches!(error, LedgerError::MissingRounds { .. })),
        "{short:?}"
    );
}

#[test]
fn a_check_names_every_damaged_chunk_and_what_it_cost() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = finished(dir.path(), "r", 120);
    let sound = verify(&run_dir).expect("a check");
    assert!(sound.is_sound());
    let rows = |table: Table| sound.tables.iter().find(|check| check.table == table).map(|check| check.rows);
    assert_eq!(
        (rows(Table::Rounds), rows(Table::Generations), rows(Table::Energy)),
        (Some(48_000), Some(120), Some(480))
    );

    damage(&run_dir, b'r', 2, flip);
    damage(&run_dir, b'p', 4, flip);
    damage(&run_dir, b'e', 1, |chunk| chunk.fill(0));
    damage(&run_dir, b'r', 6, |chunk| chunk[0] = 0);
    let report = verify(&run_dir).expect("a check");
    assert!(!report.is_sound());
    let found: Vec<(Table, u64)> = report
        .tables
        .iter()
        .flat_map(|check| &check.damaged)
        .map(|error| match error {
            LedgerError::DamagedChunk { table, sequence, .. } => (*table, *sequence),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(found, [(Table::Rounds, 2), (Table::Rounds, 6), (Table::Pieces, 4), (Table::Energy, 1)]);
    let short = |error: &LedgerError| matches!(error, LedgerError::MissingRounds { expected: 400, .. });
    assert!(!report.contradictions.is_empty() && report.contradictions.iter().all(short), "{report:?}");
    let left = report.tables.iter().find(|check| check.table == Table::Rounds).expect("it is there").rows;
    assert!(left > 30_000 && left < 48_000, "{left}");
}

#[test]
fn rows_that_are_said_to_be_stored_are_missed() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = finished(dir.path(), "r", 5);
    assert!(verify(&run_dir).expect("a check").is_sound());
    let progress = |generations: u32| format!("{{\"store\": \"store\", \"generations\": {generations}}}");
    // Without a checksum, and with one.
    fs::write(run_dir.join("progress.json"), progress(5)).expect("a file");
    let report = verify(&run_dir).expect("a check");
    assert!(
        matches!(&report.files[..], [one] if one.contains("progress.json: its checksum does not fit")),
        "{report:?}"
    );
    fs::write(run_dir.join("progress.json"), seal(progress(6).as_bytes())).expect("a file");
    let report = verify(&run_dir).expect("a check");
    assert!(
        matches!(report.contradictions[..], [LedgerError::MissingGenerations { expected: 6, found: 5, .. }]),
        "{report:?}"
    );
}

/// What is whole of a killed writer's run is saved, though nothing says any more how much there was.
#[test]
fn a_run_is_rescued_without_its_plain_files() {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("killed")).expect("a new run");
    let rounds = plausible_rounds(&mut Noise(5), 300, 40);
    for prompt in 0..4 {
        writer.close_generation(plausible_generation(id(0, prompt), DeviceId(0), &rounds), &rounds).expect("a closing");
    }
    writer.append_rounds(id(0, 9), DeviceId(0), &rounds).expect("rounds");
    writer.flush().expect("a flush");
    let run_dir = writer.run_dir().to_path_buf();
    drop(writer);
    let whole = rescue(&run_dir, dir.path(), "whole").expect("a rescue");
    assert!(whole.is_whole(), "{whole:?}");
    let flip_file = |name: &str| {
        let mut text = fs::read(run_dir.join(name)).expect("a file");
        let digit = text.iter().rposition(u8::is_ascii_digit).expect("a digit");
        text[digit] ^= 1;
        fs::write(run_dir.join(name), text).expect("a file");
    };
    flip_file("progress.json");
    flip_file("meta.json");
    let saved = rescue(&run_dir, dir.path(), "saved").expect("a rescue");
    assert_eq!((saved.lost.len(), saved.opened.len()), (2, 0), "{saved:?}");
    assert_eq!(saved.rows[&Table::Rounds], (1500, None));
    let reader = RunReader::open(&saved.folder).expect("a run");
    assert_eq!((reader.closed_generations(), reader.open_generations().len()), (4, 1));
    assert!(matches!(&reader.meta().state, RunState::Failed { reason } if reason.contains("rescued from run killed")));
    assert!(reader.verify().expect("a check").is_sound());
}

/// What a caller skips over, and what leaves no error in its place, is known to the reader all the same.
#[test]
fn damage_that_was_met_is_remembered() {
    let dir = tempdir().expect("a temporary folder");
    let met = |run_dir: &std::path::Path, read: &dyn Fn(&RunReader)| {
        let reader = RunReader::open(run_dir).expect("the rest is readable");
        let of_rows = || {
            let mut met = reader.damage_log().met();
            met.retain(|met| met.part != RunPart::Store);
            met
        };
        read(&reader);
        read(&reader);
        of_rows()
    };
    let skip = |reader: &RunReader| assert!(reader.scan_rounds(&[]).flatten().count() > 0);
    let fold = |reader: &RunReader| drop(reader.fold_rounds(&[], 2, || (), |(), _| ()));
    let generations = |reader: &RunReader| assert_eq!(reader.generations().flatten().count(), 40);
    let remove = |run_dir: &std::path::Path, tables: &[u8], sequence: u64| {
        tables.iter().for_each(|table| damage(run_dir, *table, sequence, |chunk| chunk.fill(0)));
    };

    let sound = finished(dir.path(), "sound", 40);
    assert_eq!((met(&sound, &skip), met(&sound, &generations)), (Vec::new(), Vec::new()));
    let changed = finished(dir.path(), "changed", 40);
    damage(&changed, b'r', 2, flip);
    for read in [&skip as &dyn Fn(&RunReader), &fold] {
        let found = met(&changed, read);
        assert!(
            matches!(&found[..], [one] if one.part == RunPart::Table(Table::Rounds) && one.why.contains("chunk 2")),
            "{found:?}"
        );
    }
    // A hole in the middle, then the end.
    let cut = finished(dir.path(), "cut", 40);
    remove(&cut, b"rp", 1);
    for read in [&skip as &dyn Fn(&RunReader), &fold] {
        let found = met(&cut, read);
        assert!(matches!(&found[..], [one] if one.why.contains("chunk 1") && one.why.contains("missing")), "{found:?}");
    }
    let short = finished(dir.path(), "short", 40);
    let last =
        verify(&short).expect("a check").tables.iter().find(|t| t.table == Table::Rounds).expect("rounds").chunks - 1;
    remove(&short, b"rp", last);
    for read in [&skip as &dyn Fn(&RunReader), &fold] {
        let found = met(&short, read);
        assert!(matches!(&found[..], [one] if one.why.contains(&format!("chunk {last}"))), "{found:?}");
    }
    fs::write(sound.join("progress.json"), r#"{"generations": 41}"#).expect("a file");
    let found = met(&sound, &generations);
    assert!(matches!(&found[..], [one] if one.part == RunPart::File("progress.json")), "{found:?}");
}

#[test]
fn tags_come_and_go_and_nothing_else_changes() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = finished(dir.path(), "r", 1);
    // What a later program of the same schema may have put there.
    let text = fs::read_to_string(run_dir.join("meta.json")).expect("meta.json");
    let text = text.replacen('{', "{\n  \"color\": \"blue\",", 1);
    fs::write(run_dir.join("meta.json"), seal(&without(text.as_bytes()))).expect("a file");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(edit_tags(&run_dir, &words(&["paper", "table-2", "paper"]), &[]).expect("tags"), ["paper", "table-2"]);
    assert_eq!(
        edit_tags(&run_dir, &words(&["final"]), &words(&["paper", "none"])).expect("tags"),
        ["table-2", "final"]
    );
    assert_eq!(list(dir.path()).expect("a listing")[0].tags, ["table-2", "final"]);
    let meta = Meta::read(&run_dir).expect("meta.json");
    assert_eq!((meta.tags.len(), meta.seed, &meta.state), (2, 42, &RunState::Completed));
    assert!(fs::read_to_string(run_dir.join("meta.json")).expect("meta.json").contains("\"color\": \"blue\""));
    for bad in ["", "a b", "a,b", "-x", "=cmd|calc", "@x", "a\u{202e}b", "a\u{1b}[31m", "a\nb", &"x".repeat(65)] {
        assert!(matches!(edit_tags(&run_dir, &words(&[bad]), &[]), Err(LedgerError::BadTag(_))), "{bad:?}");
    }
    let running = RunWriter::create(dir.path(), meta_of("running")).expect("a new run");
    let refused = edit_tags(running.run_dir(), &words(&["x"]), &[]);
    assert!(matches!(refused, Err(LedgerError::StillRunning(_))), "{refused:?}");
}

fn meta_of(run: &str) -> Meta {
    crate::common::meta(run)
}

#[test]
fn runs_are_removed_unless_they_run_or_are_newer() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = finished(dir.path(), "r", 1);
    remove(&run_dir).expect("it has ended");
    assert!(!run_dir.exists());
    assert!(matches!(remove(&run_dir), Err(LedgerError::NotFound(_))));
    let running = RunWriter::create(dir.path(), meta_of("running")).expect("a new run");
    assert!(matches!(remove(running.run_dir()), Err(LedgerError::StillRunning(_))));
    assert!(running.run_dir().join("meta.json").exists());
    let damaged = finished(dir.path(), "damaged", 1);
    fs::write(damaged.join("meta.json"), "{\"schema\": 3, ").expect("a file");
    remove(&damaged).expect("nothing to keep");
    let newer = finished(dir.path(), "newer", 1);
    let store = store_of(&newer);
    fs::write(newer.join("meta.json"), "{\"schema\": 99}").expect("a file");
    assert!(matches!(remove(&newer), Err(LedgerError::NewerSchema { .. })));
    assert!(store.is_dir());
    // Any folder of files is not a run.
    fs::create_dir(dir.path().join("photos")).expect("a folder");
    assert!(matches!(remove(&dir.path().join("photos")), Err(LedgerError::NotFound(_))));
}
