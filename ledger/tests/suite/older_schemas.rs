//! Stores that earlier versions of the program wrote are still read, and compacting turns them into the newest schema.
//!
//! `schema-1/` and `schema-2/` each hold six generations of [`plausible_rounds`] with an audit and a batch each, and one
//! verifier; version 2 also one generation that was never closed. `schema-3/` to `schema-5/` are small simulations,
//! compacted.

use std::fs;
use std::path::Path;

use crate::common::*;
use specfleet_engine::id::GenerationId;
use specfleet_engine::record::{FinishReason, GenerationRecord, RoundRecord, RunClock, VerifierRecord};
use specfleet_engine::time::{Span, Time};
use specfleet_ledger::{Meta, RoundColumn, RunKind, RunReader, RunState, SCHEMA, compact, edit_tags, list, verify};
use tempfile::tempdir;

/// A copy of a recorded run: opening a store writes to it.
fn copied(schema: u32, to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/schema-{schema}"));
    fs::create_dir_all(to.join("store")).expect("a folder");
    for file in ["meta.json", "progress.json", "lock", "store/conf", "store/db"] {
        fs::copy(from.join(file), to.join(file)).expect("a file of the recorded run");
    }
}

/// What the test wrote into schema 1.
fn is_of_schema_1(reader: &RunReader) {
    assert!(reader.damaged().is_empty());
    let mut noise = Noise(11);
    for (number, record) in reader.generations().enumerate() {
        let record = record.expect("a generation");
        let expected = plausible_rounds(&mut noise, 20 + number as u32, 40);
        let rounds = reader.rounds(record.id).expect("its rounds");
        // The rounds of these tests have no price, and neither have those of schema 1.
        assert_eq!(bits(&rounds), bits(&expected));
        assert_eq!((record.scheduled, record.latency_target), (record.started, Span::ZERO));
        assert!(record.started > Time::ZERO);
        assert_eq!((record.finish, record.uploads.sent), (FinishReason::Stop, number as u64));
        assert_eq!(record.tokens, expected.iter().map(|round| round.token).collect::<Vec<_>>());
    }
    for (number, batch) in reader.batches().enumerate() {
        let batch = batch.expect("a batch");
        assert_eq!((batch.batch, batch.estimate, batch.price.is_nan()), (number as u64, Span::ZERO, true));
        assert_eq!((batch.sequences, batch.cached, batch.nanojoules, batch.completed), (4, 300, 15_000_000, true));
    }
    let verifiers: Vec<VerifierRecord> = reader.verifiers().collect::<Result<_, _>>().expect("verifiers");
    assert_eq!((verifiers.len(), verifiers[0].idle, verifiers[0].off), (1, Span(6), Span::ZERO));
    assert_eq!(verifiers[0].restarts, 1);
    assert_eq!((reader.batches().count(), reader.audits().count(), reader.energy().count()), (6, 6, 25));
}

/// What the test wrote into schema 2.
fn is_of_schema_2(reader: &RunReader) {
    assert!(reader.damaged().is_empty());
    let mut noise = Noise(12);
    let priced = |noise: &mut Noise, count| -> Vec<RoundRecord> {
        let rounds = plausible_rounds(noise, count, 40).into_iter();
        rounds.map(|round| RoundRecord { price: round.position as f32 / 8.0, ..round }).collect()
    };
    let records: Vec<GenerationRecord> = reader.generations().collect::<Result<_, _>>().expect("generations");
    assert_eq!(records.len(), 6);
    for (number, record) in records.iter().enumerate() {
        let expected = priced(&mut noise, 20 + number as u32);
        assert_eq!(bits(&reader.rounds(record.id).expect("its rounds")), bits(&expected));
        assert_eq!((record.scheduled.0 + 5, record.latency_target), (record.started.0, Span(8_000_000)));
        assert_eq!((record.device.0, record.uploads.sent), (number as u32 % 2, number as u64));
        assert_eq!(record.tokens, expected.iter().map(|round| round.token).collect::<Vec<_>>());
    }
    let open = plausible_rounds(&mut noise, 5, 40);
    assert_eq!(bits(&reader.rounds(id(0, 6)).expect("an open generation")), bits(&open));
    assert_eq!(reader.open_generations().len(), 1);
    for batch in reader.batches() {
        let batch = batch.expect("a batch");
        assert_eq!((batch.estimate, batch.price, batch.work), (Span(2_900_000), 0.25, 9));
    }
    for audit in reader.audits() {
        let audit = audit.expect("an audit");
        assert_eq!((audit.positions, audit.accept_probabilities), (vec![1, 3], vec![0.5, 1.0]));
    }
    let verifiers: Vec<VerifierRecord> = reader.verifiers().collect::<Result<_, _>>().expect("verifiers");
    assert_eq!((verifiers.len(), verifiers[0].off, verifiers[0].idle_nanojoules), (1, Span(7), 8));
    assert_eq!((reader.batches().count(), reader.audits().count(), reader.energy().count()), (6, 6, 25));
}

/// What a simulation of three prompts under two methods wrote into schema 3, compacted; the sums are what the program of
/// then said of it.
fn is_of_schema_3(reader: &RunReader) {
    assert!(reader.damaged().is_empty());
    let records: Vec<GenerationRecord> = reader.generations().collect::<Result<_, _>>().expect("generations");
    let energy: u64 = records.iter().map(|record| record.energy.total()).sum();
    let rounds: Vec<RoundRecord> =
        records.iter().flat_map(|record| reader.rounds(record.id).expect("its rounds")).collect();
    let bytes: u64 = rounds.iter().map(|round| u64::from(round.uplink_bytes())).sum();
    assert_eq!((records.len(), rounds.len(), energy, bytes), (6, 72, 5_920_840_278, 387_393));
    // What schema 3 did not have.
    assert!(rounds.iter().all(|round| round.waiting == Span::ZERO));
    assert!(records.iter().all(|record| record.times.waiting_overrun == Span::ZERO));
    for batch in reader.batches() {
        let batch = batch.expect("a batch");
        assert_eq!((batch.measured, batch.measured_nanojoules), (batch.compute, batch.nanojoules));
        assert_eq!(batch.overrun, Span::ZERO);
    }
    let meta = reader.meta();
    assert_eq!((meta.accounting, meta.pool_cost.as_str()), (1, "measured"));
}

/// The same simulation in schema 4, which had no passes.
fn is_of_schema_4(reader: &RunReader) {
    assert!(reader.damaged().is_empty());
    let records: Vec<GenerationRecord> = reader.generations().collect::<Result<_, _>>().expect("generations");
    let energy: u64 = records.iter().map(|record| record.energy.total()).sum();
    let late: u64 = records.iter().map(|record| record.times.waiting_overrun.0).sum();
    let rounds: Vec<RoundRecord> =
        records.iter().flat_map(|record| reader.rounds(record.id).expect("its rounds")).collect();
    let waiting: u64 = rounds.iter().map(|round| round.waiting.0).sum();
    assert_eq!((records.len(), rounds.len(), energy, late), (6, 72, 5_282_584_984, 102_316_474));
    assert_eq!(waiting, 1_303_639_239);
    let batches: Vec<_> = reader.batches().collect::<Result<_, _>>().expect("batches");
    let sums = batches.iter().fold((0, 0), |sums, batch| (sums.0 + batch.overrun.0, sums.1 + batch.measured.0));
    assert_eq!((batches.len(), sums), (47, (38_599_961, 95_909_298)));
    assert!(records.iter().all(|record| record.id.pass == 0) && batches.iter().all(|batch| batch.pass == 0));
    let meta = reader.meta();
    assert_eq!((meta.accounting, meta.pool_cost.as_str(), meta.passes()), (2, "calibrated", 1));
    assert_eq!((meta.repeat, meta.seeds, meta.disturbance), (1, 1, None));
}

/// A simulation in schema 5, whose chunks did not say where they belong.
fn is_of_schema_5(reader: &RunReader) {
    assert!(reader.damaged().is_empty());
    let records: Vec<GenerationRecord> = reader.generations().collect::<Result<_, _>>().expect("generations");
    let energy: u64 = records.iter().map(|record| record.energy.total()).sum();
    let rounds: Vec<RoundRecord> =
        records.iter().flat_map(|record| reader.rounds(record.id).expect("its rounds")).collect();
    let waiting: u64 = rounds.iter().map(|round| round.waiting.0).sum();
    assert_eq!((records.len(), rounds.len(), energy, waiting), (6, 72, 4_477_390_400, 810_322_654));
    let meta = reader.meta();
    assert_eq!((meta.accounting, meta.clock, meta.passes()), (3, RunClock::Emulated, 1));
}

/// A scan of a few columns agrees with the rows.
fn scans(reader: &RunReader) {
    let columns = [RoundColumn::Draft, RoundColumn::Price, RoundColumn::CommittedAt, RoundColumn::CloudPaperNanojoules];
    let mut seen = 0;
    for chunk in reader.scan_rounds(&columns) {
        let chunk = chunk.expect("no chunk is damaged");
        for piece in &chunk.pieces {
            let rounds = reader.rounds(piece.id).expect("its rounds");
            for (row, round) in piece.range.clone().zip(&rounds[piece.first as usize..]) {
                let rows = &chunk.rows;
                assert_eq!((rows.draft[row], rows.committed_at[row]), (round.draft, round.committed_at));
                assert_eq!(rows.price[row].to_bits(), round.price.to_bits());
                assert_eq!(rows.cloud_paper_nanojoules[row], round.cloud_paper_nanojoules());
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn rows_are_read_and_what_they_lack_is_filled_in() {
    for (schema, is_as_written) in [(1, is_of_schema_1 as fn(&RunReader)), (2, is_of_schema_2)] {
        let dir = tempdir().expect("a temporary folder");
        let run_dir = dir.path().join(format!("schema-{schema}"));
        copied(schema, &run_dir);
        let listed = list(dir.path()).expect("a listing").remove(0);
        assert_eq!((listed.state.name(), listed.kind, listed.progress.generations), ("completed", RunKind::Live, 6));
        let reader = RunReader::open(&run_dir).expect("an older schema");
        assert_eq!((reader.meta().schema, &reader.meta().state), (schema, &RunState::Completed));
        is_as_written(&reader);
        scans(&reader);
        drop(reader);
        assert!(verify(&run_dir).expect("a check").is_sound());
    }
}

/// A folder with everything in it.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder of the recorded run") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file of the recorded run");
        }
    }
}

#[test]
fn compacted_runs_are_read_and_compacting_migrates_them() {
    for (schema, is_as_written) in [(3, is_of_schema_3 as fn(&RunReader)), (4, is_of_schema_4), (5, is_of_schema_5)] {
        let dir = tempdir().expect("a temporary folder");
        let run_dir = dir.path().join(format!("schema-{schema}"));
        copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/schema-{schema}")), &run_dir);
        is_as_written(&RunReader::open(&run_dir).expect("an older schema"));
        assert!(verify(&run_dir).expect("a check").is_sound());
        assert_eq!(compact(&run_dir).expect("a compaction").schema_before, schema);
        assert_eq!(Meta::read(&run_dir).expect("meta.json").schema, SCHEMA);
        is_as_written(&RunReader::open(&run_dir).expect("the newest schema"));
    }
}

#[test]
fn compacting_migrates_to_the_newest_schema() {
    for (schema, is_as_written) in [(1, is_of_schema_1 as fn(&RunReader)), (2, is_of_schema_2)] {
        let dir = tempdir().expect("a temporary folder");
        let run_dir = dir.path().join(format!("schema-{schema}"));
        copied(schema, &run_dir);
        // A tag leaves the schema as it is.
        edit_tags(&run_dir, &["old".to_owned()], &[]).expect("a tag");
        assert_eq!(Meta::read(&run_dir).expect("meta.json").schema, schema);
        let before = Meta::read(&run_dir).expect("meta.json");
        let compacted = compact(&run_dir).expect("a compaction");
        assert_eq!(compacted.schema_before, schema);
        let after = Meta::read(&run_dir).expect("meta.json");
        assert_eq!((after.schema, after.store.as_str(), after.tags.len()), (SCHEMA, "store-2", 1));
        assert!(after.id.is_some() && after.manifest.is_some());
        assert_eq!(Meta { schema, store: before.store.clone(), id: None, manifest: None, ..after }, before);
        assert!(!run_dir.join("store").exists() && run_dir.join("store-2").is_dir());
        let reader = RunReader::open(&run_dir).expect("the newest schema");
        is_as_written(&reader);
        scans(&reader);
        drop(reader);
        assert!(verify(&run_dir).expect("a check").is_sound());
        // Once more, from the newest.
        compact(&run_dir).expect("a compaction");
        is_as_written(&RunReader::open(&run_dir).expect("the newest schema"));
        assert_eq!(Meta::read(&run_dir).expect("meta.json").store, "store-3");
    }
}

#[test]
fn ids_of_other_generations_are_unknown() {
    let dir = tempdir().expect("a temporary folder");
    copied(2, dir.path());
    let reader = RunReader::open(dir.path()).expect("an older schema");
    let unknown = GenerationId { method: 9, ..id(0, 0) };
    assert_eq!(reader.rounds(unknown).expect("no error").len(), 0);
}
