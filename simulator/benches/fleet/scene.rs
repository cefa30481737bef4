//! The fleet that is measured: fitted devices on a fading link, and a pool sized for them.

use std::ops::ControlFlow;
use std::sync::Arc;

use specfleet_engine::calibration::Distributions;
use specfleet_engine::cost::{BatchCost, MeasuredCost};
use specfleet_engine::device::energy::{DeviceCost, DeviceProfile, StepCost, VerifierProfile};
use specfleet_engine::device::link::{Fading, LinkProfile, LinkRate};
use specfleet_engine::device::{DeviceSettings, OnRefused, OnUnreachable, Retry};
use specfleet_engine::id::{GenerationId, PhaseId};
use specfleet_engine::load::{Churn, Load, Turns};
use specfleet_engine::method::{Estimator, Gate, Method, PayloadForm, ProbabilityBits, Sampling, Writer};
use specfleet_engine::pool::{Breaker, PoolSettings, PriceUpdate, QueueOrder};
use specfleet_engine::time::{Span, Time};
use specfleet_simulator::drawn::DrawnPool;
use specfleet_simulator::fitted::{AnswerLengths, Fitted, FittedDevices, PromptLengths};
use specfleet_simulator::{
    DeviceSink, Fleet, Host, PoolSetup, PoolSink, SHARDS, SimulatedPhase, SimulatedRequest, Simulation, Timing, Totals,
};

/// A fleet and what it does.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    /// Number of devices.
    pub(crate) devices: u32,
    /// Requests in all; device d has every `devices`-th one.
    pub(crate) requests: u32,
    /// Tokens of each answer.
    pub(crate) tokens: u32,
    /// Quantiles of the prompts' lengths.
    pub(crate) prompt: Vec<f32>,
    /// Share of the drafts that are uploaded.
    pub(crate) upload_rate: f32,
    /// When requests arrive.
    pub(crate) load: Load,
    /// Devices join evenly over this time.
    pub(crate) join_over: Span,
    /// Number of verifiers.
    pub(crate) verifiers: u16,
    /// What a batch of theirs takes.
    pub(crate) cost: MeasuredCost,
    /// Most tokens and sequences of a batch.
    pub(crate) batch: (u32, u32),
    /// The longest wait for a batch to fill.
    pub(crate) max_wait: Span,
}

impl Scene {
    /// A closed loop of `devices`, each of which writes `generations` answers of `tokens`; one verifier for every 500.
    pub(crate) fn new(devices: u32, generations: u32, tokens: u32, upload_rate: f32) -> Scene {
        Scene {
            devices,
            requests: devices * generations,
            tokens,
            prompt: evenly(30.0, 90.0),
            upload_rate,
            load: Load::Closed { think: Span::ZERO },
            join_over: Span::from_millis(1000),
            verifiers: devices.div_ceil(500).clamp(1, 4096) as u16,
            cost: plane(2e6, 10e3, 2e3, 1.0),
            batch: (4096, 256),
            max_wait: Span::from_millis(1),
        }
    }

    /// The method: uploads what is less certain than the share asks for.
    pub(crate) fn method(&self) -> Method {
        let gate = if self.upload_rate >= 1.0 {
            Gate::Always
        } else {
            Gate::Uncertainty { estimator: Estimator::Expected, threshold: 1.0 - self.upload_rate }
        };
        Method {
            name: "u-hlm".into(),
            writer: Writer::Drafter,
            gate,
            payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
            block: 1,
            bonus: false,
            draft_ahead: false,
        }
    }

    /// What the answers are drawn from: uncertainty is even over [0, 1], acceptance falls with it.
    pub(crate) fn fitted(&self) -> Arc<Fitted> {
        Arc::new(Fitted {
            distributions: Distributions {
                drafts: 1,
                uncertainty: evenly(0.0, 1.0),
                acceptance: (0..20u8).map(|i| 1.0 - f32::from(i) / 25.0).collect(),
                importance: vec![],
                important: None,
                draft_probability: evenly(0.0, 1.0),
                entropy: vec![],
                doubt: vec![],
                length: vec![self.tokens as f32],
                prompt: self.prompt.clone(),
            },
            method: self.method(),
            sampling: SAMPLING,
            seed: SEED,
            vocab: VOCAB,
            end_token: Some(END),
            longest_prompt: CONTEXT - 96,
            prompts: PromptLengths::default(),
            answers: AnswerLengths::default(),
        })
    }

    /// Simulates it. `device_sink` is called with the number of a shard's devices, for each shard in order.
    pub(crate) fn run<S: DeviceSink, K: PoolSink>(
        &self,
        threads: usize,
        fitted: &Arc<Fitted>,
        device_sink: impl Fn(usize) -> S,
        pool_sink: K,
    ) -> (Totals, Vec<S>, K) {
        let jobs: Arc<[SimulatedRequest]> = (0..self.requests)
            .map(|prompt| SimulatedRequest {
                generation: GenerationId { method: 0, prompt, repetition: 0, pass: 0 },
                data_set: 0,
            })
            .collect();
        let fleet = Fleet::new(SimulatedPhase {
            devices: self.devices,
            start: Time::ZERO,
            seed: SEED,
            parts: vec![Arc::new(self.device())],
            pattern: vec![0],
            jobs,
            assignment: Arc::new(Turns { jobs: u64::from(self.requests), devices: self.devices }),
            load: self.load.clone(),
            churn: Churn { join_over: self.join_over, stay: None },
            host: Host::ideal(),
        })
        .expect("the settings above are valid");
        let sides = (0..SHARDS)
            .map(|shard| {
                let count = self.devices.saturating_sub(shard).div_ceil(SHARDS) as usize;
                (FittedDevices::new(fitted.clone(), count), device_sink(count))
            })
            .collect();
        let timings = vec![Timing { cost: BatchCost::Measured(self.cost.clone()), host: Host::ideal() }];
        let setup = PoolSetup { settings: self.pool(), timings, seed: SEED, kills: vec![] };
        let answers = DrawnPool::new(self.devices as usize);
        let mut simulation = Simulation::new(setup, threads, answers, pool_sink);
        let (totals, sinks) = simulation
            .phase(PhaseId::default(), &fleet, sides, |_, _| ControlFlow::Continue(()))
            .expect("the link is emulated");
        (totals, sinks, simulation.into_sink())
    }

    fn device(&self) -> DeviceSettings {
        let step = |micros: u64| StepCost { span: Span(micros * 1000), nanojoules: micros * 3000 };
        DeviceSettings {
            method: self.method(),
            sampling: SAMPLING,
            seed: SEED,
            max_new_tokens: self.tokens,
            context: CONTEXT,
            vocab: VOCAB,
            end_tokens: vec![END],
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
                rate: LinkRate::Fading {
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
        }
    }

    fn pool(&self) -> PoolSettings {
        PoolSettings {
            phase: PhaseId::default(),
            verifiers: self.verifiers,
            batch_tokens: self.batch.0,
            batch_sequences: self.batch.1,
            max_wait: self.max_wait,
            batch_time: Span::ZERO,
            order: QueueOrder::Fifo,
            breaker: Breaker { failures: 3, cooldown: Span::from_millis(1000) },
            price: PriceUpdate { step: 0.0, target_load: 0.8, period: Span::from_millis(100) },
            autoscale: None,
            queue_jobs: 1 << 24,
            queue_tokens: 1 << 40,
            sessions_per_connection: 8,
            kv_tokens: 1 << 22,
            context: CONTEXT,
            end_tokens: vec![END],
            retry_after: Span::from_millis(20),
            cost: None,
            profile: VerifierProfile {
                name: "gpu".into(),
                source: "bench".into(),
                batch_watts: 700.0,
                idle_watts: 100.0,
            },
        }
    }
}

const SEED: u64 = 1;
const VOCAB: u32 = 1024;
const CONTEXT: u32 = 4096;
const END: u32 = 2;
const SAMPLING: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };

/// Percentiles 0 to 100 of what lies evenly between two values.
pub(crate) fn evenly(low: f32, high: f32) -> Vec<f32> {
    (0..=100u8).map(|percent| low + (high - low) * f32::from(percent) / 100.0).collect()
}

/// Batch times without spread, in nanoseconds: a constant, per token fed, per sequence, per cached token.
pub(crate) fn plane(base: f64, per_token: f64, per_sequence: f64, per_cached_token: f64) -> MeasuredCost {
    MeasuredCost {
        base,
        per_token,
        per_sequence,
        per_cached_token,
        contention: vec![],
        methods: Default::default(),
        spread: vec![],
        batches: 1,
        relative_error: 0.0,
        r2: 1.0,
    }
}
