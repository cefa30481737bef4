//! How fast a fleet of fitted devices runs: simulated tokens and events per second of wall time.
//!
//! `cargo bench -p specfleet-simulator --bench fleet -- [DEVICES] [TOKENS] [THREADS]`

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use specfleet_engine::calibration::Distributions;
use specfleet_engine::cost::{BatchCost, MeasuredCost};
use specfleet_engine::device::energy::{DeviceCost, DeviceProfile, StepCost, VerifierProfile};
use specfleet_engine::device::link::{Fading, LinkProfile, Rate};
use specfleet_engine::device::{DeviceSettings, OnRefused, OnUnreachable, Retry};
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::load::{Churn, Load, Turns};
use specfleet_engine::method::{Estimator, Gate, Method, PayloadForm, ProbabilityBits, Sampling, Writer};
use specfleet_engine::pool::{Breaker, PoolSettings, PriceUpdate, QueueOrder};
use specfleet_engine::record::{BatchRecord, GenerationRecord, RoundRecord, VerifierRecord};
use specfleet_engine::time::{Span, Time};
use specfleet_simulator::drawn::DrawnPool;
use specfleet_simulator::fitted::{Fitted, FittedDevices};
use specfleet_simulator::{DeviceSink, Fleet, Host, Job, Phase, PoolSetup, PoolSink, SHARDS, Simulation};

#[derive(Default)]
struct Count {
    rounds: u64,
    uploads: u64,
    ended: u64,
}

impl DeviceSink for Count {
    fn started(&mut self, _: DeviceId, _: GenerationId, _: u16, _: Time, _: Span) {}
    fn round(&mut self, _: DeviceId, _: GenerationId, record: &RoundRecord) {
        self.rounds += 1;
        self.uploads += u64::from(record.attempts > 0);
    }
    fn finished(&mut self, _: GenerationRecord) {
        self.ended += 1;
    }
}

impl PoolSink for Count {
    fn batch(&mut self, _: &BatchRecord) {}
    fn verifier(&mut self, _: &VerifierRecord) {}
}

fn main() {
    let mut arguments =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).map(|a| a.parse::<u64>().expect("a number"));
    let devices = arguments.next().unwrap_or(100_000) as u32;
    let tokens = arguments.next().unwrap_or(20) as u32;
    let threads = arguments.next().unwrap_or(2) as usize;
    let percentiles =
        |low: f32, high: f32| (0..=100).map(|p| low + (high - low) * p as f32 / 100.0).collect::<Vec<f32>>();
    let method = Method {
        name: "u-hlm".into(),
        writer: Writer::Drafter,
        gate: Gate::Uncertainty { estimator: Estimator::Expected, threshold: 0.7 },
        payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
        block: 1,
        bonus: false,
        draft_ahead: false,
    };
    let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };
    let step = |micros: u64| StepCost { span: Span(micros * 1000), nanojoules: micros * 3000 };
    let settings = DeviceSettings {
        method: method.clone(),
        sampling,
        seed: 1,
        max_new_tokens: tokens,
        context: 4096,
        vocab: 1024,
        end_tokens: vec![2],
        profile: DeviceProfile {
            name: "phone".into(),
            source: "bench".into(),
            cost: DeviceCost::Declared {
                draft: step(4000),
                prefill: step(300),
                uncertainty: step(300),
                importance: step(100),
            },
            idle_watts: 0.4,
        },
        link: LinkProfile {
            name: "fair".into(),
            source: "bench".into(),
            emulated: true,
            rate: Rate::Fading {
                uplink_hz: 10e6,
                downlink_hz: 10e6,
                snr_db: 10.0,
                fading: Fading::Rayleigh,
                coherence: Span::from_millis(10),
                min_bits_per_second: 1e5,
            },
            round_trip: Span::from_millis(30),
            transmit_watts: 1.0,
            receive_watts: 0.7,
        },
        verdict_timeout: Span::from_millis(10_000),
        retry: Retry { first: Span::from_millis(10), last: Span::from_millis(1000) },
        on_unreachable: OnUnreachable::Wait,
        unreachable_after: Span::from_millis(2000),
        on_refused: OnRefused::Retry,
        latency_target: Span::ZERO,
        battery_nanojoules: 0,
        outages: None,
    };
    let pool = PoolSettings {
        method: 0,
        verifiers: (devices / 2000).clamp(1, 4096) as u16,
        batch_tokens: 4096,
        batch_sequences: 256,
        max_wait: Span::from_millis(1),
        batch_time: Span::ZERO,
        order: QueueOrder::Fifo,
        breaker: Breaker { failures: 3, cooldown: Span::from_millis(1000) },
        price: PriceUpdate { step: 0.0, target_load: 0.8, period: Span::from_millis(100) },
        autoscale: None,
        queue_jobs: 1 << 24,
        queue_tokens: 1 << 40,
        sessions_per_connection: 8,
        kv_tokens: 1 << 22,
        context: 4096,
        end_tokens: vec![2],
        retry_after: Span::from_millis(20),
        profile: VerifierProfile { name: "gpu".into(), source: "bench".into(), batch_watts: 700.0, idle_watts: 100.0 },
    };
    let fitted = Arc::new(Fitted {
        distributions: Distributions {
            drafts: 1,
            uncertainty: percentiles(0.0, 1.0),
            acceptance: (0..20).map(|i| 1.0 - i as f32 / 25.0).collect(),
            importance: vec![],
            important: None,
            draft_probability: percentiles(0.0, 1.0),
            entropy: vec![],
            doubt: vec![],
            length: vec![tokens as f32],
            prompt: percentiles(30.0, 90.0),
        },
        method,
        sampling,
        seed: 1,
        vocab: 1024,
        end_token: Some(2),
        longest_prompt: 4000,
    });
    let cost = BatchCost::Measured(MeasuredCost {
        base: 2e6,
        per_token: 10e3,
        per_sequence: 2e3,
        per_cached_token: 1.0,
        contention: vec![],
        spread: vec![],
        batches: 1,
        relative_error: 0.0,
        r2: 1.0,
    });
    let jobs: Arc<[Job]> = (0..devices)
        .map(|prompt| Job { generation: GenerationId { method: 0, prompt, repetition: 0 }, data_set: 0 })
        .collect();
    let began = Instant::now();
    let fleet = Fleet::new(Phase {
        devices,
        start: Time::ZERO,
        seed: 1,
        parts: vec![Arc::new(settings)],
        pattern: vec![0],
        jobs,
        assignment: Arc::new(Turns { jobs: u64::from(devices), devices }),
        load: Load::Closed { think: Span::ZERO },
        churn: Churn { join_over: Span::ZERO, stay: None },
        host: Host::ideal(),
    })
    .expect("valid settings");
    let sides = (0..SHARDS)
        .map(|shard| {
            let count = devices.saturating_sub(shard).div_ceil(SHARDS);
            (FittedDevices::new(fitted.clone(), count as usize), Count::default())
        })
        .collect();
    let setup = PoolSetup { settings: pool, cost, host: Host::ideal(), seed: 1, kills: vec![] };
    let mut simulation = Simulation::new(setup, threads, DrawnPool::new(devices as usize), Count::default());
    let (totals, sinks) = simulation.phase(0, &fleet, sides, |_, _| ControlFlow::Continue(())).expect("emulated links");
    let wall = began.elapsed().as_secs_f64();
    let (rounds, uploads, ended) =
        sinks.iter().fold((0, 0, 0), |sum, s| (sum.0 + s.rounds, sum.1 + s.uploads, sum.2 + s.ended));
    println!(
        "{devices} devices, {threads} threads: {rounds} tokens, {ended} generations, upload rate {:.3}, {:.1} s of virtual time in {wall:.2} s of wall time",
        uploads as f64 / rounds as f64,
        totals.last_end.0 as f64 * 1e-9,
    );
    println!(
        "{:.2} million tokens/s, {:.2} million events/s, {} batches, {} windows",
        rounds as f64 / wall * 1e-6,
        totals.progress.events as f64 / wall * 1e-6,
        totals.batches,
        totals.progress.windows
    );
}
