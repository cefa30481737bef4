//! What was written is read, bit for bit, in order, whatever the records hold.

use std::collections::BTreeMap;

use crate::common::*;
use proptest::prelude::*;
use specfleet_engine::id::DeviceId;
use specfleet_engine::record::{AuditRecord, Provenance};
use specfleet_ledger::{
    EnergyOwner, EnergyPart, EnergyRow, LedgerError, MAX_CHUNK_BYTES, MAX_LIST_ELEMENTS, RunReader, RunState,
    RunWriter, Table, verify,
};
use tempfile::tempdir;

fn all<T>(rows: impl Iterator<Item = Result<T, LedgerError>>) -> Vec<T> {
    rows.collect::<Result<_, _>>().expect("no chunk is damaged")
}

fn audit_bits(audits: &[AuditRecord]) -> Vec<impl PartialEq + std::fmt::Debug + use<>> {
    let bits = |audit: &AuditRecord| {
        let probabilities: Vec<u32> = audit.accept_probabilities.iter().map(|p| p.to_bits()).collect();
        (audit.id, audit.positions.clone(), probabilities)
    };
    audits.iter().map(bits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn records_survive(
        generations in prop::collection::vec((any_generation(), prop::collection::vec(any_round(), 0..60)), 0..12),
        left_open in prop::collection::vec(any_round(), 1..30),
        batches in prop::collection::vec(any_batch(), 0..40),
        verifiers in prop::collection::vec(any_verifier(), 0..5),
        audits in prop::collection::vec(any_audit(), 0..8),
        flush_after in prop::collection::vec(any::<bool>(), 24),
    ) {
        let dir = tempdir().expect("a temporary folder");
        let mut writer = RunWriter::create(dir.path(), meta("r")).expect("a new run");
        let unique: BTreeMap<_, _> = generations.into_iter().map(|(record, rounds)| (record.id, (record, rounds))).collect();
        let mut flushes = flush_after.iter().copied();
        // First all generations run side by side, then they close one after the other.
        for (record, rounds) in unique.values() {
            writer.append_rounds(record.id, record.device, &rounds[..rounds.len() / 3]).expect("rounds");
            if flushes.next() == Some(true) {
                writer.flush().expect("a flush");
            }
        }
        for (record, rounds) in unique.values() {
            let (middle, rest) = rounds[rounds.len() / 3..].split_at(rounds.len() / 3);
            writer.append_rounds(record.id, record.device, middle).expect("rounds");
            if flushes.next() == Some(true) {
                writer.flush().expect("a flush");
            }
            writer.close_generation(record.clone(), rest).expect("a closing");
        }
        for batch in &batches {
            writer.append_batch(*batch).expect("a batch");
        }
        for verifier in &verifiers {
            writer.append_verifier(*verifier, Provenance::Modelled).expect("a verifier");
        }
        for audit in &audits {
            writer.append_audit(audit.clone()).expect("an audit");
        }
        let open = id(7, 7);
        if !unique.contains_key(&open) {
            writer.append_rounds(open, DeviceId(3), &left_open).expect("rounds");
        }
        let run_dir = writer.run_dir().to_path_buf();
        let written = writer.finish(RunState::Completed).expect("an end");

        let reader = RunReader::open(&run_dir).expect("the run has ended");
        prop_assert_eq!(reader.meta(), &written);
        prop_assert!(reader.damaged().is_empty());
        let records: Vec<_> = unique.values().map(|(record, _)| record.clone()).collect();
        prop_assert_eq!(all(reader.generations()), records);
        let closed = all(reader.closed_rounds());
        prop_assert_eq!(closed.len(), unique.len());
        for generation in closed {
            let (record, rounds) = &unique[&generation.id];
            prop_assert_eq!(bits(&generation.rounds), bits(rounds));
            prop_assert!(rounds.is_empty() || generation.device == record.device);
        }
        prop_assert_eq!(batch_bits(&all(reader.batches())), batch_bits(&batches));
        prop_assert_eq!(all(reader.verifiers()), verifiers.clone());
        prop_assert_eq!(audit_bits(&all(reader.audits())), audit_bits(&audits));
        let energy: Vec<EnergyRow> = unique.values().flat_map(|(record, _)| EnergyRow::of_generation(record))
            .chain(verifiers.iter().map(|verifier| EnergyRow::of_verifier(verifier, Provenance::Modelled)))
            .collect();
        prop_assert_eq!(all(reader.energy()), energy);
        if !unique.contains_key(&open) {
            let found = reader.open_generations();
            prop_assert_eq!((found.len(), found[0].id, found[0].rounds), (1, open, left_open.len() as u32));
            prop_assert_eq!(bits(&reader.rounds(open).expect("rounds")), bits(&left_open));
        }
    }
}

#[test]
fn no_chunk_exceeds_the_limit_and_long_generations_span_chunks() {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("r")).expect("a new run");
    // Random bits are the largest rows there are.
    let mut noise = Noise(1);
    let mut rounds = plausible_rounds(&mut noise, 5000, 100);
    for round in &mut rounds {
        let cost = round.upload.as_mut().expect("all of them are uploaded");
        cost.uplink_bits = noise.next();
        cost.verify.nanojoules = noise.next();
        cost.verify.queue_wait.0 = noise.next();
        cost.verify.compute.0 = noise.next();
        cost.uplink.0 = noise.next();
    }
    writer.close_generation(plausible_generation(id(0, 0), DeviceId(0), &rounds), &rounds).expect("a closing");
    let run_dir = writer.run_dir().to_path_buf();
    writer.finish(RunState::Completed).expect("an end");
    let reader = RunReader::open(&run_dir).expect("the run has ended");
    assert_eq!(bits(&reader.rounds(id(0, 0)).expect("rounds")), bits(&rounds));
    assert!(reader.chunk_bytes(Table::Rounds).expect("sizes") > 3 * MAX_CHUNK_BYTES as u64);
    drop(reader);

    let store = open_store(&store_of(&run_dir));
    let sizes: Vec<usize> = store.iter().values().map(|value| value.expect("a value").len()).collect();
    assert!(sizes.iter().all(|size| *size <= MAX_CHUNK_BYTES), "{sizes:?}");
    assert!(sizes.iter().any(|size| *size > MAX_CHUNK_BYTES / 3), "{sizes:?}");
}

#[test]
fn a_row_that_fits_no_chunk_is_refused_by_name() {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("r")).expect("a new run");
    let mut noise = Noise(1);
    let tokens: Vec<u32> = (0..40_000).map(|_| noise.next() as u32).collect();
    let mut record = plausible_generation(id(0, 0), DeviceId(0), &[]);
    record.tokens = tokens;
    let error = writer.close_generation(record, &[]).expect_err("160 kB do not fit 64 KiB");
    assert!(matches!(error, LedgerError::RowTooLarge { table: Table::Generations, .. }), "{error}");
}

#[test]
fn lists_that_take_few_bytes_are_read_back() {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("r")).expect("a new run");
    let record = |prompt, length| {
        let mut record = plausible_generation(id(0, prompt), DeviceId(0), &[]);
        record.tokens = vec![7; length];
        record
    };
    let longest = MAX_LIST_ELEMENTS;
    let error = writer.close_generation(record(0, longest + 1), &[]).expect_err("no chunk holds it");
    let too_long = format!("a row of table generations has a list of {} values, a chunk holds {longest}", longest + 1);
    assert_eq!(error.to_string(), too_long);
    // Each fits a chunk, all of them do not.
    let lengths = [longest / 3, 5, longest / 2, longest / 4, longest];
    for (prompt, length) in lengths.into_iter().enumerate() {
        writer.close_generation(record(prompt as u32, length), &[]).expect("a closing");
    }
    let run_dir = writer.run_dir().to_path_buf();
    writer.finish(RunState::Completed).expect("an end");
    assert!(verify(&run_dir).expect("it has ended").is_sound());
    let reader = RunReader::open(&run_dir).expect("the run has ended");
    let read: Vec<usize> = reader.generations().map(|row| row.expect("no chunk is damaged").tokens.len()).collect();
    assert_eq!(read, lengths);
}

#[test]
fn a_closed_generation_takes_no_more_rounds() {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(dir.path(), meta("r")).expect("a new run");
    let rounds = plausible_rounds(&mut Noise(1), 4, 50);
    let record = plausible_generation(id(0, 0), DeviceId(0), &rounds);
    writer.close_generation(record.clone(), &rounds).expect("a closing");
    assert!(matches!(writer.append_rounds(id(0, 0), DeviceId(0), &rounds), Err(LedgerError::GenerationClosed(_))));
    assert!(matches!(writer.close_generation(record, &[]), Err(LedgerError::GenerationClosed(_))));
}

#[test]
fn energy_rows_carry_part_and_provenance() {
    let record = plausible_generation(id(2, 9), DeviceId(4), &[]);
    let rows = EnergyRow::of_generation(&record);
    assert_eq!(
        rows[0],
        EnergyRow {
            owner: EnergyOwner::Generation { id: id(2, 9), device: DeviceId(4) },
            part: EnergyPart::Device,
            nanojoules: 5_000_000_000,
            provenance: Provenance::Constant,
        }
    );
    assert_eq!(
        rows.map(|row| row.part),
        [EnergyPart::Device, EnergyPart::Radio, EnergyPart::Cloud, EnergyPart::CloudPaper]
    );
}
