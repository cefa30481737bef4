//! Compacting keeps every row, makes the store smaller, and can be killed at any point.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::*;
use proptest::prelude::*;
use specfleet_engine::id::DeviceId;
use specfleet_engine::record::Provenance;
use specfleet_ledger::{
    CompactStep, LedgerError, Meta, RunReader, RunState, RunWriter, ScoreRow, ScoreWriter, Scorer, compact,
    compact_watched, verify,
};
use tempfile::tempdir;

const RUN: &str = "SPECFLEET_TEST_COMPACT_RUN";
const DEATH: &str = "SPECFLEET_TEST_COMPACT_DEATH";

/// A run of sixteen devices side by side, flushed often; the last generations stay open.
fn written(ledger: &Path, generations: u32) -> PathBuf {
    let mut writer = RunWriter::create(ledger, meta("r")).expect("a new run");
    let mut noise = Noise(3);
    for wave in 0..generations / 16 {
        let rounds: Vec<_> = (0..16).map(|_| plausible_rounds(&mut noise, 96, 40)).collect();
        for start in (0..96).step_by(8) {
            for (device, rounds) in (0..).zip(&rounds) {
                let id = id(0, 16 * wave + device);
                writer.append_rounds(id, DeviceId(device), &rounds[start..start + 8]).expect("rounds");
            }
            if start % 24 == 0 {
                writer.flush().expect("a flush");
            }
        }
        if wave + 1 == generations / 16 {
            break;
        }
        for (device, rounds) in (0..).zip(&rounds) {
            let record = plausible_generation(id(0, 16 * wave + device), DeviceId(device), rounds);
            writer.close_generation(record, &[]).expect("a closing");
        }
    }
    let run_dir = writer.run_dir().to_path_buf();
    writer.finish(RunState::Completed).expect("an end");
    run_dir
}

/// Everything in a run, as text.
fn content(run_dir: &Path) -> Vec<String> {
    let reader = RunReader::open(run_dir).expect("the run");
    assert!(reader.damaged().is_empty());
    let mut text = vec![format!("{:?}", reader.open_generations())];
    for record in reader.generations() {
        let record = record.expect("a generation");
        let rounds = reader.rounds(record.id).expect("its rounds");
        text.push(format!("{record:?} {:?}", bits(&rounds)));
    }
    for open in reader.open_generations() {
        text.push(format!("{:?}", bits(&reader.rounds(open.id).expect("its rounds"))));
    }
    text.extend(reader.batches().map(|row| format!("{:?}", batch_bits(&[row.expect("a batch")]))));
    text.extend(reader.energy().map(|row| format!("{:?}", row.expect("a row"))));
    text.extend(reader.audits().map(|row| format!("{:?}", row.expect("an audit"))));
    text.extend(reader.verifiers().map(|row| format!("{:?}", row.expect("a verifier"))));
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_row_survives(
        generations in prop::collection::vec((any_generation(), prop::collection::vec(any_round(), 0..60)), 0..12),
        left_open in prop::collection::vec(any_round(), 1..30),
        batches in prop::collection::vec(any_batch(), 0..40),
        verifiers in prop::collection::vec(any_verifier(), 0..5),
        audits in prop::collection::vec(any_audit(), 0..8),
    ) {
        let dir = tempdir().expect("a temporary folder");
        let mut writer = RunWriter::create(dir.path(), meta("r")).expect("a new run");
        let unique: BTreeMap<_, _> = generations.into_iter().map(|(record, rounds)| (record.id, (record, rounds))).collect();
        for (record, rounds) in unique.values() {
            writer.append_rounds(record.id, record.device, &rounds[..rounds.len() / 2]).expect("rounds");
        }
        writer.flush().expect("a flush");
        if !unique.contains_key(&id(7, 7)) {
            writer.append_rounds(id(7, 7), DeviceId(3), &left_open).expect("rounds");
        }
        for (record, rounds) in unique.values() {
            writer.close_generation(record.clone(), &rounds[rounds.len() / 2..]).expect("a closing");
        }
        batches.iter().for_each(|batch| writer.append_batch(*batch).expect("a batch"));
        verifiers.iter().for_each(|row| writer.append_verifier(*row, Provenance::Modelled).expect("a verifier"));
        audits.iter().for_each(|audit| writer.append_audit(audit.clone()).expect("an audit"));
        let run_dir = writer.run_dir().to_path_buf();
        writer.finish(RunState::Completed).expect("an end");
        let before = content(&run_dir);
        let compacted = compact(&run_dir).expect("a compaction");
        prop_assert_eq!(content(&run_dir), before);
        let rounds: usize = unique.values().map(|(_, rounds)| rounds.len()).sum();
        let open = if unique.contains_key(&id(7, 7)) { 0 } else { left_open.len() };
        prop_assert_eq!(compacted.rounds, (rounds + open) as u64);
        prop_assert!(verify(&run_dir).expect("a check").is_sound());
    }
}

#[test]
fn small_pieces_come_together() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = written(dir.path(), 400);
    let before = content(&run_dir);
    let compacted = compact(&run_dir).expect("a compaction");
    assert_eq!(compacted.rounds, 400 * 96);
    // A store this small is a quarter the last files that sled has not yet deleted, and its chunks hold at most a twentieth of
    // a table each.
    assert!(4 * compacted.bytes_after < 3 * compacted.bytes_before, "{compacted:?}");
    assert_eq!(content(&run_dir), before);
    let reader = RunReader::open(&run_dir).expect("the run");
    let pieces: usize = reader.scan_rounds(&[]).map(|chunk| chunk.expect("not damaged").pieces.len()).sum();
    assert!(pieces < 420, "{pieces} pieces of 400 generations");
}

/// The child: dies where it is told.
#[test]
fn child() {
    if let (Some(run), Ok(death)) = (std::env::var_os(RUN), std::env::var(DEATH)) {
        let compacted = compact_watched(Path::new(&run), &mut |step| {
            if format!("{step:?}") == death {
                std::process::abort();
            }
        });
        panic!("it should be dead: {compacted:?}");
    }
}

#[test]
fn death_at_any_step_costs_nothing() {
    for death in [CompactStep::Filling, CompactStep::Filled, CompactStep::Checked, CompactStep::Swapped] {
        let dir = tempdir().expect("a temporary folder");
        let run_dir = written(dir.path(), 64);
        let before = content(&run_dir);
        let status = Command::new(std::env::current_exe().expect("this test's binary"))
            .args(["--exact", "compact::child", "--test-threads=1"])
            .env(RUN, &run_dir)
            .env(DEATH, format!("{death:?}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("a child");
        assert!(!status.success());
        let stores = |run_dir: &Path| {
            let names = fs::read_dir(run_dir).expect("the run").map(|entry| entry.expect("an entry").file_name());
            let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
            names.retain(|name| name.starts_with("store"));
            names.sort();
            names
        };
        assert_eq!(stores(&run_dir), ["store-2", "store-3"], "{death:?} left both");
        let named = if death == CompactStep::Swapped { "store-3" } else { "store-2" };
        assert_eq!(Meta::read(&run_dir).expect("meta.json").store, named);
        // At once, whole and readable; and the next compaction cleans up.
        assert_eq!(content(&run_dir), before, "{death:?}");
        compact(&run_dir).expect("a compaction");
        assert_eq!(content(&run_dir), before, "{death:?}");
        assert_eq!(stores(&run_dir).len(), 1);
    }
}

#[test]
fn a_running_run_is_left_alone_and_a_dead_one_is_called_interrupted() {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("r")).expect("a new run");
    let run_dir = writer.run_dir().to_path_buf();
    let rounds = plausible_rounds(&mut Noise(1), 20, 40);
    writer.append_rounds(id(0, 0), DeviceId(0), &rounds).expect("rounds");
    writer.flush().expect("a flush");
    assert!(matches!(compact(&run_dir), Err(LedgerError::StillRunning(_))));
    drop(writer);
    compact(&run_dir).expect("nobody writes it");
    assert_eq!(Meta::read(&run_dir).expect("meta.json").state, RunState::Interrupted);
    assert_eq!(bits(&RunReader::open(&run_dir).expect("the run").rounds(id(0, 0)).expect("rounds")), bits(&rounds));
}

#[test]
fn nobody_reads_or_compacts_beside_a_compaction() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = written(dir.path(), 32);
    let mut refused = Vec::new();
    compact_watched(&run_dir, &mut |_| {
        refused.push(RunReader::open(&run_dir).map(|_| ()));
        refused.push(compact(&run_dir).map(|_| ()));
    })
    .expect("a compaction");
    assert_eq!(refused.len(), 8);
    assert!(refused.iter().all(|refused| matches!(refused, Err(LedgerError::StoreBusy(_)))), "{refused:?}");
    let reader = RunReader::open(&run_dir).expect("the run");
    assert!(matches!(compact(&run_dir), Err(LedgerError::StoreBusy(_))), "somebody reads it");
    drop(reader);
    compact(&run_dir).expect("a compaction");
}

#[test]
fn scores_stay_and_more_can_be_added() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = written(dir.path(), 48);
    let scorer = Scorer { name: "rouge_l".to_owned(), ..Scorer::default() };
    let add = |prompts: std::ops::Range<u32>| {
        let mut writer = ScoreWriter::open(&run_dir).expect("the run has ended");
        let scorer = writer.scorer(&scorer).expect("a scorer");
        for prompt in prompts {
            let value = prompt as f32 / 8.0;
            assert!(writer.append(ScoreRow { id: id(0, prompt), scorer, value }).expect("a row"), "{prompt} is new");
        }
        writer.finish().expect("an end");
    };
    let scores = || -> Vec<ScoreRow> {
        RunReader::open(&run_dir).expect("the run").scores().collect::<Result<_, _>>().expect("no damage")
    };
    add(0..20);
    let before = scores();
    compact(&run_dir).expect("a compaction");
    assert_eq!((scores(), before.len()), (before, 20));
    add(20..32);
    assert_eq!(scores().len(), 32);
    assert!(verify(&run_dir).expect("a check").is_sound());
}

#[test]
fn a_damaged_run_is_refused_and_stays_as_it_is() {
    let dir = tempdir().expect("a temporary folder");
    let run_dir = written(dir.path(), 64);
    damage(&run_dir, b'r', 1, flip);
    let error = compact(&run_dir).expect_err("it is damaged");
    assert!(matches!(error, LedgerError::NotWhole { .. }), "{error}");
    let stores = fs::read_dir(&run_dir).expect("the run").filter_map(Result::ok);
    assert_eq!(stores.filter(|entry| entry.file_name().to_string_lossy().starts_with("store")).count(), 1);
    let report = verify(&run_dir).expect("a check");
    assert!(!report.is_sound());
}
