//! What a program wrote: the description of a stored run, and exports that become runs of another ledger.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use specfleet_engine::method::{Estimator, ImportanceStatistic};
use specfleet_export::{ExportFormat, ExportTable, ImportOptions, Options, export, import};
use specfleet_files::sealed::{seal, without};
use specfleet_ledger::{ListedState, Meta, RunReader, RunState, RunWriter, SCHEMA, list};
use specfleet_tests::mutator::{Mutator, Notation};
use specfleet_tests::setups::{small, ui_hlm};
use specfleet_tests::world::World;
use tempfile::TempDir;

use crate::watch::{Input, temporary_folder, watch};

/// Nobody ends an export or an import early.
static NEVER: AtomicBool = AtomicBool::new(false);

/// A run of three prompts by the machines themselves, stored below `ledger`; its folder.
fn store_run(ledger: &Path) -> PathBuf {
    let method = ui_hlm(ImportanceStatistic::Lookahead, Estimator::Expected);
    let meta: Meta = serde_json::from_value(json!({
        "schema": SCHEMA, "run": "r", "state": "running", "pid": 1, "started": 1_700_000_000, "ended": 1_700_000_100,
        "scenario": "devices = 2\n", "scenario_hash": "0123456789abcdef", "seed": 42, "repeat": 1,
        "versions": {"specfleet": "0.1.0"}, "methods": [method.clone()], "data_sets": ["word-problems"],
        "accounting": 2, "pool_cost": "fixed", "devices": 3, "verifiers": 1, "calibration": {"a": 0.82},
        "wall_seconds": 1.5, "tags": ["one", "two"], "faults_injected": 3,
    }))
    .expect("a description");
    let mut writer = RunWriter::create(ledger, meta).expect("a new run");
    let outcome = World::run(small(method, 3, 12));
    for (record, rounds) in outcome.generations.into_values() {
        writer.close_generation(record, &rounds).expect("a closing");
    }
    for batch in outcome.batches {
        writer.append_batch(batch).expect("a batch");
    }
    writer.put_summary("{\"tokens\": 36}").expect("a summary");
    writer.finish(RunState::Completed).expect("an end");
    ledger.join("r")
}

#[test]
fn descriptions_of_runs_are_read_or_refused() {
    let dir = temporary_folder();
    let run = store_run(dir.path());
    let base = fs::read(run.join("meta.json")).expect("a file");
    let whole = base.clone();
    let make = move |mutator: &mut Mutator, bases: &[Vec<u8>]| {
        // Half have a checksum that fits: who changes a file on purpose can compute it.
        let bytes = match mutator.below(2) {
            0 => mutator.mutate(&bases[0], Notation::Text),
            _ => seal(&mutator.mutate(&without(&bases[0]), Notation::Text)),
        };
        Input { base: 0, bytes }
    };
    watch("descriptions of runs", 8, vec![base], make, move |input| {
        fs::write(run.join("meta.json"), &input.bytes).expect("written");
        let listed = list(dir.path()).expect("a ledger lists what it cannot read");
        let Ok(meta) = Meta::read(&run) else {
            return false;
        };
        assert!(meta.schema <= SCHEMA, "schema {}", meta.schema);
        assert!(meta.passes() > 0);
        assert_eq!(listed.len(), 1);
        assert!(!matches!(listed[0].state, ListedState::Running), "nobody writes it");
        let changed = without(&input.bytes) != without(&whole);
        let sealed = specfleet_files::sealed::check(&input.bytes) == specfleet_files::sealed::Seal::Whole;
        assert!(sealed || !changed || meta.schema < SCHEMA, "a changed file passes for what was written");
        if let Ok(reader) = RunReader::open(&run) {
            reader.generations().for_each(drop);
        }
        true
    });
}

#[test]
fn a_description_that_claims_more_chunks_than_there_are_takes_no_memory() {
    let dir = temporary_folder();
    let run = store_run(dir.path());
    let whole = String::from_utf8(without(&fs::read(run.join("meta.json")).expect("a file"))).expect("a text");
    for claimed in ["9223372036854775807", "18446744073709551615", "3000000000"] {
        let claims = whole.replace("\"chunks\": 1", &format!("\"chunks\": {claimed}"));
        assert_ne!(claims, whole);
        fs::write(run.join("meta.json"), seal(claims.as_bytes())).expect("written");
        let reader = RunReader::open(&run).expect("its description is sealed");
        let (read, lacking): (Vec<_>, Vec<_>) = reader.generations().partition(Result::is_ok);
        assert_eq!((read.len(), lacking.len()), (3, 1), "{claimed}");
    }
}

/// A stored run and its export, whose description says nothing of digests and rows: with them every change would be refused
/// before it is read.
fn exported(format: ExportFormat) -> TempDir {
    let dir = temporary_folder();
    let run = store_run(&dir.path().join("ledger"));
    let reader = RunReader::open(&run).expect("it has ended");
    let out = dir.path().join("out");
    let options = Options { format, tables: &ExportTable::ALL, out: &out, force: false, interrupted: &NEVER };
    export(&reader, &options, &mut |damage| panic!("{damage}")).expect("an export");
    let path = out.join("run.json");
    let mut about: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    for field in ["digests", "rows"] {
        about.as_object_mut().expect("an object").remove(field).expect("it is there");
    }
    fs::write(&path, format!("{about:#}")).expect("written");
    dir
}

/// Imports the export with some of its files damaged, one at a time.
fn damage_files(kind: &'static str, seed: u64, format: ExportFormat, names: &'static [&str]) {
    let dir = exported(format);
    let out = dir.path().join("out");
    let bases: Vec<Vec<u8>> = names.iter().map(|name| fs::read(out.join(name)).expect("a file")).collect();
    let whole = bases.clone();
    let make = move |mutator: &mut Mutator, bases: &[Vec<u8>]| {
        let base = mutator.below(bases.len());
        let notation = if names[base].ends_with("parquet") { Notation::Binary } else { Notation::Text };
        Input { base, bytes: mutator.mutate(&bases[base], notation) }
    };
    watch(kind, seed, bases, make, move |input| {
        let (path, ledger) = (out.join(names[input.base]), dir.path().join("other"));
        fs::write(&path, &input.bytes).expect("written");
        let options = ImportOptions { dir: &out, ledger: &ledger, name: Some("again"), interrupted: &NEVER };
        let imported = import(&options);
        fs::write(&path, &whole[input.base]).expect("written");
        let Ok(imported) = imported else {
            assert!(!ledger.exists(), "a failed import leaves nothing");
            return false;
        };
        let reader = RunReader::open(&imported.folder).expect("it was imported as a run");
        assert_eq!(reader.generations().filter(Result::is_ok).count() as u64, imported.generations);
        drop(reader);
        fs::remove_dir_all(&ledger).expect("it was made");
        true
    });
}

#[test]
fn descriptions_of_exports_are_read_or_refused() {
    damage_files("descriptions of exports", 9, ExportFormat::Jsonl, &["run.json"]);
}

#[test]
fn tables_as_lines_are_read_or_refused() {
    damage_files("tables as lines", 10, ExportFormat::Jsonl, &["rounds.jsonl", "generations.jsonl", "batches.jsonl"]);
}

#[test]
fn parquet_tables_are_read_or_refused() {
    damage_files("tables in Parquet", 11, ExportFormat::Parquet, &["rounds.parquet", "generations.parquet"]);
}
