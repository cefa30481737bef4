//! What the streaming summary costs per round, as a simulator calls it.
//!
//! `cargo bench -p specfleet-analysis`: a method that uploads 30 of 100 tokens, generations of 20 tokens on 16,384 devices
//! in turn; the time of `round` alone, and with the generation's start and end shared out over its rounds.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use specfleet_analysis::{RunHeader, Scores, StreamSummary};
use specfleet_engine::device::gate::GateReason;
use specfleet_engine::id::{DeviceId, GenerationId, PhaseId};
use specfleet_engine::method::{Gate, Method, PayloadForm, ProbabilityBits, Writer};
use specfleet_engine::record::{
    DeviceCounts, DeviceTimes, FinishReason, GenerationEnergy, GenerationRecord, Provenance, RoundRecord, RunClock,
    Source, UploadCost, UploadCounts, VerifyCost,
};
use specfleet_engine::time::{Span, Time};

const TOKENS: u32 = 20;
const DEVICES: u32 = 16_384;

fn main() {
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(3)).configure_from_args();
    let rounds: Vec<RoundRecord> = (0..4096 * TOKENS).map(round).collect();
    let mut group = criterion.benchmark_group("stream");
    group.throughput(Throughput::Elements(rounds.len() as u64));
    group.bench_function("round", |bencher| {
        bencher.iter_batched_ref(
            || {
                let summary = summary();
                let tally = summary
                    .start(PhaseId::default(), 0, Time::ZERO, Span::from_millis(50))
                    .expect("method and data set exist");
                (summary, tally)
            },
            |(summary, tally)| rounds.iter().for_each(|round| tally.round(black_box(round), summary)),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("generation", |bencher| {
        let mut device = 0;
        bencher.iter_batched_ref(
            summary,
            |summary| {
                for rounds in rounds.chunks_exact(TOKENS as usize) {
                    device = (device + 1) % DEVICES;
                    let mut tally = summary
                        .start(PhaseId::default(), 0, Time::ZERO, Span::from_millis(50))
                        .expect("method and data set exist");
                    rounds.iter().for_each(|round| tally.round(black_box(round), summary));
                    summary.generation(black_box(&generation(device, rounds)), &tally, Scores::default());
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
    criterion.final_summary();
}

fn summary() -> StreamSummary {
    let header = RunHeader {
        run: "r".to_owned(),
        seed: 1,
        scenario_hash: "h".to_owned(),
        faults_injected: 0,
        accounting: 2,
        pool_cost: "fixed".to_owned(),
        clock: RunClock::Emulated,
        repeat: 1,
        seeds: 1,
        noise: Vec::new(),
    };
    let method = Method {
        name: "u-hlm".to_owned(),
        writer: Writer::Drafter,
        gate: Gate::Random { probability: 0.3 },
        payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
        block: 1,
        bonus: false,
        draft_ahead: false,
    };
    StreamSummary::new(header, &[method], &["words".to_owned()])
}

/// Scattered by a multiplicative hash, so that neither branches nor bins can be guessed.
fn round(number: u32) -> RoundRecord {
    let noise = u64::from(number.wrapping_mul(0x9e37_79b9) >> 8);
    let upload = noise % 10 < 3;
    let span = |base: u64| Span(base + noise);
    RoundRecord {
        position: number % TOKENS,
        token: 1,
        draft: 1,
        rejections: 0,
        source: if upload { Source::Accepted } else { Source::Skipped },
        reason: GateReason::Certain,
        uncertainty: 0.5,
        importance: f32::NAN,
        importance_threshold: f32::NAN,
        draft_probability: 0.5,
        price: f32::NAN,
        committed_at: Time(u64::from(number) * 40_000_000 + noise),
        waiting: Span::ZERO,
        upload: upload.then(|| UploadCost {
            attempts: 1,
            uplink_bits: 0,
            uplink_bytes: 100,
            downlink_bytes: 50,
            snr_db: 10.0,
            uplink: span(1_000_000),
            downlink: span(1_000_000),
            verify: VerifyCost {
                queue_wait: span(2_000_000),
                batch_wait: span(10_000),
                compute: span(3_000_000),
                fed_tokens: 1,
                nanojoules: 1000,
                paper_nanojoules: 500,
            },
        }),
    }
}

fn generation(device: u32, rounds: &[RoundRecord]) -> GenerationRecord {
    let ended = rounds.last().map_or(Time::ZERO, |round| round.committed_at);
    GenerationRecord {
        id: GenerationId { method: 0, prompt: device, repetition: 0, pass: 0 },
        device: DeviceId(device),
        data_set: 0,
        prompt_tokens: 10,
        tokens: Vec::new(),
        finish: FinishReason::Length,
        scheduled: Time::ZERO,
        latency_target: Span::from_millis(50),
        started: Time::ZERO,
        first_token: rounds.first().map(|round| round.committed_at),
        ended,
        times: DeviceTimes { idle: ended.since(Time::ZERO), ..DeviceTimes::default() },
        airtime_up: Span::ZERO,
        airtime_down: Span::ZERO,
        counts: DeviceCounts { draft_steps: u64::from(TOKENS), ..DeviceCounts::default() },
        uploads: UploadCounts::default(),
        energy: GenerationEnergy { device: 1_000_000, radio: 1000, cloud: 1000, cloud_paper: 500 },
        device_provenance: Provenance::Constant,
        radio_provenance: Provenance::Modelled,
        cloud_provenance: Provenance::Modelled,
    }
}
