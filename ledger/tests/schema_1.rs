//! A store that version 0.1.0 of the program wrote, before schema 2, is still read.
//!
//! `schema-1/` holds six generations of [`plausible_rounds`] with an audit and a batch each, and one verifier.

mod common;

use std::fs;
use std::path::Path;

use common::*;
use specfleet_engine::record::{FinishReason, VerifierRecord};
use specfleet_engine::time::{Span, Time};
use specfleet_ledger::{RunKind, RunReader, RunState, list};
use tempfile::tempdir;

/// A copy of the recorded run: opening a store writes to it.
fn copied(to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema-1");
    fs::create_dir_all(to.join("store")).expect("a folder");
    for file in ["meta.json", "progress.json", "lock", "store/conf", "store/db"] {
        fs::copy(from.join(file), to.join(file)).expect("a file of the recorded run");
    }
}

#[test]
fn rows_are_read_and_what_they_lack_is_filled_in() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = dir.path().join("schema-1");
    copied(&run_dir);
    let listed = list(dir.path()).expect("a listing").remove(0);
    assert_eq!((listed.state.name(), listed.kind, listed.progress.generations), ("completed", RunKind::Live, 6));

    let reader = RunReader::open(&run_dir).expect("an older schema");
    assert_eq!((reader.meta().schema, &reader.meta().state), (1, &RunState::Completed));
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
