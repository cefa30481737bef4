//! A fleet whose answers are facts of device and position, and the records that it leaves.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use specfleet_engine::cost::BatchCost;
use specfleet_engine::device::energy::{DeviceCost, DeviceProfile, StepCost, VerifierProfile};
use specfleet_engine::device::link::{Fading, LinkProfile, LinkRate};
use specfleet_engine::device::{
    DeviceSettings, NextToken, OnRefused, OnUnreachable, Retry, Signals, Step, StepResult, UploadPlan,
};
use specfleet_engine::id::{DeviceId, GenerationId, PhaseId, UploadId};
use specfleet_engine::load::{Churn, Jobs, Load};
use specfleet_engine::method::{Gate, Method, PayloadForm, ProbabilityBits, Sampling, Writer};
use specfleet_engine::pool::{Batch, Breaker, ItemOutcome, JobKind, PoolSettings, PriceUpdate, QueueOrder, SessionKey};
use specfleet_engine::random::{DrawKey, Purpose};
use specfleet_engine::record::{BatchRecord, GenerationRecord, RoundRecord, VerifierRecord};
use specfleet_engine::time::{Span, Time};
use specfleet_simulator::answers::{Arrived, DeviceAnswers, PoolAnswers};
use specfleet_simulator::{
    DeviceSink, Fleet, Host, PlannedKill, PoolSetup, PoolSink, SHARDS, SimulatedPhase, SimulatedRequest, Simulation,
    Timing, Totals,
};

/// Nominal bits of a draft's payload, and of a verdict.
pub(crate) const PAYLOAD: u32 = 100;
pub(crate) const VERDICT: u64 = 40;
/// Tokens of every prompt.
pub(crate) const PROMPT: u32 = 4;

/// What to simulate.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) device: DeviceSettings,
    /// A link of devices that have nothing to do, if there are any.
    pub(crate) idle_link: Option<LinkProfile>,
    pub(crate) pool: PoolSettings,
    pub(crate) cost: BatchCost,
    pub(crate) host: Host,
    pub(crate) kills: Vec<PlannedKill>,
    pub(crate) devices: u32,
    /// Those with something to do: every n-th, up to this many.
    pub(crate) active: u32,
    pub(crate) every: u32,
    /// Prompts of each.
    pub(crate) prompts: u32,
    pub(crate) load: Load,
    pub(crate) churn: Churn,
    pub(crate) threads: usize,
    pub(crate) fails: Option<Fails>,
}

/// Where a panic comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fails {
    Step,
    Batch,
    Observer,
}

/// What came out.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// By device, in order: rounds and generations as text, because NaN equals nothing.
    pub(crate) records: BTreeMap<u32, Vec<String>>,
    /// By shard, the same in the order in which they came.
    pub(crate) streams: Vec<Vec<String>>,
    /// When tokens were committed, by device.
    pub(crate) commits: BTreeMap<u32, Vec<u64>>,
    pub(crate) generations: Vec<GenerationRecord>,
    pub(crate) batches: Vec<BatchRecord>,
    pub(crate) verifiers: Vec<VerifierRecord>,
    pub(crate) totals: Totals,
    pub(crate) killed: u32,
    pub(crate) end: Time,
}

/// A device at 1 bit per nanosecond and 10 µs to the pool, and one verifier that takes 5 µs for any batch at once.
pub(crate) fn exact() -> Setup {
    let step = |nanoseconds: u64| StepCost { span: Span(nanoseconds), nanojoules: nanoseconds };
    let method = Method {
        name: "hlm".into(),
        writer: Writer::Drafter,
        gate: Gate::Always,
        payload: PayloadForm::Full { bits: ProbabilityBits::B32 },
        block: 1,
        bonus: false,
        draft_ahead: false,
    };
    Setup {
        device: DeviceSettings {
            method,
            sampling: Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 },
            seed: 3,
            max_new_tokens: 3,
            context: 64,
            vocab: 16,
            end_tokens: vec![],
            profile: DeviceProfile {
                name: "test".into(),
                source: "test".into(),
                cost: DeviceCost::Declared {
                    draft: step(1_000),
                    prefill: step(100),
                    uncertainty: step(50),
                    importance: step(20),
                },
                idle_watts: 0.5,
            },
            link: link(Span(20_000)),
            verdict_timeout: Span::from_millis(1_000),
            retry: Retry { first: Span(1_000), last: Span(20_000) },
            on_unreachable: OnUnreachable::Wait,
            unreachable_after: Span::from_millis(1_000),
            on_refused: OnRefused::Retry,
            latency_target: Span::ZERO,
            battery_nanojoules: 0,
            outages: None,
        },
        idle_link: None,
        pool: PoolSettings {
            phase: PhaseId::default(),
            verifiers: 1,
            batch_tokens: 64,
            batch_sequences: 8,
            max_wait: Span::ZERO,
            batch_time: Span::ZERO,
            order: QueueOrder::Fifo,
            breaker: Breaker { failures: 0, cooldown: Span::ZERO },
            price: PriceUpdate { step: 0.0, target_load: 1.0, period: Span::from_millis(100) },
            autoscale: None,
            queue_jobs: 1_000,
            queue_tokens: 100_000,
            sessions_per_connection: 4,
            kv_tokens: 100_000,
            context: 64,
            end_tokens: vec![],
            retry_after: Span(5_000),
            cost: None,
            profile: VerifierProfile { name: "test".into(), source: "test".into(), batch_watts: 3.0, idle_watts: 1.0 },
        },
        cost: BatchCost::Fixed { span: Span(5_000) },
        host: Host::ideal(),
        kills: vec![],
        devices: 1,
        active: 1,
        every: 1,
        prompts: 1,
        load: Load::Closed { think: Span::ZERO },
        churn: Churn::NONE,
        threads: 1,
        fails: None,
    }
}

/// 1 bit per nanosecond without fading: at 0 dB, log2(2) = 1 bit/s/Hz.
pub(crate) fn link(round_trip: Span) -> LinkProfile {
    LinkProfile {
        name: "test".into(),
        source: "test".into(),
        emulated: true,
        rate: LinkRate::Fading {
            uplink_hz: 1e9,
            downlink_hz: 1e9,
            snr_db: 0.0,
            fading: Fading::None,
            coherence: Span::from_millis(10_000),
            min_bits_per_second: 0.0,
        },
        round_trip,
        transmit_watts: 1.0,
        receive_watts: 1.0,
    }
}

/// The first of these devices has the first prompt, and so on in turn.
#[derive(Clone, Copy)]
struct Active {
    devices: u32,
    every: u32,
    prompts: u32,
}

impl Jobs for Active {
    fn count(&self) -> u64 {
        u64::from(self.devices) * u64::from(self.prompts)
    }

    fn device(&self, job: u64) -> DeviceId {
        DeviceId((job % u64::from(self.devices)) as u32 * self.every)
    }

    fn nth(&self, device: DeviceId, n: u32) -> Option<u64> {
        let place = device.0 / self.every;
        let has_work = device.0.is_multiple_of(self.every) && place < self.devices && n < self.prompts;
        has_work.then(|| u64::from(n) * u64::from(self.devices) + u64::from(place))
    }
}

/// Runs it to its end.
pub(crate) fn run(setup: &Setup) -> Outcome {
    run_until(setup, |_| ControlFlow::Continue(()))
}

/// Runs it until `stop` says so, which is asked with the number of windows.
pub(crate) fn run_until(setup: &Setup, stop: impl Fn(u64) -> ControlFlow<()>) -> Outcome {
    let active = Active { devices: setup.active, every: setup.every, prompts: setup.prompts };
    let idle = DeviceSettings {
        link: setup.idle_link.clone().unwrap_or_else(|| setup.device.link.clone()),
        ..setup.device.clone()
    };
    // Only the last device is of the second part.
    let mut pattern = vec![0; setup.devices as usize];
    if setup.idle_link.is_some() {
        pattern[setup.devices as usize - 1] = 1;
    }
    let jobs = (0..active.count() as u32).map(|prompt| SimulatedRequest {
        generation: GenerationId { method: 0, prompt, repetition: 0, pass: 0 },
        data_set: 0,
    });
    let fleet = Fleet::new(SimulatedPhase {
        devices: setup.devices,
        start: Time::ZERO,
        seed: setup.device.seed,
        parts: vec![Arc::new(setup.device.clone()), Arc::new(idle)],
        pattern,
        jobs: jobs.collect(),
        assignment: Arc::new(active),
        load: setup.load.clone(),
        churn: setup.churn,
        host: setup.host.clone(),
    });
    let fleet = fleet.expect("valid settings");
    let pool = PoolSetup {
        settings: setup.pool.clone(),
        timings: vec![Timing { cost: setup.cost.clone(), host: setup.host.clone() }],
        seed: setup.device.seed,
        kills: setup.kills.clone(),
    };
    let fails = setup.fails;
    let mut simulation = Simulation::new(pool, setup.threads, Verifier { fails }, PoolRows::default());
    let sides = (0..SHARDS).map(|_| (Drafter { fails }, Rows::default())).collect();
    let observe = |progress: &specfleet_simulator::SimulationProgress,
                   _: specfleet_simulator::Sinks<'_, Rows, PoolRows>| {
        assert!(fails != Some(Fails::Observer) || progress.tokens < 2, "asked for");
        assert!(progress.windows < 10_000_000, "it does not come to rest");
        stop(progress.windows)
    };
    let (totals, sinks) = simulation.phase(PhaseId::default(), &fleet, sides, observe).expect("the links have delays");
    let (killed, end) = (simulation.killed(), simulation.now());
    let PoolRows { batches, verifiers } = simulation.into_sink();
    let mut outcome = Outcome {
        records: BTreeMap::new(),
        streams: Vec::new(),
        commits: BTreeMap::new(),
        generations: Vec::new(),
        batches,
        verifiers,
        totals,
        killed,
        end,
    };
    for sink in sinks {
        for (device, text, at) in &sink.rows {
            outcome.records.entry(*device).or_default().push(text.clone());
            outcome.commits.entry(*device).or_default().extend(at);
        }
        outcome.streams.push(sink.rows.into_iter().map(|(device, text, _)| format!("{device} {text}")).collect());
        outcome.generations.extend(sink.generations);
    }
    outcome
}

// ---- records -------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Rows {
    rows: Vec<(u32, String, Option<u64>)>,
    generations: Vec<GenerationRecord>,
}

impl DeviceSink for Rows {
    fn started(&mut self, device: DeviceId, generation: GenerationId, _: u16, scheduled: Time, _: Span) {
        self.rows.push((device.0, format!("{generation:?} {scheduled:?}"), None));
    }

    fn round(&mut self, device: DeviceId, _: GenerationId, record: &RoundRecord) {
        self.rows.push((device.0, format!("{record:?}"), Some(record.committed_at.0)));
    }

    fn finished(&mut self, record: GenerationRecord) {
        self.rows.push((record.device.0, format!("{record:?}"), None));
        self.generations.push(record);
    }
}

#[derive(Default)]
struct PoolRows {
    batches: Vec<BatchRecord>,
    verifiers: Vec<VerifierRecord>,
}

impl PoolSink for PoolRows {
    fn batch(&mut self, record: &BatchRecord) {
        self.batches.push(*record);
    }

    fn verifier(&mut self, record: &VerifierRecord) {
        self.verifiers.push(*record);
    }
}

// ---- answers -------------------------------------------------------------------------------------------------------

/// Drafts 1 everywhere.
struct Drafter {
    fails: Option<Fails>,
}

impl DeviceAnswers for Drafter {
    type Upload = ();
    type Verdict = NextToken;

    fn start(&mut self, _: u32, _: DeviceId, _: GenerationId, _: u32) -> u32 {
        PROMPT
    }

    fn step(&mut self, _: u32, step: &Step) -> Option<StepResult> {
        let Step { generation, position, rejections, .. } = *step;
        assert!(self.fails != Some(Fails::Step) || position < PROMPT + 2, "asked for");
        let key = DrawKey { seed: 1, prompt: generation.prompt, repetition: 0, position, rejections };
        let signals = Signals {
            statistic: f32::NAN,
            importance: f32::NAN,
            importance_threshold: f32::NAN,
            draft_probability: 0.5,
            gate_draw: key.draws(Purpose::Gate).uniform_f32(),
        };
        Some(StepResult { generation, position, rejections, token: 1, signals, payload_bits: PAYLOAD, lookback: None })
    }

    fn set(&mut self, _: u32, _: u32, _: u32) {}

    fn commit(&mut self, _: u32, _: u32) {}

    fn upload(&mut self, _: u32, _: &UploadPlan) -> ((), u32) {
        ((), 64)
    }

    fn verdict(&mut self, _: u32, _: UploadId, _: u8, next: NextToken) -> Arrived {
        Arrived { next, bits: VERDICT, bytes: 32 }
    }

    fn finish(&mut self, _: u32, _: &mut GenerationRecord) {}
}

/// Accepts most drafts, and writes 2.
struct Verifier {
    fails: Option<Fails>,
}

impl PoolAnswers for Verifier {
    type Upload = ();
    type Verdict = NextToken;

    fn admitted(&mut self, _: DeviceId, _: SessionKey, (): ()) {}

    fn compute(
        &mut self,
        batch: &Batch,
        device: &dyn Fn(SessionKey) -> DeviceId,
        outcomes: &mut Vec<ItemOutcome>,
        verdicts: &mut Vec<NextToken>,
    ) -> bool {
        assert!(self.fails != Some(Fails::Batch) || batch.batch < 1, "asked for");
        for item in &batch.items {
            let (accepted, next) = match item.kind {
                JobKind::Write { .. } => (0, NextToken::Bonus(2)),
                JobKind::Judge { drafts, bonus } => {
                    let key = DrawKey {
                        seed: 2,
                        prompt: device(item.session).0,
                        repetition: item.session.session as u16,
                        position: item.committed,
                        rejections: 0,
                    };
                    let rejected = (0..drafts)
                        .find(|at| key.at(key.position + u32::from(*at)).draws(Purpose::Accept).uniform() < 0.15);
                    match rejected {
                        Some(at) => (at, NextToken::Replacement(2)),
                        None if bonus => (drafts, NextToken::Bonus(1)),
                        None => (drafts, NextToken::None),
                    }
                }
            };
            let known = match next {
                NextToken::Replacement(token) | NextToken::Bonus(token) => Some(token),
                NextToken::None | NextToken::Resampled(_) => None,
            };
            outcomes.push(ItemOutcome { accepted, next: known, malformed: false });
            verdicts.push(next);
        }
        true
    }

    fn delivered(&mut self, _: DeviceId, _: SessionKey, _: &ItemOutcome, _: bool) {}

    fn forget(&mut self, _: DeviceId, _: SessionKey) {}

    fn drop_cache(&mut self, _: u16, _: SessionKey) {}

    fn lose_caches(&mut self, _: u16) {}
}
