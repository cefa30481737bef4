//! What was exported comes back, bit for bit but for the one NaN, from Parquet and from JSON lines; and the documents say
//! what the code does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::common::*;
use proptest::prelude::*;
use specfleet_engine::id::{DeviceId, GenerationId, VerifierId};
use specfleet_engine::method::{Gate, Method, PayloadForm, ProbabilityBits, Writer};
use specfleet_engine::record::{
    AuditRecord, BETWEEN_METHODS, BatchRecord, DeviceCounts, DeviceTimes, GenerationEnergy, GenerationRecord,
    Provenance, RoundRecord, UploadCost, UploadCounts, VerifierRecord, VerifyCost,
};
use specfleet_engine::time::{Span, Time};
use specfleet_export::{ExportError, ExportFormat, ExportTable, ImportOptions, Imported, Options, export, import};
use specfleet_ledger::{LedgerError, Meta, RunReader, RunState, RunWriter, ScoreRow, ScoreWriter, Scorer};
use tempfile::tempdir;

/// Ends no export and no import.
static NOBODY: AtomicBool = AtomicBool::new(false);

fn import_from(dir: &Path, ledger: &Path, name: Option<&str>) -> Result<Imported, ExportError> {
    import(&ImportOptions { dir, ledger, name, interrupted: &NOBODY })
}

fn all<T>(rows: impl Iterator<Item = Result<T, LedgerError>>) -> Vec<T> {
    rows.collect::<Result<_, _>>().expect("no chunk is damaged")
}

fn one_nan(value: f32) -> f32 {
    if value.is_nan() { f32::NAN } else { value }
}

/// Rounds with the one NaN that an export knows, and no upload where its cost is nothing but zeros: an export has no
/// column that would tell the two apart.
fn plain(rounds: &[RoundRecord]) -> Vec<RoundRecord> {
    let plain = |round: &RoundRecord| RoundRecord {
        uncertainty: one_nan(round.uncertainty),
        importance: one_nan(round.importance),
        importance_threshold: one_nan(round.importance_threshold),
        draft_probability: one_nan(round.draft_probability),
        price: one_nan(round.price),
        upload: round
            .upload
            .map(|cost| UploadCost { snr_db: one_nan(cost.snr_db), ..cost })
            .filter(|cost| !cost.is_zero()),
        ..*round
    };
    rounds.iter().map(plain).collect()
}

/// Numbers that an import takes, and whose sums it takes; masking with it keeps small numbers as they are.
const LARGEST: u64 = (1 << 50) - 1;

/// The run's methods, and its data sets: rows of others are not imported.
const NAMED: u16 = 4;

fn known_id(id: GenerationId) -> GenerationId {
    GenerationId { method: id.method % NAMED, ..id }
}

/// The same round with figures that an import takes.
fn importable_round(round: &RoundRecord) -> RoundRecord {
    let time = |time: Time| Time(time.0 & LARGEST);
    let span = |span: Span| Span(span.0 & LARGEST);
    let upload = round.upload.map(|cost| UploadCost {
        uplink_bits: cost.uplink_bits & LARGEST,
        uplink: span(cost.uplink),
        downlink: span(cost.downlink),
        verify: VerifyCost {
            queue_wait: span(cost.verify.queue_wait),
            batch_wait: span(cost.verify.batch_wait),
            compute: span(cost.verify.compute),
            nanojoules: cost.verify.nanojoules & LARGEST,
            paper_nanojoules: cost.verify.paper_nanojoules & LARGEST,
            ..cost.verify
        },
        ..cost
    });
    RoundRecord { committed_at: time(round.committed_at), waiting: span(round.waiting), upload, ..*round }
}

fn importable_generation(record: GenerationRecord) -> GenerationRecord {
    let time = |time: Time| Time(time.0 & LARGEST);
    let span = |span: Span| Span(span.0 & LARGEST);
    let GenerationRecord { times, counts, uploads, energy, .. } = record;
    GenerationRecord {
        id: known_id(record.id),
        data_set: record.data_set % NAMED,
        scheduled: time(record.scheduled),
        latency_target: span(record.latency_target),
        started: time(record.started),
        first_token: record.first_token.map(time),
        ended: time(record.ended),
        times: DeviceTimes {
            draft: span(times.draft),
            uncertainty: span(times.uncertainty),
            importance: span(times.importance),
            overrun: span(times.overrun),
            waiting: span(times.waiting),
            waiting_overrun: span(times.waiting_overrun),
            idle: span(times.idle),
        },
        airtime_up: span(record.airtime_up),
        airtime_down: span(record.airtime_down),
        counts: DeviceCounts {
            draft_steps: counts.draft_steps & LARGEST,
            prefill_tokens: counts.prefill_tokens & LARGEST,
            uncertainty: counts.uncertainty & LARGEST,
            importance: counts.importance & LARGEST,
            wasted_drafts: counts.wasted_drafts & LARGEST,
            stale: counts.stale & LARGEST,
        },
        uploads: UploadCounts {
            sent: uploads.sent & LARGEST,
            verdicts: uploads.verdicts & LARGEST,
            refused: uploads.refused & LARGEST,
            cancelled: uploads.cancelled & LARGEST,
        },
        energy: GenerationEnergy {
            device: energy.device & LARGEST,
            radio: energy.radio & LARGEST,
            cloud: energy.cloud & LARGEST,
            cloud_paper: energy.cloud_paper & LARGEST,
        },
        ..record
    }
}

fn importable_batch(batch: BatchRecord) -> BatchRecord {
    let span = |span: Span| Span(span.0 & LARGEST);
    BatchRecord {
        // What is between methods has a number of its own.
        method: if batch.method.is_multiple_of(2) { BETWEEN_METHODS } else { batch.method % NAMED },
        batch: batch.batch & LARGEST,
        verifier: VerifierId(batch.verifier.0 % 4_096),
        started: Time(batch.started.0 & LARGEST),
        compute: span(batch.compute),
        measured: span(batch.measured),
        overrun: span(batch.overrun),
        estimate: span(batch.estimate),
        cached: batch.cached & LARGEST,
        nanojoules: batch.nanojoules & LARGEST,
        measured_nanojoules: batch.measured_nanojoules & LARGEST,
        unclaimed_nanojoules: batch.unclaimed_nanojoules & LARGEST,
        ..batch
    }
}

fn importable_verifier(verifier: VerifierRecord) -> VerifierRecord {
    let span = |span: Span| Span(span.0 & LARGEST);
    VerifierRecord {
        method: verifier.method % NAMED,
        verifier: VerifierId(verifier.verifier.0 % 4_096),
        busy: span(verifier.busy),
        idle: span(verifier.idle),
        off: span(verifier.off),
        idle_nanojoules: verifier.idle_nanojoules & LARGEST,
        ..verifier
    }
}

fn method(number: u16) -> Method {
    Method {
        name: format!("method-{number}"),
        writer: Writer::Drafter,
        gate: Gate::Always,
        payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
        block: 1,
        bonus: false,
        draft_ahead: false,
    }
}

fn audit_bits(audits: &[AuditRecord]) -> Vec<impl PartialEq + std::fmt::Debug + use<>> {
    let bits = |audit: &AuditRecord| {
        let probabilities: Vec<u32> = audit.accept_probabilities.iter().map(|p| one_nan(*p).to_bits()).collect();
        (audit.id, audit.positions.clone(), probabilities)
    };
    audits.iter().map(bits).collect()
}

fn export_all(reader: &RunReader, format: ExportFormat, out: &Path) {
    let options = Options { format, tables: &ExportTable::ALL, out, force: false, interrupted: &NOBODY };
    let exported = export(reader, &options, &mut |damage| panic!("{damage}")).expect("an export");
    assert_eq!((exported.damaged, exported.rows.len()), (0, ExportTable::ALL.len()));
}

/// Compares two runs row by row.
fn assert_equal(a: &RunReader, b: &RunReader) {
    assert_eq!(all(a.generations()), all(b.generations()));
    let (left, right) = (all(a.closed_rounds()), all(b.closed_rounds()));
    assert_eq!(left.len(), right.len());
    for (left, right) in left.iter().zip(&right) {
        assert_eq!((left.id, left.device), (right.id, right.device));
        assert_eq!(bits(&plain(&left.rounds)), bits(&right.rounds));
    }
    assert_eq!(a.open_generations(), b.open_generations());
    for open in a.open_generations() {
        let (left, right) = (a.rounds(open.id).expect("rounds"), b.rounds(open.id).expect("rounds"));
        assert_eq!(bits(&plain(&left)), bits(&right));
    }
    let one = |batches: Vec<BatchRecord>| {
        let one = |batch: &BatchRecord| BatchRecord { price: one_nan(batch.price), ..*batch };
        batch_bits(&batches.iter().map(one).collect::<Vec<_>>())
    };
    assert_eq!(one(all(a.batches())), one(all(b.batches())));
    assert_eq!(audit_bits(&all(a.audits())), audit_bits(&all(b.audits())));
    assert_eq!(all(a.verifiers()), all(b.verifiers()));
    let scores = |reader: &RunReader| -> Vec<_> {
        all(reader.scores()).iter().map(|row| (row.id, row.scorer, one_nan(row.value).to_bits())).collect()
    };
    assert_eq!(scores(a), scores(b));
    let energy = |reader: &RunReader| {
        let mut rows: Vec<String> = all(reader.energy()).iter().map(|row| format!("{row:?}")).collect();
        rows.sort_unstable();
        rows
    };
    assert_eq!(energy(a), energy(b));
    assert_eq!(a.stored_summary().expect("a file"), b.stored_summary().expect("a file"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn records_survive(
        generations in prop::collection::vec((any_generation(), prop::collection::vec(any_round(), 0..60)), 0..8),
        left_open in prop::collection::vec(any_round(), 1..30),
        batches in prop::collection::vec(any_batch(), 0..40),
        verifiers in prop::collection::vec((any_verifier(), any::<bool>()), 0..5),
        audits in prop::collection::vec(any_audit(), 0..8),
        scored in prop::collection::vec((any_id(), 0u16..3, any_float()), 0..40),
    ) {
        let dir = tempdir().expect("a temporary folder");
        let methods = (0..NAMED).map(method).collect();
        let data_sets = (0..NAMED).map(|number| format!("data/{number}.jsonl")).collect();
        let named = Meta { methods, data_sets, devices: 0, ..meta("r") };
        let mut writer = RunWriter::create(dir.path(), named).expect("a new run");
        let known = |(record, rounds): (GenerationRecord, Vec<RoundRecord>)| {
            let device = DeviceId(record.device.0 % 1_000_000);
            let record = importable_generation(GenerationRecord { device, ..record });
            (record.id, (record, rounds.iter().map(importable_round).collect::<Vec<_>>()))
        };
        let unique: BTreeMap<_, _> = generations.into_iter().map(known).collect();
        let left_open: Vec<RoundRecord> = left_open.iter().map(importable_round).collect();
        let scored: Vec<_> = scored.into_iter().map(|(id, scorer, value)| (known_id(id), scorer, value)).collect();
        for (record, rounds) in unique.values() {
            writer.append_rounds(record.id, record.device, &rounds[..rounds.len() / 2]).expect("rounds");
        }
        for (record, rounds) in unique.values() {
            writer.close_generation(record.clone(), &rounds[rounds.len() / 2..]).expect("a closing");
        }
        for batch in &batches {
            writer.append_batch(importable_batch(*batch)).expect("a batch");
        }
        for (verifier, measured) in &verifiers {
            let provenance = if *measured { Provenance::Measured } else { Provenance::Modelled };
            writer.append_verifier(importable_verifier(*verifier), provenance).expect("a verifier");
        }
        for audit in &audits {
            writer.append_audit(AuditRecord { id: known_id(audit.id), ..audit.clone() }).expect("an audit");
        }
        let open = id(3, 7);
        if !unique.contains_key(&open) {
            writer.append_rounds(open, DeviceId(3), &left_open).expect("rounds");
        }
        writer.put_summary("{\"of\": \"all devices\"}").expect("a summary");
        let run_dir = writer.run_dir().to_path_buf();
        let written = writer.finish(RunState::Completed).expect("an end");
        let written = Meta { scorers: score(&run_dir, &scored), id: None, manifest: None, ..written };
        let reader = RunReader::open(&run_dir).expect("the run has ended");
        for format in [ExportFormat::Parquet, ExportFormat::Jsonl] {
            let out = dir.path().join(format.name());
            export_all(&reader, format, &out);
            let name = format!("from-{}", format.name());
            let imported = import_from(&out, dir.path(), Some(&name)).expect("an import");
            let back = RunReader::open(&imported.folder).expect("the run has ended");
            assert_equal(&reader, &back);
            let from = back.meta().imported_from.clone().expect("where it came from");
            prop_assert!(imported.checked);
            prop_assert!(from.ends_with(&format!("{} (run r)", format.name())), "{}", from);
            let here = back.meta();
            let same = Meta { run: written.run.clone(), pid: written.pid, store: written.store.clone(), imported_from: None, id: None, manifest: None, ..here.clone() };
            prop_assert_eq!(&same, &written);
        }
    }
}

/// Three scorers, two of one metric, and their scores.
fn score(run_dir: &Path, scored: &[(GenerationId, u16, f32)]) -> Vec<Scorer> {
    let scorer = |name: &str, layer: &str| Scorer {
        name: name.to_owned(),
        unit: "ratio".to_owned(),
        label: format!("layer {layer}"),
        settings: [("layer".to_owned(), layer.to_owned())].into(),
    };
    let scorers = [scorer("bertscore_f1", "2"), scorer("bertscore_f1", "3"), scorer("perplexity", "")];
    let mut writer = ScoreWriter::open(run_dir).expect("the run has ended");
    for scorer in &scorers {
        writer.scorer(scorer).expect("room");
    }
    for &(id, scorer, value) in scored {
        writer.append(ScoreRow { id, scorer, value }).expect("room");
    }
    writer.flush().expect("space on the disk");
    scorers.to_vec()
}

/// A run of plausible rows, exported.
fn exported(dir: &Path, format: ExportFormat) {
    let mut writer = RunWriter::create(&dir.join("ledger"), meta("r")).expect("a new run");
    let mut noise = Noise(1);
    for prompt in 0..5 {
        let rounds = plausible_rounds(&mut noise, 40, 30);
        let record = plausible_generation(id(0, prompt), DeviceId(prompt), &rounds);
        writer.close_generation(record, &rounds).expect("a closing");
    }
    let run_dir = writer.run_dir().to_path_buf();
    writer.finish(RunState::Completed).expect("an end");
    score(&run_dir, &[(id(0, 0), 0, 0.5), (id(0, 1), 2, 3.5)]);
    export_all(&RunReader::open(&run_dir).expect("the run has ended"), format, &dir.join("out"));
    // As exports of earlier versions are: digests would give every change away.
    let path = dir.join("out/run.json");
    let mut about: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("a file")).expect("it was written so");
    about.as_object_mut().expect("an object").remove("digests").expect("it was written so");
    fs::write(path, format!("{about:#}")).expect("a file");
}

fn refusal(dir: &Path) -> String {
    let error = import_from(&dir.join("out"), &dir.join("other"), None).expect_err("it cannot be imported");
    assert!(error.is_mistake(), "{error}");
    assert!(!dir.join("other").exists(), "a failed import leaves nothing");
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.replace(&dir.display().to_string(), "DIR")
}

#[test]
fn what_cannot_be_imported_says_why_and_leaves_nothing() {
    let dir = tempdir().expect("a temporary folder");
    let dir = dir.path();
    exported(dir, ExportFormat::Jsonl);
    let rounds = dir.join("out/rounds.jsonl");
    let good = fs::read_to_string(&rounds).expect("a file");
    let broken = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        fs::write(&rounds, good.replacen(from, to, 1)).expect("a file");
        refusal(dir)
    };
    assert_eq!(
        broken("\"source\":\"skipped\"", "\"source\":\"skiped\"").split_once("column ").expect("a column").1,
        "source: \"skiped\" is unknown; did you mean skipped?"
    );
    assert_eq!(broken("\"token\":", "\"tokem\":"), "DIR/out/rounds.jsonl: column missing: token");
    assert_eq!(
        broken("\"position\":0,", "\"position\":true,"),
        "DIR/out/rounds.jsonl: column position must be int64, it is true in line 1"
    );
    assert_eq!(
        broken("\"position\":0,", "\"position\":4294967296,"),
        "DIR/out/rounds.jsonl: row 1, column position: 4294967296 is out of range"
    );
    assert!(broken("{\"method\"", "\"method\"").starts_with("DIR/out/rounds.jsonl: line 1: "));
    fs::write(&rounds, &good).expect("a file");
    let scores = dir.join("out/scores.jsonl");
    let known = fs::read_to_string(&scores).expect("a file");
    fs::write(&scores, known.repeat(2)).expect("a file");
    let twice = "DIR/out/scores.jsonl: scorer 0 has two values for method 0, prompt 0, repetition 0, pass 0";
    assert_eq!(refusal(dir), twice);
    fs::write(&scores, known.replace("\"scorer_index\":2", "\"scorer_index\":7")).expect("a file");
    assert_eq!(refusal(dir), "DIR/out/scores.jsonl: there is no scorer 7: run.json names 3");
    fs::write(&scores, known).expect("a file");
    fs::remove_file(&rounds).expect("a file");
    fs::remove_file(dir.join("out/audits.jsonl")).expect("a file");
    assert_eq!(refusal(dir), "DIR/out: there is no rounds.jsonl, no audits.jsonl");
    fs::write(&rounds, &good).expect("a file");
    fs::write(dir.join("out/audits.jsonl"), "").expect("a file");
    // A run of this name.
    let error = import_from(&dir.join("out"), &dir.join("ledger"), None).expect_err("there is one");
    assert!(matches!(error, ExportError::Ledger(LedgerError::RunExists(_))) && error.is_mistake());
    let about = dir.join("out/run.json");
    let text = fs::read_to_string(&about).expect("a file");
    fs::write(&about, text.replace("\"export_schema\": 1", "\"export_schema\": 2")).expect("a file");
    let newer = "DIR/out/run.json: its export schema is 2, this program reads up to 1: use a newer version";
    assert_eq!(refusal(dir), newer);
    fs::write(&about, text.replace("\"format\": \"jsonl\"", "\"format\": \"csv\"")).expect("a file");
    let csv = "DIR/out/run.json: an export as csv cannot be imported: it takes parquet or jsonl";
    assert_eq!(refusal(dir), csv);
    fs::remove_file(&about).expect("a file");
    assert_eq!(refusal(dir), "DIR/out: it holds no export (no run.json)");
}

#[test]
fn damaged_parquet_is_no_panic() {
    let dir = tempdir().expect("a temporary folder");
    let dir = dir.path();
    exported(dir, ExportFormat::Parquet);
    let rounds = dir.join("out/rounds.parquet");
    let good = fs::read(&rounds).expect("a file");
    fs::write(&rounds, &good[..good.len() / 2]).expect("a file");
    assert!(refusal(dir).starts_with("DIR/out/rounds.parquet: "));
    // One table in place of another: its columns are missing.
    fs::copy(dir.join("out/batches.parquet"), &rounds).expect("a file");
    assert!(
        refusal(dir)
            .starts_with("DIR/out/rounds.parquet: columns missing: prompt, repetition, device, position, token")
    );
}

#[test]
fn a_folder_that_is_not_empty_is_left_alone() {
    let dir = tempdir().expect("a temporary folder");
    exported(dir.path(), ExportFormat::Csv);
    let reader = RunReader::open(&dir.path().join("ledger/r")).expect("the run has ended");
    let out = dir.path().join("out");
    fs::write(out.join("notes.txt"), "mine").expect("a file");
    let mut options = Options {
        format: ExportFormat::Parquet,
        tables: &[ExportTable::Rounds],
        out: &out,
        force: false,
        interrupted: &NOBODY,
    };
    let refused = export(&reader, &options, &mut |_| ()).expect_err("there is something in it");
    assert!(matches!(refused, ExportError::NotEmpty(_)) && refused.is_mistake());
    options.force = true;
    export(&reader, &options, &mut |_| ()).expect("an export");
    let mut names: Vec<_> = fs::read_dir(&out).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["notes.txt", "rounds.parquet", "run.json"]);
}

#[test]
fn the_document_lists_the_columns() {
    let mut expected = String::new();
    for table in ExportTable::ALL {
        expected += &format!("### {}\n\n| column | type | unit | meaning |\n|---|---|---|---|\n", table.name());
        for column in table.columns() {
            let null = if column.nullable { ", may be NULL" } else { "" };
            expected += &format!(
                "| `{}` | {}{null} | {} | {} |\n",
                column.name,
                column.kind.name(),
                column.unit,
                column.meaning
            );
        }
        expected.push('\n');
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/export.md");
    let document = fs::read_to_string(&path).expect("docs/export.md is there");
    if !document.contains(expected.trim_end()) {
        panic!("docs/export.md lacks these tables, word for word:\n\n{expected}");
    }
}
