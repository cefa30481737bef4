//! Scores that are added to a run after it has ended.

use std::path::{Path, PathBuf};

use crate::common::*;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_ledger::{
    LedgerError, Meta, RunReader, RunState, RunWriter, ScoreRow, ScoreWriter, Scorer, Table, compact,
};
use tempfile::{TempDir, tempdir};

fn id(prompt: u32) -> GenerationId {
    GenerationId { method: 1, prompt, repetition: 0, pass: 0 }
}

fn scorer(name: &str, layer: &str) -> Scorer {
    Scorer {
        name: name.to_owned(),
        unit: "ratio".to_owned(),
        label: format!("layer {layer}"),
        settings: [("layer".to_owned(), layer.to_owned())].into(),
    }
}

/// A finished run without rows.
fn finished(state: RunState) -> (TempDir, PathBuf) {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("scored")).expect("a run");
    writer.flush().expect("a flush");
    writer.finish(state).expect("an end");
    let run_dir = dir.path().join("scored");
    (dir, run_dir)
}

fn stored(run_dir: &Path) -> Vec<ScoreRow> {
    RunReader::open(run_dir).expect("a run").scores().collect::<Result<_, _>>().expect("scores")
}

#[test]
fn scores_are_read_back_and_the_same_scorer_replaces_nothing() {
    let (_dir, run_dir) = finished(RunState::Completed);
    assert!(stored(&run_dir).is_empty());
    let rows: Vec<ScoreRow> =
        (0..10_000).map(|n| ScoreRow { id: id(n), scorer: 0, value: 1.0 / (n as f32 + 1.0) }).collect();
    let mut writer = ScoreWriter::open(&run_dir).expect("a finished run");
    assert_eq!(writer.scorer(&scorer("f1", "2")).expect("a scorer"), 0);
    for row in &rows {
        assert!(writer.append(*row).expect("room"));
    }
    writer.flush().expect("a flush");
    drop(writer);
    assert_eq!(stored(&run_dir), rows);

    // Another day: the scorer is known, and so are its figures; another layer is another scorer.
    let mut writer = ScoreWriter::open(&run_dir).expect("a finished run");
    let known = writer.scorer(&Scorer { label: "another word for it".to_owned(), ..scorer("f1", "2") });
    assert_eq!(known.expect("a scorer"), 0);
    assert!(writer.has(0, id(9999)) && !writer.has(0, id(10_000)));
    assert!(!writer.append(ScoreRow { id: id(3), scorer: 0, value: 9.0 }).expect("room"));
    assert_eq!(writer.scorer(&scorer("f1", "3")).expect("a scorer"), 1);
    assert!(!writer.has(1, id(3)));
    assert!(writer.append(ScoreRow { id: id(3), scorer: 1, value: f32::NAN }).expect("room"));
    assert!(!writer.append(ScoreRow { id: id(3), scorer: 2, value: 0.5 }).expect("room"), "a scorer nobody knows");
    writer.flush().expect("a flush");
    drop(writer);
    let all = stored(&run_dir);
    assert_eq!((all.len(), &all[..10_000]), (10_001, &rows[..]));
    assert!(all[10_000].value.is_nan() && all[10_000].scorer == 1);
    let meta = Meta::read(&run_dir).expect("a description");
    assert_eq!((meta.scorers.len(), meta.scorers[0].label.as_str(), meta.state), (2, "layer 2", RunState::Completed));
}

#[test]
fn what_was_not_flushed_is_missing_and_nothing_else() {
    let (_dir, run_dir) = finished(RunState::Completed);
    let mut writer = ScoreWriter::open(&run_dir).expect("a finished run");
    let place = writer.scorer(&scorer("f1", "2")).expect("a scorer");
    writer.append(ScoreRow { id: id(1), scorer: place, value: 0.5 }).expect("room");
    writer.flush().expect("a flush");
    writer.append(ScoreRow { id: id(2), scorer: place, value: 0.5 }).expect("room");
    writer.scorer(&scorer("recall", "2")).expect("a scorer");
    drop(writer);
    let mut writer = ScoreWriter::open(&run_dir).expect("a finished run");
    assert!(writer.has(0, id(1)) && !writer.has(0, id(2)));
    // The second scorer keeps its place though it has no row: no later one can be taken for it.
    assert_eq!(writer.scorer(&scorer("precision", "2")).expect("a scorer"), 2);
    assert_eq!(writer.scorer(&scorer("recall", "2")).expect("a scorer"), 1);
}

#[test]
fn a_run_that_is_written_or_scored_lets_nobody_else_in() {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("scored")).expect("a run");
    let run_dir = dir.path().join("scored");
    writer.append_rounds(id(1), DeviceId(0), &plausible_rounds(&mut Noise(1), 3, 5)).expect("room");
    writer.flush().expect("a flush");
    assert!(matches!(ScoreWriter::open(&run_dir), Err(LedgerError::StillRunning(_))));
    // Its writer dies.
    drop(writer);
    let scores = ScoreWriter::open(&run_dir).expect("an interrupted run");
    assert_eq!(scores.meta().state, RunState::Interrupted);
    // It has ended, and is in use.
    assert!(matches!(ScoreWriter::open(&run_dir), Err(LedgerError::StoreBusy(_))));
    assert!(matches!(RunReader::open(&run_dir), Err(LedgerError::StoreBusy(_))));
    drop(scores);
    assert_eq!(Meta::read(&run_dir).expect("a description").state, RunState::Interrupted);
    assert_eq!(RunReader::open(&run_dir).expect("an interrupted run").open_generations().len(), 1);
    assert!(matches!(ScoreWriter::open(&dir.path().join("other")), Err(LedgerError::NotFound(_))));
}

#[test]
fn compacting_carries_the_scores_and_verifying_reads_them() {
    let (_dir, run_dir) = finished(RunState::Completed);
    let mut writer = ScoreWriter::open(&run_dir).expect("a finished run");
    let place = writer.scorer(&scorer("f1", "2")).expect("a scorer");
    let mut rows = Vec::new();
    for n in 0..50 {
        let row = ScoreRow { id: id(n), scorer: place, value: 0.01 * n as f32 };
        writer.append(row).expect("room");
        // A chunk each.
        writer.flush().expect("a flush");
        rows.push(row);
    }
    drop(writer);
    let chunks = |run_dir: &Path| {
        let verified = RunReader::open(run_dir).expect("a run").verify().expect("a check");
        assert!(verified.is_sound(), "{verified:?}");
        let scores = verified.tables.iter().find(|table| table.table == Table::Scores).expect("the table");
        (scores.chunks, scores.rows)
    };
    assert_eq!(chunks(&run_dir), (50, 50));
    compact(&run_dir).expect("a compaction");
    assert_eq!(chunks(&run_dir), (1, 50));
    assert_eq!(stored(&run_dir), rows);
    assert_eq!(Meta::read(&run_dir).expect("a description").scorers, [scorer("f1", "2")]);
    // And it can be scored further.
    let mut writer = ScoreWriter::open(&run_dir).expect("a compacted run");
    assert!(writer.has(place, id(49)));
    assert!(writer.append(ScoreRow { id: id(50), scorer: place, value: 1.0 }).expect("room"));
    writer.flush().expect("a flush");
    drop(writer);
    assert_eq!(stored(&run_dir).len(), 51);
}

#[test]
fn a_newer_store_is_refused_untouched() {
    let (_dir, run_dir) = finished(RunState::Completed);
    let path = run_dir.join("meta.json");
    let newer = r#"{"schema": 999, "what": "ever"}"#;
    std::fs::write(&path, newer).expect("a file");
    assert!(matches!(ScoreWriter::open(&run_dir), Err(LedgerError::NewerSchema { found: 999, .. })));
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), newer);
}
