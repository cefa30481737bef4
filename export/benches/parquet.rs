//! How fast a run becomes Parquet: rows per second, over a run of a million rounds.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use specfleet_engine::device::gate::GateReason;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{RoundRecord, RunClock, Source, UploadCost, VerifyCost};
use specfleet_engine::time::{Span, Time};
use specfleet_export::{ExportFormat, ExportTable, Options, export};
use specfleet_ledger::{Machine, Meta, RunKind, RunReader, RunState, RunWriter, SCHEMA};

const GENERATIONS: u32 = 4_000;
const ROUNDS: u32 = 256;

/// A plausible round: three of ten drafts are uploaded.
fn round(generation: u32, position: u32) -> RoundRecord {
    let noise = (u64::from(generation) << 32 | u64::from(position)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let uploaded = noise % 10 < 3;
    RoundRecord {
        position,
        token: (noise % 50_000) as u32,
        draft: (noise % 50_000) as u32,
        rejections: position / 16,
        source: if uploaded { Source::Accepted } else { Source::Skipped },
        reason: if uploaded { GateReason::Uncertain } else { GateReason::Certain },
        uncertainty: (noise % 21) as f32 / 20.0,
        importance: (noise % 9_973) as f32 / 9_973.0,
        importance_threshold: 0.4,
        draft_probability: (noise % 7_919) as f32 / 7_919.0,
        price: f32::NAN,
        committed_at: Time(u64::from(generation) * 1_000_000 + u64::from(position) * 20_000_000 + noise % 1_000_000),
        waiting: Span::ZERO,
        upload: uploaded.then(|| UploadCost {
            attempts: 1,
            uplink_bits: noise % 1_000_000,
            uplink_bytes: (noise % 500) as u32,
            downlink_bytes: (noise % 40) as u32,
            snr_db: (noise % 30_000) as f32 / 1_000.0,
            uplink: Span(noise % 30_000_000),
            downlink: Span(noise % 2_000_000),
            verify: VerifyCost {
                queue_wait: Span(noise % 5_000_000),
                batch_wait: Span(noise % 1_000_000),
                compute: Span(noise % 40_000_000),
                fed_tokens: (noise % 8) as u32,
                nanojoules: noise % 3_000_000_000,
                paper_nanojoules: noise % 2_000_000_000,
            },
        }),
    }
}

fn store(ledger: &Path) -> RunReader {
    let meta = Meta {
        schema: SCHEMA,
        run: "bench".to_owned(),
        id: None,
        manifest: None,
        state: RunState::Running,
        kind: RunKind::Live,
        pid: 0,
        started: 0,
        ended: None,
        scenario: String::new(),
        scenario_hash: String::new(),
        seed: 0,
        versions: Default::default(),
        machine: Machine::default(),
        methods: Vec::new(),
        data_sets: vec!["word-problems".to_owned()],
        accounting: 2,
        pool_cost: "calibrated".to_owned(),
        clock: RunClock::Emulated,
        repeat: 1,
        seeds: 1,
        disturbance: None,
        noise: None,
        standstills: Vec::new(),
        devices: 16,
        verifiers: 1,
        calibration: None,
        faults_injected: 0,
        wall_seconds: None,
        store: String::new(),
        tags: Vec::new(),
        scorers: Vec::new(),
        inputs: Default::default(),
        imported_from: None,
    };
    let mut writer = RunWriter::create(ledger, meta).expect("a fresh folder");
    for generation in 0..GENERATIONS {
        let rounds: Vec<RoundRecord> = (0..ROUNDS).map(|position| round(generation, position)).collect();
        let id = GenerationId { method: 0, prompt: generation, repetition: 0, pass: 0 };
        writer.append_rounds(id, DeviceId(generation % 16), &rounds).expect("space on the disk");
    }
    let folder = writer.run_dir().to_path_buf();
    writer.finish(RunState::Completed).expect("space on the disk");
    RunReader::open(&folder).expect("a run that has ended")
}

fn benches(criterion: &mut Criterion) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let reader = store(place.path());
    let out = place.path().join("out");
    let mut group = criterion.benchmark_group("export");
    group.throughput(Throughput::Elements(u64::from(GENERATIONS) * u64::from(ROUNDS))).sample_size(10);
    for format in [ExportFormat::Parquet, ExportFormat::Csv, ExportFormat::Jsonl] {
        let options = Options {
            format,
            tables: &[ExportTable::Rounds],
            out: &out,
            force: true,
            interrupted: &AtomicBool::new(false),
        };
        group.bench_function(format.name(), |bencher| {
            bencher.iter_batched(
                || (),
                |()| black_box(export(&reader, &options, &mut |_| ()).expect("space on the disk")),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(export_benches, benches);
criterion_main!(export_benches);
